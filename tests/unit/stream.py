"""A worker on fakes, with what it sent, saw and waited for, for the tests of `streams.worker`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pins.errors import Unavailable
from pins.events import PinEvent, PinUpdated, encode
from pins.indexer import BatchReport, PinIndexer
from streams.broker import UPDATES
from streams.worker import Limits, Message, Worker
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex
from tests.unit.samples import T0

SECOND_US = 1_000_000
NOT_AN_EVENT = b"not an event"


@dataclass(frozen=True)
class Sent:
    """What was published, in order."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    def body(self) -> dict[str, Any]:
        assert self.value is not None
        read: dict[str, Any] = json.loads(self.value)
        return read


@dataclass
class Seen:
    """An Observer that keeps what it is told."""

    batches: list[tuple[int, BatchReport, Sequence[float]]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    times_parked: int = 0
    times_retried: int = 0
    states: list[bool] = field(default_factory=list)

    def batch(self, messages: Sequence[Message], report: BatchReport, freshness_s: Sequence[float], seconds: float) -> None:
        assert seconds >= 0
        self.batches.append((len(messages), report, freshness_s))

    def dead_letter(self, reason: str) -> None:
        self.dead.append(reason)

    def parked(self) -> None:
        self.times_parked += 1

    def retried(self) -> None:
        self.times_retried += 1

    def ready(self, ready: bool) -> None:
        self.states.append(ready)


class Stream:
    """A worker on fakes, with a clock that a test sets, and everything it published."""

    def __init__(self) -> None:
        self.features, self.encoder, self.index, self.seen = FakeFeatures(), FakeEncoder(), FakeIndex(), Seen()
        self.now = T0 + 10 * SECOND_US
        self.sent: list[Sent] = []
        self.down: set[str] = set()
        indexer = PinIndexer(self.features, self.encoder, self.index, lambda: self.now)
        limits = Limits(retry_budget_s=10.0, dead_letters=5, park_delay_s=30.0, park_deadline_s=600.0)
        self.worker = Worker(indexer, self.send, self.seen, limits, lambda: self.now)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        if topic in self.down:
            raise Unavailable(f"cannot write to {topic}")
        self.sent.append(Sent(topic, key, value, headers))

    def handle(self, *messages: Message) -> None:
        asyncio.run(self.worker.handle(messages))

    def on(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]

    def again(self, sent: Sent, topic: str) -> Message:
        """What was published, as the worker of that topic receives it; its time is that of the message it stands for."""
        return Message(topic, 0, 99, sent.key, sent.value, int(sent.headers["source_timestamp_us"]), sent.headers)


@dataclass
class Time:
    """Monotonic time that passes only while the worker waits."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


LATE = PinUpdated("p", T0, {}, {"pin_caption": T0})


def message(event: PinEvent | bytes | None, key: bytes | None = None, offset: int = 7, at: int = T0, **headers: bytes) -> Message:
    value = event if isinstance(event, bytes | None) else encode(event)
    return Message(UPDATES, 3, offset, key, value, at, headers)


def failing(error: Exception, times: int, act: Callable[..., Any]) -> Callable[..., Any]:
    """The act, which fails this many times first."""
    left = [error] * times

    def attempt(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return act(*arguments)

    return attempt
