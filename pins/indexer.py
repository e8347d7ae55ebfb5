"""The write side: a batch of events in, one guarded write per changed pin out. Gather, decide, act.

Order of reading: the records FIRST, then the features, so that a snapshot is never older than the record it is compared
with. Each write lands only while the record is still the one that was read (compare-and-set, docs/adr/0002): a writer that
lost a race reads and decides again, so snapshots never go backwards, whatever any clock says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from pins.changes import Embed, Fingerprint, IndexedPin, Remove, Skip, Touch, decide, fingerprint, surface_fields
from pins.errors import FeaturesBehind, Unavailable, Unembeddable
from pins.events import PinDeleted, PinEvent, PinUpdated, latest_per_pin
from pins.features import FeatureRow, PinFeatures
from pins.ports import Encoder, FeatureSource, PinIndex, PointWrite, Vector
from pins.text import PinText, render

MAX_ROUNDS = 8
"""How often a pin may lose a race in one batch. One writer of a pin wins every round, so this is many rivals."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pin. `embedded`: its vector is new; `v`: version of its record, 0 where there is none."""

    pin_id: str
    reason: str
    embedded: bool = False
    v: int = 0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One entry per pin of the batch: its outcome, or the error that kept it from one."""

    outcomes: Sequence[Outcome]
    refused: Mapping[str, Unembeddable] = field(default_factory=dict)
    behind: Mapping[str, FeaturesBehind] = field(default_factory=dict)
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """A pin of this round: what was read and what was decided."""

    pin: PinFeatures | None
    text: PinText
    known: IndexedPin | None
    action: Embed | Touch | Remove | Skip


class PinIndexer:
    """Applies events to the index. Holds its three outsides and a clock (epoch microseconds); keeps no state of its own."""

    def __init__(self, features: FeatureSource, encoder: Encoder, index: PinIndex, clock: Callable[[], int]) -> None:
        self.features, self.encoder, self.index, self.clock = features, encoder, index, clock

    def apply(self, events: Iterable[PinEvent]) -> BatchReport:
        """Bring the index up to date with every pin these events speak of.

        Raises Unavailable when a store does not answer; applying the same events again is then safe and right.
        """
        events = list(events)
        self.features.write([row for event in events for row in feature_rows(event)])
        pending = {event.pin_id: event for event in latest_per_pin(events)}
        vectors: dict[Fingerprint, Vector | Unembeddable] = {}
        done: list[Outcome] = []
        refused: dict[str, Unembeddable] = {}
        behind: dict[str, FeaturesBehind] = {}
        for attempt in range(MAX_ROUNDS):
            plans, late = self._gather(pending)
            behind |= late
            done += [Outcome(pin_id, _skipped(plan, attempt), v=plan.known.v) for pin_id, plan in plans.items() if isinstance(plan.action, Skip) and plan.known]
            acting = {pin_id: plan for pin_id, plan in plans.items() if not isinstance(plan.action, Skip)}
            self._encode([plan.text.text for plan in acting.values() if isinstance(plan.action, Embed)], vectors)
            landed, wrong = self._act(acting, vectors)
            refused |= wrong
            done += landed
            pending = {pin_id: pending[pin_id] for pin_id in acting.keys() - wrong.keys() - {one.pin_id for one in landed}}
            if not pending:
                return BatchReport(done, refused, behind, len(vectors))
        raise Unavailable(f"{len(pending)} pins lost {MAX_ROUNDS} races for their record, {min(pending)!r} among them; are two backfills running?")

    def _gather(self, pending: Mapping[str, PinEvent]) -> tuple[dict[str, _Plan], dict[str, FeaturesBehind]]:
        known = self.index.known(list(pending))
        found = self.features.of(list(pending))
        plans: dict[str, _Plan] = {}
        behind: dict[str, FeaturesBehind] = {}
        for pin_id, event in pending.items():
            pin = found.get(pin_id)
            if late := _behind(event, pin):
                behind[pin_id] = late
                continue
            text = render(pin) if pin else PinText("")
            plans[pin_id] = _Plan(pin, text, known.get(pin_id), decide(pin, text, known.get(pin_id), self.encoder))
        return plans, behind

    def _encode(self, texts: Sequence[str], vectors: dict[Fingerprint, Vector | Unembeddable]) -> None:
        """Add the vector, or the refusal, of each text not yet there. A batch that fails is split until the culprit is alone."""
        missing = [text for text in dict.fromkeys(texts) if fingerprint(text) not in vectors]
        for text, vector in isolate(lambda some: list(self.encoder.encode(some)), missing):
            vectors[fingerprint(text)] = vector if isinstance(vector, Unembeddable) else self._checked(vector, text)

    def _checked(self, vector: Vector, text: str) -> Vector | Unembeddable:
        if np.isfinite(vector).all() and vector.any():
            return vector
        return Unembeddable("bad_vector", f"{self.encoder.model_id} gave a vector that is not finite or all zero for {text[:80]!r}")

    def _act(self, plans: Mapping[str, _Plan], vectors: Mapping[Fingerprint, Vector | Unembeddable]) -> tuple[list[Outcome], dict[str, Unembeddable]]:
        now_us = self.clock()
        writes, refused = [], {}
        for pin_id, plan in plans.items():
            vector = vectors.get(fingerprint(plan.text.text)) if isinstance(plan.action, Embed) else None
            if isinstance(vector, Unembeddable):
                refused[pin_id] = vector
            else:
                writes.append(point(pin_id, plan, vector, self.encoder.model_id, now_us))
        landed: list[Outcome] = []
        for write, result in isolate(lambda some: _landed(self.index.write(some), some), writes):
            record = write.record
            if isinstance(result, Unembeddable):
                refused[record.pin_id] = result
            elif result:
                landed.append(Outcome(record.pin_id, plans[record.pin_id].action.reason, write.vector is not None, record.v))
        return landed, refused


def feature_rows(event: PinEvent) -> list[FeatureRow]:
    """The rows an event carries. A deletion is a feature too."""
    if isinstance(event, PinDeleted):
        return [FeatureRow("pin_status", event.pin_id, event.event_time_us, {"deleted": 1})]
    return [FeatureRow(view, event.pin_id, event.event_time_us, row) for view, row in event.features.items()]


def point(pin_id: str, plan: _Plan, vector: Vector | None, model_id: str, now_us: int) -> PointWrite:
    """The one write that carries out a plan. Its version is the clock's, but always above the record it replaces."""
    known, action = plan.known, plan.action
    v = max(now_us, known.v + 1 if known else 0)
    expected = known.v if known else None
    if plan.pin is None or isinstance(action, Remove):
        return PointWrite(IndexedPin(pin_id, v, dead=True, embedded=False, model_id=model_id, reason=action.reason), expected)
    now = fingerprint(plan.text.text)
    record = IndexedPin(
        pin_id, v, dead=False, embedded=bool(plan.text), model_id=model_id, text=plan.text.text, fingerprint=now, seen=now,
        fields=surface_fields(plan.pin, plan.text), reason=action.reason, embedded_at_us=now_us, as_of=plan.pin.as_of,
    )
    if isinstance(action, Touch) and known and action.reason != "no_text":
        record = replace(record, reason=known.reason, embedded_at_us=known.embedded_at_us)
        if not action.settled:
            record = replace(record, text=known.text, fingerprint=known.fingerprint)
        return PointWrite(record, expected, keep_vector=True)
    return PointWrite(record, expected, vector)


T = TypeVar("T")
R = TypeVar("R")


def isolate(act: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[tuple[T, R | Unembeddable]]:
    """Act on all items; when one is refused, halve until it is alone, so that one bad item never hurts another."""
    if not items:
        return []
    try:
        return list(zip(items, act(items), strict=True))
    except Unembeddable as error:
        if len(items) == 1:
            return [(items[0], error)]
    middle = len(items) // 2
    return isolate(act, items[:middle]) + isolate(act, items[middle:])


def _landed(ids: set[str], writes: Sequence[PointWrite]) -> list[bool]:
    return [write.record.pin_id in ids for write in writes]


def _skipped(plan: _Plan, attempt: int) -> str:
    """A pin found unchanged only after losing a race: the winner had the same text."""
    return "stale" if attempt and plan.action.reason == "unchanged" else plan.action.reason


def _behind(event: PinEvent, pin: PinFeatures | None) -> FeaturesBehind | None:
    if not isinstance(event, PinUpdated):
        return None
    as_of = pin.as_of if pin else {}
    for view, wanted_us in event.features_as_of.items():
        if as_of.get(view, 0) < wanted_us:
            return FeaturesBehind(event.pin_id, view, wanted_us, as_of.get(view, 0))
    return None
