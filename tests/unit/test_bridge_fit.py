"""Finding a bridge: planted maps are found again, gradients are those of the loss, and what is not better is not taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from pins.bridge import Map, Residual
from pins.bridge_fit import FEWEST, Ranked, Training, _gradients, _loss, _start, fit_levels, fit_procrustes, fit_ranking
from pins.ports import Vector

QUICK = Training(epochs=12, batch=32, rate=3e-3, against=64, temperature=0.1)


def units(*shape: int, seed: int = 0) -> Vector:
    raw = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(raw / np.linalg.norm(raw, axis=-1, keepdims=True), np.float32)


def turn(size: int, seed: int = 1) -> Vector:
    return np.asarray(np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0], np.float32)


def test_a_planted_rotation_is_found_and_is_scipys() -> None:
    new, planted = units(200, 12), turn(12)
    found = fit_procrustes(new, new @ planted).matrix
    assert found.dtype == np.float32
    assert found == pytest.approx(planted, abs=1e-5)
    noisy = np.asarray(new @ planted + 0.1 * units(200, 12, seed=5), np.float32)
    assert fit_procrustes(new, noisy).matrix == pytest.approx(orthogonal_procrustes(new.astype(float), noisy.astype(float))[0], abs=1e-5)


@pytest.mark.parametrize(("new", "old"), [(12, 5), (5, 12)])
def test_between_unequal_dimensions_rows_or_columns_are_orthonormal(new: int, old: int) -> None:
    planted = turn(12)[:new, :old]
    vectors = units(300, new)
    found = fit_procrustes(vectors, vectors @ planted).matrix
    product = found @ found.T if new < old else found.T @ found
    assert found.shape == (new, old)
    assert product == pytest.approx(np.eye(min(new, old)), abs=1e-5)
    if new < old:  # nothing is lost on the way up, so the planted map itself comes back
        assert found == pytest.approx(planted, abs=1e-5)


@pytest.mark.parametrize(
    ("new", "old", "problem"),
    [
        (units(5, 4), units(6, 4), "5 new and 6 old vectors are no pairs"),
        (units(0, 4), units(0, 4), "0 new and 0 old"),
        (np.full((5, 4), np.nan, np.float32), units(5, 4), "not finite"),
        (units(5, 4), np.full((5, 4), np.inf, np.float32), "not finite"),
    ],
)
def test_what_is_no_pairs_is_refused(new: Vector, old: Vector, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        fit_procrustes(new, old)
    with pytest.raises(ValueError, match=problem):
        fit_ranking(Map(turn(4)), Ranked(units(30, 4), new, old))


def material(texts: int = 400, pins: int = 300, new: int = 12, old: int = 10) -> Ranked:
    """An old model that looks at the world through a skewed map: directions of the new one are stretched, which no rotation can undo."""
    skewed = np.random.default_rng(2).normal(size=(new, old)) * np.geomspace(0.2, 3, old)
    pins_new = units(pins, new, seed=3)
    pins_old = pins_new @ skewed
    return Ranked(units(texts, new, seed=4), pins_new, np.asarray(pins_old / np.linalg.norm(pins_old, axis=1, keepdims=True), np.float32))


@pytest.mark.parametrize("hidden", [0, 16])
def test_what_learned_to_rank_ranks_pins_it_has_not_seen_better_than_the_rotation(hidden: int) -> None:
    everything = material(texts=600, pins=500)
    learned = Ranked(everything.asked[:500], everything.pins_new[:400], everything.pins_old[:400])
    unseen = Ranked(everything.asked[500:], everything.pins_new[400:], everything.pins_old[400:])
    rotation = fit_procrustes(learned.pins_new, learned.pins_old)
    found = fit_ranking(rotation, learned, replace(QUICK, hidden=hidden))
    assert (found.residual is None) == (hidden == 0)
    assert _loss(found, unseen, 0.1) < 0.8 * _loss(rotation, unseen, 0.1)


def test_the_same_seed_gives_the_same_bridge_and_the_start_is_left_as_it_was() -> None:
    learned = material()
    start = fit_procrustes(learned.pins_new, learned.pins_old)
    before = start.matrix.copy()
    training = replace(QUICK, epochs=2, hidden=4)
    first, again, other = (fit_ranking(start, learned, training, seed) for seed in (0, 0, 1))
    assert first.matrix.tobytes() == again.matrix.tobytes()
    assert first.matrix.tobytes() != other.matrix.tobytes()
    assert start.matrix.tobytes() == before.tobytes()


def test_where_nothing_can_be_gained_the_start_is_what_comes_back() -> None:
    new, heard = units(300, 8, seed=3), list[int]()
    perfect = Map(turn(8))
    found = fit_ranking(perfect, Ranked(units(200, 8), new, new @ perfect.matrix), replace(QUICK, rate=0.3, epochs=3), step=heard.append)
    assert found is perfect
    assert heard == [1, 2, 3]


@pytest.mark.parametrize(("texts", "pins"), [(FEWEST - 1, 100), (100, FEWEST - 1)])
def test_too_little_to_learn_from_is_refused(texts: int, pins: int) -> None:
    with pytest.raises(ValueError, match="20 texts and 20 pins or more"):
        fit_ranking(Map(turn(12)[:, :10]), material(texts, pins))


def test_gradients_are_the_slopes_of_the_loss() -> None:
    batch = material(texts=7, pins=9)
    random = np.random.default_rng(0)
    weights = _start(random, turn(12)[:, :10], 5)
    weights = tuple(one + 0.3 * random.normal(size=one.shape) for one in weights)  # in float64, for exact differences
    exact = Ranked(*(np.asarray(one, np.float64) for one in (batch.asked, batch.pins_new, batch.pins_old)))
    found = _gradients(weights, exact, 0.5)
    for place, gradient in enumerate(found):
        for spot in [tuple(random.integers(gradient.shape)) for _ in range(5)]:
            losses = []
            for change in (1e-2, -1e-2):
                moved = [one.copy() for one in weights]
                moved[place][spot] += change
                losses.append(_loss(Map(moved[0], Residual(*moved[1:])), exact, 0.5))
            assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(gradient[spot], abs=2e-4)


def test_cosines_get_the_mean_and_the_spread_of_the_old_ones() -> None:
    mapped, own = np.random.default_rng(0).normal(0.3, 0.05, 400), np.random.default_rng(1).normal(0.5, 0.1, 300)
    slope, intercept = fit_levels(mapped, own)
    assert (slope * mapped + intercept).mean() == pytest.approx(own.mean())
    assert (slope * mapped + intercept).std() == pytest.approx(own.std())


@pytest.mark.parametrize(("mapped", "own"), [([0.5, 0.5], [0.1, 0.9]), ([0.1, 0.9], [0.5, 0.5]), ([], [])])
def test_cosines_that_do_not_vary_are_left_alone(mapped: list[float], own: list[float]) -> None:
    assert fit_levels(np.array(mapped), np.array(own)) == (1.0, 0.0)
