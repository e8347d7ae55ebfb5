"""Stores and brokers that go away, hang, crawl or lose their data under a working worker: it waits, says so once, and goes on or stops."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pins.events import PinUpdated
from pins.features import FeatureRow
from streams.broker import DEAD, PARKED, Broker, embedded_broker, read_topic
from streams.features import FeastFeatures
from tests.faults.engine import QdrantServer
from tests.integration.rig import Rig, captions, until
from tests.services.kafka import RunningKafka
from tests.services.process import free_port

STOPPED_UNACKED = 70
PINS = [f"pin-{n}" for n in range(120)]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Rig]:
    with embedded_broker() as broker:
        made = Rig(broker, tmp_path / "home")
        yield made
        made.stop()


@pytest.fixture
def on_kafka(own_kafka: RunningKafka, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(Broker(own_kafka.address), tmp_path / "home")
    yield made
    made.stop()


def readiness(url: str) -> dict[str, Any]:
    body: dict[str, Any] = httpx.get(f"{url}/readyz", timeout=10).json()
    return body


def test_a_broker_that_is_away_for_a_while_is_said_once_and_nothing_is_lost(on_kafka: Rig, own_kafka: RunningKafka) -> None:
    worker = on_kafka.start()
    url = on_kafka.url(worker)
    on_kafka.send(captions(PINS, "before"))
    own_kafka.kill()
    until(lambda: "kafka does not answer" in readiness(url)["reasons"], "readiness turns false and says why", 60)
    until(lambda: "waiting up to" in on_kafka.log.read_text(), "the log says so", 10)
    lines = len(on_kafka.log.read_text().splitlines())
    own_kafka.restart()
    until(lambda: readiness(url)["ready"], "readiness comes back", 60)
    on_kafka.send(captions(PINS[:50], "after"))
    on_kafka.drain(120)
    said = on_kafka.log.read_text()
    assert said.count("Kafka at") == 1, "one line for each change of state"
    assert said.count("Kafka answers again") == 1
    assert lines < 60, f"no storm of lines:\n{on_kafka.tail(60)}"
    assert on_kafka.stop() == [0]
    on_kafka.assert_equals_oracle(PINS)


def test_a_broker_that_stays_away_stops_the_worker(on_kafka: Rig, own_kafka: RunningKafka) -> None:
    on_kafka.environment["EVERPIN_RETRY_BUDGET_S"] = "3"
    worker = on_kafka.start()
    on_kafka.url(worker)
    own_kafka.kill()
    assert worker.wait(120) == STOPPED_UNACKED
    assert "did not answer for 3 s; check EVERPIN_KAFKA" in on_kafka.log.read_text()


def test_a_qdrant_that_takes_two_seconds_to_answer_makes_the_worker_slow_and_no_worse(embedded: Rig, tmp_path: Path) -> None:
    server = QdrantServer(tmp_path / "qdrant", free_port())
    server.start()
    try:
        rig = Rig(embedded.broker, embedded.home, {"QDRANT_URL": server.url, "EVERPIN_HTTP_PORT": str(free_port())})
        worker = rig.start()
        routes = f"http://127.0.0.1:{rig.environment['EVERPIN_HTTP_PORT']}"
        until(lambda: rig.ready(routes), "the worker is ready", 90)
        server.delay(2)
        rig.send(captions(PINS, "while Qdrant crawls"))
        rig.drain(120)
        assert readiness(routes)["ready"]
        assert httpx.get(f"{routes}/livez", timeout=10).is_success
        assert worker.poll() is None
        assert "nothing acknowledged" not in rig.log.read_text()
        server.delay(0)
        assert rig.stop() == [0]
        rig.assert_equals_oracle(PINS)
    finally:
        server.kill()


def late(pin_id: str, at_us: int) -> PinUpdated:
    return PinUpdated(pin_id, at_us, features_as_of={"pin_caption": at_us})


def test_a_parked_event_outlives_its_worker_and_is_embedded_when_its_features_come(embedded: Rig) -> None:
    at_us = captions(["x"], "")[0].event_time_us
    worker = embedded.start()
    embedded.url(worker)
    embedded.send([late("pin-late", at_us), *captions(PINS[:20], "in time")])
    until(lambda: list(read_topic(embedded.broker, PARKED)), "the event is parked", 60)
    embedded.kill(worker)
    second = embedded.start()
    url = embedded.url(second)
    until(lambda: httpx.get(f"{url}/status").json()["index"]["live"] == 20, "the others did not wait", 60)
    features = FeastFeatures(embedded.config.feast_home)
    features.write([FeatureRow("pin_caption", "pin-late", at_us, {"caption": "a late red chair"})])
    features.close()
    until(lambda: httpx.get(f"{url}/status").json()["index"]["live"] == 21, "the late pin is embedded", 90)
    embedded.drain()
    assert list(read_topic(embedded.broker, DEAD)) == []
    assert embedded.stop()[-1] == 0
    embedded.assert_equals_oracle(["pin-late", *PINS[:20]])


def test_a_parked_event_that_waits_longer_than_its_neighbours_is_not_lost_in_a_kill(on_kafka: Rig) -> None:
    """Faust's commit runs past messages that are acknowledged out of order; the first, re-parked one must survive that."""
    on_kafka.environment |= {"EVERPIN_PARK_DELAY_S": "1", "EVERPIN_PARTITIONS": "1"}
    at_us = captions(["x"], "")[0].event_time_us
    worker = on_kafka.start()
    on_kafka.url(worker)
    on_kafka.send([late("pin-slow", at_us)])
    features = FeastFeatures(on_kafka.config.feast_home)
    until(lambda: len(list(read_topic(on_kafka.broker, PARKED))) >= 6, "it waits sixteen seconds now", 60)
    on_kafka.send([late(f"pin-{n}", at_us) for n in range(5)])
    until(lambda: len(list(read_topic(on_kafka.broker, PARKED))) >= 6 + 5, "others are parked behind it", 60)
    features.write([FeatureRow("pin_caption", f"pin-{n}", at_us, {"caption": f"a quick chair {n}"}) for n in range(5)])
    status = f"{on_kafka.url(worker)}/status"
    until(lambda: httpx.get(status).json()["index"]["live"] == 5, "the others are embedded before it", 60)
    commits = time.monotonic() + 3
    until(lambda: time.monotonic() > commits, "commits, one a second, had time to run past it", 10)
    on_kafka.kill(worker)
    features.write([FeatureRow("pin_caption", "pin-slow", at_us, {"caption": "a slow red chair"})])
    features.close()
    known = f"{on_kafka.url(on_kafka.start())}/index/known"
    until(lambda: httpx.post(known, json={"pin_ids": ["pin-slow"]}).json(), "the event that waited longest is not lost", 75)
    assert on_kafka.stop()[-1] == 0


