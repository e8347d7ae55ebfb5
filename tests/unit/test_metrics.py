from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.metrics import Interval, bootstrap, ndcg, precision, rank

IDS = [f"p{n}" for n in range(12)]


def test_ndcg_is_the_hand_computed_value() -> None:
    gained = 7 / math.log2(2) + 3 / math.log2(3) + 7 / math.log2(4) + 0 + 1 / math.log2(6) + 3 / math.log2(7)
    best = 7 / math.log2(2) + 7 / math.log2(3) + 3 / math.log2(4) + 3 / math.log2(5) + 1 / math.log2(6)
    assert ndcg([3, 2, 3, 0, 1, 2], 6) == pytest.approx(gained / best)
    assert ndcg([3, 2, 3, 0, 1, 2], 6) == pytest.approx(0.948810, abs=1e-6)


def test_ndcg_at_k_looks_at_k_places_and_compares_with_the_best_k() -> None:
    assert ndcg([0, 1, 3], 2) == pytest.approx((1 / math.log2(3)) / (7 + 1 / math.log2(3)))
    assert ndcg([0, 0, 3], 2) == 0.0


def test_ndcg_of_fewer_grades_than_places_is_of_those_there_are() -> None:
    assert ndcg([0, 1], 10) == pytest.approx(1 / math.log2(3))
    assert ndcg([4], 10) == 1.0


def test_ndcg_without_a_gain_is_not_a_number() -> None:
    assert math.isnan(ndcg([0, 0], 10))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 12))
def test_ndcg_is_one_for_the_best_order_and_never_more(grades: list[int], k: int) -> None:
    if any(grades):
        assert ndcg(sorted(grades, reverse=True), k) == pytest.approx(1.0)
        assert 0.0 <= ndcg(grades, k) <= 1.0 + 1e-12


def test_precision_counts_empty_places_as_misses() -> None:
    assert precision([4, 2, 3, 3], 3, at_least=3) == pytest.approx(2 / 3)
    assert precision([4, 4], 8, at_least=3) == 0.25
    assert precision([], 8, at_least=3) == 0.0


def test_the_best_score_ranks_first() -> None:
    assert rank(["a", "b", "c"], [0.1, 0.9, 0.5], "q").tolist() == [1, 2, 0]


@given(st.permutations(IDS), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12))
def test_ties_are_ranked_the_same_from_any_order_of_the_file(shuffled: list[str], scores: list[float]) -> None:
    score = dict(zip(IDS, scores, strict=True))
    expected = [IDS[place] for place in rank(IDS, scores, "q")]
    assert [shuffled[place] for place in rank(shuffled, [score[pin_id] for pin_id in shuffled], "q")] == expected
    assert [score[pin_id] for pin_id in expected] == sorted(scores, reverse=True)


def test_ties_are_ranked_by_a_hash_of_each_query_and_not_by_name() -> None:
    orders = {tuple(rank(IDS, [0.0] * 12, query_id).tolist()) for query_id in ("q1", "q2", "q3")}
    assert len(orders) == 3
    assert tuple(range(12)) not in orders


def test_the_bootstrap_gives_the_same_interval_every_time_and_it_holds_the_mean() -> None:
    values = np.random.default_rng(1).uniform(size=80).tolist()
    groups = [f"g{n % 20}" for n in range(80)]
    interval = bootstrap(values, groups)
    assert interval == bootstrap(values, groups)
    assert interval.mean == pytest.approx(np.mean(values))
    assert interval.low < interval.mean < interval.high
    assert interval != bootstrap(values, groups, seed=1)


def test_the_bootstrap_does_not_depend_on_the_order_of_queries() -> None:
    values, groups = [0.1, 0.5, 0.9, 0.2], ["a", "b", "a", "c"]
    forward, backward = bootstrap(values, groups), bootstrap(values[::-1], groups[::-1])
    assert (forward.low, forward.high) == pytest.approx((backward.low, backward.high))


def test_the_bootstrap_draws_whole_groups() -> None:
    assert bootstrap([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"]) == Interval(0.5, 0.5, 0.5)
    alone = bootstrap([0.0, 1.0, 0.0, 1.0], ["a", "b", "c", "d"])
    assert (alone.low, alone.high) == (0.0, 1.0)


def test_larger_groups_weigh_more() -> None:
    assert bootstrap([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]).mean == 0.75


def test_more_queries_give_a_narrower_interval() -> None:
    draw = np.random.default_rng(2).uniform
    few, many = (bootstrap(draw(size=size).tolist(), [str(n) for n in range(size)]) for size in (10, 1000))
    assert many.high - many.low < (few.high - few.low) / 3


def test_every_value_needs_a_group() -> None:
    with pytest.raises(ValueError, match="shorter"):
        bootstrap([0.1, 0.2], ["a"])
