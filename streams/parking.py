"""Parked messages between their arrival and the time they are due. Held un-acknowledged, in memory, and boundedly many.

The topic is the memory: a worker that dies gives its parked messages to the next one. Each message waits for its own time,
so a pin whose features stay away holds up nobody else. Nothing here knows Kafka.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")
MOST_HELD = 4096
"""Messages held at once. Beyond them the partition is not read on until some are due: memory stays bounded."""
LONGEST_WAIT_S = 60.0
"""The longest time between two looks at one message."""


def wait_s(waited_s: float, first_s: float, left_s: float) -> float:
    """Seconds until the next look: as long again as it has waited so far, so each wait doubles, within these bounds."""
    return max(0.0, min(max(first_s, waited_s), LONGEST_WAIT_S, left_s))


class Parking(Generic[T]):
    """Messages by the time they are due, in epoch microseconds of `clock`."""

    def __init__(self, clock: Callable[[], int], most: int = MOST_HELD) -> None:
        self._clock, self._most = clock, most
        self._held: list[tuple[int, int, T]] = []
        self._order = count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    async def hold(self, messages: Iterable[tuple[int, T]]) -> None:
        """Keep (due, message) pairs; waits while too many are held."""
        for due_us, message in messages:
            while len(self._held) >= self._most:
                await self._change()
            heapq.heappush(self._held, (due_us, next(self._order), message))
            self._changed.set()

    async def due(self, most: int) -> list[T]:
        """Wait until at least one message is due, then take up to `most` of those that are."""
        while not self._held or self._held[0][0] > self._clock():
            left_s = (self._held[0][0] - self._clock()) / 1e6 if self._held else None
            await self._change(left_s)
        taken: list[T] = []
        while self._held and len(taken) < most and self._held[0][0] <= self._clock():
            taken.append(heapq.heappop(self._held)[2])
        self._changed.set()
        return taken

    def forget(self, gone: Callable[[T], bool]) -> None:
        """Drop messages that are another worker's now."""
        self._held = [held for held in self._held if not gone(held[2])]
        heapq.heapify(self._held)
        self._changed.set()

    async def _change(self, timeout_s: float | None = None) -> None:
        """Wait until something is held, taken or dropped, at most this long."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return
