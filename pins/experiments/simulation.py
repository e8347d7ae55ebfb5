"""Whole experiments on generated people, with a planted lift or none: do the statistics find the one and keep quiet about the other?

A search has a pool of pins with true levels. A student ranks them by level plus an error of its own, so a student with less error ranks better, and
two students with equal errors are a null although their rankings differ. People differ in how often they search and in how readily they act, so
their searches are no independent trials. What is tested is `statistics`, as the report uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pins.experiments.clickmodel import Actions, ClickModel, Floats, Levels
from pins.experiments.interleaving import CREDITS, team_drafts
from pins.experiments.metrics import GRADES, METRICS, NDCG_AT
from pins.experiments.statistics import Comparison, RatioMismatch, against_zero, compare, sample_ratio

Mode = Literal["ab", "interleaving"]
_CALIBRATION_SEARCHES = 10_000
_CALIBRATION_SEED = 20_080
_STEPS = 25


@dataclass(frozen=True, slots=True)
class World:
    """Pins and people. `error`: standard deviation of the control's ranking error, in levels; `likeness`: correlation of both students' errors.

    Searches of a unit are geometric with mean `searches`; its generosity is log-normal with mean 1 and `spread` of the logarithm.
    """

    pool: int = 40
    shown: int = 20
    level_shares: tuple[float, ...] = (0.40, 0.25, 0.18, 0.11, 0.06)
    error: float = 1.5
    likeness: float = 0.5
    searches: float = 3.0
    spread: float = 0.7
    people: ClickModel = field(default_factory=ClickModel)

    def levels(self, searches: int, rng: np.random.Generator) -> Levels:
        """True levels of the pools, shape (searches, pool)."""
        edges = np.cumsum(self.level_shares)[:-1].astype(np.float32)
        return (1 + np.searchsorted(edges, rng.random((searches, self.pool), np.float32), side="right")).astype(np.int8)

    def units(self, units: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
        """The unit of each search, and its generosity, both (searches,)."""
        counts = rng.geometric(1 / self.searches, units)
        generosity = np.exp(rng.normal(-(self.spread**2) / 2, self.spread, units))
        unit = np.repeat(np.arange(units), counts)
        return unit, generosity[unit]


@dataclass(frozen=True, slots=True)
class Trial:
    """One simulated experiment. `by_search`: the primary metric as if every search were a unit, which is the mistake to avoid (A/B only)."""

    searches: int
    comparisons: dict[str, Comparison]
    by_search: Comparison | None = None
    sample_ratio: RatioMismatch | None = None


def error_for(world: World, lift: float) -> float:
    """The ranking error of a candidate that lifts fulfilment by the share `lift` of the control's; below 0 lowers it. Raises ValueError."""
    if lift == 0:
        return world.error
    rng = np.random.default_rng(_CALIBRATION_SEED)
    levels, errors = world.levels(_CALIBRATION_SEARCHES, rng), rng.standard_normal((_CALIBRATION_SEARCHES, world.pool), np.float32)
    generosity = np.exp(rng.normal(-(world.spread**2) / 2, world.spread, _CALIBRATION_SEARCHES))

    def fulfilment(error: float) -> float:
        return float(world.people.fulfilment(_best(levels, error * errors, world.shown), generosity).mean())

    base = fulfilment(world.error)
    low, high = 0.0, 50.0 * world.error
    most, least = fulfilment(low) / base - 1, fulfilment(high) / base - 1
    if not least <= lift <= most:
        raise ValueError(f"no ranking lifts fulfilment by {lift:+.1%} here; a lift lies between {least:+.1%} and {most:+.1%}")
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if fulfilment(middle) > base * (1 + lift) else (low, middle)
    return (low + high) / 2


def trials(world: World, error: float, units: int, tests: int, mode: Mode, seed: int = 0) -> Iterator[Trial]:
    """Experiments with a candidate of this ranking error, each on people of its own; the same seed gives the same ones."""
    run = ab_trial if mode == "ab" else interleaved_trial
    for number in range(tests):
        yield run(world, error, units, np.random.default_rng([seed, number]))


