from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.relevance import Level, OrdinalHead

HEAD = OrdinalHead(8.0, (1.0, 2.0, 3.0, 4.0))
THRESHOLDS = st.lists(st.floats(-10, 10), min_size=4, max_size=4, unique=True).map(lambda steps: tuple(sorted(steps)))
HEADS = st.builds(OrdinalHead, st.floats(0.1, 30), THRESHOLDS)
COSINES = st.lists(st.floats(-1, 1), min_size=1, max_size=5)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_probabilities_follow_the_proportional_odds_formula() -> None:
    above = [1.0, *(sigmoid(8.0 * 0.3 - threshold) for threshold in (1, 2, 3, 4)), 0.0]
    expected = [high - low for high, low in pairwise(above)]
    np.testing.assert_allclose(HEAD.probabilities(0.3), expected, atol=1e-12)
    assert HEAD.expected(0.3) == pytest.approx(sum(level * share for level, share in enumerate(expected, start=1)))


def test_the_ends_of_the_scale_are_reached_at_its_ends() -> None:
    steep = OrdinalHead(500.0, (100.0, 200.0, 300.0, 400.0))
    assert steep.expected([-0.2, 0.3, 0.5, 0.7, 1.0]) == pytest.approx([1, 2, 3, 4, 5])
    assert [steep.level(cosine) for cosine in (-0.2, 0.3, 0.5, 0.7, 1.0)] == list(Level)


@given(HEADS, COSINES)
def test_probabilities_are_a_distribution_over_five_levels(head: OrdinalHead, cosines: list[float]) -> None:
    shares = head.probabilities(cosines)
    assert shares.shape == (len(cosines), 5)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=-1), 1)


@given(HEADS, COSINES)
def test_the_order_of_cosines_is_the_order_of_relevance(head: OrdinalHead, cosines: list[float]) -> None:
    relevance = head.expected(sorted(cosines))
    assert (np.diff(relevance) >= -1e-12).all()
    assert ((relevance >= 1 - 1e-12) & (relevance <= 5 + 1e-12)).all()


def test_expected_relevance_grows_strictly_where_cosines_differ_visibly() -> None:
    assert (np.diff(HEAD.expected(np.linspace(-1, 1, 201))) > 0).all()


def test_shapes_are_kept_and_an_empty_answer_stays_empty() -> None:
    assert HEAD.expected(np.zeros((2, 3))).shape == (2, 3)
    assert HEAD.expected([]).shape == (0,)


def test_the_level_is_the_most_probable_one_and_the_higher_of_equals() -> None:
    assert HEAD.level(-1.0) is Level.HIGHLY_IRRELEVANT
    assert HEAD.level(1.0) is Level.HIGHLY_RELEVANT
    even = OrdinalHead(1.0, (-40.0, 0.0, 40.0, 41.0))
    shares = even.probabilities(0.0)
    assert shares[1] == shares[2] == 0.5
    assert even.level(0.0) is Level.MARGINALLY_RELEVANT


def test_levels_are_worded() -> None:
    assert [level.label for level in Level] == ["highly irrelevant", "irrelevant", "marginally relevant", "relevant", "highly relevant"]


@pytest.mark.parametrize(
    ("scale", "thresholds"),
    [
        (0.0, (1, 2, 3, 4)),
        (-1.0, (1, 2, 3, 4)),
        (math.nan, (1, 2, 3, 4)),
        (math.inf, (1, 2, 3, 4)),
        (1.0, (1, 2, 3)),
        (1.0, (1, 2, 3, 4, 5)),
        (1.0, ()),
        (1.0, (1, 3, 2, 4)),
        (1.0, (1, 2, 2, 3)),
        (1.0, (1, 2, 3, math.nan)),
        (1.0, (math.nan, 1, 2, 3)),
        (1.0, (1, 2, 3, math.inf)),
    ],
)
def test_a_head_that_would_not_keep_the_order_is_refused(scale: float, thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="four increasing") as caught:
        OrdinalHead(scale, thresholds)
    assert str(thresholds) in str(caught.value)
