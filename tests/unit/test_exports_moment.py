"""An export is the state of one moment, whatever is written while it is read: every interleaving that the store allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpin.exports import moment
from everpin.exports.moment import LAG_US, Patience, Point, read_at_one_moment
from pins.changes import IndexedPin
from pins.errors import Unavailable
from pins.ports import PointWrite, Vector
from tests.fakes import FakeIndex
from tests.unit.samples import T0

State = dict[str, int]
PINS = st.sampled_from([f"p{n}" for n in range(7)])
WRITES = st.lists(st.tuples(PINS, st.sampled_from(["vector", "deleted", "textless"]), st.integers(0, LAG_US - 1_000_000)), max_size=25)


@dataclass
class Clock:
    """A millisecond passes with each look."""

    now_us: int = T0

    def __call__(self) -> int:
        self.now_us += 1000
        return self.now_us


@dataclass
class Written:
    """An index with a writer that writes some of its writes each time somebody reads, and the states the index was in, each with its time.

    `one_instant`: a page is read between two writes, as by the embedded engine; else the writer also comes in between two points of a page.
    """

    writes: Iterator[tuple[str, str, int]]
    turns: Iterator[int]
    one_instant: bool
    clock: Clock = field(default_factory=Clock)
    index: FakeIndex = field(default_factory=FakeIndex)
    states: list[tuple[int, State]] = field(default_factory=list)
    reading: bool = False
    model_id: str = FakeIndex.model_id

    def write(self, pin_id: str, what: str, lag_us: int) -> None:
        """Write a pin with a version that was taken `lag_us` ago, as a slow writer does."""
        known = self.index.known([pin_id]).get(pin_id)
        v = max(self.clock() - lag_us, (known.v if known else 0) + 1)
        record = IndexedPin(pin_id, v, dead=what == "deleted", embedded=what == "vector", model_id=self.model_id)
        vector = np.full(8, v % 1000, np.float32) if what == "vector" else None
        assert self.index.write([PointWrite(record, known.v if known else None, vector)])
        self.states.append((self.clock(), {pin: stored.v for pin, (stored, vector) in self.index.points.items() if vector is not None}))

    def others_write(self) -> None:
        for _ in range(next(self.turns, 1)):
            if write := next(self.writes, None):
                self.write(*write)

    def page_of_points(self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False) -> tuple[Sequence[Point], str]:
        self.others_write()
        if self.one_instant:
            return self.index.page_of_points(cursor, limit, newer_than, bare=bare)
        found: list[Point] = []
        for pin_id in sorted(pin_id for pin_id in self.index.points if pin_id >= cursor):
            self.others_write()
            if not newer_than or self.index.points[pin_id][0].v > newer_than:
                if len(found) == limit:
                    return found, pin_id
                record, vector = self.index.points[pin_id]
                found.append((record, None if bare else vector))
        return found, ""

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        self.others_write()
        return self.index.known(pin_ids)

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        self.others_write()
        return self.index.vectors(pin_ids)


class Held:
    """What an export is made of: the last point of each pin."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}

    def add(self, points: Sequence[Point], *, again: bool) -> None:
        self.points |= {record.pin_id: (record, vector) for record, vector in points}

    def state(self) -> State:
        return {pin_id: record.v for pin_id, (record, vector) in self.points.items() if vector is not None}

    def vectors(self) -> dict[str, Vector]:
        return {pin_id: vector for pin_id, (_, vector) in self.points.items() if vector is not None}


def taken_from(written: Written, *, settle_s: float = 60.0) -> tuple[Held, int, int]:
    held = Held()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moment, "PAGE", 2)
        patch.setattr(moment, "AT_ONE_INSTANT", 8 if written.one_instant else 3)
        at_us, rounds = read_at_one_moment(written, held, 0, written.clock, Patience(written.one_instant, settle_s))  # type: ignore[arg-type]  # read only
    return held, at_us, rounds


@given(WRITES, WRITES, st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), max_size=80), st.booleans())
def test_what_is_read_is_the_state_of_the_moment_that_is_named(
    before: list[tuple[str, str, int]], during: list[tuple[str, str, int]], turns: list[int], one_instant: bool
) -> None:
    written = Written(iter(during), iter(turns), one_instant)
    written.states.append((0, {}))
    for write in before:
        written.write(*write)
    assert_true(written)


