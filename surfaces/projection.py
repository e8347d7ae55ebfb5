"""The embedding map: a collection's vectors on a plane."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everpin.serving import Served
from pins.changes import IndexedPin
from pins.ports import PinIndex

FRESH_S = 20.0
"""A map younger than this is shown again."""
READ_AT_ONCE = 500
WORDS = (
    "the two directions in which the categories' mean embeddings differ most (principal components of the category means), "
    "each axis scaled to its 99th percentile"
)


@dataclass(frozen=True, slots=True)
class Plane:
    """Pins and their places, float64 of shape (n, 2) within -1 and 1. `made_at` is epoch seconds."""

    pins: Sequence[IndexedPin]
    places: NDArray[np.float64]
    made_at: float


class Maps:
    """The last map of each model, made anew when it is asked for and old. Thread-safe; one map is made at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[str, int], Plane] = {}

    def of(self, served: Served, limit: int) -> Plane:
        """A map of up to `limit` pins: the first of the collection by point id, which is a hash, so a sample of all. Raises Unavailable."""
        with self._lock:
            made = self._made.get((served.model_id, limit))
            if made is None or time.time() - made.made_at > FRESH_S:
                made = self._made[served.model_id, limit] = draw(served.index, limit)
                self._made = dict(list(self._made.items())[-4:])
            return made


def draw(index: PinIndex, limit: int) -> Plane:
    """Read up to `limit` live pins and lay them out. Raises Unavailable."""
    pins: list[IndexedPin] = []
    vectors: list[NDArray[np.float32]] = []
    for batch in index.scan(batch=READ_AT_ONCE):
        live = [pin for pin in batch if pin.pin_id and pin.embedded and not pin.dead]
        found = index.vectors([pin.pin_id for pin in live])
        there = [pin for pin in live if pin.pin_id in found][: limit - len(pins)]
        pins += there
        vectors += [found[pin.pin_id] for pin in there]
        if len(pins) >= limit:
            break
    matrix = np.asarray(vectors, np.float64) if vectors else np.zeros((0, 1))
    return Plane(pins, project(matrix, [str(pin.fields.get("category", "")) for pin in pins]), time.time())


def project(vectors: NDArray[np.float64], categories: Sequence[str]) -> NDArray[np.float64]:
    """Shape (n, d) to (n, 2): principal components of the categories' means, or of all vectors where there are fewer than three categories."""
    if len(vectors) < 2 or vectors.shape[1] < 2:
        return np.zeros((len(vectors), 2))
    names = sorted(set(categories))
    labels = np.array([names.index(category) for category in categories])
    spread = np.stack([vectors[labels == number].mean(axis=0) for number in range(len(names))]) if len(names) >= 3 else vectors
    _, _, axes = np.linalg.svd(spread - spread.mean(axis=0), full_matrices=False)
    places = (vectors - vectors.mean(axis=0)) @ axes[:2].T
    places *= np.where(np.abs(places).max(axis=0) == np.abs(places.min(axis=0)), -1.0, 1.0)  # an axis has no sign of its own: the longer arm is positive
    shown: NDArray[np.float64] = np.clip(places / np.maximum(np.percentile(np.abs(places), 99, axis=0), 1e-12), -1.0, 1.0)
    return shown
