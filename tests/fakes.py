"""Fakes of the core's three ports. The contract suites run on these and on every real adapter alike."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np

from pins.actions import HistoryWrite, StoredHistory, usable
from pins.changes import IndexedPin
from pins.errors import Unembeddable
from pins.features import USER_COLUMNS, USER_VIEW, FeatureRow, PinFeatures, UserAction, pin_features
from pins.lexical import terms_of_text
from pins.ports import Ask, Hit, PointWrite, Terms, Vector, Where
from pins.relevance import OrdinalHead


class FakeFeatures:
    """Rows by (view, key), ordered by event time. `on_replace` runs before each guarded write, to lose races."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], FeatureRow] = {}
        self.on_replace: Callable[[], None] = lambda: None

    def write(self, rows: Sequence[FeatureRow]) -> None:
        for row in rows:
            stored = self.rows.get((row.view, row.key))
            if stored is None or row.event_time_us >= stored.event_time_us:
                self.rows[row.view, row.key] = row

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        found = {}
        for pin_id in pin_ids:
            rows = [row for row in self.rows.values() if row.key == pin_id]
            if rows:
                values = {name: value for row in rows for name, value in row.values.items()}
                found[pin_id] = pin_features(pin_id, values, {row.view: row.event_time_us for row in rows})
        return found

    def pin_ids(self, batch: int = 1000, view: str = "") -> Iterator[Sequence[str]]:
        found = sorted({row.key for row in self.rows.values() if row.view != USER_VIEW and view in ("", row.view)})
        for start in range(0, len(found), batch):
            yield found[start : start + batch]

    def present(self, pin_ids: Sequence[str]) -> set[str]:
        return {row.key for row in self.rows.values() if row.view != USER_VIEW} & set(pin_ids)

    def scrub(self) -> bool:
        return True

    def history(self, user_id: str) -> Sequence[UserAction]:
        return usable(self.histories([user_id])[user_id].actions)

    def histories(self, user_ids: Sequence[str]) -> Mapping[str, StoredHistory]:
        return {user_id: self._stored(user_id) for user_id in user_ids}

    def replace(self, writes: Sequence[HistoryWrite]) -> set[str]:
        self.on_replace()
        landed = [write.row for write in writes if self._stored(write.row.key).as_of == write.expected]
        self.rows |= {(USER_VIEW, row.key): row for row in landed}
        return {row.key for row in landed}

    def user_ids(self, batch: int = 1000) -> Iterator[Sequence[str]]:
        found = sorted(row.key for row in self.rows.values() if row.view == USER_VIEW)
        for start in range(0, len(found), batch):
            yield found[start : start + batch]

    def _stored(self, user_id: str) -> StoredHistory:
        row = self.rows.get((USER_VIEW, user_id))
        if row is None:
            return StoredHistory()
        lists = zip(*(row.values[name] for name in USER_COLUMNS), strict=True)
        return StoredHistory(tuple(UserAction(*action) for action in lists), row.event_time_us)


class FakeEncoder:
    """A hash of the words as a vector. Counts what it encodes; `broken` texts raise, `nan` texts give NaN."""

    model_id = "fake-v1"
    dimension = 8
    ordinal_head = OrdinalHead(8.0, (1.0, 2.0, 3.0, 4.0))

    def __init__(self, drift_threshold: float | None = None) -> None:
        self.drift_threshold = drift_threshold
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vector:
        if any("broken" in text for text in texts):
            raise Unembeddable("encoder_error", "a broken text")
        self.encoded += texts
        return np.stack([self.query(text) for text in texts])

    def query(self, text: str) -> Vector:
        if "nan" in text.split():
            return np.full(self.dimension, np.nan, np.float32)
        vector = np.zeros(self.dimension, np.float32)
        for word in text.lower().split():
            seed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "big")
            vector += np.random.default_rng(seed).normal(size=self.dimension).astype(np.float32)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def same_tokens(self, before: str, after: str) -> bool:
        return before.lower().split() == after.lower().split()

    def drift(self, before: str, after: str) -> float:
        old, new = set(before.lower().split()), set(after.lower().split())
        return len(old ^ new) / max(1, len(old | new))


