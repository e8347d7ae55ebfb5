"""Records and vectors of the index suites."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pins.changes import IndexedPin
from pins.ports import PinIndex, PointWrite, Vector

MODEL, DIMENSION = "fake-v1", 8


def vector(seed: int) -> Vector:
    values = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return values / np.linalg.norm(values)


def record(pin_id: str, v: int = 1, **changes: object) -> IndexedPin:
    made = IndexedPin(pin_id, v, dead=False, embedded=True, model_id=MODEL, text=f"text of {pin_id}", fingerprint="f", seen="f", fields={"lang": "en"})
    return replace(made, **changes)  # type: ignore[arg-type]


def put(index: PinIndex, pin_id: str, v: int = 1, expected: int | None = None, seed: int = 0, **changes: object) -> set[str]:
    return index.write([PointWrite(record(pin_id, v, **changes), expected, vector(seed))])
