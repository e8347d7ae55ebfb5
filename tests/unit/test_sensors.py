"""Lag from offsets, what a watch tells of broker and stores, and Faust's sensor in our metrics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import faust
import pytest

from everpin.http import Vitals
from everpin.telemetry import Telemetry
from pins.errors import ArtifactError, Unavailable
from streams import sensors
from streams.broker import DEAD, PARKED, TAKEN, UPDATES, Broker, Lag
from streams.deadletters import Depth
from streams.sensors import LagClock, Watch, faust_sensor, in_hand
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex


def test_lag_in_seconds_is_the_age_of_the_oldest_message_in_hand() -> None:
    found = LagClock().read([Lag(UPDATES, 0, 10, 15), Lag(UPDATES, 1, 3, 3)], {(UPDATES, "0"): 990.0, (UPDATES, "1"): 1.0}, 1000.0)
    assert found == {(UPDATES, "0"): (5, 10.0, 10), (UPDATES, "1"): (0, 0.0, 3)}


def test_lag_without_a_message_in_hand_counts_from_when_it_was_seen() -> None:
    clock, behind = LagClock(), [Lag(UPDATES, 0, 10, 15)]
    assert clock.read(behind, {}, 1000.0)[UPDATES, "0"] == (5, 0.0, 10)
    assert clock.read(behind, {}, 1030.0)[UPDATES, "0"] == (5, 30.0, 10)
    assert clock.read([Lag(UPDATES, 0, 12, 15)], {}, 1040.0)[UPDATES, "0"] == (3, 0.0, 12)
    assert clock.read([Lag(UPDATES, 0, 15, 15)], {}, 1050.0)[UPDATES, "0"] == (0, 0.0, 15)
    assert clock.read([Lag(UPDATES, 0, 15, 16)], {}, 1060.0)[UPDATES, "0"] == (1, 0.0, 15)


def test_clocks_that_disagree_make_no_negative_lag() -> None:
    assert LagClock().read([Lag(UPDATES, 0, None, 1)], {(UPDATES, "0"): 1005.0}, 1000.0)[UPDATES, "0"] == (1, 0.0, 0)


def test_the_oldest_parked_message_is_known_by_its_header() -> None:
    def message(topic: str, partition: int, at: float, **headers: bytes) -> Any:
        return SimpleNamespace(topic=topic, partition=partition, timestamp=at, headers=list(headers.items()))

    held = [message(UPDATES, 0, 50.0), message(UPDATES, 0, 40.0), message(PARKED, 1, 90.0, parked_since_us=b"30000000"), message(PARKED, 1, 80.0)]
    assert in_hand(held) == ({(UPDATES, "0"): 40.0, (PARKED, "1"): 80.0}, 30.0)
    assert in_hand([]) == ({}, None)


# --- the watch


class Timers:
    """A Faust app's timers, and its consumer."""

    def __init__(self) -> None:
        self.started: list[str] = []
        here = [SimpleNamespace(topic=topic, partition=0) for topic in (UPDATES, PARKED, "other")]
        self.consumer = SimpleNamespace(assignment=lambda: here, unacked=[])

    def timer(self, interval: float, name: str) -> Callable[[Any], Any]:
        self.started.append(name)
        return lambda act: act


class Answers:
    """Offsets that answer, raise, or hang until they are let go."""

    def __init__(self) -> None:
        self.lags: list[Lag] = [Lag(UPDATES, 0, 5, 9), Lag(UPDATES, 1, 0, 100), Lag(PARKED, 0, 1, 3), Lag(DEAD, 0, 2, 2)]
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()
        self.made = self.closed = 0

    def __call__(self, broker: Broker, group: str) -> Answers:
        self.made += 1
        return self

    def lag(self, topics: tuple[str, ...]) -> list[Lag]:
        assert topics == (*TAKEN, DEAD)
        assert self.go.wait(10)
        if self.error:
            raise self.error
        return self.lags

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def offsets(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setattr(sensors, "Offsets", answers)
    monkeypatch.setattr(sensors, "PATIENCE_S", 0.05)
    return answers


@pytest.fixture(autouse=True)
def no_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "depth", lambda broker: Depth(0, {}, None))


@pytest.fixture
def watch(offsets: Answers) -> Iterator[Watch]:
    telemetry, vitals = Telemetry("0", "fake-v1"), Vitals()
    vitals.stores = telemetry.stores
    parts: Any = SimpleNamespace(telemetry=telemetry, features=FakeFeatures(), encoder=FakeEncoder(), index=FakeIndex())

    async def in_indexer(act: Callable[[], None]) -> None:
        act()

    app: Any = Timers()
    watch = Watch(app, Broker("kafka:9092"), "g", parts, vitals, in_indexer)
    yield watch
    offsets.go.set()
    watch.close()


