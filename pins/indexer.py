"""The write side: a batch of events in, one guarded write per changed pin out. Gather, decide, act.

Order of reading: the records FIRST, then the features, so that a snapshot is never older than the record it is compared
with. Each write lands only while the record is still the one that was read (compare-and-set, docs/adr/0002): a writer that
lost a race reads and decides again, so snapshots never go backwards, whatever any clock says. One bad pin never hurts
another: what fails for many is halved until the culprit is alone, and the vector that the culprit had stays, marked.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from pins.changes import Embed, Fingerprint, IndexedPin, Remove, Skip, Touch, decide, fingerprint, surface_fields
from pins.errors import EverpinError, FeaturesBehind, FeaturesLost, Unavailable, Unembeddable
from pins.events import PinDeleted, PinEvent, PinUpdated, by_pin
from pins.features import FeatureRow, PinFeatures
from pins.ports import Encoder, FeatureSource, PinIndex, PointWrite, Vector
from pins.text import PinText, render

MAX_ROUNDS = 8
"""How often a pin may lose a race in one batch. One writer of a pin wins every round, so this is many rivals."""
VANISHED_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pin. `embedded`: its vector is new; `v`: version of its record, 0 where there is none.

    `embedded_at_us`: when the vector that was kept was made, 0 where there is none.
    """

    pin_id: str
    reason: str
    embedded: bool = False
    v: int = 0
    embedded_at_us: int = 0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch: an outcome or a refusal per pin, and the events that took no part in it.

    `unwritten`: events whose rows the feature store could not take; `behind`: events whose features have not arrived.
    """

    outcomes: Sequence[Outcome]
    refused: Mapping[str, Unembeddable] = field(default_factory=dict)
    unwritten: Sequence[tuple[PinEvent, Unembeddable]] = field(default_factory=list)
    behind: Sequence[tuple[PinEvent, FeaturesBehind]] = field(default_factory=list)
    encoded: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """A pin of this round: what was read and what was decided."""

    pin: PinFeatures | None
    text: PinText
    known: IndexedPin | None
    action: Embed | Touch | Remove | Skip


class PinIndexer:
    """Applies events to the index. Holds its three outsides and a clock (epoch microseconds).

    Its one piece of state is how many live pins, in excess of others, had no features left of late: `vanished_limit` of
    them are a feature store that lost its data, not deletions.
    """

    def __init__(self, features: FeatureSource, encoder: Encoder, index: PinIndex, clock: Callable[[], int], vanished_limit: int = VANISHED_LIMIT) -> None:
        self.features, self.encoder, self.index, self.clock = features, encoder, index, clock
        self.vanished_limit, self._vanished = vanished_limit, 0

    def apply(self, events: Iterable[PinEvent]) -> BatchReport:
        """Bring the index up to date with every pin these events speak of.

        Raises Unavailable when a store does not answer (applying the same events again is then safe and right), and
        FeaturesLost before anything is written.
        """
        events = list(events)
        written = list(isolate(self._write_features, events))
        unwritten = [(event, error) for event, error in written if isinstance(error, Unembeddable)]
        pending = by_pin(event for event, error in written if error is None)
        vectors: dict[Fingerprint, Vector | Unembeddable] = {}
        done: list[Outcome] = []
        refused: dict[str, Unembeddable] = {}
        behind: list[tuple[PinEvent, FeaturesBehind]] = []
        vanished = self._vanished
        for attempt in range(MAX_ROUNDS):
            plans, late, wrong = self._gather(pending)
            behind += late
            vanished = vanished if attempt else self._require_features(plans)
            skipping = [(pin_id, plan) for pin_id, plan in plans.items() if isinstance(plan.action, Skip)]
            done += [_skipped(pin_id, plan.known, plan.action.reason, attempt) for pin_id, plan in skipping if plan.known]
            acting = {pin_id: plan for pin_id, plan in plans.items() if not isinstance(plan.action, Skip)}
            self._encode([plan.text.text for plan in acting.values() if isinstance(plan.action, Embed)], vectors)
            landed, failed = self._act(acting, vectors)
            self._mark(failed, {pin_id: acting[pin_id].known for pin_id in failed})
            refused |= wrong | failed
            done += landed
            pending = {pin_id: pending[pin_id] for pin_id in acting.keys() - failed.keys() - {one.pin_id for one in landed}}
            if not pending:
                self._vanished = vanished
                return BatchReport(done, refused, unwritten, behind, len(vectors))
        raise Unavailable(f"{len(pending)} pins lost {MAX_ROUNDS} races for their record, {min(pending)!r} among them; are two backfills running?")

    def _write_features(self, events: Sequence[PinEvent]) -> Sequence[None]:
        self.features.write([row for event in events for row in feature_rows(event)])
        return [None] * len(events)

    def _gather(self, pending: Mapping[str, Sequence[PinEvent]]) -> tuple[dict[str, _Plan], list[tuple[PinEvent, FeaturesBehind]], dict[str, Unembeddable]]:
        """Read both stores and decide. A pin is decided unless all its events are behind: one that is late holds up no other."""
        known = self.index.known(list(pending))
        found = self.features.of(list(pending))
        behind = [(event, late) for events in pending.values() for event in events if (late := _behind(event, found.get(event.pin_id)))]
        waiting = {id(event) for event, _ in behind}
        ready = [(pin_id, some) for pin_id, events in pending.items() if (some := [event for event in events if id(event) not in waiting])]
        plans: dict[str, _Plan] = {}
        refused: dict[str, Unembeddable] = {}
        for (pin_id, _), plan in isolate(lambda some: [self._plan(events, found.get(one), known.get(one)) for one, events in some], ready):
            if isinstance(plan, Unembeddable):
                refused[pin_id] = plan
            else:
                plans[pin_id] = plan
        self._mark(refused, known)
        return plans, behind, refused

    def _plan(self, events: Sequence[PinEvent], pin: PinFeatures | None, known: IndexedPin | None) -> _Plan:
        text = render(pin) if pin else PinText("")
        reembed = any(isinstance(event, PinUpdated) and event.reembed for event in events)
        return _Plan(pin, text, known, decide(pin, text, known, self.encoder, reembed=reembed))

    def _require_features(self, plans: Mapping[str, _Plan]) -> int:
        """How many live pins vanished of late, in excess of others. Raises FeaturesLost."""
        gone = sum(plan.action.reason == "vanished" for plan in plans.values())
        vanished = max(0, self._vanished + gone - (len(plans) - gone))
        if vanished >= self.vanished_limit:
            raise FeaturesLost(vanished, self.vanished_limit)
        return vanished

    def _encode(self, texts: Sequence[str], vectors: dict[Fingerprint, Vector | Unembeddable]) -> None:
        """Add the vector, or the refusal, of each text not yet there. A batch that fails is split until the culprit is alone."""
        missing = [text for text in dict.fromkeys(texts) if fingerprint(text) not in vectors]
        for text, vector in isolate(lambda some: list(self.encoder.encode(some)), missing):
            vectors[fingerprint(text)] = vector if isinstance(vector, Unembeddable) else self._checked(vector, text)

    def _checked(self, vector: Vector, text: str) -> Vector | Unembeddable:
        if np.isfinite(vector).all() and vector.any():
            return vector
        return Unembeddable("bad_vector", f"{self.encoder.model_id} gave a vector that is not finite or all zero for {text[:80]!r}")

    def _mark(self, refused: Mapping[str, Unembeddable], known: Mapping[str, IndexedPin | None]) -> None:
        """Say in the record of each refused pin that its vector is of an older text.

        A mark that does not land is no loss: the record is then a rival's, or the index refuses this pin altogether.
        """
        now_us = self.clock()
        writes = [
            PointWrite(replace(before, v=max(now_us, int(before.v) + 1), refused=error.reason), before.v, keep_vector=True)
            for pin_id, error in refused.items()
            if (before := known.get(pin_id)) and before.embedded and not before.dead and before.refused != error.reason
        ]
        isolate(lambda some: _landed(self.index.write(some), some), writes)

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
                made_us = record.embedded_at_us if write.keep_vector else 0
                landed.append(Outcome(record.pin_id, plans[record.pin_id].action.reason, write.vector is not None, record.v, made_us))
        return landed, refused


def feature_rows(event: PinEvent) -> list[FeatureRow]:
    """The rows an event carries. A deletion is a feature too."""
    if isinstance(event, PinDeleted):
        return [FeatureRow("pin_status", event.pin_id, event.event_time_us, {"deleted": 1})]
    return [FeatureRow(view, event.pin_id, event.event_time_us, row) for view, row in event.features.items()]


def point(pin_id: str, plan: _Plan, vector: Vector | None, model_id: str, now_us: int) -> PointWrite:
    """The one write that carries out a plan. Its version is the clock's, but always above the record it replaces."""
    known, action = plan.known, plan.action
    v = max(now_us, int(known.v) + 1 if known else 0)
    expected = known.v if known else None
    if plan.pin is None or isinstance(action, Remove):
        return PointWrite(IndexedPin(pin_id, v, dead=True, embedded=False, model_id=model_id, reason=action.reason), expected)
    now = fingerprint(plan.text.text)
    record = IndexedPin(
        pin_id,
        v,
        dead=False,
        embedded=bool(plan.text),
        model_id=model_id,
        text=plan.text.text,
        fingerprint=now,
        seen=now,
        fields=surface_fields(plan.pin, plan.text),
        reason=action.reason,
        embedded_at_us=now_us,
        as_of=plan.pin.as_of,
    )
    if isinstance(action, Touch) and known and action.reason != "no_text":
        record = replace(record, reason=known.reason, embedded_at_us=known.embedded_at_us)
        if not action.settled:
            record = replace(record, text=known.text, fingerprint=known.fingerprint)
        return PointWrite(record, expected, keep_vector=True)
    return PointWrite(record, expected, vector)


