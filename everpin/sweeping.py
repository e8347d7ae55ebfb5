"""Deleting for good: what a deleted pin ever said leaves the feature store, and its tombstone leaves the index, bytes and all.

Features first: a pin's rows are replaced by empty ones of now, so that older events which still arrive lose by order and
bring nothing back. Then the tombstones older than the hold go. Repeating an interrupted sweep finishes it. What stays: the
pin's id and the fact that it is deleted; Kafka's topics until their retention; dead letters until they are purged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pins.erasure import STATUS_VIEW, blank_rows, has_content
from pins.features import PinFeatures
from pins.ports import FeatureSource, PinIndex

ERASE_ROUNDS = 3
"""How often a pin is erased again when a producer wrote to it meanwhile."""
EXAMPLES = 5


@dataclass(slots=True)
class SweepReport:
    """What a sweep did (or, as a dry run, would do), and what it could not.

    `still_served`: deleted pins that the index serves, because their event was lost; `too_young`: pins deleted before the hold
    whose tombstone was written within it, because their event came late: their bytes may still be in the index; `scrubbed`: whether the feature store's
    files hold only its rows.
    """

    deleted: int = 0
    erased: int = 0
    not_erased: list[str] = field(default_factory=list)
    still_served: int = 0
    too_young: int = 0
    examples: list[str] = field(default_factory=list)
    tombstones: int = 0
    nameless: int = 0
    scrubbed: bool = True

    @property
    def complete(self) -> bool:
        return self.scrubbed and not self.not_erased and not self.still_served and not self.too_young


def sweep(
    features: FeatureSource, index: PinIndex, before_us: int, now_us: Callable[[], int], step: Callable[[int], None] = lambda n: None, *, dry_run: bool = False
) -> SweepReport:
    """Erase every pin that was deleted before `before_us` (epoch microseconds) and remove tombstones of versions before it.

    Raises Unavailable; sweeping again is then right.
    """
    report = SweepReport()
    for pins in _deleted_before(features, before_us, step):
        report.deleted += len(pins)
        _look_at_records(index, pins, before_us, report)
        full = [pin for pin in pins if has_content(pin)]
        if dry_run:
            report.erased += len(full)
            continue
        left = erase(features, full, now_us)
        report.not_erased += left
        report.erased += len(full) - len(left)
    if dry_run:
        report.tombstones = sum(record.dead and record.v < before_us for records in index.scan() for record in records if record.pin_id)
        report.nameless = sum(not record.pin_id for records in index.scan() for record in records)
        return report
    report.scrubbed = features.scrub()
    gone = index.sweep(before_us)
    report.tombstones, report.nameless = gone["dead"], gone["nameless"]
    return report


def erase(features: FeatureSource, pins: Sequence[PinFeatures], now_us: Callable[[], int]) -> list[str]:
    """Replace all that these deleted pins said, and read it back; the ids of those that a producer keeps writing to."""
    for _ in range(ERASE_ROUNDS):
        if not pins:
            break
        at_us = now_us()
        features.write([row for pin in pins for row in blank_rows(pin, at_us)])
        again = features.of([pin.pin_id for pin in pins])
        pins = [pin for pin in again.values() if pin.deleted and has_content(pin)]
    return [pin.pin_id for pin in pins]


def _deleted_before(features: FeatureSource, before_us: int, step: Callable[[int], None]) -> Iterator[list[PinFeatures]]:
    for ids in features.pin_ids(500, STATUS_VIEW):
        yield [pin for pin in features.of(ids).values() if pin.deleted and pin.as_of[STATUS_VIEW] < before_us]
        step(len(ids))


def _look_at_records(index: PinIndex, pins: Sequence[PinFeatures], before_us: int, report: SweepReport) -> None:
    known = index.known([pin.pin_id for pin in pins])
    served = [pin_id for pin_id, record in known.items() if not record.dead]
    report.too_young += sum(record.dead and record.v >= before_us for record in known.values())
    report.still_served += len(served)
    report.examples += served[: max(0, EXAMPLES - len(report.examples))]
