"""Level metrics: against tables computed by hand, and against scikit-learn and scipy where they are installed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pins.level_metrics import (
    accuracy,
    auroc,
    calibration_error,
    confusion,
    log_loss,
    most_probable,
    reliability,
    spearman,
    within_one,
)
from pins.relevance import OrdinalHead

REASON = "needs the training extra: make training"
LEVELS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6], [0.4, 0.4, 0.2]])
"""Four pairs, three levels; the last is a tie of the two lower ones."""
GRADES = np.array([0, 2, 0, 1])


def random_case(seed: int, size: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    levels = random.dirichlet(np.ones(5), size)
    return levels, np.array([random.choice(5, p=row) for row in levels])


def repeated(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    return np.repeat(values, times.astype(int), axis=0)


def test_accuracy_takes_the_most_probable_level_and_of_two_the_higher() -> None:
    assert most_probable(LEVELS).tolist() == [0, 1, 2, 1]
    assert accuracy(LEVELS, GRADES).tolist() == [1, 0, 0, 1]
    assert within_one(LEVELS, GRADES).tolist() == [1, 1, 0, 1]


def test_the_most_probable_level_is_the_one_that_the_ordinal_head_names() -> None:
    head = OrdinalHead(10.0, (1.0, 3.0, 5.0, 7.0))
    cosines = np.linspace(-0.2, 1.0, 60)
    assert most_probable(head.probabilities(cosines)).tolist() == [head.level(cosine) - 1 for cosine in cosines]


def test_log_loss_is_in_nats_and_never_infinite() -> None:
    assert log_loss(LEVELS, GRADES) == pytest.approx([-math.log(0.7), -math.log(0.3), -math.log(0.2), -math.log(0.4)])
    assert log_loss(np.array([[1.0, 0.0]]), [1]) == pytest.approx([-math.log(1e-12)])


def test_confusion_counts_grades_in_rows_and_levels_in_columns() -> None:
    assert confusion(LEVELS, GRADES).tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_auroc_is_the_share_of_pairs_in_the_right_order_and_ties_count_half() -> None:
    # positives 3, 2 and negatives 2, 1: 3 > 2, 3 > 1, 2 = 2, 2 > 1
    assert auroc([True, True, False, False], [3, 2, 2, 1]) == pytest.approx(3.5 / 4)
    assert auroc([True, False], [0.5, 0.5]) == 0.5
    assert auroc([True, False], [-np.inf, 0.5]) == 0.0


def test_auroc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(auroc([True, True], [1, 2]))
    assert math.isnan(auroc([False, False], [1, 2]))


def test_spearman_is_the_hand_computed_value() -> None:
    # ranks 1, 2, 3, 4 and 1, 3.5, 3.5, 2: covariance 1.5, variances 5 and 4.5
    assert spearman([10, 20, 30, 40], [1, 9, 9, 5]) == pytest.approx(1.5 / math.sqrt(5 * 4.5))
    assert math.isnan(spearman([1, 1], [1, 2]))


def test_the_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    # probabilities of the named level 0.7 (right), 0.6 (wrong), 0.6 (wrong), 0.4 (right)
    assert calibration_error(LEVELS, GRADES) == pytest.approx((0.3 + 1.2 + 0.6) / 4)
    assert calibration_error(LEVELS, GRADES, bins=1) == pytest.approx(abs(2.3 - 2) / 4)


def test_certain_and_right_is_calibrated_and_the_last_bin_holds_certainty() -> None:
    assert calibration_error(np.eye(3), [0, 1, 2]) == 0.0
    assert calibration_error(np.eye(3), [1, 2, 0]) == 1.0


def test_levels_drawn_from_their_own_probabilities_are_calibrated() -> None:
    assert calibration_error(*random_case(0, 20_000)) < 0.015


def test_reliability_leaves_empty_bins_out() -> None:
    curve = reliability([0.05, 0.15, 0.15, 1.0], [False, True, False, True])
    assert curve.predicted.tolist() == pytest.approx([0.05, 0.15, 1.0])
    assert curve.observed.tolist() == [0.0, 0.5, 1.0]
    assert curve.pairs.tolist() == [1, 2, 1]


def test_weights_count_each_pair_as_often_as_they_say() -> None:
    levels, grades = random_case(1, 30)
    scores = levels @ np.arange(5.0).round(1)
    weights = np.random.default_rng(2).integers(0, 3, (4, 30)).astype(float)
    for metric, alone in (
        (lambda w: auroc(grades >= 2, scores, w), lambda row: auroc(repeated(grades, row) >= 2, repeated(scores, row))),
        (lambda w: spearman(grades, scores, w), lambda row: spearman(repeated(grades, row), repeated(scores, row))),
        (lambda w: calibration_error(levels, grades, weights=w), lambda row: calibration_error(repeated(levels, row), repeated(grades, row))),
    ):
        together = metric(weights)
        assert together.shape == (4,)
        assert together == pytest.approx([float(alone(row)) for row in weights])
        assert float(metric(weights[0])) == pytest.approx(together[0])


def test_a_bootstrap_sample_without_any_of_the_pairs_has_no_figure() -> None:
    levels, grades = random_case(5, 6)
    scores, weights = levels[:, 0], np.array([np.zeros(6), np.ones(6)])
    for figures in (auroc(grades >= 2, scores, weights), spearman(scores, grades, weights), calibration_error(levels, grades, weights=weights)):
        assert math.isnan(figures[0])
        assert math.isfinite(figures[1])


def test_scikit_learn_and_scipy_find_the_same() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason=REASON)
    stats = pytest.importorskip("scipy.stats", reason=REASON)
    levels, grades = random_case(3)
    scores = (levels @ np.arange(5.0)).round(1)  # rounded: ties
    predicted = most_probable(levels)
    assert accuracy(levels, grades).mean() == pytest.approx(sklearn.accuracy_score(grades, predicted))
    assert log_loss(levels, grades).mean() == pytest.approx(sklearn.log_loss(grades, levels, labels=range(5)))
    assert confusion(levels, grades).tolist() == sklearn.confusion_matrix(grades, predicted).tolist()
    assert spearman(scores, grades) == pytest.approx(stats.spearmanr(scores, grades).statistic)
    for least in (2, 3, 4):
        assert auroc(grades >= least, scores) == pytest.approx(sklearn.roc_auc_score(grades >= least, scores))


def test_scikit_learn_finds_the_same_calibration() -> None:
    calibration = pytest.importorskip("sklearn.calibration", reason=REASON)
    levels, grades = random_case(4, 2000)
    confidence, right = levels.max(axis=1), accuracy(levels, grades)
    observed, predicted = calibration.calibration_curve(right, confidence, n_bins=10)
    curve = reliability(confidence, right)
    assert curve.observed == pytest.approx(observed)
    assert curve.predicted == pytest.approx(predicted)
    assert calibration_error(levels, grades) == pytest.approx(np.average(np.abs(observed - predicted), weights=curve.pairs))
