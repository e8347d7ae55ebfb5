"""How good the levels are: accuracy, calibration, log loss, and how well scores separate the grades. Plain numpy.

Grades count from 0 and index the columns of `levels`, the probabilities of each level, shape (n, levels), rows of sum 1. Metrics that
are means over pairs come per pair, so that any grouping or bootstrap can average them. The others take `weights` of shape (..., n),
which count each pair as often as they say (bootstrap draws: `pins.metrics.Resampling`), and return the shape of the weights without
the last axis; without weights, shape ().
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pins.metrics import Floats, ratio

BINS = 10
"""Bins of equal width between 0 and 1, as many as Naeini et al. used."""
LEAST = 1e-12
"""Probabilities below this count as this in the log loss: one certain mistake must not make the mean infinite."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Per bin of predicted probability that holds any pair: its mean prediction, how often the prediction was true, pairs; shape (bins,)."""

    predicted: Floats
    observed: Floats
    pairs: NDArray[np.int64]


def most_probable(levels: Floats) -> NDArray[np.int64]:
    """The grade of the most probable level, shape (n,); the higher one where two are equally probable, as `OrdinalHead.level`."""
    return np.asarray(levels.shape[1] - 1 - np.argmax(levels[:, ::-1], axis=1), np.int64)


def accuracy(levels: Floats, grades: ArrayLike) -> Floats:
    """Per pair: 1.0 where the most probable level is the grade, else 0.0."""
    return np.asarray(most_probable(levels) == np.asarray(grades), np.float64)


def within_one(levels: Floats, grades: ArrayLike) -> Floats:
    """Per pair: 1.0 where the most probable level is the grade or one beside it, else 0.0."""
    return np.asarray(np.abs(most_probable(levels) - np.asarray(grades)) <= 1, np.float64)


def log_loss(levels: Floats, grades: ArrayLike) -> Floats:
    """Per pair: minus the natural logarithm of the probability that the grade was given."""
    rows = np.asarray(grades, np.intp)
    return -np.log(np.maximum(levels[np.arange(len(rows)), rows], LEAST))


def confusion(levels: Floats, grades: ArrayLike) -> NDArray[np.int64]:
    """Pairs per grade (row) and most probable level (column), shape (levels, levels)."""
    size = levels.shape[1]
    cells = np.asarray(grades, np.intp) * size + most_probable(levels)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def auroc(positive: ArrayLike, scores: ArrayLike, weights: Floats | None = None) -> Floats:
    """Area under the ROC curve: the chance that a positive pair scores above a negative one, ties counting half (Mann and Whitney 1947).

    NaN where there are no positives or no negatives.
    """
    values, place = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    is_positive = np.asarray(positive, bool)
    counts = np.ones(len(place)) if weights is None else weights
    up = _per_value(counts * is_positive, place, len(values))
    down = _per_value(counts * ~is_positive, place, len(values))
    wins = (up * (np.cumsum(down, axis=-1) - down / 2)).sum(axis=-1)
    return ratio(wins, up.sum(axis=-1) * down.sum(axis=-1))


def spearman(first: ArrayLike, second: ArrayLike, weights: Floats | None = None) -> Floats:
    """Spearman's rank correlation: Pearson's correlation of the ranks, equal values sharing their mean rank. NaN where one list is constant."""
    counts = np.ones(len(np.asarray(first))) if weights is None else weights
    x, y = _ranks(first, counts), _ranks(second, counts)
    total = counts.sum(axis=-1, keepdims=True)
    total = np.where(total > 0, total, 1.0)  # a bootstrap sample may hold none of these pairs
    x, y = (ranks - (counts * ranks).sum(axis=-1, keepdims=True) / total for ranks in (x, y))
    return ratio((counts * x * y).sum(axis=-1), np.sqrt((counts * x * x).sum(axis=-1) * (counts * y * y).sum(axis=-1)))


def calibration_error(levels: Floats, grades: ArrayLike, bins: int = BINS, weights: Floats | None = None) -> Floats:
    """Expected calibration error of the most probable level (Naeini et al. 2015).

    Pairs are put into bins of equal width by the probability of their most probable level; the error is the mean over pairs of the
    distance, in their bin, between that probability's mean and the share of pairs where that level is the grade.
    """
    confidence = levels.max(axis=1)
    counts = np.ones(len(confidence)) if weights is None else weights
    apart = _per_value(counts * (confidence - accuracy(levels, grades)), _bins(confidence, bins), bins)
    return ratio(np.abs(apart).sum(axis=-1), counts.sum(axis=-1))


def reliability(probability: ArrayLike, happened: ArrayLike, bins: int = BINS) -> Reliability:
    """What a reliability diagram shows of n predictions and whether each came true."""
    predicted = np.asarray(probability, np.float64)
    place = _bins(predicted, bins)
    pairs = np.bincount(place, minlength=bins)
    kept = pairs > 0
    means = [np.bincount(place, values, bins)[kept] / pairs[kept] for values in (predicted, np.asarray(happened, np.float64))]
    return Reliability(means[0], means[1], pairs[kept])


def _bins(probability: Floats, bins: int) -> NDArray[np.intp]:
    return np.minimum((probability * bins).astype(np.intp), bins - 1)


def _per_value(weights: Floats, place: NDArray[np.intp], size: int) -> Floats:
    """Sums of weights (..., n) per place, shape (..., size)."""
    rows = weights.reshape(-1, weights.shape[-1])
    sums = np.stack([np.bincount(place, row, size) for row in rows])
    return np.asarray(sums, np.float64).reshape(*weights.shape[:-1], size)


def _ranks(values: ArrayLike, counts: Floats) -> Floats:
    """The rank of each value, shape of `counts`, as if each stood there `counts` times; equal values share their mean rank."""
    distinct, place = np.unique(np.asarray(values, np.float64), return_inverse=True)
    held = _per_value(counts, place, len(distinct))
    return np.asarray((np.cumsum(held, axis=-1) - (held - 1) / 2)[..., place], np.float64)
