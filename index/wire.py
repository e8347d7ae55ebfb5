"""How searches and their answers travel between the owner of an embedded index and its readers.

One line of JSON, then the vectors as one block of little-endian float32, in the order in which the line names their lengths. A pin that several
searches of one request found travels once.
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
from pins.ports import Ask, Hit, Terms, Vector, Where

NOWHERE = Where()


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


def _where(where: Where) -> dict[str, Any] | None:
    return None if where == NOWHERE else asdict(where) | {"without": sorted(where.without)}


def _by(by: Vector | Terms, vectors: list[Vector]) -> Any:
    if isinstance(by, Terms):
        return [by.ids, by.weights]
    vectors.append(by)
    return len(by)


def _joined(line: Any, vectors: Sequence[Vector]) -> bytes:
    return b"\n".join((orjson.dumps(line), b"".join(np.asarray(vector, "<f4").tobytes() for vector in vectors)))


def _split(body: bytes) -> tuple[Any, Vector]:
    line, _, block = body.partition(b"\n")
    return orjson.loads(line), np.frombuffer(block, "<f4")
