"""Do experiments find a planted lift, and only that? `python -m bench.experiments`. Every person in it is GENERATED.

Nulls: two students of equal errors, so whatever is called different is false; 5 % are promised. Lifts: a candidate of less error, how often it is
found, and how many times fewer searches interleaving needs than an A/B test to find it as surely: the square of the ratio of both mean z values,
because a z value grows with the square root of the searches. One core; every trial is repeatable by its seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import machine, write
from bench.report import experiment_figures
from pins.experiments.clickmodel import ClickModel
from pins.experiments.metrics import METRICS, PRIMARY
from pins.experiments.simulation import Mode, Trial, World, error_for, trials
from pins.experiments.statistics import ALPHA, Comparison, wilson

NULL_TESTS, NULL_UNITS = 1000, 500
POWER_TESTS, POWER_UNITS = 150, 4000
LIFTS = (0.02, 0.05, 0.10)
WORLDS = {"position": World(), "cascade": World(people=ClickModel("cascade"))}
MODES: tuple[Mode, ...] = ("ab", "interleaving")
RESAMPLES = 2000


def run(world: World, lift: float, units: int, tests: int, mode: Mode) -> list[Trial]:
    """Trials of a world, told of on standard error."""
    print(f"{tests} x {units} people, {mode}, {lift:+.0%}, {world.people.looking}", file=sys.stderr)
    return list(trials(world, error_for(world, lift), units, tests, mode, seed=1))


def called(comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """How many call a difference, with the binomial interval of that share."""
    found = sum(one.p < ALPHA for one in comparisons)
    low, high = wilson(found, len(comparisons))
    return {"found": found, "tests": len(comparisons), "share": found / len(comparisons), "low": low, "high": high}


def nulls(world: World, tests: int) -> dict[str, Any]:
    """False alarms of every metric, of searches counted as if they were independent, of interleaving and of the sample ratio."""
    ab, interleaved = (run(world, 0.0, NULL_UNITS, tests, mode) for mode in MODES)
    names = [metric.name for metric in METRICS if metric.name in ab[0].comparisons]
    figures = {f"A/B, {name}": called([trial.comparisons[name] for trial in ab]) for name in names}
    figures["interleaving, preference"] = called([trial.comparisons["preference"] for trial in interleaved])
    sound = all(one["low"] <= ALPHA <= one["high"] for name, one in figures.items() if PRIMARY in name or "preference" in name)
    figures[f"the mistake: {PRIMARY} by search"] = called([trial.by_search for trial in ab if trial.by_search])
    broken = sum(trial.sample_ratio.broken for trial in ab if trial.sample_ratio)
    return {"units": NULL_UNITS, "called_different": figures, "primary_within_bounds": sound, "sample_ratio_alarms": broken}


def power(world: World, lift: float, tests: int) -> dict[str, Any]:
    """How often a lift is found by either mode with the same people, and how many times fewer searches interleaving needs."""
    results = {mode: run(world, lift, POWER_UNITS, tests, mode) for mode in MODES}
    metrics: Mapping[str, str] = {"ab": PRIMARY, "interleaving": "preference"}
    z = {mode: np.array([_z(trial.comparisons[metrics[mode]]) for trial in results[mode]]) for mode in MODES}
    ab = [trial.comparisons[PRIMARY] for trial in results["ab"]]
    return {
        "lift": lift,
        "units": POWER_UNITS,
        "searches": float(np.mean([trial.searches for trial in results["ab"]])),
        "mean_difference": float(np.mean([one.difference for one in ab])),
        **{mode: called([trial.comparisons[metrics[mode]] for trial in results[mode]]) | {"mean_z": float(z[mode].mean())} for mode in MODES},
        "times_fewer_searches": _fewer(z["ab"], z["interleaving"]),
    }


def _z(comparison: Comparison) -> float:
    return comparison.difference / ((comparison.high - comparison.low) / (2 * 1.959964))


def _fewer(ab: NDArray[np.float64], interleaving: NDArray[np.float64]) -> dict[str, float]:
    """The square of the ratio of mean z values, with a bootstrap interval over trials."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(interleaving, len(interleaving)).mean() / rng.choice(ab, len(ab)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(np.square(drawn), [0.025, 0.975])
    return {"times": float((interleaving.mean() / ab.mean()) ** 2), "low": float(low), "high": float(high)}


def main() -> None:
    """Simulate, write bench/experiments.json, print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of few trials that writes nothing")
    quick = parser.parse_args().quick
    null_tests, power_tests = (40, 8) if quick else (NULL_TESTS, POWER_TESTS)
    document = {
        "command": "python -m bench.experiments",
        "machine": machine("numpy"),
        "world": asdict(WORLDS["position"]),
        "nulls": {name: nulls(world, null_tests) for name, world in WORLDS.items()},
        "lifts": [power(WORLDS["position"], lift, power_tests) for lift in LIFTS],
    }
    write("experiments", document, quick=quick)
    print("\n".join(experiment_figures(document)))


if __name__ == "__main__":
    main()