class FakeIndex:
    """Points in a dict, with the same compare-and-set as the engines. `on_write` runs before each write, to lose races."""

    model_id = "fake-v1"

    def __init__(self) -> None:
        self.points: dict[str, tuple[IndexedPin, Vector | None]] = {}
        self.refuse: set[str] = set()
        self.on_write: Callable[[], None] = lambda: None

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: self.points[pin_id][0] for pin_id in pin_ids if pin_id in self.points}

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        self.on_write()
        if refused := self.refuse & {write.record.pin_id for write in points}:
            raise Unembeddable("point_refused", str(refused))
        landed = set()
        for write in points:
            stored = self.points.get(write.record.pin_id)
            if (stored[0].v if stored else None) == write.expected_v:
                vector = stored[1] if write.keep_vector and stored else write.vector
                self.points[write.record.pin_id] = write.record, vector
                landed.add(write.record.pin_id)
        return landed

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        return self.ask([Ask(limit, vector, where=where)])[0]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> Sequence[Hit]:
        if (ask.vector is None) == (ask.terms is None):
            raise ValueError("a search goes by a vector or by terms; give exactly one of them")
        scores = self._bm25(ask.terms) if ask.terms else self._cosines(ask.vector)
        hits = [
            Hit(pin_id, score, record.fields, record.v, stored, record.refused)
            for pin_id, score in scores.items()
            if not (record := self.points[pin_id][0]).dead and _matches(record, ask.where) and (stored := self.points[pin_id][1]) is not None
        ]
        return sorted(hits, key=lambda hit: (-hit.score, hit.pin_id))[: ask.limit]

    def _cosines(self, vector: Vector | None) -> dict[str, float]:
        return {pin_id: float(stored @ vector) for pin_id, (_, stored) in self.points.items() if stored is not None}

    def _bm25(self, asked: Terms) -> dict[str, float]:
        """Scores above 0, with the inverse document frequency that Qdrant takes: over the pins that have terms, whatever the filters."""
        texts = {pin_id: terms_of_text(record.text) for pin_id, (record, stored) in self.points.items() if stored is not None and not record.dead}
        weights = {pin_id: dict(zip(terms.ids, terms.weights, strict=True)) for pin_id, terms in texts.items() if terms.ids}
        having = Counter(term for held in weights.values() for term in held)
        idf = {term: math.log(1 + (len(weights) - having[term] + 0.5) / (having[term] + 0.5)) for term in asked.ids}
        scores = {
            pin_id: sum(held.get(term, 0.0) * weight * idf[term] for term, weight in zip(asked.ids, asked.weights, strict=True))
            for pin_id, held in weights.items()
        }
        return {pin_id: score for pin_id, score in scores.items() if score > 0}

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        return {pin_id: vector for pin_id in pin_ids if pin_id in self.points and (vector := self.points[pin_id][1]) is not None}

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        cursor = ""
        while True:
            found, cursor = self.page(cursor, batch)
            yield found
            if not cursor:
                return

    def page(self, cursor: str = "", limit: int = 1000) -> tuple[Sequence[IndexedPin], str]:
        ids = sorted(pin_id for pin_id in self.points if pin_id >= cursor)
        return [self.points[pin_id][0] for pin_id in ids[:limit]], ids[limit] if len(ids) > limit else ""

    def page_of_points(
        self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False
    ) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
        ids = sorted(pin_id for pin_id, (record, _) in self.points.items() if pin_id >= cursor and (not newer_than or record.v > newer_than))
        points = [self.points[pin_id] for pin_id in ids[:limit]]
        return [(replace(record, text="", fields={}), None) for record, _ in points] if bare else points, ids[limit] if len(ids) > limit else ""

    def sweep(self, before_v: int) -> Mapping[str, int]:
        old = [pin_id for pin_id, (record, _) in self.points.items() if record.dead and record.v < before_v]
        for pin_id in old:
            del self.points[pin_id]
        return {"dead": len(old), "nameless": 0}

    def counts(self) -> Mapping[str, int]:
        records = [record for record, _ in self.points.values()]
        dead = sum(record.dead for record in records)
        live = sum(record.embedded and not record.dead for record in records)
        return {"live": live, "textless": len(records) - dead - live, "dead": dead, "refused": sum(bool(record.refused) for record in records)}

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _matches(record: IndexedPin, where: Where) -> bool:
    fields = record.fields
    return (
        where.lang in (None, fields.get("lang"))
        and where.category in (None, fields.get("category"))
        and (where.board is None or where.board in fields.get("boards", ()))
        and (where.created_since_us is None or fields.get("created_at_us", 0) >= where.created_since_us)
        and record.pin_id not in where.without
    )
