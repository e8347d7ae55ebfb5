"""Pins placed in a small space by hand: vectors at a chosen cosine to one another, and an index that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from pins.changes import IndexedPin
from pins.ports import PointWrite, Vector
from tests.fakes import FakeIndex
from tests.unit.samples import T0


class Named(Protocol):
    @property
    def pin_id(self) -> str: ...


def at(axis: int, cosine: float = 1.0, beside: int = 7) -> Vector:
    """A unit vector at this cosine to an axis, leaning towards another."""
    vector = np.zeros(8, np.float32)
    vector[axis], vector[beside] = cosine, np.sqrt(1 - cosine**2)
    return vector


def put(index: FakeIndex, pin_id: str, vector: Vector | None, text: str = "", **fields: Any) -> None:
    """Write a pin, whatever was there; its version is one more than before."""
    known = index.known([pin_id]).get(pin_id)
    shown = {"title": f"title of {pin_id}", "created_at_us": T0 + len(index.points), "lang": "en"} | fields
    before = known.v if known else None
    record = IndexedPin(pin_id, (before or 0) + 1, dead=False, embedded=vector is not None, model_id=index.model_id, text=text or pin_id, fields=shown)
    assert index.write([PointWrite(record, before, vector)])


def index_of(vectors: Mapping[str, Vector | None], **fields: Any) -> FakeIndex:
    """An index of these pins; a pin's text is its id."""
    index = FakeIndex()
    for pin_id, vector in vectors.items():
        put(index, pin_id, vector, **fields)
    return index


def bury(index: FakeIndex, pin_id: str) -> None:
    """Leave a tombstone in a pin's place."""
    known = index.known([pin_id]).get(pin_id)
    v = known.v if known else None
    index.write([PointWrite(IndexedPin(pin_id, (v or 0) + 1, dead=True, embedded=False, model_id=index.model_id), v)])


def ids(results: Iterable[Named]) -> list[str]:
    return [result.pin_id for result in results]
