"""What a worker does with a batch of raw messages, whoever delivered them: decode, apply, report. Faust stays outside.

The promise: when `handle` returns, every message of the batch has its outcome on disk or in a topic, and may be
acknowledged. When it raises, nothing may be. Unavailable stores are waited for here, without polling on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from pins.errors import EverpinError, FeaturesBehind, InvalidEvent, Unavailable
from pins.events import PinEvent, decode
from pins.indexer import BatchReport, Outcome, PinIndexer
from streams.broker import DEAD, EMBEDDED, PARKED
from streams.parking import wait_s

T = TypeVar("T")
log = logging.getLogger("everpin.worker")
MAX_DEAD_VALUE_BYTES = 900_000
"""A longer value is cut in its dead letter: with headers it might not fit into the topic, and would stop the worker."""
MAX_DEAD_KEY_BYTES = 2_000
"""Any pin id fits; a longer key is cut likewise."""
MAX_DIGITS = 18
"""Of a number in a header: all that 64 bits surely hold."""
FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0
CLOCK_SKEW_US = 10_000_000
"""How far apart the clocks of producers and workers may be for every vector to be announced."""


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message. `timestamp_us` is the broker's time of it, in epoch microseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_us: int
    headers: Mapping[str, bytes] = field(default_factory=dict)


class Send(Protocol):
    """Publish one message and return when the broker has it. Raises Unavailable."""

    def __call__(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> Awaitable[None]: ...


class Observer(Protocol):
    """Where a worker reports what it did; `everpin.telemetry` keeps the figures."""

    def batch(self, messages: Sequence[Message], report: BatchReport, freshness_s: Sequence[float], seconds: float) -> None: ...
    def dead_letter(self, reason: str) -> None: ...
    def retried(self) -> None: ...
    def parked(self) -> None: ...
    def ready(self, ready: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a worker is patient. Seconds, but for `dead_letters`: how many in excess of good messages."""

    retry_budget_s: float
    dead_letters: int
    park_delay_s: float
    park_deadline_s: float


class TooManyDeadLetters(EverpinError):
    """Every event fails: the deploy is bad, not the data. Stop and leave the rest where it is."""


