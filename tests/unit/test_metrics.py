from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins import metrics
from pins.metrics import Difference, Interval, bootstrap, in_first, interval, kendall_tau, ndcg, paired_bootstrap, precision, rank, recall, resample, sdcg

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


# Whole index, rank correlation, paired comparison.


def test_sdcg_compares_with_places_that_all_hold_the_best_grade() -> None:
    best = 15 * (1 + 1 / math.log2(3) + 1 / math.log2(4))
    assert sdcg([4, 2], 3, best=4) == pytest.approx((15 + 3 / math.log2(3)) / best)
    assert sdcg([4, 4, 4, 0], 3, best=4) == pytest.approx(1.0)
    assert sdcg([0, 0, 0, 4], 3, best=4) == 0.0


@pytest.mark.parametrize(
    ("scores", "k", "chances"),
    [
        ([3.0, 1.0, 2.0], 2, [1, 0, 1]),
        ([1.0, 1.0, 1.0, 1.0], 2, [0.5] * 4),
        ([5.0, 2.0, 2.0, 2.0, 1.0], 2, [1, 1 / 3, 1 / 3, 1 / 3, 0]),
        ([5.0, -math.inf, -math.inf], 2, [1, 0, 0]),
        ([0.3, 0.1], 10, [1, 1]),
        ([0.3, -math.inf], 10, [1, 0]),
    ],
)
def test_ties_at_the_edge_share_its_places_and_what_was_not_found_has_none(scores: list[float], k: int, chances: list[float]) -> None:
    assert in_first(scores, k).tolist() == pytest.approx(chances)


def test_recall_is_the_share_of_relevant_pins_among_the_first() -> None:
    scores = [0.9, 0.1, 0.8, 0.2, 0.7]
    assert recall(scores, [0, 3], 3) == 0.5
    assert recall(scores, [0, 2, 4], 3) == 1.0
    assert math.isnan(recall(scores, [], 3))


def test_kendall_tau_is_the_hand_computed_value() -> None:
    # 1,2 1,3 2,3 agree; the pair tied in y counts for x only: tau-b = 5 / sqrt(6 * 5)
    assert kendall_tau([1, 2, 3, 4], [1, 2, 3, 3]) == pytest.approx(5 / math.sqrt(30))
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert math.isnan(kendall_tau([1, 1, 1], [1, 2, 3]))


def test_weights_of_kendall_tau_count_values_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 8)  # several blocks: the sum must not care
    random = np.random.default_rng(0)
    x, y, weights = random.integers(0, 5, 9), random.integers(0, 5, 9), random.integers(0, 4, (3, 9)).astype(float)
    together = kendall_tau(x, y, weights)
    assert together.shape == (3,)
    for row, tau in zip(weights, together, strict=True):
        assert tau == pytest.approx(float(kendall_tau(np.repeat(x, row.astype(int)), np.repeat(y, row.astype(int)))))
    assert kendall_tau(x, y, weights[0]) == pytest.approx(float(together[0]))


def test_kendall_tau_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="needs the training extra: make training")
    random = np.random.default_rng(1)
    for size in (5, 50, 300):
        x, y = random.integers(0, 12, size), random.normal(size=size).round(1)
        assert kendall_tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


def test_ndcg_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs the training extra: make training")
    random = np.random.default_rng(2)
    for k in (3, 10, 20):
        grades, scores = random.integers(0, 5, 15), random.permutation(15)
        ranked = grades[np.argsort(-scores)]
        assert ndcg(ranked, k) == pytest.approx(sklearn.ndcg_score([2.0**grades - 1], [scores], k=k), abs=1e-12)


def test_the_means_of_a_resampling_are_means_of_the_drawn_groups() -> None:
    drawn = resample(["b", "a", "b", "c"], samples=50, seed=3)
    assert drawn.names.tolist() == ["a", "b", "c"]
    assert (drawn.draws.sum(axis=1) == 3).all()
    value = {"a": [5.0], "b": [1.0, 2.0], "c": [9.0]}
    for row, mean in zip(drawn.draws, drawn.means([1.0, 5.0, 2.0, 9.0], ["b", "a", "b", "c"]), strict=True):
        pool = [number for name, times in zip("abc", row, strict=True) for _ in range(int(times)) for number in value[name]]
        assert mean == pytest.approx(np.mean(pool))


def test_a_sample_without_any_of_the_rows_groups_has_no_mean_and_does_not_count() -> None:
    drawn = resample(["a", "b"], samples=200, seed=0)
    means = drawn.means([3.0], ["a"])
    assert np.isnan(means).any()
    assert interval(3.0, means) == Interval(3.0, 3.0, 3.0)


def test_rows_of_a_group_that_was_not_drawn_from_are_refused() -> None:
    with pytest.raises(ValueError, match="1 groups were not drawn from, first 'z'"):
        resample(["a", "b"]).means([1.0, 2.0], ["a", "z"])


def test_a_statistic_gets_each_row_as_often_as_its_group_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, values = ["a", "a", "b", "c"], np.array([1.0, 2.0, 3.0, 4.0])
    drawn = resample(groups, samples=40)
    whole = drawn.statistics(lambda weights: (weights @ values) / weights.sum(axis=1), groups)
    assert whole == pytest.approx(drawn.means(values, groups))
    monkeypatch.setattr(metrics, "BLOCK", 12)
    assert drawn.statistics(lambda weights: (weights @ values) / weights.sum(axis=1), groups) == pytest.approx(whole)


def test_samples_that_are_no_numbers_give_no_interval() -> None:
    nothing = interval(0.5, np.array([np.nan, np.nan]))
    assert math.isnan(nothing.low)
    assert math.isnan(nothing.high)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    random = np.random.default_rng(4)
    hard = random.uniform(size=300)
    groups = [str(number // 2) for number in range(300)]
    better = (hard + 0.02 + random.normal(scale=0.01, size=300)).tolist()
    found = paired_bootstrap(better, hard.tolist(), groups)
    assert found.mean == pytest.approx(0.02, abs=0.003)
    assert 0.015 < found.low < found.mean < found.high < 0.025
    assert found.p == pytest.approx(2 / 1001)
    assert bootstrap(better, groups).low < bootstrap(hard.tolist(), groups).high, "apart, the two intervals overlap"


def test_swapping_the_systems_turns_the_difference_round() -> None:
    random = np.random.default_rng(5)
    first, second, groups = random.uniform(size=60).tolist(), random.uniform(size=60).tolist(), [str(n % 20) for n in range(60)]
    forth, back = paired_bootstrap(first, second, groups), paired_bootstrap(second, first, groups)
    assert (forth.mean, forth.low, forth.high, forth.p) == pytest.approx((-back.mean, -back.high, -back.low, back.p))


def test_two_equal_systems_do_not_differ() -> None:
    assert paired_bootstrap([0.1, 0.7], [0.1, 0.7], ["a", "b"]) == Difference(0.0, 0.0, 0.0, 1.0)


def test_the_p_value_of_no_difference_is_spread_evenly() -> None:
    random = np.random.default_rng(6)
    groups = [str(n) for n in range(40)]
    found = [paired_bootstrap(random.normal(size=40).tolist(), random.normal(size=40).tolist(), groups, samples=200).p for _ in range(200)]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.12
    assert 0.4 <= np.mean(np.array(found) < 0.5) <= 0.6


def test_both_systems_need_a_value_per_group() -> None:
    with pytest.raises(ValueError, match="1 values and 2 groups"):
        paired_bootstrap([0.1, 0.2], [0.1], ["a", "b"])
