"""Whatever the order, doubling and batching of a history of events, the index ends as the newest features say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from hypothesis import event as note
from hypothesis import given
from hypothesis import strategies as st

from pins.changes import IndexedPin, surface_fields
from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.features import PinFeatures, pin_features
from pins.indexer import BatchReport, PinIndexer
from pins.ports import PointWrite, Vector
from pins.text import PinText, render
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex
from tests.unit.samples import T0, row

PINS = ("a", "b", "c")
BOUND = 0.4


def _words(size: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(["red", "Red", "chair", "by", "the", "sea", "lake"]), max_size=size).map(" ".join)


NEAR_MISSES = st.sampled_from(["a red chair by the sea", "a red chair by the lake", "A RED chair by the sea", ""])
VIEWS: Sequence[st.SearchStrategy[Mapping[str, Any]]] = (
    st.builds(lambda words: {"pin_caption": {"caption": words}}, _words(7) | NEAR_MISSES),
    st.builds(lambda title, category: {"pin_content": row("pin_content", title=title, category=category)}, _words(2), st.sampled_from(["food", "home"])),
    st.builds(lambda titles: {"pin_boards": {"board_titles": titles}}, st.lists(st.sampled_from(["Soups", "Chairs"]), max_size=2)),
    st.just({"pin_status": {"deleted": 0}}),
)
CARRIED = st.builds(lambda one, other: {**one, **other}, st.one_of(VIEWS), st.just({}) | st.one_of(VIEWS))
UPDATED = st.builds(PinUpdated, st.sampled_from(PINS), st.just(0), CARRIED)
DELETED = st.builds(PinDeleted, st.sampled_from(PINS), st.just(0))


def _timed(event: PinEvent, at: int) -> PinEvent:
    return PinDeleted(event.pin_id, at) if isinstance(event, PinDeleted) else PinUpdated(event.pin_id, at, event.features)


@st.composite
def histories(draw: st.DrawFn) -> list[PinEvent]:
    """Events in the order in which they happened, no two at the same time."""
    made = draw(st.lists(UPDATED | UPDATED | UPDATED | DELETED, min_size=1, max_size=14))
    return [_timed(event, T0 + at) for at, event in enumerate(made)]


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[PinEvent]]:
    """A history as a broker may deliver it: some events doubled, all in any order, cut into batches."""
    history = draw(histories())
    doubled = draw(st.lists(st.sampled_from(history), max_size=5))
    return _batches(draw, draw(st.permutations(history + doubled)))


@st.composite
def in_order(draw: st.DrawFn) -> list[list[PinEvent]]:
    """A history as it happened, cut into batches."""
    return _batches(draw, draw(histories()))


def _batches(draw: st.DrawFn, events: Sequence[PinEvent]) -> list[list[PinEvent]]:
    cuts = sorted(draw(st.sets(st.integers(1, len(events)), max_size=5)))
    return [list(events[start:end]) for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True) if start < end]


def newest(events: Sequence[PinEvent]) -> dict[str, PinFeatures]:
    """The oracle: each pin as the newest row of each of its views has it, in whatever order the events came."""
    rows: dict[str, dict[str, tuple[int, Mapping[str, Any]]]] = {}
    for event in events:
        carried = {"pin_status": {"deleted": 1}} if isinstance(event, PinDeleted) else event.features
        for view, values in carried.items():
            of_pin = rows.setdefault(event.pin_id, {})
            of_pin[view] = max(of_pin.get(view, (0, {})), (event.event_time_us, values), key=lambda dated: dated[0])
    return {pin_id: _flat(pin_id, views) for pin_id, views in rows.items()}


def _flat(pin_id: str, views: Mapping[str, tuple[int, Mapping[str, Any]]]) -> PinFeatures:
    values = {name: value for _, columns in views.values() for name, value in columns.items()}
    return pin_features(pin_id, values, {view: at for view, (at, _) in views.items()})


@dataclass(frozen=True)
class Written:
    """A write that landed."""

    record: IndexedPin
    vector: Vector | None
    kept: bool


class LoggedIndex(FakeIndex):
    """A FakeIndex that keeps every write that landed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Written] = []

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        landed = super().write(points)
        self.log += [Written(point.record, point.vector, point.keep_vector) for point in points if point.record.pin_id in landed]
        return landed


