"""One pin, one point: the stored form of a record, shared by every engine. No engine is imported here."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID, uuid5

import numpy as np

from pins.changes import IndexedPin
from pins.errors import Unembeddable
from pins.lexical import terms_of_text
from pins.ports import Ask, Hit, PointWrite, Terms, Vector, Where

T = TypeVar("T")
VECTOR = "text"
"""Name of the dense vector in every collection."""
TERMS = "terms"
"""Name of the sparse vector beside it: the terms of the text, for BM25. Another reading of texts (`pins.lexical`) needs another name."""
KEYWORDS = ("fields.lang", "fields.category", "fields.boards")
INTEGERS = ("fields.created_at_us",)
"""Fields that searches filter on: without an index of its own, each filter reads the payload of every pin."""
BARE = ("pin_id", "v")
"""What tells of a payload which version it is."""
SHOWN = ("pin_id", "v", "fields", "refused")
"""What a hit shows of a payload."""
MAX_V = 2**53
"""Range filters compare in float64: a larger version could not be told from its neighbour."""
Found = tuple[float, Hit | None]
"""One point of an answer: its score, and what it shows."""
IDS = 1 << 16
"""Point ids that are kept: making one takes longer than anything else that is done with it."""
_NAMESPACE = UUID("6f0c7a3e-5f0e-5d1c-9c1b-3f1a8f2b7e55")


def collection_name(model_id: str) -> str:
    """One model, one collection."""
    return f"pins__{model_id}"


@lru_cache(IDS)
def point_uuid(pin_id: str) -> UUID:
    """The point's id: a UUIDv5 of the pin id."""
    return uuid5(_NAMESPACE, pin_id)


def point_id(pin_id: str) -> str:
    """The point's id as text."""
    return str(point_uuid(pin_id))


def nonce() -> str:
    """Marks one write, so that reading a point back tells whose write it holds even when two chose the same version."""
    return os.urandom(8).hex()


def payload(record: IndexedPin, mark: str) -> dict[str, Any]:
    """The stored form of a record. Booleans are stored as 0 and 1: the embedded engine cannot match a bool."""
    return {
        "pin_id": record.pin_id,
        "v": record.v,
        "mark": mark,
        "dead": int(record.dead),
        "embedded": int(record.embedded),
        "model_id": record.model_id,
        "template_version": record.template_version,
        "text": record.text,
        "fingerprint": record.fingerprint,
        "seen": record.seen,
        "fields": dict(record.fields),
        "reason": record.reason,
        "embedded_at_us": record.embedded_at_us,
        "as_of": dict(record.as_of),
        "refused": record.refused,
        "outdated": int(bool(record.refused)),
    }


def by_pin(asked: Mapping[T, str], found: Iterable[Any]) -> dict[str, Any]:
    """Engine points by the pin ids they were asked for, which `asked` has by their points' ids; their payload may be damaged, their id is not."""
    return {asked[point.id]: point for point in found}


def shown(body: Mapping[str, Any], vector: Vector | None) -> Hit | None:
    """The hit of a point, of no score yet; None where the payload lost its pin id: it cannot be shown."""
    pin_id = body.get("pin_id")
    if not isinstance(pin_id, str) or not pin_id:
        return None
    return Hit(pin_id, 0.0, _dict(body.get("fields")), _int(body.get("v")), vector, str(body.get("refused") or ""))


def hits(found: Iterable[Found]) -> list[Hit]:
    """Engine results as hits, best first, ties by pin id."""
    return sorted((hit.scored(score) for score, hit in found if hit is not None), key=lambda hit: (-hit.score, hit.pin_id))


def terms(stored: Mapping[str, Any]) -> Terms:
    """The terms of a point with this payload; none without a vector, so that whatever is found by words can be compared by cosine."""
    text = stored.get("text")
    return terms_of_text(text if stored.get("embedded") == 1 and stored.get("dead") == 0 and isinstance(text, str) else "")


def goes_by(ask: Ask) -> Vector | Terms:
    """The vector or the terms of a search. Raises ValueError unless it has exactly one of the two."""
    if ask.vector is not None and ask.terms is None:
        return ask.vector
    if ask.terms is not None and ask.vector is None:
        return ask.terms
    raise ValueError("a search goes by a vector or by terms; give exactly one of them")


def answers(asks: Sequence[Ask], run: Callable[[Sequence[Ask]], Iterable[Iterable[Found]]]) -> list[list[Hit]]:
    """The answers of an engine, which `run` gets for all searches at once; one without terms finds nothing and is not run."""
    worth = [not isinstance(by := goes_by(ask), Terms) or bool(by.ids) for ask in asks]
    found = iter(run([ask for ask, runs in zip(asks, worth, strict=True) if runs]) if any(worth) else ())
    return [hits(one for one in next(found) if ask.terms is None or one[0] > 0) if runs else [] for ask, runs in zip(asks, worth, strict=True)]