def test_features_that_never_come_end_as_a_dead_letter_at_the_deadline(embedded: Rig) -> None:
    embedded.environment |= {"EVERPIN_PARK_DELAY_S": "0.2", "EVERPIN_PARK_DEADLINE_S": "3"}
    embedded.url(embedded.start())
    embedded.send([late("pin-late", captions(["x"], "")[0].event_time_us)])
    (letter,) = until(lambda: list(read_topic(embedded.broker, DEAD)), "the deadline passes", 60)
    headers = dict(letter.headers)
    assert headers["reason"] == b"features_behind"
    assert int(headers["attempts"]) >= 3, "it was looked at several times"
    assert embedded.stop() == [0]


def test_a_feature_store_that_lost_its_data_stops_the_worker_before_the_index_is_emptied(embedded: Rig) -> None:
    worker = embedded.start()
    embedded.url(worker)
    embedded.send(captions(PINS, "kept"))
    embedded.drain()
    assert embedded.stop() == [0]
    shutil.rmtree(embedded.config.feast_home)
    embedded.environment["EVERPIN_VANISHED_LIMIT"] = "30"
    worker = embedded.start()
    embedded.url(worker)
    embedded.send([PinUpdated(pin_id, event.event_time_us) for pin_id, event in zip(PINS, captions(PINS, ""), strict=True)])
    assert worker.wait(90) == STOPPED_UNACKED
    assert "EVERPIN_VANISHED_LIMIT=30" in embedded.log.read_text()
    assert embedded.lag() > 0
    gone = [pin_id for pin_id, (record, _) in embedded.indexed(PINS).items() if record.dead]
    assert len(gone) < 30