STATUS_VIEW = "pin_status"
T = TypeVar("T")
R = TypeVar("R")


def isolate(act: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[tuple[T, R | Unembeddable]]:
    """Act on all items; when one is refused, halve until it is alone, so that one bad item never hurts another.

    Any exception that is not ours counts as a refusal (`defect`): otherwise a pin that meets a bug would stop its partition
    for good. When every pin meets it, the limit on dead letters stops the worker.
    """
    if not items:
        return []
    try:
        return list(zip(items, act(items), strict=True))
    except Exception as error:
        if isinstance(error, EverpinError) and not isinstance(error, Unembeddable):
            raise
        if len(items) == 1:
            return [(items[0], error if isinstance(error, Unembeddable) else _defect(error))]
    middle = len(items) // 2
    return isolate(act, items[:middle]) + isolate(act, items[middle:])


def _defect(error: Exception) -> Unembeddable:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return Unembeddable("defect", f"{type(error).__name__}: {error} (line {place.lineno} of {place.filename.rsplit('/', 1)[-1]})")


def _landed(ids: set[str], writes: Sequence[PointWrite]) -> list[bool]:
    return [write.record.pin_id in ids for write in writes]


def _skipped(pin_id: str, known: IndexedPin, reason: str, attempt: int) -> Outcome:
    """A pin found unchanged only after losing a race is `stale`: the winner had the same text."""
    made_us = known.embedded_at_us if known.embedded else 0
    return Outcome(pin_id, "stale" if attempt and reason == "unchanged" else reason, v=known.v, embedded_at_us=made_us)


def _behind(event: PinEvent, pin: PinFeatures | None) -> FeaturesBehind | None:
    if not isinstance(event, PinUpdated):
        return None
    as_of = pin.as_of if pin else {}
    deleted = pin is not None and pin.deleted
    for view, wanted_us in event.features_as_of.items():
        if as_of.get(view, 0) < wanted_us and (view == STATUS_VIEW or not deleted):  # what a deleted pin says matters to nobody
            return FeaturesBehind(event.pin_id, view, wanted_us, as_of.get(view, 0))
    return None
