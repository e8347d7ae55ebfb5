"""An indexer on fakes, and a rival of it, for the tests of `pins.indexer`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pins.changes import IndexedPin
from pins.events import PinEvent
from pins.indexer import BatchReport, Outcome, PinIndexer
from pins.ports import PointWrite, Vector
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex
from tests.unit.samples import T0

NOW = T0 + 1_000


class House:
    """An indexer on fakes, with a clock that a test sets. Keeps every write that was asked for."""

    def __init__(self, threshold: float | None = None) -> None:
        self.features, self.encoder, self.index = FakeFeatures(), FakeEncoder(threshold), FakeIndex()
        self.now = NOW
        self.indexer = PinIndexer(self.features, self.encoder, self.index, lambda: self.now)
        self.written: list[PointWrite] = []
        write = self.index.write

        def kept(points: Sequence[PointWrite]) -> set[str]:
            self.written += points
            return write(points)

        self.index.write = kept  # type: ignore[method-assign]

    def apply(self, *events: PinEvent) -> BatchReport:
        self.now += 1
        return self.indexer.apply(events)

    def outcome(self, *events: PinEvent) -> Outcome:
        report = self.apply(*events)
        assert not report.refused
        assert not report.behind
        (outcome,) = report.outcomes
        return outcome

    def record(self, pin_id: str = "p") -> IndexedPin:
        return self.index.points[pin_id][0]

    def vector(self, pin_id: str = "p") -> Vector | None:
        return self.index.points[pin_id][1]


def same(vector: Vector | None, text: str) -> bool:
    return vector is not None and bool((vector == FakeEncoder().query(text)).all())


def rival(house: House, events: Iterable[PinEvent]) -> None:
    """Another worker on the same stores, which applies these events just before the first write of the house's own indexer."""
    other = PinIndexer(house.features, FakeEncoder(), house.index, lambda: house.now)

    def meanwhile() -> None:
        house.index.on_write = lambda: None
        other.apply(events)

    house.index.on_write = meanwhile
