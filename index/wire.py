"""How searches and their answers travel between the owner of an embedded index and its readers.

One line of JSON, then the vectors as one block of little-endian float32, in the order in which the line names their lengths. A pin that several
searches of one request found travels once. Guarded writes of a backfill travel the same way, each with its whole record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson

from index.held import Brief
from index.points import goes_by
from pins.changes import IndexedPin
from pins.errors import Unembeddable
from pins.ports import Ask, Hit, PointWrite, Terms, Vector, Where

NOWHERE = Where()
_TEXTS = ("pin_id", "model_id", "text", "fingerprint", "seen", "reason", "refused")
_NUMBERS = ("v", "template_version", "embedded_at_us")
_FLAGS = ("dead", "embedded")
_OBJECTS = ("fields", "as_of")


def pack_asks(asks: Sequence[Ask]) -> bytes:
    """Searches as bytes. Raises ValueError for one that goes by neither a vector nor terms, or by both."""
    vectors: list[Vector] = []
    lines = [[ask.limit, _by(goes_by(ask), vectors), _where(ask.where)] for ask in asks]
    return _joined(lines, vectors)


def unpack_asks(body: bytes) -> list[Ask]:
    """What `pack_asks` made bytes of. Raises ValueError, TypeError or KeyError for anything else."""
    lines, numbers = _split(body)
    asks, start = [], 0
    for limit, by, where in lines:
        given = NOWHERE if where is None else Where(**where | {"without": frozenset(where["without"])})
        if isinstance(by, int):
            asks.append(Ask(limit, vector=numbers[start : start + by], where=given))
            start += by
        else:
            asks.append(Ask(limit, terms=Terms(tuple(by[0]), tuple(by[1])), where=given))
    return asks


def pack_answers(answers: Sequence[Sequence[Hit]]) -> bytes:
    """Answers as bytes."""
    places: dict[str, int] = {}
    pins: list[list[Any]] = []
    vectors: list[Vector] = []
    for hit in (hit for answer in answers for hit in answer):
        if hit.pin_id not in places:
            places[hit.pin_id] = len(pins)
            pins.append([hit.pin_id, hit.fields, hit.v, hit.refused, -1 if hit.vector is None else len(hit.vector)])
            vectors += [] if hit.vector is None else [hit.vector]
    return _joined([pins, [[[places[hit.pin_id], hit.score] for hit in answer] for answer in answers]], vectors)


def unpack_answers(body: bytes) -> list[list[Hit]]:
    """What `pack_answers` made bytes of; vectors are read-only views of one block. Raises ValueError, TypeError or KeyError for anything else."""
    (pins, answers), numbers = _split(body)
    start, vectors = 0, []
    for *_, length in pins:
        vectors.append(None if length < 0 else numbers[start : start + length])
        start += max(0, length)
    return [[Hit(pins[place][0], score, pins[place][1], pins[place][2], vectors[place], pins[place][3]) for place, score in answer] for answer in answers]


def pack_briefs(answers: Sequence[Sequence[Hit]]) -> bytes:
    """Answers as bytes, in brief: pin id, version and score of each hit."""
    return orjson.dumps([[[hit.pin_id, hit.v, hit.score] for hit in answer] for answer in answers])


def unpack_briefs(body: bytes) -> list[list[Brief]]:
    """What `pack_briefs` made bytes of. Raises ValueError or TypeError for anything else."""
    return [[(str(pin_id), int(v), float(score)) for pin_id, v, score in answer] for answer in orjson.loads(body)]


def pack_vectors(vectors: Mapping[str, Vector]) -> bytes:
    """Vectors by pin id as bytes."""
    return _joined([[pin_id, len(vector)] for pin_id, vector in vectors.items()], list(vectors.values()))


def unpack_vectors(body: bytes) -> dict[str, Vector]:
    """What `pack_vectors` made bytes of; read-only views of one block. Raises ValueError or TypeError for anything else."""
    lengths, numbers = _split(body)
    found, start = {}, 0
    for pin_id, length in lengths:
        found[pin_id] = numbers[start : start + length]
        start += length
    return found


def pack_records(records: Mapping[str, IndexedPin]) -> bytes:
    """Records by pin id as one JSON object."""
    return orjson.dumps(dict(records), default=dict)


def unpack_records(body: bytes) -> dict[str, IndexedPin]:
    """What `pack_records` made bytes of. Raises ValueError or TypeError for anything else."""
    return {pin_id: IndexedPin(**record) for pin_id, record in orjson.loads(body).items()}


def pack_points(points: Sequence[tuple[IndexedPin, Vector | None]], cursor: str) -> bytes:
    """Records with their vectors, and the cursor of the next page, as bytes."""
    lines = [[record, -1 if vector is None else len(vector)] for record, vector in points]
    return _joined([cursor, lines], [vector for _, vector in points if vector is not None])


def unpack_points(body: bytes) -> tuple[list[tuple[IndexedPin, Vector | None]], str]:
    """What `pack_points` made bytes of; vectors are read-only views of one block. Raises ValueError or TypeError for anything else."""
    (cursor, lines), numbers = _split(body)
    found, start = [], 0
    for record, length in lines:
        found.append((IndexedPin(**record), None if length < 0 else numbers[start : start + length]))
        start += max(0, length)
    return found, str(cursor)


def pack_writes(writes: Sequence[PointWrite]) -> bytes:
    """Guarded writes as bytes. Raises TypeError for a record that JSON cannot hold."""
    lines = [[write.record, write.expected_v, -1 if write.vector is None else len(write.vector), write.keep_vector] for write in writes]
    return _joined(lines, [write.vector for write in writes if write.vector is not None])


def unpack_writes(body: bytes) -> list[PointWrite]:
    """What `pack_writes` made bytes of; vectors are read-only views of one block. Raises ValueError, TypeError or KeyError for anything else."""
    lines, numbers = _split(body)
    writes, start = [], 0
    for record, expected_v, length, keep_vector in lines:
        if not (expected_v is None or _is_number(expected_v)) or not isinstance(length, int) or not isinstance(keep_vector, bool):
            raise TypeError("a write is a record, the version it was decided on or null, the length of its vector or -1, and whether it keeps the vector")
        vector = None if length < 0 else numbers[start : start + length]
        start += max(0, length)
        writes.append(PointWrite(_record(record), expected_v, vector, keep_vector))
    if start != len(numbers):
        raise ValueError(f"the lines name {start} numbers of vectors, {len(numbers)} follow")
    return writes


def pack_refusal(refused: Unembeddable) -> bytes:
    """Why a write was refused, as bytes."""
    return orjson.dumps({"reason": refused.reason, "detail": refused.detail})


def unpack_refusal(body: bytes) -> Unembeddable:
    """What `pack_refusal` made bytes of. Raises ValueError, TypeError or KeyError for anything else."""
    told = orjson.loads(body)
    return Unembeddable(str(told["reason"]), str(told["detail"]))


def _record(stored: dict[str, Any]) -> IndexedPin:
    """A record that was sent. Raises TypeError, KeyError for one that no sender made: what is written here is read by everybody."""
    kinds = [(_TEXTS, str), (_FLAGS, bool), (_OBJECTS, dict)]
    wrong = [name for names, kind in kinds for name in names if not isinstance(stored[name], kind)]
    wrong += [name for name in _NUMBERS if not isinstance(stored[name], int) or isinstance(stored[name], bool)]
    if wrong:
        raise TypeError(f"a record's {wrong[0]} cannot be {stored[wrong[0]]!r:.80}")
    return IndexedPin(**stored)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _where(where: Where) -> dict[str, Any] | None:
    return None if where == NOWHERE else asdict(where) | {"without": sorted(where.without)}


def _by(by: Vector | Terms, vectors: list[Vector]) -> Any:
    if isinstance(by, Terms):
        return [by.ids, by.weights]
    vectors.append(by)
    return len(by)


def _joined(line: Any, vectors: Sequence[Vector]) -> bytes:
    return b"\n".join((orjson.dumps(line, default=dict), b"".join(np.asarray(vector, "<f4").tobytes() for vector in vectors)))


def _split(body: bytes) -> tuple[Any, Vector]:
    line, _, block = body.partition(b"\n")
    return orjson.loads(line), np.frombuffer(block, "<f4")