def ab_trial(world: World, error: float, units: int, rng: np.random.Generator) -> Trial:
    """Half of the units see the candidate's rankings, the others the control's."""
    unit, generosity = world.units(units, rng)
    candidate = rng.random(units) < 0.5
    levels = world.levels(len(unit), rng)
    errors = rng.standard_normal(levels.shape, np.float32) * np.where(candidate[unit], error, world.error).astype(np.float32)[:, None]
    facts = search_facts(world.people.act(_best(levels, errors, world.shown), generosity, rng))
    sums = {name: np.bincount(unit, values, units) for name, values in facts.items()}
    comparisons = {
        metric.name: compare(*((sums[metric.above][side], sums[metric.below][side]) for side in (~candidate, candidate)))
        for metric in METRICS
        if metric.above in sums
    }
    by_search = [(facts["fulfilled"][side], facts["searches"][side]) for side in (~candidate[unit], candidate[unit])]
    dealt = sample_ratio(int((~candidate).sum()), int(candidate.sum()), 0.5)
    return Trial(len(unit), comparisons, compare(*by_search), dealt)


def interleaved_trial(world: World, error: float, units: int, rng: np.random.Generator) -> Trial:
    """Every search is answered by a team draft of both rankings."""
    unit, generosity = world.units(units, rng)
    levels = world.levels(len(unit), rng)
    shared, own = rng.standard_normal((2, *levels.shape), np.float32)
    other = world.likeness * shared + np.sqrt(1 - world.likeness**2).astype(np.float32) * own
    places = [_places(levels + size * errors) for size, errors in ((np.float32(world.error), shared), (np.float32(error), other))]
    flips = rng.random((len(unit), (world.shown + 1) // 2)) < 0.5
    drafted, of_candidate = team_drafts(places[0], places[1], world.shown, flips)
    actions = world.people.act(np.take_along_axis(levels, drafted, axis=1), generosity, rng)
    preferred = preferences(actions, of_candidate)
    above, below = np.bincount(unit, preferred, units), np.bincount(unit, minlength=units)
    return Trial(len(unit), {"preference": against_zero(above, below)})


def search_facts(actions: Actions) -> dict[str, Floats]:
    """What `metrics.facts` says of each search, for many at once: shape (n,) by name."""
    grades = np.max([flags * GRADES[name] for name, flags in _kinds(actions)], axis=0)[:, :NDCG_AT]
    discounts = 1 / np.log2(np.arange(2, grades.shape[1] + 2))
    gains = 2.0**grades - 1
    gained, ideal = gains @ discounts, -np.sort(-gains, axis=1) @ discounts
    engaged = ideal > 0
    return {
        "searches": np.ones(len(grades)),
        "fulfilled": actions.fulfilled.astype(np.float64),
        "clicks": actions.clicks.sum(axis=1, dtype=np.float64),
        "long_clicks": actions.long_clicks.sum(axis=1, dtype=np.float64),
        "saves": actions.saves.sum(axis=1, dtype=np.float64),
        "ndcg": np.divide(gained, ideal, out=np.zeros(len(grades)), where=engaged),
        "engaged": engaged.astype(np.float64),
    }


def preferences(actions: Actions, of_candidate: NDArray[np.bool_]) -> Floats:
    """What `interleaving.preference` says of each search: 1, 0 or -1, shape (n,)."""
    credit = np.max([flags * CREDITS[name] for name, flags in _kinds(actions)], axis=0)
    won: Floats = np.sign(np.where(of_candidate, credit, -credit).sum(axis=1))
    return won


def _kinds(actions: Actions) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
    return ("click", actions.clicks), ("long_click", actions.long_clicks), ("save", actions.saves)


def _best(levels: Levels, errors: NDArray[np.floating], shown: int) -> Levels:
    """The levels of the first `shown` places, shape (n, shown), of a ranking by level plus error."""
    order = np.argsort(-(levels + errors), axis=1)[:, :shown]
    return np.take_along_axis(levels, order, axis=1)


def _places(scores: NDArray[np.floating]) -> NDArray[np.int8]:
    """The place of each pin in the ranking by these scores, from 0."""
    places = np.empty(scores.shape, np.int8)
    np.put_along_axis(places, np.argsort(-scores, axis=1), np.arange(scores.shape[1], dtype=np.int8)[None, :], axis=1)
    return places
