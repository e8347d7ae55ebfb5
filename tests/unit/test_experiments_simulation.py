"""Click model and simulated experiments; that a lift is found and a null is not, on fewer experiments than the benchmark runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from pins.experiments.clickmodel import ClickModel
from pins.experiments.exposures import CANDIDATE, CONTROL
from pins.experiments.interleaving import preference
from pins.experiments.metrics import facts
from pins.experiments.simulation import Mode, World, ab_trial, error_for, interleaved_trial, preferences, search_facts, trials

WORLD = World()
MODELS = [pytest.param(ClickModel(looking), id=looking) for looking in ("position", "cascade")]  # type: ignore[arg-type]  # a literal, in a loop


def levels(n: int, rng: np.random.Generator, k: int = 12) -> np.ndarray:
    return rng.integers(1, 6, (n, k)).astype(np.int8)


@pytest.mark.parametrize("model", MODELS)
def test_the_chance_of_fulfilment_is_how_often_it_happens(model: ClickModel) -> None:
    rng = np.random.default_rng(3)
    one = levels(1, rng)
    many, generosity = np.repeat(one, 40_000, axis=0), np.full(40_000, 1.4)
    expected = model.fulfilment(one, np.array([1.4]))[0]
    happened = model.act(many, generosity, rng).fulfilled.mean()
    assert happened == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 40_000) ** 0.5)


@pytest.mark.parametrize("model", MODELS)
def test_people_act_more_on_what_is_better_and_higher(model: ClickModel) -> None:
    rng = np.random.default_rng(4)
    best, worst = np.full((20_000, 10), 5, np.int8), np.full((20_000, 10), 1, np.int8)
    ones = np.ones(20_000)
    good, bad = model.act(best, ones, rng), model.act(worst, ones, rng)
    assert good.fulfilled.mean() > 5 * bad.fulfilled.mean()
    places = good.clicks.mean(axis=0)
    assert places[0] > 1.5 * places[-1]
    assert not (good.long_clicks & ~good.clicks).any()
    assert model.fulfilment(best[:1], np.array([2.0]))[0] > model.fulfilment(best[:1], np.array([1.0]))[0]


def test_one_who_has_enough_looks_no_further() -> None:
    model = ClickModel("cascade", click=(1.0,) * 5, long_click=(1.0,) * 5, onward_content=0.0)
    clicks = model.act(levels(50, np.random.default_rng(5)), np.ones(50), np.random.default_rng(6)).clicks
    assert clicks.sum(axis=1).tolist() == [1] * 50
    assert clicks[:, 0].all()


def test_what_is_summed_of_simulated_searches_is_what_is_summed_of_real_ones() -> None:
    rng = np.random.default_rng(8)
    generous = ClickModel(click=(0.3,) * 5, decay=0.1)
    actions = generous.act(levels(200, rng, 20), np.ones(200), rng)
    of_candidate = rng.random((200, 20)) < 0.5
    sums, won = search_facts(actions), preferences(actions, of_candidate)
    for row in range(200):
        flags = {"click": actions.clicks & ~actions.long_clicks, "long_click": actions.long_clicks, "save": actions.saves}
        kinds = {place: {name for name, flag in flags.items() if flag[row, place]} for place in range(20) if actions.clicks[row, place]}
        expected = facts(20, kinds)
        assert {name: sums[name][row] for name in sums} == {name: pytest.approx(expected[name]) for name in sums}
        assert won[row] == preference([CANDIDATE if mine else CONTROL for mine in of_candidate[row]], kinds)


@pytest.mark.parametrize("lift", [0.0, 0.05, 0.1, -0.1])
def test_a_planted_lift_is_as_large_as_asked_for(lift: float) -> None:
    error = error_for(WORLD, lift)
    rng = np.random.default_rng(11)
    got = [ab_trial(replace(WORLD, searches=1.0), error, 40_000, rng).comparisons["fulfilment"].difference for _ in range(4)]
    base = 0.2278
    assert np.mean(got) / base == pytest.approx(lift, abs=0.03)


def test_a_lift_that_no_ranking_brings_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no ranking lifts fulfilment by \+300.0% here; a lift lies between -"):
        error_for(WORLD, 3.0)


@pytest.mark.parametrize("mode", ["ab", "interleaving"])
def test_nulls_are_left_alone_and_lifts_are_found(mode: Mode) -> None:
    metric = "fulfilment" if mode == "ab" else "preference"
    null = [trial.comparisons[metric].p < 0.05 for trial in trials(WORLD, WORLD.error, 300, 300, mode, seed=1)]
    low, high = binom.interval(0.999, 300, 0.05)
    assert low <= sum(null) <= high
    lifted = list(trials(WORLD, error_for(WORLD, 0.2), 4000, 20, mode, seed=1))
    assert np.mean([trial.comparisons[metric].p < 0.05 and trial.comparisons[metric].difference > 0 for trial in lifted]) > 0.8


def test_trials_are_repeatable_and_their_deal_is_even() -> None:
    first, second = (next(iter(trials(WORLD, 1.0, 500, 1, "ab", seed=5))) for _ in range(2))
    assert first == second
    assert first.sample_ratio
    assert not first.sample_ratio.broken
    assert first.by_search
    assert first.by_search.difference == pytest.approx(first.comparisons["fulfilment"].difference)
    assert interleaved_trial(WORLD, 1.0, 500, np.random.default_rng(5)).by_search is None
