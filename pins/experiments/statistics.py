"""Ratio metrics of two arms compared, with units as what was randomised: intervals, p values, sample-ratio mismatch, correction for many metrics.

Requests of one person are alike, so they are no independent trials: everything here sums per unit first (delta method: Deng, Knoblich and Lu,
KDD 2018, section 2). Counting requests as if they were independent would call a null a lift far more often than promised; `bench/experiments.json`
says how much more.

Every interval and p value holds for ONE look, at an end that was fixed beforehand. Who looks daily and stops at the first good day finds lifts that
are not there (Johari et al., KDD 2017): choose the length first, by `units_needed` of an experiment before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
ALPHA, POWER = 0.05, 0.8
SRM_ALPHA = 0.001
"""Below this p value the dealing of units counts as broken (Fabijan et al., KDD 2019): looked at always, it must hardly ever cry wolf."""
LEAST_UNITS = 30
"""Units per arm with anything to measure that the normal approximation needs at the very least."""
LEAST_EXPECTED = 5
"""Units that must be expected in each arm for the chi-square test to hold (Cochran 1954)."""
_ROUNDING = 1e-12
"""What sums of the same numbers in another order may differ by; the metrics are of the order of 1."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio metric of one arm and its 95 % interval. NaN where there is nothing to measure, a NaN interval where there are too few units."""

    value: float
    low: float
    high: float
    units: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidate minus control, its 95 % interval and two-sided p value. `detectable`: the true difference that this much data finds 4 times of 5."""

    difference: float
    low: float
    high: float
    p: float
    detectable: float

    @property
    def known(self) -> bool:
        """Whether there was enough data to say anything."""
        return not math.isnan(self.p)


@dataclass(frozen=True, slots=True)
class RatioMismatch:
    """Units counted in both arms against the share that was dealt. p is NaN where there are too few units to tell."""

    control: int
    candidate: int
    share: float
    p: float

    @property
    def broken(self) -> bool:
        """Whether so uneven a deal is no accident."""
        return self.p < SRM_ALPHA


def estimate(above: ArrayLike, below: ArrayLike) -> Estimate:
    """The ratio of two sums over units, `above` / `below`, each (units,); units where `below` is 0 measure nothing and are left out."""
    value, error, units = _ratio(above, below)
    margin = _quantile(1 - ALPHA / 2) * error
    return Estimate(value, value - margin, value + margin, units)


def compare(control: tuple[ArrayLike, ArrayLike], candidate: tuple[ArrayLike, ArrayLike]) -> Comparison:
    """Two arms of different units, each as (`above`, `below`) per unit."""
    (first, first_error, _), (second, second_error, _) = _ratio(*control), _ratio(*candidate)
    return _against_zero(second - first, math.hypot(first_error, second_error))


def against_zero(above: ArrayLike, below: ArrayLike) -> Comparison:
    """One group of units, whose ratio would be 0 if nothing were different: the test of interleaving."""
    value, error, _ = _ratio(above, below)
    return _against_zero(value, error)


def sample_ratio(control: int, candidate: int, share: float) -> RatioMismatch:
    """Whether the units of both arms are as many as a deal of `share` (above 0, below 1) for the candidate makes them: chi-square, one degree."""
    if not 0 < share < 1:
        raise ValueError(f"the candidate's share is {share}; give one above 0 and below 1")
    units = control + candidate
    expected = units * share
    if min(expected, units - expected) < LEAST_EXPECTED:
        return RatioMismatch(control, candidate, share, math.nan)
    chi_square = (candidate - expected) ** 2 / expected + (control - (units - expected)) ** 2 / (units - expected)
    return RatioMismatch(control, candidate, share, math.erfc(math.sqrt(chi_square / 2)))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p values corrected so that the chance of any false alarm among them stays at `ALPHA` (Holm 1979). What is not known (NaN) stays so."""
    known = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected, least = dict(p_values), 0.0
    for place, (p, name) in enumerate(known):
        least = corrected[name] = max(least, min(1.0, p * (len(known) - place)))
    return corrected


def wilson(found: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a share `found` / `of` (Wilson 1927). Raises ValueError for a share of nothing."""
    if not 0 <= found <= of or of < 1:
        raise ValueError(f"{found} of {of} is no share")
    z = _quantile((1 + confidence) / 2)
    middle, scale = (found + z * z / 2) / (of + z * z), z / (of + z * z)
    margin = scale * math.sqrt(found * (of - found) / of + z * z / 4)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def units_needed(comparison: Comparison, units: int, difference: float) -> float:
    """Units that would find a true `difference` 4 times of 5, from what `units` of them could detect; NaN where nothing is known."""
    return units * (comparison.detectable / difference) ** 2


def _ratio(above: ArrayLike, below: ArrayLike) -> tuple[float, float, int]:
    """The ratio, its standard error by the delta method, and the units with anything to measure."""
    numerator, denominator = np.asarray(above, np.float64), np.asarray(below, np.float64)
    if numerator.shape != denominator.shape:
        raise ValueError(f"{numerator.shape} values above and {denominator.shape} below: every unit needs both")
    measured = denominator > 0
    numerator, denominator = numerator[measured], denominator[measured]
    units = len(numerator)
    if not units:
        return math.nan, math.nan, 0
    value = float(numerator.sum() / denominator.sum())
    if units < LEAST_UNITS:
        return value, math.nan, units
    apart = numerator - value * denominator
    return value, float(math.sqrt(apart @ apart / (units - 1) / units) / denominator.mean()), units


def _against_zero(difference: float, error: float) -> Comparison:
    difference, error = (0.0 if abs(value) < _ROUNDING else value for value in (difference, error))
    if math.isnan(error) or error == difference == 0:  # where nothing ever varied, nothing was measured
        return Comparison(difference, math.nan, math.nan, math.nan, math.nan)
    margin = _quantile(1 - ALPHA / 2) * error
    z = abs(difference) / error if error else math.inf
    detectable = (_quantile(1 - ALPHA / 2) + _quantile(POWER)) * error
    return Comparison(difference, difference - margin, difference + margin, math.erfc(z / math.sqrt(2)), detectable)


def _quantile(share: float) -> float:
    return _NORMAL.inv_cdf(share)
