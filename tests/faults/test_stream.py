"""The short form of `tests.faults.run`: real workers under kill -9 at every point, and a pin that changes all the time.

The long form, of hours and hundreds of kills, is run by hand; its result is in `bench/faults`.
"""

from __future__ import annotations

import json
import statistics
import time
from argparse import Namespace
from pathlib import Path

from everpin.wiring import now_us
from pins.changes import fingerprint
from pins.events import PinUpdated, encode
from pins.features import PinFeatures
from pins.text import render
from streams.broker import EMBEDDED, Broker, ensure_topics, read_topic
from streams.features import FeastFeatures
from tests.faults.driver import producer, send
from tests.faults.fleet import Fleet
from tests.faults.report import Report
from tests.faults.run import drain, judge, parser, play
from tests.faults.setting import PARTITIONS, Choice, setting
from tests.faults.worker import POINTS
from tests.services import ServiceUnavailable, unavailable

SESSION = "3"
"""Seconds. Production's 10 would make every kill cost 10 s of waiting for the dead member."""


def _played(folder: Path, arguments: str) -> Report:
    asked: Namespace = parser().parse_args(["--session", SESSION, *arguments.split()])
    try:
        return play(asked, Choice.of(asked.workers, asked.broker, asked.features, asked.index), folder)
    except ServiceUnavailable as reason:
        unavailable(reason)


def test_three_workers_killed_at_every_point_lose_nothing(tmp_path: Path) -> None:
    """On Kafka, with a zombie, a deploy, a broker that is killed, and clocks that are 5 s apart either way."""
    report = _played(tmp_path, "--seed 7 --minutes 0.5 --workers 3 --kill 20 --at-points 18 --pause 1 --deploy 1 --outages 1")
    assert not report.wrong, report.as_json()
    assert {point for point in POINTS if report.kills[point] >= 3} == set(POINTS), report.kills
    assert report.pauses == 1
    assert report.deploys == 1
    assert report.outages == {"kafka_kill": 1}
    assert report.rebalances > 3


def test_one_worker_on_the_embedded_parts_killed_and_frozen_loses_nothing(tmp_path: Path) -> None:
    report = _played(tmp_path, "--seed 11 --minutes 0.3 --workers 1 --kill 4 --at-points 3 --pause 1 --deploy 0")
    assert not report.wrong, report.as_json()
    assert sum(report.kills.values()) == 4
    assert report.pauses == 1


HOT, HOT_RATE, HOT_S, OTHERS = "hot-pin", 1000, 3, 60
OTHERS_FRESH_MS = 5000
"""Far below the half minute that 3,000 embeds of the hot pin would take; far above what a busy test machine adds."""


def test_a_hot_pin_costs_one_embed_per_batch_and_starves_nobody(tmp_path: Path) -> None:
    """One pin changes 1,000 times a second, and 20 others a second beside it."""
    with setting(Choice.of(1), tmp_path) as services:
        ensure_topics(services.broker, PARTITIONS, 1)
        fleet = Fleet(services, 1)
        try:
            fleet.start()
            fleet.await_ready()
            _heat(services.broker)
            assert drain(services, fleet, lambda words: None, 60)
            fleet.stop()
            features = FeastFeatures(services.config.feast_home)
            verdict = judge(services, features, [HOT, *(f"cool-{number}" for number in range(OTHERS))])
            features.close()
            ledger = [line.split() for line in fleet.slots[0].ledger.read_text().splitlines()]
            published = [json.loads(record.value) for record in read_topic(services.broker, EMBEDDED)]
        finally:
            fleet.kill()
    assert verdict.equal, verdict.worst()
    hot = {fingerprint(render(PinFeatures(HOT, caption=_hot_caption(number))).text) for number in range(HOT_RATE * HOT_S)}
    batches = sum(words[0] == "batch" for words in ledger)
    embeds = sum(words[0] == "text" and words[1] in hot for words in ledger)
    assert 1 <= embeds <= batches
    assert batches < HOT_RATE * HOT_S / 10
    cool_ms = [one["freshness_ms"] for one in published if one["pin_id"] != HOT]
    assert len(cool_ms) == OTHERS
    assert statistics.quantiles(cool_ms, n=20)[-1] < OTHERS_FRESH_MS


def _hot_caption(number: int) -> str:
    return f"painted lamp number {number} beside the {['window', 'door', 'stairs', 'fireplace'][number % 4]}"


def _heat(broker: Broker) -> None:
    """Send the hot pin's changes at their pace, and the others' between them."""
    to, started = producer(broker), time.monotonic()
    every = HOT_RATE * HOT_S // OTHERS
    for number in range(HOT_RATE * HOT_S):
        wait_s = started + number / HOT_RATE - time.monotonic()
        if wait_s > 0.005:
            to.poll(wait_s)
        changed = PinUpdated(HOT, now_us(), {"pin_caption": {"caption": _hot_caption(number)}})
        send(to, HOT.encode(), encode(changed))
        if number % every == 0:
            pin_id = f"cool-{number // every}"
            send(to, pin_id.encode(), encode(PinUpdated(pin_id, now_us(), {"pin_caption": {"caption": f"a quiet {pin_id} in the shade"}})))
    assert to.flush(30) == 0