def shown(watch: Watch, name: str, **labels: str) -> float | None:
    return watch._telemetry.registry.get_sample_value(name, labels)


def test_a_watch_starts_its_timers(watch: Watch) -> None:
    watch.start()
    app: Any = watch._app
    assert app.started == ["everpin-beat", "everpin-look", "everpin-probe", "everpin-prove"]


def test_a_look_shows_lag_of_the_assigned_partitions_only(watch: Watch) -> None:
    asyncio.run(watch.look())
    assert shown(watch, "everpin_lag_messages", topic=UPDATES, partition="0") == 4
    assert shown(watch, "everpin_lag_messages", topic=UPDATES, partition="1") is None
    assert shown(watch, "everpin_committed_offset", topic=UPDATES, partition="0") == 5
    assert shown(watch, "everpin_partitions_assigned") == 2
    assert shown(watch, "everpin_parked_held") == 2
    assert shown(watch, "everpin_parked_oldest_seconds") == 0
    assert shown(watch, "everpin_dead_letter_depth") == 0


def test_a_broker_that_fails_is_down_and_is_asked_anew(watch: Watch, offsets: Answers) -> None:
    offsets.error = Unavailable("away")
    asyncio.run(watch.look())
    assert watch._vitals.stores == {"features": True, "index": True, "kafka": False}
    offsets.error = None
    asyncio.run(watch.look())
    assert watch._vitals.stores["kafka"]
    assert (offsets.made, offsets.closed) == (2, 1)


def test_a_broker_that_is_slow_is_down_until_it_answered(watch: Watch, offsets: Answers) -> None:
    async def story() -> None:
        offsets.go.clear()
        await watch.look()
        assert not watch._vitals.stores["kafka"]
        await watch.look()
        assert offsets.made == 1
        offsets.go.set()
        while not watch._vitals.stores["kafka"]:
            await watch.look()

    asyncio.run(asyncio.wait_for(story(), 10))
    assert shown(watch, "everpin_lag_messages", topic=UPDATES, partition="0") == 4


def test_letters_that_wait_are_counted_when_the_topic_grew_and_once_a_minute_at_most(watch: Watch, offsets: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Depth(3, {"not_json": 3}, 10.0), Depth(2, {"not_json": 2}, 70.0), Depth(0, {}, None)]
    clock = SimpleNamespace(time=lambda: 1000.0, monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(sensors, "depth", lambda broker: answers.pop(0))
    monkeypatch.setattr(sensors, "time", clock)
    seen = []
    for now, end in ((0, 4), (30, 5), (61, 5), (70, 6), (130, 6), (200, 6)):
        clock.now, offsets.lags = float(now), [Lag(DEAD, 0, 0, end)]
        asyncio.run(watch.look())
        seen.append((shown(watch, "everpin_dead_letter_depth"), shown(watch, "everpin_dead_letter_oldest_seconds")))
    assert seen == [(3, 10.0), (3, 10.0), (2, 70.0), (2, 70.0), (0, 0.0), (0, 0.0)]


def test_an_idle_worker_asks_its_stores_and_counts_its_pins(watch: Watch) -> None:
    class Away(FakeIndex):
        def counts(self) -> Any:
            raise Unavailable("away")

    asyncio.run(watch.ask_stores())
    assert shown(watch, "everpin_points", model_id="fake-v1", state="live") == 0
    watch._parts = SimpleNamespace(**vars(watch._parts) | {"index": Away()})  # type: ignore[assignment]  # as much of it as is read
    watch._vitals.busy_since[UPDATES] = 1.0
    asyncio.run(watch.ask_stores())
    assert watch._vitals.stores["index"], "a busy worker is not asked"
    watch._vitals.busy_since.clear()
    asyncio.run(watch.ask_stores())
    assert not watch._vitals.stores["index"]


def test_another_model_in_the_index_makes_a_running_worker_unready(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Exception | None] = [ArtifactError("another model"), Unavailable("away"), None]

    def prove(*_: Any) -> None:
        error = said.pop(0)
        if error:
            raise error

    monkeypatch.setattr(sensors, "require_same_model", prove)
    fits = []
    for _ in range(3):
        asyncio.run(watch.prove_model())
        fits.append(watch._vitals.model_fits)
    assert fits == [False, False, True]


def test_a_watch_beats(watch: Watch) -> None:
    assert watch._vitals._beaten_at is None
    asyncio.run(watch._beat())
    assert watch._vitals._beaten_at is not None


def test_fausts_sensor_is_shown_and_counts_rebalances_for_us() -> None:
    telemetry = Telemetry("0", "m")
    app = faust.App("sensor", broker="memory://", autodiscover=False, web_enabled=False)
    faust_sensor(app, telemetry)
    app.monitor.on_rebalance_start(app)
    assert telemetry.total(telemetry.rebalances) == 1
    assert "\nfaust_total_rebalances 1.0\n" in telemetry.exposition().decode()
