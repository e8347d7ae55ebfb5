"""How a bridge is found: a rotation in closed form, what learns to rank by Adam in plain numpy, and the correction of levels. Same input, same bridge.

The rotation is the orthogonal Procrustes solution over texts that both models encoded (Schönemann 1966); between unequal dimensions it is the matrix with
orthonormal rows or columns that brings these pairs closest. From there on a bridge is not taught to repeat the old model's query vectors, as
Drift-Adapter is (arXiv 2509.23471), which would cap the new model at the old one's mistakes. It is taught to rank: a mapped query shall order the pins' old
vectors as the query itself orders their new ones (listwise distillation, Cao et al. 2007). So the queries may be in any language, also in one that the
old model cannot read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pins.bridge import Map, Residual
from pins.ports import Vector

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's (Kingma and Ba 2015, algorithm 1)."""
FEWEST = 20
"""Texts, and pins, that ranking can be learned from at all."""
HELD_AT_MOST = 1_000
"""Held-out texts, and pins, that the result is judged by."""


@dataclass(frozen=True, slots=True)
class Training:
    """How ranking is learned. `hidden`: width of the residual's layer; 0 for none, which leaves one matrix.

    `rate`: Adam's at the start; it falls to zero along half a cosine (Loshchilov and Hutter 2017). `against`: pins that a batch is ranked against;
    `temperature`: of the softmax over cosines, whose small values look at the first places only; `held`: share of texts and pins that only judge
    the result.
    """

    hidden: int = 0
    epochs: int = 8
    batch: int = 256
    rate: float = 1e-3
    against: int = 512
    temperature: float = 0.05
    held: float = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """What ranking is learned from: unit vectors of texts by the new model, (n, new), and of pins by both, (m, new) and (m, old), float32."""

    asked: Vector
    pins_new: Vector
    pins_old: Vector

    def split(self, random: np.random.Generator, share: float) -> tuple[Ranked, Ranked]:
        """Held-out texts and pins, this share of each, and the others."""
        asked, pins = (np.split(random.permutation(n), [max(1, round(n * share))]) for n in (len(self.asked), len(self.pins_new)))
        held, rest = (Ranked(self.asked[texts], self.pins_new[rows], self.pins_old[rows]) for texts, rows in zip(asked, pins, strict=True))
        return Ranked(held.asked[:HELD_AT_MOST], held.pins_new[:HELD_AT_MOST], held.pins_old[:HELD_AT_MOST]), rest


Parameters = tuple[Vector, Vector, Vector, Vector]
"""Matrix, and inner, bias and outer of the residual, whose width may be 0."""


def fit_procrustes(new: Vector, old: Vector) -> Map:
    """The rotation of `new`, unit vectors of shape (n, new dimension), that is closest to `old`, (n, old dimension). Raises ValueError."""
    _paired(new, old)
    left, _, right = np.linalg.svd(np.asarray(new, np.float64).T @ np.asarray(old, np.float64), full_matrices=False)
    return Map(np.asarray(left @ right, np.float32))


