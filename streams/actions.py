"""What a worker does with a batch of raw messages of `user-actions`: decode, merge into the stored histories, count.

The promise is that of `streams.worker`: when `handle` returns, every action is in the store or its message in dead letters, and all may be
acknowledged; when it raises, nothing may be. What happens to a history is decided in `pins.actions`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pins.actions import HistoryStore, UserEvent, decode, record
from pins.errors import EverpinError, InvalidEvent
from streams.worker import Message, Worker

log = logging.getLogger("everpin.actions")


class ActionWorker:
    """Handles batches of user actions with a worker's patience, in its indexer's thread. `observe` is told the outcomes of each batch."""

    def __init__(self, worker: Worker, store: HistoryStore, observe: Callable[[Mapping[str, int]], None]) -> None:
        self._worker, self._store, self._observe = worker, store, observe

    async def handle(self, messages: Sequence[Message]) -> None:
        """Bring the histories up to date with these messages. Raises Unavailable or TooManyDeadLetters: acknowledge nothing."""
        started = time.perf_counter()
        events, dead = self._decode(messages)
        outcomes = await self._worker.patiently("the feature store for user actions", lambda: self._worker.in_indexer(lambda: self._record(events)))
        await self._worker.bury(dead, len(events))
        self._observe(outcomes)
        log.info("batch actions=%d %s dead=%d ms=%.0f", len(messages), _words(outcomes), len(dead), (time.perf_counter() - started) * 1000)

    def _record(self, events: Sequence[UserEvent]) -> Counter[str]:
        return record(events, self._store, self._worker.clock())

    def _decode(self, messages: Sequence[Message]) -> tuple[list[UserEvent], list[tuple[Message, EverpinError]]]:
        events: list[UserEvent] = []
        dead: list[tuple[Message, EverpinError]] = []
        for message in messages:
            try:
                events.append(decode(message.key, message.value, timestamp_us=message.timestamp_us, now_us=self._worker.clock()))
            except InvalidEvent as error:
                dead.append((message, error))
        return events, dead


def _words(outcomes: Mapping[str, int]) -> str:
    return " ".join(f"{name}={number}" for name, number in sorted(outcomes.items()))
