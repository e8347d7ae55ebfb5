"""What serving writes for experiments: never in the way of a request, and nothing where no experiment runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from everpin.serving import Canary
from everpin.settings import Settings
from pins.errors import Unavailable
from pins.experiments.exposures import INTERLEAVED, ExperimentEvent, Exposure, Outcome, decode, unit_name
from pins.wire import FUTURE_TOLERANCE_US
from streams.broker import EXPERIMENT_EXPOSURES, EXPERIMENT_OUTCOMES, Post
from surfaces import exposures
from surfaces.exposures import WAITING, ExposureLog, expose, running
from surfaces.metrics import Metrics
from tests.surfaces.parts import T0, Running

DEADLINE_S = 20.0


@dataclass
class Kafka:
    """What the log sends to. `away` lets every delivery fail; `refuses` is what the broker says of a request id."""

    posts: list[Post] = field(default_factory=list)
    refuses: dict[bytes, str] = field(default_factory=dict)
    away: bool = False
    attempts: int = 0
    closed: int = 0

    def deliver(self, posts: Iterable[Post], timeout_s: float = 30) -> list[str]:
        self.attempts += 1
        if self.away:
            raise Unavailable("Kafka is away")
        some = list(posts)
        answers = [self.refuses.get(post.key or b"", "") for post in some]
        self.posts += [post for post, why in zip(some, answers, strict=True) if not why]
        return answers

    def close(self) -> None:
        self.closed += 1
        if self.away:
            raise Unavailable("Kafka is away")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LINGER_S", 0.01), ("IDLE_S", 0.02), ("RETRY_S", 0.02)):
        monkeypatch.setattr(exposures, name, seconds)


@dataclass(frozen=True)
class Stage:
    log: ExposureLog
    kafka: Kafka
    metrics: Metrics

    def counted(self, fate: str) -> float:
        return sum(
            sample.value
            for family in self.metrics.experiment_events.collect()
            for sample in family.samples
            if sample.name.endswith("_total") and sample.labels["fate"] == fate
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    kafka, metrics = Kafka(), Metrics("test")
    made = Stage(ExposureLog(Settings(home=tmp_path), metrics, lambda: kafka), kafka, metrics)
    yield made
    made.log.close()


def until(condition: Callable[[], bool], words: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {words}"
        time.sleep(0.005)


def outcome(request: str = "r1") -> Outcome:
    return Outcome("x", "u", request, "p1", "save", T0)


def test_events_are_sent_to_their_topics(stage: Stage) -> None:
    shown = Exposure("x", "u", "control", "search", "r1", ("m",), ("p1",), T0)
    stage.log.start()
    stage.log.log(shown)
    stage.log.log(outcome())
    until(lambda: stage.counted("sent") == 2, "both are sent")
    assert [(post.topic, post.key) for post in stage.kafka.posts] == [(EXPERIMENT_EXPOSURES, b"r1"), (EXPERIMENT_OUTCOMES, b"r1")]
    assert [decode(post.key, post.value, now_us=T0) for post in stage.kafka.posts] == [shown, outcome()]


def test_while_kafka_is_away_events_wait_and_go_when_it_is_back(stage: Stage) -> None:
    stage.kafka.away = True
    stage.log.start()
    for number in range(30):
        stage.log.log(outcome(f"r{number}"))
    until(lambda: stage.kafka.attempts > 2, "it is tried again")
    stage.kafka.away = False
    until(lambda: stage.counted("sent") == 30, "all are sent")
    assert len({post.key for post in stage.kafka.posts}) == 30
    assert stage.counted("dropped") == 0


def test_what_does_not_fit_is_dropped_at_once_and_counted(stage: Stage) -> None:
    started = time.monotonic()
    for number in range(WAITING + 50):
        stage.log.log(outcome(f"r{number}"))
    assert time.monotonic() - started < DEADLINE_S
    assert stage.counted("dropped") == 50
    stage.log.close()
    assert stage.counted("dropped") == WAITING + 50


def test_the_end_sends_what_waits(stage: Stage) -> None:
    stage.log.start()
    for number in range(1200):
        stage.log.log(outcome(f"r{number}"))
    stage.log.close()
    assert stage.counted("sent") == 1200
    assert stage.kafka.closed == 1


def test_an_end_without_kafka_drops_what_waits_and_does_not_hang(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.kafka.away = True
    monkeypatch.setattr(exposures, "RETRY_S", 60.0)
    stage.log.start()
    stage.log.log(outcome())
    until(lambda: stage.kafka.attempts > 0, "it was tried")
    started = time.monotonic()
    stage.log.close()
    assert time.monotonic() - started < DEADLINE_S
    assert stage.counted("dropped") == 1


def test_what_the_broker_refuses_is_counted_and_the_rest_goes(stage: Stage) -> None:
    stage.kafka.refuses = {b"r1": "too large"}
    stage.log.log(outcome("r1"))
    stage.log.log(outcome("r2"))
    stage.log.start()
    until(lambda: stage.counted("sent") == 1, "the other is sent")
    assert stage.counted("refused") == 1


def test_a_defect_of_one_batch_does_not_end_the_log(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, deliver = threading.Event(), stage.kafka.deliver

    def once(posts: Iterable[Post], timeout_s: float = 30) -> list[str]:
        if not wrong.is_set():
            wrong.set()
            raise RuntimeError("a defect")
        return deliver(posts, timeout_s)

    monkeypatch.setattr(stage.kafka, "deliver", once)
    stage.log.start()
    stage.log.log(outcome("r1"))
    until(wrong.is_set, "the defect was met")
    stage.log.log(outcome("r2"))
    until(lambda: stage.counted("sent") == 1, "the next is sent")
    assert stage.counted("dropped") == 1


def waiting(run: Running) -> list[ExperimentEvent]:
    """What the application would send: its log was never started."""
    return run.surface.exposures._drain(WAITING)


@pytest.fixture
def canary(run: Running, monkeypatch: pytest.MonkeyPatch) -> str:
    """The live model as its own candidate: what is written does not depend on what it answers."""
    monkeypatch.setattr(run.surface.live, "canary", Canary(run.surface.live.now, 0.05))
    return run.surface.live.now.model_id


def test_an_exposure_holds_no_user_id(run: Running, canary: str) -> None:
    waiting(run)
    before = time.time_ns() // 1000
    expose(run.surface, running(run.surface), "control", "ann", "r1", "old", [f"p{n}" for n in range(120)], "search", share=0.05)
    [shown] = waiting(run)
    assert isinstance(shown, Exposure)
    assert (shown.experiment, shown.unit, shown.arm, shown.surface, shown.request_id) == (canary, unit_name("ann", canary), "control", "search", "r1")
    assert (shown.model_ids, len(shown.shown), shown.share, shown.teams) == (("old",), 100, 0.05, ())
    assert before <= shown.at_us <= time.time_ns() // 1000 + FUTURE_TOLERANCE_US
    expose(run.surface, canary, INTERLEAVED, "ann", "r2", ("old", canary), ["p1", "p2"], "feed", teams=("control", "candidate"))
    [drafted] = waiting(run)
    assert isinstance(drafted, Exposure)
    assert (drafted.model_ids, drafted.teams) == (("old", canary), ("control", "candidate"))


def test_without_an_experiment_or_an_arm_nothing_is_written(run: Running) -> None:
    waiting(run)
    assert running(run.surface) is None
    expose(run.surface, None, "control", "ann", "r1", "old", ["p1"], "search")
    expose(run.surface, "x", "", "ann", "r1", "old", ["p1"], "search")
    body = {"actions": [{"pin_id": "food-001", "request_id": "r1"}]}
    assert run.client.post("/v1/users/ann/actions", json=body).status_code == 202
    assert waiting(run) == []


def test_actions_that_name_an_answer_become_outcomes(run: Running, canary: str) -> None:
    waiting(run)
    run.sent.actions.clear()
    body = {
        "actions": [
            {"pin_id": "food-001", "action": "click", "request_id": "r1", "dwell_ms": 12_000, "time": "2026-01-02T03:04:05Z"},
            {"pin_id": "food-003"},
        ]
    }
    assert run.client.post("/v1/users/ann/actions", json=body).json()["accepted"] == 2
    [acted] = waiting(run)
    assert acted == Outcome(canary, unit_name("ann", canary), "r1", "food-001", "click", 1_767_323_045_000_000, 12_000)
    assert acted.kind == "long_click"
    assert [action.pin_id for action in run.sent.actions] == ["food-001", "food-003"]


@pytest.mark.parametrize("wrong", [{"request_id": ""}, {"request_id": "a b"}, {"request_id": "x" * 65}, {"dwell_ms": -1}, {"dwell_ms": 86_400_001}])
def test_what_cannot_be_is_refused(run: Running, wrong: dict[str, object]) -> None:
    answer = run.client.post("/v1/users/ann/actions", json={"actions": [{"pin_id": "food-001", **wrong}]})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/validation")
