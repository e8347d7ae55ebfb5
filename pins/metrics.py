"""Ranking quality: nDCG, precision and their bootstrap intervals. Plain numpy; evaluation and training share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def rank(pin_ids: Sequence[str], scores: ArrayLike, query_id: str) -> NDArray[np.intp]:
    """Positions of the candidates, best score first; ties in the order of a hash, so that no file order can help."""
    hashes = [blake2b(f"{query_id}\n{pin_id}".encode(), digest_size=8).digest() for pin_id in pin_ids]
    ties = np.argsort(np.argsort(np.array(hashes, dtype="S8")))
    return np.lexsort((ties, -np.asarray(scores, np.float64)))


def ndcg(grades: ArrayLike, k: int) -> float:
    """nDCG@k of grades in ranked order, gain 2^grade - 1, discount log2(rank + 1) (Burges et al. 2005). NaN without a gain."""
    gains = 2.0 ** np.asarray(grades, np.float64) - 1.0
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = float(np.sort(gains)[::-1][:k] @ discounts[: len(gains)])
    return float(gains[:k] @ discounts[: len(gains)]) / ideal if ideal > 0 else float("nan")


def precision(grades: ArrayLike, k: int, at_least: float) -> float:
    """Share of the first k places that hold a grade of `at_least` or more; empty places count as misses."""
    return float((np.asarray(grades)[:k] >= at_least).sum()) / k


def bootstrap(values: Sequence[float], groups: Sequence[str], samples: int = 1000, seed: int = 0) -> Interval:
    """Mean of `values` and its 95 % percentile interval, resampling whole groups (Efron 1979)."""
    totals = {group: np.zeros(2) for group in sorted(set(groups))}
    for value, group in zip(values, groups, strict=True):
        totals[group] += (value, 1.0)
    table = np.array(list(totals.values()))
    drawn = np.random.default_rng(seed).multinomial(len(table), np.full(len(table), 1 / len(table)), size=samples) @ table
    means = drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.mean(values)), float(low), float(high))
