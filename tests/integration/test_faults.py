"""Killed workers, dead stores, restarted brokers: nothing acknowledged is lost, and what cannot go on says so and stops."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from everpin.settings import SHIPPED_MODEL
from index.edge import EdgePinIndex
from pins.changes import IndexedPin
from pins.ports import PointWrite
from streams.broker import Broker, EventProducer, embedded_broker
from tests.integration.rig import Rig, captions, deletions, until
from tests.services.kafka import RunningKafka
from tests.services.process import free_port
from tests.services.qdrant import qdrant_double
from tests.services.redis import start_redis

CANNOT_START, STOPPED_UNACKED = 2, 70
PINS = [f"pin-{n}" for n in range(150)]


@pytest.fixture(params=["embedded", "kafka"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A rig on the embedded broker, and one on a broker of Apache Kafka's own."""
    if request.param == "embedded":
        with embedded_broker() as broker:
            made = Rig(broker, tmp_path / "home")
            yield made
            made.stop()
    else:
        kafka: RunningKafka = request.getfixturevalue("kafka")
        made = Rig(Broker(kafka.address), tmp_path / "home")
        yield made
        made.stop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Rig]:
    with embedded_broker() as broker:
        made = Rig(broker, tmp_path / "home")
        yield made
        made.stop()


def test_a_killed_worker_loses_nothing_and_resurrects_nobody(rig: Rig) -> None:
    chance = random.Random(7)
    for round_number in range(3):
        worker = rig.start()
        rig.url(worker)
        rig.send(captions(PINS, f"round {round_number}"))
        rig.send(deletions(PINS[round_number::40]))
        moment = chance.randrange(len(PINS))
        until(lambda moment=moment: rig.lag() <= moment + 4, "the worker is at its work", 60)
        rig.kill(worker)
    rig.url(rig.start())
    rig.drain()
    assert rig.stop()[-1] == 0
    rig.assert_equals_oracle(PINS)


def test_a_worker_told_to_stop_in_the_middle_ends_its_batch_and_nothing_is_done_twice(rig: Rig) -> None:
    rig.environment["EVERPIN_BATCH_EVENTS"] = "16"
    worker = rig.start()
    rig.url(worker)
    rig.send(captions(PINS, "first"))
    until(lambda: rig.encoded() > 0, "the worker is at its work", 60)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    rig.url(rig.start())
    rig.drain()
    assert rig.stop()[-1] == 0
    rig.assert_equals_oracle(PINS)
    assert rig.encoded() == len(PINS), "the batch in hand was drained and committed: no text is embedded a second time"


def test_a_restarted_broker_is_waited_for(own_kafka: RunningKafka, tmp_path: Path) -> None:
    rig = Rig(Broker(own_kafka.address), tmp_path / "home")
    worker = rig.start()
    url = rig.url(worker)
    rig.send(captions(PINS, "before"))
    own_kafka.kill()
    own_kafka.restart()
    rig.send(captions(PINS[:50], "after"))
    rig.drain(120)
    assert worker.poll() is None
    assert httpx.get(f"{url}/status").json()["index"]["live"] == len(PINS)
    assert rig.stop() == [0]
    rig.assert_equals_oracle(PINS)


def test_no_broker_at_start_is_said_and_nothing_starts(tmp_path: Path) -> None:
    rig = Rig(Broker("127.0.0.1:1"), tmp_path / "home")
    assert rig.start().wait(60) == CANNOT_START
    assert "EVERPIN_KAFKA" in rig.tail()


def test_no_qdrant_at_start_is_said_and_nothing_starts(embedded: Rig) -> None:
    embedded.environment["QDRANT_URL"] = "http://127.0.0.1:1"
    assert embedded.start().wait(60) == CANNOT_START
    assert "QDRANT_URL" in embedded.tail()


def test_no_feature_store_at_start_is_said_and_nothing_starts(embedded: Rig, tmp_path: Path) -> None:
    embedded.environment |= {"EVERPIN_FEAST_YAML": str(Path("feature_repo/feature_store.redis.yaml").absolute()), "EVERPIN_REDIS": "127.0.0.1:1"}
    assert embedded.start().wait(60) == CANNOT_START
    assert "EVERPIN_FEAST_YAML" in embedded.tail()


def test_a_qdrant_that_hangs_is_waited_for_and_nothing_is_acknowledged(embedded: Rig) -> None:
    with qdrant_double() as (url, qdrant):
        rig = Rig(embedded.broker, embedded.home, {"QDRANT_URL": url, "EVERPIN_QDRANT_TIMEOUT_S": "1", "EVERPIN_HTTP_PORT": str(free_port())})
        worker = rig.start()
        routes = f"http://127.0.0.1:{rig.environment['EVERPIN_HTTP_PORT']}"
        until(lambda: rig.ready(routes), "the worker is ready", 60)
        qdrant.send_signal(signal.SIGSTOP)
        rig.send(captions(PINS[:20], "while Qdrant hangs"))
        until(lambda: not rig.ready(routes), "readiness turns false", 30)
        assert rig.lag() == 20
        qdrant.send_signal(signal.SIGCONT)
        rig.drain()
        until(lambda: rig.ready(routes), "readiness comes back", 30)
        assert worker.poll() is None
        assert rig.log.read_text().count("nothing acknowledged") == 1, "one line per change of state"
        assert rig.stop() == [0]
        rig.assert_equals_oracle(PINS[:20])