def assert_true(written: Written) -> None:
    held, at_us, _ = taken_from(written)
    then = [state for time_us, state in written.states if time_us <= at_us][-1]
    assert held.state() == then
    assert {pin_id: vector[0] for pin_id, vector in held.vectors().items()} == {pin_id: v % 1000 for pin_id, v in then.items()}


@pytest.mark.parametrize("one_instant", [True, False])
def test_two_writes_may_come_at_any_two_moments(one_instant: bool) -> None:
    writes = [("p1", "vector", LAG_US - 1_000_000), ("p0", "deleted", LAG_US - 1_000_000), ("p3", "vector", 1), ("p1", "vector", 1)]
    last = 0
    for one in range(30):
        for other in range(one, 30):
            for pair in ((writes[0], writes[1]), (writes[2], writes[0]), (writes[0], writes[3])):
                turns = [int(turn == one) + int(turn == other) for turn in range(200)]
                written = Written(iter(pair), iter(turns), one_instant)
                for number in range(3):
                    written.write(f"p{number}", "vector", 5_000_001)
                assert_true(written)
                last = max(last, other) if len(written.states) == 5 else last
    assert last >= (3 if one_instant else 20), "the later moments were never reached"


def late_during_the_scan(one_instant: bool) -> Written:
    """Behind the reader's back a pin is written that it has read, with a version of before it began."""
    written = Written(iter([("p0", "vector", LAG_US - 1_000_000)]), iter([0, 1]), one_instant)
    for n in range(5):
        written.write(f"p{n}", "vector", LAG_US - 500_000)
    return written


def test_a_write_that_lands_late_during_the_scan_is_found() -> None:
    written = late_during_the_scan(one_instant=True)
    held, _, _ = taken_from(written)
    assert held.state() == written.states[-1][1]


def test_a_write_that_lands_late_during_a_round_is_found_by_the_next() -> None:
    written = Written(iter([("p0", "vector", LAG_US - 1_000_000)]), iter([0, 0, 0, 0, 0, 1]), one_instant=False)
    for n in range(2):
        written.write(f"p{n}", "vector", LAG_US - 500_000)
    held, at_us, _ = taken_from(written)
    assert held.state() == next(state for time_us, state in reversed(written.states) if time_us <= at_us)


def test_a_store_that_reads_a_page_at_one_instant_needs_no_quiet() -> None:
    def hammering() -> Iterator[tuple[str, str, int]]:
        while True:
            yield from [("p1", "vector", 0), ("p2", "deleted", 0), ("p2", "vector", 0)]

    written = Written(hammering(), iter([]), one_instant=True)
    held, _, rounds = taken_from(written)
    assert rounds == 1
    assert held.state() == written.states[-1][1]


def test_one_that_does_not_says_so_when_it_never_stands_still() -> None:
    def hammering() -> Iterator[tuple[str, str, int]]:
        while True:
            yield ("p1", "vector", 0)

    written = Written(hammering(), iter([]), one_instant=False)
    with pytest.raises(Unavailable, match=r"never stood still: in the last of \d+ looks [12] pins had changed.*pause the backfill"):
        taken_from(written, settle_s=0.0)


def test_an_index_at_rest_is_read_once_and_looked_at_once() -> None:
    written = Written(iter([]), iter([]), one_instant=False)
    for n in range(5):
        written.write(f"p{n}", "vector", 0)
    written.clock.now_us += 2 * LAG_US
    held, at_us, rounds = taken_from(written)
    assert (held.state(), rounds) == (written.states[-1][1], 1)
    assert at_us <= written.clock.now_us


class Torn(FakeIndex):
    """A server that is caught in the middle of a write: once, a pin's new version comes with its old vector."""

    torn = False

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        first, self.torn = not self.torn, True
        return {pin_id: np.zeros(8, np.float32) if first else vector for pin_id, vector in super().vectors(pin_ids).items()}


def test_a_vector_that_is_older_than_its_record_is_read_again() -> None:
    index = Torn()
    written = Written(iter([]), iter([]), one_instant=False, index=index)
    written.write("p", "vector", 1)
    held = Held()
    read_at_one_moment(index, held, 0, written.clock, Patience(page_at_one_instant=False))
    assert index.torn
    assert held.vectors()["p"].any()


def test_a_point_that_names_no_pin_never_keeps_the_rounds_going() -> None:
    written = Written(iter([]), iter([]), one_instant=False)
    for n in range(2):
        written.index.points[f"nameless{n}"] = IndexedPin("", T0 + n, dead=False, embedded=True, model_id="fake-v1"), np.ones(8, np.float32)
    assert taken_from(written)[2] == 1
