"""Comparing the feature store and the index, pin by pin, in bounded memory, while the stream runs on.

Two passes: every pin of the feature store against its record, then every record against the feature store. Because the live
stream runs meanwhile, a difference counts only if it is still there on a second look some seconds later. Memory holds a few
batches, at most `MOST_WAITING` pins that wait for their second look, and the pins drawn for a look at their vectors.
What is then done about differences: `everpin.healing`. What is one: `pins.reconcile`.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from pins.changes import IndexedPin
from pins.errors import EverpinError, Unembeddable
from pins.indexer import isolate
from pins.ports import Encoder, FeatureSource, PinIndex
from pins.reconcile import compare, draw
from pins.text import PinText, render

MOST_WAITING = 20_000
EXAMPLES = 5
SAME_VECTOR_COSINE = 0.999
"""Below it a stored vector is not the model's of that text. The same text in another batch differs by less than 1e-5."""
VECTORS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Stores:
    """The three outsides of a comparison."""

    features: FeatureSource
    index: PinIndex
    encoder: Encoder


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared. `share`: pins whose draw is at most this; `settle_s`: seconds until a second look; `vectors`: how many."""

    share: float = 1.0
    seed: int = 0
    settle_s: float = 2.0
    vectors: int = 0
    batch: int = 500

    def holds(self, pin_id: str) -> bool:
        """Whether the pin was drawn."""
        return self.share >= 1.0 or draw(pin_id, self.seed) <= self.share


@dataclass(frozen=True, slots=True)
class Difference:
    """One pin that differs, of a kind of `pins.reconcile.KINDS`; `v` is the version of its record, 0 where there is none."""

    pin_id: str
    kind: str
    v: int = 0


@dataclass(slots=True)
class Tally:
    """What was looked at and what was found. `nameless`: points whose payload names no pin, or another than their own."""

    compared: int = 0
    records: int = 0
    vectors: int = 0
    nameless: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, difference: Difference) -> None:
        """Count one difference."""
        self.kinds[difference.kind] += 1
        some = self.examples.setdefault(difference.kind, [])
        if len(some) < EXAMPLES:
            some.append(difference.pin_id)


def differences(stores: Stores, scope: Scope, tally: Tally, step: Callable[[int], None] = lambda n: None) -> Iterator[Difference]:
    """Every difference that is still there on a second look; `tally` is kept up to date, `step` is told of pins passed.

    Raises Unavailable.
    """
    for difference in _found(stores, scope, tally, step):
        tally.add(difference)
        yield difference


def recheck(stores: Stores, scope: Scope, suspects: Iterable[Difference]) -> Iterator[Difference]:
    """Look again at exactly these; those that still differ, by the kind they are of now. Raises Unavailable."""
    second, suspects = _SecondLook(stores, scope), iter(suspects)
    while batch := list(islice(suspects, scope.batch)):
        for pin_id, (kind, _) in _look(stores, [one.pin_id for one in batch]).items():
            if kind:
                second.add(pin_id)
        yield from second.due()
        yield from wrong_vectors(stores, [one.pin_id for one in batch if one.kind == "wrong_vector"])
    yield from second.rest()


def share_of(features: FeatureSource, count: int, seed: int, batch: int = 1000) -> float:
    """The share of draws that holds `count` pins of the feature store; 1.0 where it has no more than that. One pass over the ids."""
    smallest: list[float] = []
    inside: set[float] = set()
    for ids in features.pin_ids(batch):
        for number in (draw(pin_id, seed) for pin_id in ids):
            if number in inside or (len(smallest) >= count and number >= -smallest[0]):
                continue
            inside.add(number)
            if len(smallest) < count:
                heapq.heappush(smallest, -number)
            else:
                inside.remove(-heapq.heapreplace(smallest, -number))
    return -smallest[0] if len(smallest) >= count else 1.0


def wrong_vectors(stores: Stores, pin_ids: Sequence[str]) -> Iterator[Difference]:
    """Those whose stored vector is not what the model makes of the recorded text. A pin that is written meanwhile is left out."""
    for start in range(0, len(pin_ids), VECTORS_AT_ONCE):
        ids = pin_ids[start : start + VECTORS_AT_ONCE]
        before, stored, after = stores.index.known(ids), stores.index.vectors(ids), stores.index.known(ids)
        same = [pin for pin_id, pin in before.items() if pin == after.get(pin_id) and pin.embedded and not pin.dead]
        for pin, made in isolate(lambda some: list(stores.encoder.encode([pin.text for pin in some])), same):
            vector = stored.get(pin.pin_id)
            if isinstance(made, Unembeddable) or vector is None or float(made @ vector) < SAME_VECTOR_COSINE:
                yield Difference(pin.pin_id, "wrong_vector", pin.v)


def _found(stores: Stores, scope: Scope, tally: Tally, step: Callable[[int], None]) -> Iterator[Difference]:
    second, drawn = _SecondLook(stores, scope), _Drawn(scope)
    for ids in stores.features.pin_ids(scope.batch):
        mine = [pin_id for pin_id in ids if scope.holds(pin_id)]
        tally.compared += len(mine)
        for pin_id, (kind, known) in _look(stores, mine).items():
            if kind:
                second.add(pin_id)
            elif known and known.embedded:
                drawn.add(pin_id)
        yield from second.due()
        step(len(ids))
    for records in stores.index.scan(scope.batch):
        tally.nameless += sum(not record.pin_id for record in records)
        live = [record.pin_id for record in records if record.pin_id and not record.dead and scope.holds(record.pin_id)]
        tally.records += len(live)
        present = stores.features.present(live)
        for pin_id in live:
            if pin_id not in present:
                second.add(pin_id)
        yield from second.due()
        step(len(records))
    yield from second.rest()
    pin_ids = drawn.pin_ids()
    tally.vectors = len(pin_ids)
    yield from wrong_vectors(stores, pin_ids)


def _look(stores: Stores, pin_ids: Sequence[str]) -> dict[str, tuple[str | None, IndexedPin | None]]:
    """Kind of difference and record of each pin. The records are read first, so that features are never older than their record."""
    known = stores.index.known(pin_ids)
    found = stores.features.of(pin_ids)
    judged: dict[str, tuple[str | None, IndexedPin | None]] = {}
    for pin_id in pin_ids:
        pin, record = found.get(pin_id), known.get(pin_id)
        try:
            kind = compare(pin, render(pin) if pin else PinText(""), record, stores.encoder)
        except Exception as error:
            if isinstance(error, EverpinError) and not isinstance(error, Unembeddable):
                raise
            kind = "refused"  # what raises here raises in the worker too, which then keeps the previous vector
        judged[pin_id] = kind, record
    return judged


class _SecondLook:
    """Pins that seemed to differ, in the order in which they were seen, until they are looked at again."""

    def __init__(self, stores: Stores, scope: Scope) -> None:
        self._stores, self._scope = stores, scope
        self._waiting: deque[tuple[float, str]] = deque()
        self._ids: set[str] = set()

    def add(self, pin_id: str) -> None:
        if pin_id not in self._ids:
            self._ids.add(pin_id)
            self._waiting.append((time.monotonic() + self._scope.settle_s, pin_id))

    def due(self) -> Iterator[Difference]:
        """Those of full batches that have waited long enough; when too many wait, the oldest are waited for."""
        size = self._scope.batch
        while len(self._waiting) >= size and (len(self._waiting) > MOST_WAITING or self._waiting[size - 1][0] <= time.monotonic()):
            yield from self._again(size)

    def rest(self) -> Iterator[Difference]:
        while self._waiting:
            yield from self._again(self._scope.batch)

    def _again(self, size: int) -> Iterator[Difference]:
        batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
        time.sleep(max(0.0, batch[-1][0] - time.monotonic()))
        pin_ids = [pin_id for _, pin_id in batch]
        self._ids.difference_update(pin_ids)
        for pin_id, (kind, known) in _look(self._stores, pin_ids).items():
            if kind:
                yield Difference(pin_id, kind, known.v if known else 0)


class _Drawn:
    """The pins with the smallest draws: a sample of `scope.vectors` of all that were offered."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._largest_first: list[tuple[float, str]] = []

    def add(self, pin_id: str) -> None:
        if self._scope.vectors:
            entry = (-draw(pin_id, self._scope.seed + 1), pin_id)
            if len(self._largest_first) < self._scope.vectors:
                heapq.heappush(self._largest_first, entry)
            else:
                heapq.heappushpop(self._largest_first, entry)

    def pin_ids(self) -> list[str]:
        return sorted({pin_id for _, pin_id in self._largest_first})
