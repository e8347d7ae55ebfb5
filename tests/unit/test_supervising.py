from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from everpin import supervising
from everpin.rollouts import Rollouts
from everpin.settings import SHIPPED_MODEL, Settings
from everpin.supervising import Workers
from index.edge import EdgePinIndex
from index.rollout import FILE
from streams.broker import Broker

OLD, NEW = "minilm-l6-v1", "everpin-l6-v1"


class Started:
    """The workers that were started: idle processes, by model."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.configs: list[Settings] = []

    @contextmanager
    def worker(self, config: Settings, broker: Broker, log: Path | None = None) -> Iterator[Popen[bytes]]:
        self.models.append(config.model.name)
        self.configs.append(config)
        with Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=PIPE) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    made = Started()
    monkeypatch.setattr(supervising, "worker_process", made.worker)
    return made


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    config = Settings(home=tmp_path, model=SHIPPED_MODEL.parent / OLD, http_port=8701)
    for model_id in (OLD, NEW):
        EdgePinIndex(config.index_home, model_id, 384).close()
    return config


@pytest.fixture
def workers(config: Settings, started: Started) -> Iterator[Workers]:
    made = Workers(config, Broker.parse("embedded://127.0.0.1:9"))
    yield made
    made.close()


def test_the_live_model_has_a_worker_and_a_candidate_its_own(config: Settings, workers: Workers, started: Started) -> None:
    workers.follow()
    workers.follow()
    assert started.models == [OLD]
    Rollouts(config).begin(NEW)
    workers.follow()
    assert started.models == [OLD, NEW]
    assert set(workers.pids()) == {OLD, NEW}
    assert started.configs[1].http_port == 0


def test_a_retired_models_worker_is_stopped(config: Settings, workers: Workers) -> None:
    rollouts = Rollouts(config)
    rollouts.begin(NEW)
    workers.follow()
    rollouts.place.alias.point(NEW)
    rollouts.change(lambda now: now.changed(retiring=OLD))
    workers.follow()
    assert set(workers.pids()) == {NEW}
    assert workers.lost() is None


def test_a_candidates_worker_that_ends_is_started_again_ever_later_and_has_to_be_filled_again(config: Settings, workers: Workers, started: Started) -> None:
    rollouts, clock = Rollouts(config), [0.0]
    rollouts.begin(NEW)
    rollouts.filled()
    workers.follow(lambda: clock[0])
    starts = []
    for second in range(12):
        _kill(workers, NEW)
        clock[0] = float(second)
        before = len(started.models)
        workers.follow(lambda: clock[0])
        starts += [second] if len(started.models) > before else []
    assert starts == [1, 3, 7]
    kept = rollouts.required()
    assert (kept.filled_us, kept.missed_us > 0) == (0, True)
    assert rollouts.filled().missed_us == 0


def test_the_live_models_worker_that_ends_is_told_and_not_hidden(workers: Workers, started: Started) -> None:
    workers.follow()
    assert workers.lost() is None
    _kill(workers, OLD)
    workers.follow()
    assert started.models == [OLD]
    assert workers.lost() == (OLD, -9)


def test_an_alias_that_cannot_be_read_leaves_the_workers_as_they_are(config: Settings, workers: Workers, started: Started) -> None:
    workers.follow()
    (config.index_home / FILE).write_text("{")
    workers.follow()
    assert "is damaged" in workers.problem
    assert workers.lost() is None
    assert set(workers.pids()) == {OLD}
    (config.index_home / FILE).unlink()
    workers.follow()
    assert workers.problem == ""


def test_a_state_that_does_not_answer_does_not_keep_a_worker_down(
    config: Settings, workers: Workers, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rollouts(config).begin(NEW)
    workers.follow(lambda: 0.0)
    _kill(workers, NEW)
    workers.follow(lambda: 0.0)

    def away(*_: Any) -> None:
        raise supervising.EverpinError("away")

    monkeypatch.setattr(type(workers._installation.state), "replace", away)
    workers.follow(lambda: 5.0)
    assert started.models == [OLD, NEW, NEW]


def _kill(workers: Workers, model_id: str) -> None:
    process = workers._running[model_id]
    process.kill()
    process.wait(10)
