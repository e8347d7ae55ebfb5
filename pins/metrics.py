"""Ranking quality: nDCG, precision, recall, rank correlation, and their bootstrap by group. Plain numpy; evaluation and training share them.

Levels and their probabilities are measured in `pins.level_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BLOCK = 2**20
"""Numbers held at once by a computation that works on blocks: 8 MB of float64, which stays in a processor's cache."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """What the first of two systems has more than the second, its 95 % bootstrap interval, and the two-sided p value of no difference."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, slots=True)
class Resampling:
    """Bootstrap samples of whole groups (Efron 1979), drawn once and used for every figure, so that figures can be compared sample by sample.

    `names`: the groups, sorted, shape (g,). `draws`: float64 (samples, g), how often each sample holds each group.
    """

    names: NDArray[np.str_]
    draws: Floats

    def means(self, values: ArrayLike, groups: Sequence[str] | NDArray[np.str_]) -> Floats:
        """The mean of `values` in every sample, shape (samples,); NaN in a sample that holds none of their groups."""
        rows, size = self._rows(groups), len(self.names)
        drawn = self.draws @ np.column_stack([np.bincount(rows, np.asarray(values, np.float64), size), np.bincount(rows, minlength=size)])
        return ratio(drawn[:, 0], drawn[:, 1])

    def statistics(self, statistic: Callable[[Floats], Floats], groups: Sequence[str] | NDArray[np.str_]) -> Floats:
        """A statistic of rows weighted by how often their group was drawn, shape (samples,).

        `statistic` takes weights of shape (some samples, rows) and returns (some samples,).
        """
        rows = self._rows(groups)
        step = max(1, BLOCK // max(1, len(rows)))
        return np.concatenate([statistic(self.draws[start : start + step][:, rows]) for start in range(0, len(self.draws), step)])

    def _rows(self, groups: Sequence[str] | NDArray[np.str_]) -> NDArray[np.intp]:
        wanted = np.asarray(groups, np.str_)
        rows = np.minimum(np.searchsorted(self.names, wanted), len(self.names) - 1)
        if strange := set(wanted[self.names[rows] != wanted].tolist()):
            raise ValueError(f"{len(strange)} groups were not drawn from, first {min(strange)!r}; resample over all of them")
        return rows


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


def sdcg(grades: ArrayLike, k: int, best: float) -> float:
    """sDCG@k of grades in ranked order: as nDCG, but measured against k places that all hold the `best` grade (arXiv 2509.03764).

    So a query with few relevant pins scores low under any ranking, which nDCG hides.
    """
    gains = 2.0 ** np.asarray(grades, np.float64)[:k] - 1.0
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    return float(gains @ discounts[: len(gains)]) / float((2.0**best - 1.0) * discounts.sum())


def precision(grades: ArrayLike, k: int, at_least: float) -> float:
    """Share of the first k places that hold a grade of `at_least` or more; empty places count as misses."""
    return float((np.asarray(grades)[:k] >= at_least).sum()) / k


def in_first(scores: ArrayLike, k: int) -> Floats:
    """Per pin, the chance to be among the k best scores when equal scores are ordered at random: 1, 0, or between them at the edge.

    The expectation over ties (McSherry and Najork 2008) needs no tie rule, so no file order can help. A score of minus infinity
    means not found at all. Shape (n,) in, (n,) out.
    """
    values = np.asarray(scores, np.float64)
    places = min(k, len(values))
    edge = np.partition(values, len(values) - places)[len(values) - places]
    above, tied = values > edge, values == edge
    share = (places - above.sum()) / tied.sum()
    return np.where(np.isneginf(values), 0.0, above + share * tied)


def recall(scores: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """recall@k over all pins: the share of the `relevant` positions whose score is among the k best. NaN when nothing is relevant."""
    wanted = np.asarray(relevant, np.intp)
    return float(in_first(scores, k)[wanted].mean()) if len(wanted) else float("nan")


def kendall_tau(first: ArrayLike, second: ArrayLike, weights: Floats | None = None) -> Floats:
    """Kendall's tau-b of two lists of n values (Kendall 1945), which corrects for ties. NaN where one list is constant.

    `weights` (..., n) counts each value as often as it says; the result has their shape without the last axis, () without weights.
    """
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    counts = np.atleast_2d(np.ones(len(x)) if weights is None else weights)
    agree, pairs_x, pairs_y = np.zeros((3, len(counts)))
    step = max(1, BLOCK // max(1, len(x)))
    for start in range(0, len(x), step):
        some = slice(start, start + step)
        signs_x, signs_y = np.sign(x[:, None] - x[some]), np.sign(y[:, None] - y[some])
        agree += ((counts @ (signs_x * signs_y)) * counts[:, some]).sum(axis=1)
        pairs_x += ((counts @ np.abs(signs_x)) * counts[:, some]).sum(axis=1)
        pairs_y += ((counts @ np.abs(signs_y)) * counts[:, some]).sum(axis=1)
    tau = ratio(agree, np.sqrt(pairs_x * pairs_y))
    return tau[0] if weights is None or weights.ndim == 1 else tau


def resample(groups: Sequence[str] | NDArray[np.str_], samples: int = 1000, seed: int = 0) -> Resampling:
    """Draw as many groups as there are, with replacement, `samples` times. The same groups and seed give the same draws."""
    names = np.unique(np.asarray(groups, np.str_))
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    return Resampling(names, draws.astype(np.float64))


def interval(mean: float, samples: Floats) -> Interval:
    """The 95 % percentile interval of bootstrap samples; samples that are not a number are left out."""
    low, high = _quantiles(samples)
    return Interval(float(mean), low, high)


def difference(mean: float, samples: Floats) -> Difference:
    """The interval of a difference, and p: twice the smaller share of samples on either side of zero (Efron and Tibshirani 1993, chapter 15).

    One is added to both counts, so p is never 0: it says no more than the number of samples can say.
    """
    low, high = _quantiles(samples)
    beyond = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return Difference(float(mean), low, high, min(1.0, 2 * (beyond + 1) / (len(samples) + 1)))


def bootstrap(values: Sequence[float], groups: Sequence[str], samples: int = 1000, seed: int = 0) -> Interval:
    """Mean of `values` and its 95 % percentile interval, resampling whole groups (Efron 1979)."""
    _same_length(values, groups)
    return interval(float(np.mean(values)), resample(groups, samples, seed).means(values, groups))


def paired_bootstrap(first: Sequence[float], second: Sequence[float], groups: Sequence[str], samples: int = 1000, seed: int = 0) -> Difference:
    """The mean of `first` minus the mean of `second`, two systems measured on the same queries, resampling whole groups."""
    _same_length(first, groups)
    _same_length(second, groups)
    apart = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return difference(float(apart.mean()), resample(groups, samples, seed).means(apart, groups))


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is 0; both of one shape."""
    shares: Floats = np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below > 0)
    return shares


def _same_length(values: Sequence[float], groups: Sequence[str]) -> None:
    if len(values) != len(groups):
        raise ValueError(f"{len(values)} values and {len(groups)} groups: one list is shorter; every value needs a group")


def _quantiles(samples: Floats) -> tuple[float, float]:
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.025, 0.975])
    return float(low), float(high)
