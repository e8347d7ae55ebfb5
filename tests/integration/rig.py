"""Real worker processes under faults: started, killed, stopped and watched from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from everpin.owner import owners
from everpin.settings import Settings
from everpin.wiring import build_artifact, build_encoder, now_us, open_index, worker_group
from pins.changes import IndexedPin
from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.ports import Vector
from pins.text import render
from streams.broker import Broker, EventProducer, Offsets, ensure_topics, wait_for_lag
from streams.features import FeastFeatures
from tests.faults.processes import WorkerProcess, start


@dataclass
class Rig:
    """A broker, a state folder, and workers to come and go."""

    broker: Broker
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = Settings(home=self.home, **({"QDRANT_URL": self.environment["QDRANT_URL"]} if "QDRANT_URL" in self.environment else {}))
        self.log = self.home / "worker.log"
        self.group = worker_group(self.config, build_artifact(self.config).manifest.model_id)
        self.home.mkdir(parents=True, exist_ok=True)

    def start(self, how: str = "fork") -> WorkerProcess:
        """A worker: a fork of a process with its imports done, which saves each test seconds, or with `exec` a new interpreter."""
        environment = {**os.environ, "EVERPIN_HOME": str(self.home), "EVERPIN_KAFKA": str(self.broker), "PYTHONWARNINGS": "ignore", **self.environment}
        worker = start(how, environment, self.log, "streams.app")
        self.workers.append(worker)
        return worker

    def url(self, worker: WorkerProcess) -> str:
        """The worker's routes, once it has partitions."""

        def found() -> str:
            assert worker.poll() is None, f"the worker ended with exit code {worker.poll()}:\n{self.tail()}"
            urls = [owner.url for owner in owners(self.home).values() if owner.pid == worker.pid and owner.url]
            return urls[0] if urls and self.ready(urls[0]) else ""

        return until(found, "the worker is ready", 90)

    def ready(self, url: str) -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def send(self, events: Sequence[PinEvent]) -> None:
        ensure_topics(self.broker, 4, 1)
        producer = EventProducer(self.broker, self.group)
        for event in events:
            producer.send(event)
        producer.close()

    def offsets(self) -> Offsets:
        return Offsets(self.broker, self.group)

    def lag(self) -> int:
        offsets = self.offsets()
        try:
            return sum(lag.messages for lag in offsets.lag())
        finally:
            offsets.close()

    def drain(self, timeout_s: float = 90) -> None:
        offsets = self.offsets()
        try:
            wait_for_lag(offsets, 0, timeout_s)
        finally:
            offsets.close()

    def kill(self, worker: WorkerProcess) -> None:
        worker.send_signal(signal.SIGKILL)
        worker.wait()

    def stop(self) -> list[int]:
        """SIGTERM to all that still run; every worker's exit code."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        codes = []
        for worker in self.workers:
            try:
                codes.append(worker.wait(30))
            except subprocess.TimeoutExpired:
                worker.kill()
                codes.append(worker.wait())
        return codes

    def encoded(self) -> int:
        """Texts that all workers together have encoded in batches they finished, by their logs."""
        return sum(map(int, re.findall(r" encoded=(\d+) ", self.log.read_text(errors="replace"))))

    def tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def indexed(self, pin_ids: Sequence[str]) -> dict[str, tuple[IndexedPin, Vector | None]]:
        artifact = build_artifact(self.config)
        with open_index(self.config, artifact.manifest.model_id, artifact.manifest.dimension, purpose="test") as index:
            vectors = index.vectors(pin_ids)
            return {pin_id: (record, vectors.get(pin_id)) for pin_id, record in index.known(pin_ids).items()}

    def assert_equals_oracle(self, pin_ids: Sequence[str]) -> None:
        """Every pin's record and vector are what rendering and embedding its features from scratch gives."""
        features = FeastFeatures(self.config.feast_home, self.config.feast_yaml)
        encoder = build_encoder(self.config)
        truth, indexed = features.of(pin_ids), self.indexed(pin_ids)
        features.close()
        lost = [pin_id for pin_id in pin_ids if pin_id not in indexed]
        assert not lost, f"{len(lost)} pins lost, such as {lost[:3]}"
        for pin_id in pin_ids:
            record, vector = indexed[pin_id]
            pin = truth[pin_id]
            assert record.dead == pin.deleted, f"{pin_id} was resurrected or lost"
            if not pin.deleted:
                assert record.model_id == encoder.model_id
                assert record.text == render(pin).text
                assert vector is not None
                np.testing.assert_allclose(vector, encoder.query(record.text), atol=1e-4)


def until(holds: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
    """Wait on a condition with a deadline; returns what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return value


def captions(pin_ids: Sequence[str], words: str) -> list[PinEvent]:
    """An update per pin that carries a new caption."""
    at = now_us()
    return [PinUpdated(pin_id, at, {"pin_caption": {"caption": f"{words} of {pin_id} in the garden"}}) for pin_id in pin_ids]


def deletions(pin_ids: Sequence[str]) -> list[PinEvent]:
    at = now_us()
    return [PinDeleted(pin_id, at) for pin_id in pin_ids]