def fit_ranking(start: Map, ranked: Ranked, training: Training = Training(), seed: int = 0, step: Callable[[int], None] = lambda epoch: None) -> Map:
    """The map that ranks best, found from `start`, whose matrix it changes and beside which it lays a hidden layer, if one is asked for.

    `step` hears the number of each epoch that is done. Returns `start` where training did not better it on held-out texts and pins. Raises ValueError
    for fewer than 20 texts or pins.
    """
    _paired(ranked.pins_new, ranked.pins_old)
    if min(len(ranked.asked), len(ranked.pins_new)) < FEWEST:
        raise ValueError(f"ranking is learned from {FEWEST} texts and {FEWEST} pins or more, there are {len(ranked.asked)} and {len(ranked.pins_new)}")
    random = np.random.default_rng(seed)
    held, rest = ranked.split(random, training.held)
    steps = training.epochs * -(-len(rest.asked) // training.batch)
    weights = _Weights(_start(random, start.matrix, training.hidden), training.rate, steps)
    for epoch in range(1, training.epochs + 1):
        for rows in _batches(random.permutation(len(rest.asked)), training.batch):
            pins = random.permutation(len(rest.pins_new))[: training.against]
            batch = Ranked(rest.asked[rows], rest.pins_new[pins], rest.pins_old[pins])
            weights.descend(_gradients(weights.now, batch, training.temperature))
        step(epoch)
    found = weights.map()
    return found if _loss(found, held, training.temperature) < _loss(start, held, training.temperature) else start


def fit_levels(mapped: NDArray[np.floating], own: NDArray[np.floating]) -> tuple[float, float]:
    """Slope and intercept that give cosines of mapped queries the mean and the spread of those of the old model's own queries.

    `mapped` and `own`: cosines to the pins that each of the two finds for the same texts, so that as many results reach each level as before.
    (1, 0) where either does not vary.
    """
    x, y = np.asarray(mapped, np.float64), np.asarray(own, np.float64)
    slope = float(y.std() / x.std()) if x.size and x.std() > 0 else 0.0
    return (slope, float(y.mean() - slope * x.mean())) if slope > 0 else (1.0, 0.0)


class _Weights:
    """The parameters as they are trained, by Adam."""

    def __init__(self, start: Parameters, rate: float, steps: int) -> None:
        self.now, self._rate, self._steps, self._done = start, rate, steps, 0
        self._first, self._second = ([np.zeros_like(one) for one in start] for _ in range(2))

    def descend(self, gradients: Parameters) -> None:
        """One step against the gradients, in place."""
        falling = self._rate * (1 + np.cos(np.pi * self._done / self._steps)) / 2
        self._done += 1
        rate = np.float32(falling * np.sqrt(1 - BETAS[1] ** self._done) / (1 - BETAS[0] ** self._done))
        for place, gradient in enumerate(gradients):
            self._first[place] += np.float32(1 - BETAS[0]) * (gradient - self._first[place])
            self._second[place] += np.float32(1 - BETAS[1]) * (gradient * gradient - self._second[place])
            self.now[place][...] -= rate * self._first[place] / (np.sqrt(self._second[place]) + np.float32(EPSILON))

    def map(self) -> Map:
        """A copy of them as they are now."""
        matrix, inner, bias, outer = (one.copy() for one in self.now)
        return Map(matrix, Residual(inner, bias, outer) if bias.size else None)


def _start(random: np.random.Generator, matrix: Vector, hidden: int) -> Parameters:
    """He's initialisation inside, zeros outside: the residual begins as nothing."""
    new, old = matrix.shape
    inner = random.normal(size=(new, hidden)) * np.sqrt(2 / new)
    return matrix.astype(np.float32), inner.astype(np.float32), np.zeros(hidden, np.float32), np.zeros((hidden, old), np.float32)


def _gradients(weights: Parameters, batch: Ranked, temperature: float) -> Parameters:
    """Of `_loss`, by the chain rule through softmax, unit length and the hidden layer."""
    matrix, inner, bias, outer = weights
    active = np.maximum(batch.asked @ inner + bias, np.float32(0))
    mapped = batch.asked @ matrix + active @ outer
    norms = np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), np.float32(1e-12))
    unit = mapped / norms
    wrong = _softmax(unit @ batch.pins_old.T, temperature) - _softmax(batch.asked @ batch.pins_new.T, temperature)
    of_unit = (wrong @ batch.pins_old) / np.float32(temperature * len(unit))
    of_mapped = (of_unit - unit * (unit * of_unit).sum(axis=1, keepdims=True)) / norms
    of_active = (of_mapped @ outer.T) * (active > 0)
    return batch.asked.T @ of_mapped, batch.asked.T @ of_active, of_active.sum(axis=0), active.T @ of_mapped


def _loss(map_: Map, ranked: Ranked, temperature: float) -> float:
    """Mean Kullback-Leibler divergence of the mapped texts' ranking of the old vectors from the texts' own ranking of the new ones."""
    wanted = _softmax(ranked.asked @ ranked.pins_new.T, temperature)
    got = _softmax(map_.apply(ranked.asked) @ ranked.pins_old.T, temperature)
    tiny = np.float32(1e-30)
    return float((wanted * np.log((wanted + tiny) / (got + tiny))).sum(axis=1).mean())


def _softmax(cosines: Vector, temperature: float) -> Vector:
    """Shape (n, m) to (n, m): over each row."""
    powers = np.exp((cosines - cosines.max(axis=1, keepdims=True)) / np.float32(temperature))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _batches(rows: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _paired(new: Vector, old: Vector) -> None:
    if len(new) != len(old) or not len(new):
        raise ValueError(f"{len(new)} new and {len(old)} old vectors are no pairs; encode the same texts by both models")
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        raise ValueError("some vectors are not finite; leave their texts out")
