"""Parked messages between their arrival and the time they are due: held un-acknowledged, acknowledged in the order of the topic.

The topic is the memory: a worker that dies gives its parked messages to the next one. Each message waits for its own time,
so a pin whose features stay away holds up nobody else; but Faust commits past messages that are acknowledged out of order
(its gap test is off by one, and absent before the first commit), so what is done is acknowledged only when everything that
came before it on its partition is done too. Nothing here knows Kafka.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_HELD = 4096
"""Messages held beyond which the topic is not read on (`full`), until half of them are gone (`roomy`)."""
LONGEST_WAIT_S = 60.0
"""The longest time between two looks at one message."""


def wait_s(waited_s: float, first_s: float, left_s: float) -> float:
    """Seconds until the next look: as long again as it has waited so far, so each wait doubles, within these bounds."""
    return max(0.0, min(max(first_s, waited_s), LONGEST_WAIT_S, left_s))


@dataclass(eq=False, slots=True)
class Parked(Generic[T]):
    """One held message. `place` is its partition; `source` where its event first came from, the same in every copy of it."""

    due_us: int
    place: Hashable
    source: Hashable
    message: T
    done: bool = False


class Parking(Generic[T]):
    """Messages by the time they are due, in epoch microseconds of `clock`. `ack` is called in the order of each partition."""

    def __init__(self, clock: Callable[[], int], ack: Callable[[T], None], most: int = MOST_HELD) -> None:
        self._clock, self._ack, self._most = clock, ack, most
        self._due: list[tuple[int, int, Parked[T]]] = []
        self._order = count()
        self._delivered: dict[Hashable, deque[Parked[T]]] = {}
        self._newest: dict[Hashable, Parked[T]] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Messages held, those in hand included."""
        return sum(map(len, self._delivered.values()))

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        return len(self) >= self._most

    @property
    def roomy(self) -> bool:
        """Whether reading may go on."""
        return len(self) <= self._most // 2

    def hold(self, messages: Iterable[Parked[T]]) -> None:
        """Keep messages, in the order in which they came.

        Of two copies of one event, as a rebalance makes them, the later one stands for both: the earlier is done.
        """
        for parked in messages:
            self._delivered.setdefault(parked.place, deque()).append(parked)
            heapq.heappush(self._due, (parked.due_us, next(self._order), parked))
            earlier, self._newest[parked.source] = self._newest.get(parked.source), parked
            if earlier is not None:
                self.finish([earlier])
        self._changed.set()

    async def due(self, most: int) -> list[Parked[T]]:
        """Wait until at least one message is due, then take up to `most` of those that are. `finish` them when they are handled."""
        taken: list[Parked[T]] = []
        while not taken:
            while self._due and self._due[0][0] <= self._clock() and len(taken) < most:
                parked = heapq.heappop(self._due)[2]
                if not parked.done:
                    taken.append(parked)
            if not taken:
                await self._change((self._due[0][0] - self._clock()) / 1e6 if self._due else None)
        return taken

    def finish(self, handled: Iterable[Parked[T]]) -> None:
        """These are done: acknowledge them, and what waited for them, where nothing before them is left."""
        places: dict[Hashable, None] = {}
        for parked in handled:
            parked.done = True
            places[parked.place] = None
            if self._newest.get(parked.source) is parked:
                del self._newest[parked.source]
        for place in places:
            delivered = self._delivered.get(place, deque())
            while delivered and delivered[0].done:
                self._ack(delivered.popleft().message)

    def forget(self, gone: Callable[[Hashable], bool]) -> None:
        """Drop what came from partitions that are another worker's now. What is in hand of them is not acknowledged any more."""
        self._delivered = {place: delivered for place, delivered in self._delivered.items() if not gone(place)}
        self._due = [held for held in self._due if not gone(held[2].place)]
        heapq.heapify(self._due)
        self._newest = {source: parked for source, parked in self._newest.items() if not gone(parked.place)}
        self._changed.set()

    async def _change(self, timeout_s: float | None = None) -> None:
        """Wait until something is held or dropped, at most this long."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return
