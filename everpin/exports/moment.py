"""The state of an index at one moment, read from a store that has no snapshots (docs/adr/0015).

A scan of a million pins takes a minute, and the index changes meanwhile. So the scan is followed by rounds: each looks at what was written since
shortly before the round before it began, and what is newer replaces what was read. Versions only grow, so a record found at the version it had
before did not change in between. The rounds end when the state of one moment is known:

- The embedded engine reads one page at one instant. A round of a single page is the end: every record that it does not hold is unchanged.
- A server reads a page while others write. There, a round must find every version as the round before left it: nothing changed between the two, and
  the moment is the one at which the second began. Until then the rounds go on; each is short, because it asks for versions and reads what changed.

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
    rounds = _until_one_page if patience.page_at_one_instant else _until_nothing_changes
    return rounds(index, taken, began, clock, time.monotonic() + patience.settle_s)


def _until_one_page(index: PinIndex, taken: Taken, began: int, clock: Callable[[], int], deadline: float) -> tuple[int, int]:
    """While much has changed, in small pages; at the end in one."""
    limit, rounds = PAGE, 0
    while True:
        since, began, read, pages = began - LAG_US, clock(), 0, 0
        for points in _pages(index, since, limit):
            taken.add(points, again=True)
            read, pages = read + len(points), pages + 1
        rounds += 1
        if pages == 1:
            return clock(), rounds
        _require_time(deadline, rounds, read, clock() - began)
        limit = AT_ONE_INSTANT if read <= AT_ONE_INSTANT else PAGE


def _until_nothing_changes(index: PinIndex, taken: Taken, began: int, clock: Callable[[], int], deadline: float) -> tuple[int, int]:
    """What a round reads is read again by the next: a server caught in the middle of a write may give a version before its vector."""
    seen: dict[str, tuple[float, int]] = {}
    anew: set[str] = set()
    rounds = 0
    while True:
        since, began = began - LAG_US, clock()
        versions = {record.pin_id: record.v for points in _pages(index, since, AT_ONE_INSTANT, bare=True) for record, _ in points if record.pin_id}
        anew |= {pin_id for pin_id, v in versions.items() if pin_id not in seen or seen[pin_id][0] != v}
        news = [point for point in _points(index, sorted(anew)) if seen.get(point[0].pin_id) != _identity(point)]
        rounds += 1
        if not news:
            return began, rounds
        taken.add(news, again=True)
        anew = {record.pin_id for record, _ in news}
        seen |= {point[0].pin_id: _identity(point) for point in news}
        _require_time(deadline, rounds, len(news), clock() - began)


def _require_time(deadline: float, rounds: int, changed: int, took_us: int) -> None:
    if time.monotonic() > deadline:
        raise Unavailable(
            f"the index never stood still: in the last of {rounds} looks {changed} pins had changed, within {took_us / 1e6:.2f} s; "
            "export when less is written, or pause the backfill for a moment"
        )


def _identity(point: Point) -> tuple[float, int]:
    """Version and vector."""
    record, vector = point
    return record.v, 0 if vector is None else hash(vector.tobytes())


def _points(index: PinIndex, pin_ids: Sequence[str]) -> Iterator[Point]:
    """What is written between the reading of a record and that of its vector shows in the next round."""
    for start in range(0, len(pin_ids), PAGE):
        part = pin_ids[start : start + PAGE]
        known, vectors = index.known(part), index.vectors(part)
        yield from ((record, vectors.get(pin_id)) for pin_id, record in known.items())


def _pages(index: PinIndex, newer_than: int, limit: int, *, bare: bool = False) -> Iterator[Sequence[Point]]:
    cursor = ""
    while True:
        points, cursor = index.page_of_points(cursor, limit, newer_than, bare=bare)
        yield points
        if not cursor:
            return