def test_a_qdrant_that_is_gone_for_good_stops_the_worker_unacknowledged(embedded: Rig) -> None:
    with qdrant_double() as (url, qdrant):
        rig = Rig(embedded.broker, embedded.home, {"QDRANT_URL": url, "EVERPIN_RETRY_BUDGET_S": "3", "EVERPIN_HTTP_PORT": str(free_port())})
        worker = rig.start()
        until(lambda: rig.ready(f"http://127.0.0.1:{rig.environment['EVERPIN_HTTP_PORT']}"), "the worker is ready", 60)
        qdrant.kill()
        qdrant.wait()
        rig.send(captions(PINS[:20], "without Qdrant"))
        assert worker.wait(60) == STOPPED_UNACKED
        assert rig.lag() == 20
        assert "nothing of the batch in hand acknowledged" in rig.log.read_text()


def test_an_index_that_was_wiped_is_filled_again_by_the_events_to_come(embedded: Rig) -> None:
    port = free_port()
    http = str(free_port())
    with qdrant_double(port) as (url, _):
        rig = Rig(embedded.broker, embedded.home, {"QDRANT_URL": url, "EVERPIN_HTTP_PORT": http})
        rig.start()
        until(lambda: rig.ready(f"http://127.0.0.1:{http}"), "the worker is ready", 60)
        rig.send(captions(PINS[:10], "same words"))
        rig.drain()
    with qdrant_double(port):
        rig.send(captions(PINS[:10], "same words"))
        rig.drain()
        rig.assert_equals_oracle(PINS[:10])
        assert rig.stop() == [0]


def test_a_feature_store_that_hangs_is_waited_for(embedded: Rig, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> None:
    redis = start_redis(tmp_path_factory.mktemp("own-redis"))
    with redis:
        yaml = Path("feature_repo/feature_store.redis.yaml").absolute()
        embedded.environment |= {"EVERPIN_FEAST_YAML": str(yaml), "EVERPIN_REDIS": redis.url.removeprefix("redis://").split("/")[0]}
        worker = embedded.start()
        url = embedded.url(worker)
        redis.process.send_signal(signal.SIGSTOP)
        embedded.send(captions(PINS[:20], "while Redis hangs"))
        until(lambda: not embedded.ready(url), "readiness turns false", 40)
        assert embedded.lag() == 20
        redis.process.send_signal(signal.SIGCONT)
        embedded.drain()
        assert httpx.get(f"{url}/status").json()["index"]["live"] == 20
        assert embedded.stop() == [0]


def test_a_wave_of_poison_stops_the_worker_and_says_so(embedded: Rig) -> None:
    embedded.environment["EVERPIN_DEAD_LETTER_LIMIT"] = "10"
    worker = embedded.start()
    embedded.url(worker)
    producer = EventProducer(embedded.broker, embedded.group)
    for _ in range(40):
        producer.send_raw(None, b"not an event at all")
    producer.close()
    assert worker.wait(60) == STOPPED_UNACKED
    assert "EVERPIN_DEAD_LETTER_LIMIT" in embedded.log.read_text()
    assert embedded.lag() > 0


@pytest.mark.parametrize("harm", ["a changed file", "a missing file", "a half-written manifest"])
def test_a_damaged_model_folder_is_refused_by_name(embedded: Rig, tmp_path: Path, harm: str) -> None:
    folder = shutil.copytree(SHIPPED_MODEL, tmp_path / "model")
    match harm:
        case "a changed file":
            (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
        case "a missing file":
            (folder / "model.onnx").unlink()
        case _:
            (folder / "manifest.json").write_text((folder / "manifest.json").read_text()[:200])
    embedded.environment["EVERPIN_MODEL"] = str(folder)
    assert embedded.start().wait(60) == CANNOT_START
    named = {"a changed file": "tokenizer.json", "a missing file": "model.onnx"}.get(harm, "manifest.json")
    assert named in embedded.tail()


def test_an_index_of_another_dimension_is_refused(embedded: Rig, tmp_path: Path) -> None:
    other = EdgePinIndex(embedded.config.index_home, SHIPPED_MODEL.name, 8)
    record = IndexedPin("p", 1, dead=False, embedded=True, model_id=SHIPPED_MODEL.name, fields={})
    other.write([PointWrite(record, None, np.ones(8, np.float32) / np.sqrt(np.float32(8)))])
    other.close()
    assert embedded.start().wait(60) == CANNOT_START
    assert "8 dimensions, the model makes 384" in embedded.tail()


def test_a_second_worker_on_the_same_folder_is_refused_and_the_first_named(embedded: Rig) -> None:
    first = embedded.start()
    embedded.url(first)
    assert embedded.start().wait(60) == CANNOT_START
    assert f"process {first.pid}" in embedded.tail()


def test_a_worker_ends_with_the_process_that_started_it(embedded: Rig, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom everpin.settings import Settings\nfrom everpin.system import running_system\nimport time\n"
        "with running_system(Settings(home=Path(sys.argv[1])), Path(sys.argv[1]) / 'w.log') as system:\n"
        "    print(system.worker.pid, flush=True)\n    time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "child")], stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the orphaned worker is gone", 30)
