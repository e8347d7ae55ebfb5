"""The state of an index at one moment, read from a store that has no snapshots (docs/adr/0015).

A scan of a million pins takes a minute, and the index changes meanwhile. So the scan is followed by rounds: each reads what was written since
shortly before the round before it began, and what is newer replaces what was read. Versions only grow, so a record found at the version it had
before did not change in between. The rounds end when the state of one moment is known:

- The embedded engine reads one page at one instant. A round of a single page is the end: every record that it does not hold is unchanged.
- A server reads a page while others write. There, two rounds in a row must find the same versions and vectors: whatever they hold did not change
  between them, and the moment is the one at which the second began. Until then the rounds go on; each is short, because little changes in the time of one.

Both rest on LAG_US: a write lands at most so long after its version was taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pins.changes import IndexedPin
from pins.errors import Unavailable
from pins.ports import PinIndex, Vector

Point = tuple[IndexedPin, Vector | None]

LAG_US = 10_000_000
"""The longest time from the clock reading that becomes a version to the write that carries it, the difference of the machines' clocks included.
Workers read the clock right before they write, so it is milliseconds, and at worst the time limit of a request to the index."""
PAGE = 256
"""Points read at once in the scan: some 12 ms of the owner of an embedded index, so that searches get their turn."""
AT_ONE_INSTANT = 4096
"""Points read at once in a round, which must be one page where a page is read at one instant."""


class Taken(Protocol):
    """Takes points as they are read. A pin that comes again replaces what came before."""

    def add(self, points: Sequence[Point], *, again: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How the end is found. `page_at_one_instant`: what the store promises; `settle_s`: how long rounds may go on."""

    page_at_one_instant: bool
    settle_s: float = 60.0


def read_at_one_moment(
    index: PinIndex, taken: Taken, since_us: int, clock: Callable[[], int], patience: Patience, step: Callable[[int], None] = lambda n: None
) -> tuple[int, int]:
    """Give `taken` every point that was written after `since_us` (0: all), so that together they are the state of one moment.

    Returns that moment, in epoch microseconds of this clock, and the number of rounds. `step` is told how many points each page of the scan had.
    Raises Unavailable, also when the index never stands still for a round.
    """
    began = clock()
    for points in _pages(index, max(0, since_us - LAG_US), PAGE):
        taken.add(points, again=False)
        step(len(points))
    seen: dict[str, tuple[int, int]] = {}
    since, rounds, deadline = began - LAG_US, 0, time.monotonic() + patience.settle_s
    while True:
        began, changed, pages = clock(), 0, 0
        for points in _pages(index, since, AT_ONE_INSTANT):
            news = [point for point in points if point[0].pin_id and seen.get(point[0].pin_id) != _identity(point)]
            taken.add(news, again=True)
            seen |= {point[0].pin_id: _identity(point) for point in news}
            changed, pages = changed + len(news), pages + 1
        rounds += 1
        if not changed:
            return began, rounds
        if pages == 1 and patience.page_at_one_instant:
            return clock(), rounds
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the index never stood still: in the last of {rounds} looks {changed} pins had changed within {(clock() - began) / 1e6:.2f} s; "
                "export when less is written, or pause the backfill for a moment"
            )
        since = began - LAG_US


def _identity(point: Point) -> tuple[int, int]:
    """Version and vector: a server that is caught in the middle of a write may give the one before the other."""
    record, vector = point
    return record.v, 0 if vector is None else hash(vector.tobytes())


def _pages(index: PinIndex, newer_than: int, limit: int) -> Iterator[Sequence[Point]]:
    cursor = ""
    while True:
        points, cursor = index.page_of_points(cursor, limit, newer_than)
        yield points
        if not cursor:
            return
