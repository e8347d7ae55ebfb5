"""Carries out a schedule of `generator`: writes to Feast and sends to Kafka, each when its time has come.

A change whose step was begun is always finished: the late rows and the doubled deliveries that belong to it are carried out
even after `finish` was called, so that the truth at the end is complete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer

from pins.errors import Unavailable
from pins.ports import FeatureSource
from streams.broker import EMBEDDED_OUTSTANDING, UPDATES, Broker, Offsets, wait_for_lag
from tests.faults.generator import Step, feature_rows, message

UNSENT_AFTER_MS = 300_000
"""A broker that is down for longer than this has lost the run, not Everpin."""
PACE_EVERY = 200


class Driver(threading.Thread):
    """Plays the producers of one run in a thread of its own. `base_us`: the epoch time that step times count from."""

    def __init__(self, broker: Broker, group: str, features: FeatureSource, steps: Sequence[Step], base_us: int) -> None:
        super().__init__(name="faults-driver", daemon=True)
        self.steps, self.base_us, self.features, self.broker = steps, base_us, features, broker
        self.done: list[Step] = []
        self.unsent: list[str] = []
        self.failure: BaseException | None = None
        self._producer = producer(broker)
        self._offsets = Offsets(broker, group) if broker.embedded else None
        self._finishing = threading.Event()

    def finish(self) -> None:
        """Begin no more changes; end when those begun are complete."""
        self._finishing.set()

    def run(self) -> None:
        try:
            self._play()
            self._producer.flush(UNSENT_AFTER_MS / 1000)
        except BaseException as error:  # handed to the run, which stops
            self.failure = error
        finally:
            if self._offsets:
                self._offsets.close()

    def _play(self) -> None:
        started, newest = time.monotonic(), 0
        for step in self.steps:
            if self._finishing.is_set() and step.event_us > newest:
                continue
            wait_s = started + step.at_us / 1e6 - time.monotonic()
            if wait_s > 0:
                self._producer.poll(0)
                time.sleep(wait_s)  # the schedule's own pace, not a wait for anything
            if self._finishing.is_set() and step.event_us > newest:
                continue
            newest = max(newest, step.event_us)
            self._do(step)
            self.done.append(step)

    def _do(self, step: Step) -> None:
        if step.kind == "feast":
            self._until_answered(lambda: self.features.write(feature_rows(step, self.base_us)))
            return
        key, value = message(step, self.base_us)
        at_ms = (self.base_us + step.event_us) // 1000
        send(self._producer, key, value, self._delivered, timestamp_ms=at_ms if step.kind == "tombstone" else 0)
        if self._offsets and len(self.done) % PACE_EVERY == 0:
            self._producer.flush(30)
            wait_for_lag(self._offsets, 4 * EMBEDDED_OUTSTANDING)

    def _until_answered(self, act: Callable[[], None]) -> None:
        while True:
            try:
                return act()
            except Unavailable:  # an outage of the run's own making
                time.sleep(0.2)

    def _delivered(self, error: Any, _: Any) -> None:
        if error is not None:
            self.unsent.append(str(error))


def producer(broker: Broker) -> Producer:
    """A producer that outlives a broker's restart."""
    settings = {"bootstrap.servers": broker.address, "acks": "all", "linger.ms": 2, "log_level": 0}
    return Producer(settings | {"message.timeout.ms": UNSENT_AFTER_MS, "partitioner": "murmur2_random", "allow.auto.create.topics": False})


def send(to: Producer, key: bytes | None, value: bytes | None, delivered: Callable[[Any, Any], None] | None = None, timestamp_ms: int = 0) -> None:
    """Queue one message for pin-updates; waits while the queue is full. `timestamp_ms` 0: now."""
    while True:
        try:
            to.produce(UPDATES, key=key, value=value, timestamp=timestamp_ms, on_delivery=delivered)
            return
        except BufferError:
            to.poll(0.1)