class World:
    """Any number of workers on one feature store and one index; a test says whose turn it is."""

    def __init__(self, threshold: float | None = None, clocks: Sequence[Iterator[int]] = (count(T0),)) -> None:
        self.features, self.index = FakeFeatures(), LoggedIndex()
        self.encoder = FakeEncoder(threshold)
        self.workers = [PinIndexer(self.features, self.encoder, self.index, clock.__next__) for clock in clocks]
        self.delivered: list[PinEvent] = []

    def apply(self, batch: Sequence[PinEvent], worker: int = 0) -> BatchReport:
        self.delivered += batch
        return self.workers[worker].apply(batch)

    def must_be_true_to_the_newest_features(self) -> None:
        """Everything but versions and times is as the oracle says."""
        expected = newest(self.delivered)
        assert self.index.points.keys() == {event.pin_id for event in self.delivered}
        for pin_id, (record, vector) in self.index.points.items():
            pin = expected.get(pin_id)
            if pin is None or pin.deleted:
                assert (record.dead, record.text, record.fields, vector) == (True, "", {}, None)
                continue
            text = render(pin)
            assert (record.dead, record.embedded, record.text, record.fields) == (False, bool(text), text.text, surface_fields(pin, text))
            if text:
                assert vector is not None
                np.testing.assert_array_equal(vector, self.encoder.query(text.text))
            else:
                assert vector is None

    def must_have_embedded_nothing_twice(self) -> None:
        """No pin got a vector of the text that its vector was made from already."""
        last: dict[str, str | None] = {}
        for written in self.index.log:
            pin_id, text = written.record.pin_id, written.record.text
            if written.vector is not None:
                assert last.get(pin_id) != text
            if not written.kept:
                last[pin_id] = text if written.vector is not None else None


@given(deliveries())
def test_a_history_ends_the_same_however_it_is_delivered(batches: list[list[PinEvent]]) -> None:
    world = World()
    for batch in batches:
        report = world.apply(batch)
        assert not report.refused
        assert sorted(outcome.pin_id for outcome in report.outcomes) == sorted({event.pin_id for event in batch})
        world.must_be_true_to_the_newest_features()
    world.must_have_embedded_nothing_twice()


@given(deliveries())
def test_a_history_delivered_again_changes_nothing(batches: list[list[PinEvent]]) -> None:
    world = World()
    for batch in batches:
        world.apply(batch)
    points, encoded = dict(world.index.points), len(world.encoder.encoded)
    for batch in batches:
        world.apply(batch)
    assert world.index.points == points
    assert len(world.encoder.encoded) == encoded


@given(deliveries())
def test_a_deleted_pin_never_comes_back(batches: list[list[PinEvent]]) -> None:
    world = World()
    world.apply([PinDeleted(pin_id, T0 + 1_000) for pin_id in PINS])
    for batch in batches:
        world.apply(batch)
        assert world.index.counts() == {"live": 0, "textless": 0, "dead": len(PINS), "refused": 0}
    assert world.encoder.encoded == []


@given(deliveries(), st.lists(st.integers(T0 - 10**9, T0 + 10**9), min_size=2, max_size=2))
def test_the_newest_features_win_between_workers_that_interleave_at_every_write(batches: list[list[PinEvent]], starts: list[int]) -> None:
    world = World(clocks=[count(start) for start in starts])
    left = list(enumerate(batches))

    def other_worker() -> None:
        if left:
            turn, batch = left.pop(0)
            world.apply(batch, worker=turn % 2)

    world.index.on_write = other_worker
    while left:
        other_worker()
    note(f"{len(batches)} batches")
    world.must_be_true_to_the_newest_features()
    world.must_have_embedded_nothing_twice()


@given(deliveries())
def test_versions_of_a_pin_only_grow_whatever_the_clocks_say(batches: list[list[PinEvent]]) -> None:
    world = World(clocks=[count(T0), count(T0 + 10**9, -1), count(0)])
    seen: dict[str, int] = {}
    for turn, batch in enumerate(batches):
        world.apply(batch, worker=turn % 3)
    for written in world.index.log:
        assert written.record.v > seen.get(written.record.pin_id, -1)
        seen[written.record.pin_id] = written.record.v


@given(in_order() | deliveries())
def test_with_cosmetic_changes_kept_no_vector_drifts_beyond_the_bound(batches: list[list[PinEvent]]) -> None:
    world = World(BOUND)
    for batch in batches:
        world.apply(batch)
        for pin_id, pin in newest(world.delivered).items():
            record, vector = world.index.points[pin_id]
            text = PinText("") if pin.deleted else render(pin)
            assert record.embedded == bool(text)
            assert record.fields == ({} if pin.deleted else surface_fields(pin, text))
            if text:
                assert vector is not None
                np.testing.assert_array_equal(vector, world.encoder.query(record.text))
                assert world.encoder.drift(record.text, text.text) <= BOUND
    world.must_have_embedded_nothing_twice()
