from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from pins.experiments.statistics import (
    LEAST_UNITS,
    SRM_ALPHA,
    against_zero,
    compare,
    estimate,
    holm,
    sample_ratio,
    units_needed,
    wilson,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_with_one_search_per_unit_it_is_the_plain_mean_and_its_interval(rng: np.random.Generator) -> None:
    values = rng.gamma(2.0, size=400)
    got = estimate(values, np.ones(400))
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert (got.value, got.low, got.high, got.units) == (pytest.approx(values.mean()), pytest.approx(low), pytest.approx(high), 400)


def test_two_arms_of_one_search_per_unit_are_compared_as_by_welch(rng: np.random.Generator) -> None:
    first, second = rng.normal(0, 1, 3000), rng.normal(0.05, 2, 2000)
    got = compare((first, np.ones(3000)), (second, np.ones(2000)))
    welch = scipy.stats.ttest_ind(second, first, equal_var=False)
    assert got.difference == pytest.approx(second.mean() - first.mean())
    assert got.p == pytest.approx(welch.pvalue, rel=0.01)  # normal beside Student's t of thousands of degrees
    assert (got.low, got.high) == pytest.approx(tuple(welch.confidence_interval()), abs=2e-3)


def test_the_delta_method_agrees_with_a_bootstrap_of_units(rng: np.random.Generator) -> None:
    searches = rng.geometric(0.3, 2000)
    found = rng.binomial(searches, rng.beta(1, 2, 2000))
    got = estimate(found, searches)
    rows = rng.integers(0, 2000, (2000, 2000))
    drawn = found[rows].sum(axis=1) / searches[rows].sum(axis=1)
    assert (got.high - got.low) / (2 * 1.96) == pytest.approx(drawn.std(), rel=0.06)
    as_if_independent = math.sqrt(got.value * (1 - got.value) / searches.sum())
    assert drawn.std() > 1.3 * as_if_independent


def test_units_that_measure_nothing_are_left_out() -> None:
    above, below = np.arange(60.0), np.full(60, 2.0)
    assert estimate(np.append(above, 5.0), np.append(below, 0.0)) == estimate(above, below)


def test_too_few_units_have_a_value_and_no_interval() -> None:
    few = np.ones(LEAST_UNITS - 1)
    got = estimate(few, few)
    assert (got.value, got.units) == (1.0, LEAST_UNITS - 1)
    assert math.isnan(got.low)
    assert math.isnan(got.high)
    nothing = estimate([], [])
    assert math.isnan(nothing.value)
    assert not compare((few, few), (np.ones(500), np.ones(500))).known


def test_what_never_varied_says_nothing_unless_the_arms_are_apart() -> None:
    zeros, ones = np.zeros(100), np.ones(100)
    assert not compare((zeros, ones), (zeros, ones)).known
    assert compare((zeros, ones), (ones, ones)).p == 0


def test_a_value_needs_its_unit() -> None:
    with pytest.raises(ValueError, match="every unit needs both"):
        estimate([1.0], [1.0, 2.0])


def test_a_preference_is_tested_against_none(rng: np.random.Generator) -> None:
    won = rng.choice([-1, 0, 1], 900, p=[0.13, 0.7, 0.17])
    got = against_zero(won, np.ones(900))
    assert got.p == pytest.approx(scipy.stats.ttest_1samp(won, 0).pvalue, rel=0.05)
    assert got.difference == pytest.approx(won.mean())


def test_the_detectable_difference_is_found_four_times_of_five(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 1, (2000, 2, 100))
    detectable = compare((rng.normal(0, 1, 100), np.ones(100)), (rng.normal(0, 1, 100), np.ones(100))).detectable
    found = [compare((one, np.ones(100)), (other + detectable, np.ones(100))).p < 0.05 for one, other in noise]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


def test_four_times_the_units_find_half_the_difference(rng: np.random.Generator) -> None:
    got = compare((rng.normal(0, 1, 500), np.ones(500)), (rng.normal(0, 1, 500), np.ones(500)))
    assert units_needed(got, 1000, got.detectable) == pytest.approx(1000)
    assert units_needed(got, 1000, got.detectable / 2) == pytest.approx(4000)


@given(st.integers(0, 5000), st.integers(0, 5000), st.sampled_from([0.01, 0.05, 0.5, 0.9]))
def test_the_sample_ratio_is_the_chi_square_test(control: int, candidate: int, share: float) -> None:
    got, units = sample_ratio(control, candidate, share), control + candidate
    if min(units * share, units * (1 - share)) < 5:
        assert math.isnan(got.p)
        assert not got.broken
    else:
        assert got.p == pytest.approx(scipy.stats.chisquare([control, candidate], [units * (1 - share), units * share]).pvalue, rel=1e-6, abs=1e-300)
        assert got.broken == (got.p < SRM_ALPHA)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        sample_ratio(100, 100, share)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_correction_is_holms(p_values: list[float]) -> None:
    got = holm({str(place): p for place, p in enumerate(p_values)})
    order, least = np.argsort(p_values, kind="stable"), 0.0
    for place, row in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[row]))
        assert got[str(row)] == pytest.approx(least)
    assert math.isnan(holm({"a": 0.01, "b": math.nan})["b"])
    assert holm({"a": 0.01, "b": math.nan})["a"] == 0.01


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_of_a_share_is_wilsons(found: int, of: int) -> None:
    found = min(found, of)
    expected = scipy.stats.binomtest(found, of).proportion_ci(method="wilson")
    assert wilson(found, of) == (pytest.approx(expected.low, abs=1e-9), pytest.approx(expected.high, abs=1e-9))


@pytest.mark.parametrize(("found", "of"), [(0, 0), (-1, 5), (6, 5)])
def test_a_share_of_nothing_is_refused(found: int, of: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(found, of)