class Worker:
    """Handles batches one at a time. The indexer runs in one thread of its own, so that heartbeats go on meanwhile."""

    def __init__(
        self, indexer: PinIndexer, send: Send, observer: Observer, limits: Limits, clock: Callable[[], int], prepare: Callable[[], None] | None = None
    ) -> None:
        """`prepare` is called once, in the indexer's thread, before anything else is."""
        self.indexer, self.send, self.observer, self.limits, self.clock = indexer, send, observer, limits, clock
        self._thread = ThreadPoolExecutor(1, "everpin-indexer", prepare)
        self._dead_in_excess = 0
        self._silent: set[str] = set()
        self._retries = 0
        self._assigned_us = clock()

    async def handle(self, messages: Sequence[Message]) -> None:
        """Bring the index up to date with these messages. Raises Unavailable or TooManyDeadLetters: acknowledge nothing."""
        started, retries = time.perf_counter(), self._retries
        events, dead = self._decode(messages)
        report = await self.patiently("the stores", lambda: self._apply([event for event, _ in events]))
        late = {id(event): error for event, error in report.behind}
        unwritten = {id(event): error for event, error in report.unwritten}
        ready = [(event, message) for event, message in events if id(event) not in late and id(event) not in unwritten]
        dead += [(message, unwritten[id(event)]) for event, message in events if id(event) in unwritten]
        dead += [(message, report.refused[event.pin_id]) for event, message in ready if event.pin_id in report.refused]
        self._count_dead(len(dead), len(messages) - len(dead))
        freshness = await self._announce(report, ready, retried=self._retries > retries)
        await asyncio.gather(*(self._dead_letter(message, error) for message, error in dead))
        await asyncio.gather(*(self._park(message, late[id(event)]) for event, message in events if id(event) in late))
        seconds = time.perf_counter() - started
        self.observer.batch(messages, report, freshness, seconds)
        log.info(
            "batch messages=%d outcomes=%d encoded=%d dead=%d parked=%d ms=%.0f",
            len(messages),
            len(report.outcomes),
            report.encoded,
            len(dead),
            len(report.behind),
            seconds * 1000,
        )

    def assigned(self) -> None:
        """Partitions were given to this worker: what was sent before now may have been in another's hands."""
        self._assigned_us = self.clock()

    async def in_indexer(self, act: Callable[[], T]) -> T:
        """Run a function in the indexer's thread, between two batches: the feature store must not be used from two threads."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    async def bury(self, dead: Sequence[tuple[Message, EverpinError]], fine: int) -> None:
        """Send messages of another topic than pin-updates to dead letters; `fine` good ones came with them. Raises Unavailable, TooManyDeadLetters."""
        self._count_dead(len(dead), fine)
        await asyncio.gather(*(self._dead_letter(message, error) for message, error in dead))

    def close(self) -> None:
        """Let the call in flight end."""
        self._thread.shutdown(wait=True)

    def _decode(self, messages: Sequence[Message]) -> tuple[list[tuple[PinEvent, Message]], list[tuple[Message, EverpinError]]]:
        events: list[tuple[PinEvent, Message]] = []
        dead: list[tuple[Message, EverpinError]] = []
        for message in messages:
            try:
                events.append((decode(message.key, message.value, timestamp_us=message.timestamp_us, now_us=self.clock()), message))
            except InvalidEvent as error:
                dead.append((message, error))
        return events, dead

    async def _apply(self, events: Sequence[PinEvent]) -> BatchReport:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.indexer.apply, events)

    async def patiently(self, what: str, act: Callable[[], Awaitable[T]]) -> T:
        """Act, with back-off while stores or topics (`what`) do not answer; one log line per change of state."""
        deadline, delay = time.monotonic() + self.limits.retry_budget_s, FIRST_RETRY_S
        while True:
            try:
                result = await act()
            except Unavailable as error:
                self._away(what, error)
                if time.monotonic() + delay > deadline:
                    raise
                self._retries += 1
                self.observer.retried()
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY_S)
            else:
                self._back(what)
                return result

    def _away(self, what: str, error: Unavailable) -> None:
        if what not in self._silent:
            self._silent.add(what)
            log.error("waiting up to %.0f s, nothing acknowledged: %s", self.limits.retry_budget_s, error)
        self.observer.ready(False)

    def _back(self, what: str) -> None:
        if what in self._silent:
            self._silent.remove(what)
            log.info("%s answer again", what)
            self.observer.ready(not self._silent)

    async def _publish(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        await self.patiently(f"writes to {topic}", lambda: self.send(topic, key, value, headers))

    def _count_dead(self, dead: int, fine: int) -> None:
        """Each good message forgives one dead letter: a trickle never stops the worker, a wave does even with good ones in it."""
        self._dead_in_excess = max(0, self._dead_in_excess + dead - fine)
        if self._dead_in_excess >= self.limits.dead_letters:
            raise TooManyDeadLetters(
                f"{self._dead_in_excess} more messages could not be used than could (limit EVERPIN_DEAD_LETTER_LIMIT={self.limits.dead_letters}); "
                "is this worker older than the producers? Nothing of the last batch was acknowledged"
            )

    async def _announce(self, report: BatchReport, events: Sequence[tuple[PinEvent, Message]], *, retried: bool) -> list[float]:
        """Publish a PinEmbedded for every vector that changed; returns the freshness of each, in seconds.

        A message that may have been taken before (by the partition's last worker, or by us, before a store failed) may find
        its vector made and not announced. A vector made after such a message was sent is therefore announced (again).
        """
        produced = {event.pin_id: message.timestamp_us for event, message in reversed(events)}
        repeatable_us = math.inf if retried else self._assigned_us + CLOCK_SKEW_US
        embedded = [outcome for outcome in report.outcomes if outcome.embedded]
        freshness = [(self.clock() - produced[outcome.pin_id]) / 1e6 for outcome in embedded]
        notices = list(zip(embedded, freshness, strict=True))
        notices += [
            (outcome, (outcome.embedded_at_us - produced[outcome.pin_id]) / 1e6)
            for outcome in report.outcomes
            if not outcome.embedded and produced[outcome.pin_id] <= min(repeatable_us, outcome.embedded_at_us + CLOCK_SKEW_US)
        ]
        await asyncio.gather(*(self._publish(EMBEDDED, outcome.pin_id.encode(), self._pin_embedded(outcome, seconds), {}) for outcome, seconds in notices))
        return freshness

    def _pin_embedded(self, outcome: Outcome, freshness_s: float) -> bytes:
        body = {"pin_id": outcome.pin_id, "model_id": self.indexer.index.model_id, "v": outcome.v, "reason": outcome.reason, "freshness_ms": freshness_s * 1000}
        return json.dumps(body, ensure_ascii=False).encode()

    async def _dead_letter(self, message: Message, error: EverpinError) -> None:
        reason = getattr(error, "reason", type(error).__name__)
        key, value = message.key, message.value
        detail = str(error)[:2000].encode("utf-8", "replace")
        headers = self._origin(message) | {"error": type(error).__name__.encode(), "reason": reason.encode(), "detail": detail}
        if value and len(value) > MAX_DEAD_VALUE_BYTES:
            headers["cut_from_bytes"] = str(len(value)).encode()
            value = value[:MAX_DEAD_VALUE_BYTES]
        if key and len(key) > MAX_DEAD_KEY_BYTES:
            headers["key_cut_from_bytes"] = str(len(key)).encode()
            key = key[:MAX_DEAD_KEY_BYTES]
        if key is None and value is None:  # Kafka's client sends no message of nothing
            headers["null_value"], value = b"1", b""
        await self._publish(DEAD, key, value, headers)
        self.observer.dead_letter(reason)

    async def _park(self, message: Message, late: FeaturesBehind) -> None:
        now_us = self.clock()
        since_us = header_int(message.headers, "parked_since_us") or now_us  # a replayed message waits anew
        waited_s = (now_us - since_us) / 1e6
        left_s = self.limits.park_deadline_s - waited_s
        if left_s <= 0:
            await self._dead_letter(message, late)
            return
        due_us = now_us + int(wait_s(waited_s, self.limits.park_delay_s, left_s) * 1e6)
        times = {"not_before_us": str(due_us).encode(), "parked_since_us": str(since_us).encode()}
        due = times | {"reason": late.reason.encode(), "detail": late.detail.encode()}
        await self._publish(PARKED, message.key, message.value, self._origin(message) | due)
        self.observer.parked()

    def _origin(self, message: Message) -> dict[str, bytes]:
        """Headers that tell where a message first came from and how often it was tried."""
        first = message.headers if "source_topic" in message.headers else {}
        return {
            "source_topic": first.get("source_topic", message.topic.encode()),
            "source_partition": first.get("source_partition", str(message.partition).encode()),
            "source_offset": first.get("source_offset", str(message.offset).encode()),
            "source_timestamp_us": first.get("source_timestamp_us", str(message.timestamp_us).encode()),
            "attempts": str(header_int(message.headers, "attempts") + 1).encode(),
            "first_failure_us": str(header_int(message.headers, "first_failure_us") or self.clock()).encode(),
        }


def header_int(headers: Mapping[str, bytes], name: str) -> int:
    """A number that a worker wrote into a header; 0 where there is none. Headers of others are no reason to stop."""
    value = headers.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= MAX_DIGITS else 0