def float32(values: Sequence[float]) -> Vector:
    """Numbers of an engine as a vector, read-only: a third of the time that numpy takes for a list."""
    return np.frombuffer(struct.pack(f"{len(values)}f", *values), np.float32)


def equalities(where: Where) -> list[tuple[str, str]]:
    """The filters that compare one surface field with one value."""
    pairs = (("lang", where.lang), ("category", where.category), ("boards", where.board))
    return [(key, value) for key, value in pairs if value is not None]


def pages(page: Callable[[str, int], tuple[Sequence[IndexedPin], str]], batch: int) -> Iterator[Sequence[IndexedPin]]:
    """All pages of a collection, one after another."""
    cursor = ""
    while True:
        found, cursor = page(cursor, batch)
        yield found
        if not cursor:
            return


def scanned(point: str, stored: Mapping[str, Any]) -> IndexedPin:
    """The record of a point that was not asked for by pin; its pin id is empty where the payload does not name the point's pin."""
    return record(_named(point, stored), stored)


def doomed(point: str, stored: Mapping[str, Any], before_v: int) -> str:
    """Why a sweep removes this point: `dead` for a tombstone older than `before_v`, `nameless` for a point of no pin; else empty."""
    if not _named(point, stored):
        return "nameless"
    found = record(str(stored["pin_id"]), stored)
    return "dead" if found.dead and found.v < before_v else ""


def swept(gone: Mapping[str, int]) -> dict[str, int]:
    """The answer of a sweep: how many points went, by reason."""
    return {why: gone.get(why, 0) for why in ("dead", "nameless")}


def _named(point: str, stored: Mapping[str, Any]) -> str:
    pin_id = stored.get("pin_id")
    return pin_id if isinstance(pin_id, str) and point_id(pin_id) == point else ""


def record(pin_id: str, stored: Mapping[str, Any]) -> IndexedPin:
    """Read a record back, whatever somebody did to its payload. Never raises.

    A damaged payload reads as a record of no model, which the next event embeds anew. Its version is 0 where it has none that
    a guard could match; what a guard would match is kept, even a fraction, so that the next write can name it.
    """
    v, fields = stored.get("v"), stored.get("fields")
    intact = _is_int(v) and isinstance(fields, dict) and stored.get("pin_id", "") == pin_id
    return IndexedPin(
        pin_id=pin_id,
        v=_version(v),
        dead=stored.get("dead") in (1, True),
        embedded=stored.get("embedded") in (1, True),
        model_id=str(stored.get("model_id", "")) if intact else "",
        template_version=_int(stored.get("template_version")),
        text=str(stored.get("text", "")),
        fingerprint=str(stored.get("fingerprint", "")),
        seen=str(stored.get("seen", "")),
        fields=dict(fields) if intact and isinstance(fields, dict) else {},
        reason=str(stored.get("reason", "")),
        embedded_at_us=_int(stored.get("embedded_at_us")),
        as_of={str(view): _int(at_us) for view, at_us in as_of.items()} if isinstance(as_of := stored.get("as_of"), dict) else {},
        refused=str(stored.get("refused") or ""),
    )


def _version(value: object) -> int:
    """The number that a range filter meets in a stored version: in a list, any of its numbers."""
    values = value if isinstance(value, list) else [value]
    return next((one for one in values if isinstance(one, (int, float)) and not isinstance(one, bool) and one >= 1), 0)  # type: ignore[return-value]  # damaged


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def check(points: Sequence[PointWrite], dimension: int) -> None:
    """Refuse a write before an engine sees it, because a failed call is not undone there. Raises Unembeddable, ValueError."""
    check_distinct(points)
    for point in points:
        if not 0 < point.record.v < MAX_V:
            raise Unembeddable("bad_version", f"pin {point.record.pin_id!r}: version {point.record.v} is not below 2^53; use epoch microseconds")
        if point.vector is None:
            continue
        if point.vector.shape != (dimension,):
            raise Unembeddable("bad_vector", f"pin {point.record.pin_id!r}: vector of shape {point.vector.shape}, the collection holds ({dimension},)")
        if not np.isfinite(point.vector).all() or not point.vector.any():
            raise Unembeddable("bad_vector", f"pin {point.record.pin_id!r}: the vector is not finite or all zero")


def check_distinct(points: Sequence[PointWrite]) -> None:
    """Refuse two writes of one pin. Raises ValueError."""
    ids = [point.record.pin_id for point in points]
    if len(set(ids)) != len(ids):
        raise ValueError("one write per pin and request: the engine judges a batch against the state before it")
