"""`everpin experiment`: what a canary's people did, arm by arm, and simulations that show what such figures can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from everpin.commands.deadletters import time_us
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.settings import settings
from everpin.wiring import now_us, require_broker
from pins.errors import EverpinError
from pins.experiments.analysis import Analysis, analyse
from pins.experiments.joining import COUNTS, WINDOW_US, Joined
from pins.experiments.metrics import METRICS, PRIMARY
from pins.experiments.simulation import Mode, Trial, World, error_for, trials
from pins.experiments.statistics import ALPHA, wilson
from pins.experiments.verdict import Verdict, preference_verdict, verdict
from streams.experiments import Reading, Summary, Topics, passes, read_experiment, summaries

HOUR_US = 3_600_000_000
Modes = Literal["ab", "interleaving", "both"]


def experiment_report(
    name: Annotated[str, typer.Argument(help="The experiment: of a canary, the candidate's model id.")],
    since: Annotated[str | None, typer.Option(help="Only answers shown since: an ISO time, or an age such as 90s, 15m, 2h, 7d.")] = None,
    surface: Annotated[Literal["search", "related", "feed"], typer.Option(help="Whose answers.")] = "search",
    share: Annotated[float | None, typer.Option(help="Percent of units that were dealt to the candidate, where the exposures do not tell.")] = None,
    window: Annotated[float, typer.Option(min=0.01, max=720, help="Hours after an answer in which an action on it counts.")] = WINDOW_US / HOUR_US,
    as_json: AsJson = False,
) -> None:
    """What each arm's people did, candidate against control, and a verdict. Exit code 1 when the assignment is broken."""
    if share is not None and not 0 < share < 100:
        raise EverpinError(f"--share {share:g} is no percentage that leaves units for both arms; give one above 0 and below 100")
    now = now_us()
    wanted = Reading(name, surface, 0 if since is None else time_us("--since", since, now), round(window * HOUR_US))
    topics = Topics(require_broker(settings()), now)
    parts = passes(topics.records)
    with _at_work(f"reading {name}", topics.records * parts, as_json) as step:
        joined = read_experiment(topics, wanted, parts, step)
    if not joined.surfaces:
        known = ", ".join(one.experiment for one in summaries(topics)) or "none at all"
        raise EverpinError(f"there is no exposure of an experiment {name!r} in that time; the topics hold: {known}")
    analysis = analyse(joined, None if share is None else share / 100)
    document = _document(wanted, topics, joined, analysis)
    emit(document, as_json, lambda console: _show_report(console, document))
    raise typer.Exit(PARTIAL if analysis.problems else 0)


def experiment_list(as_json: AsJson = False) -> None:
    """The experiments that the topics still know of."""
    topics = Topics(require_broker(settings()), now_us())
    with _at_work("reading", topics.records, as_json) as step:
        rows = [_summary(one) for one in summaries(topics, step)]
    emit({"experiments": rows}, as_json, lambda console: _show_list(console, rows))


def experiment_simulate(
    tests: Annotated[int, typer.Option(min=1, max=100_000, help="How many experiments.")] = 1000,
    lift: Annotated[float, typer.Option(help="Percent by which the candidate lifts fulfilment; 0 plants nothing: what is found then is false.")] = 0.0,
    units: Annotated[int, typer.Option(min=60, max=1_000_000, help="People in each experiment; half of them per arm of an A/B test.")] = 1000,
    mode: Annotated[Modes, typer.Option(help="An A/B test, interleaving, or both.")] = "both",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same people.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate experiments with a click model: how many find a planted lift, or call a null one. Exit code 1 when a null is out of bounds."""
    world = World()
    try:
        error = error_for(world, lift / 100)
    except ValueError as wrong:
        raise EverpinError(f"--lift {lift:g}: {wrong}") from wrong
    found = {}
    with _at_work("simulating", tests * (2 if mode == "both" else 1), as_json) as step:
        for one in _modes(mode):
            found[one] = _found(trials(world, error, units, tests, one, seed), PRIMARY if one == "ab" else "preference", step, tests)
    sound = lift != 0 or all(one["low"] <= ALPHA <= one["high"] for one in found.values())
    document = {"tests": tests, "lift_percent": lift, "units": units, "seed": seed, "modes": found, "within_bounds": sound}
    emit(document, as_json, lambda console: _show_simulation(console, document))
    raise typer.Exit(0 if sound else PARTIAL)


def _modes(mode: Modes) -> tuple[Mode, ...]:
    return ("ab", "interleaving") if mode == "both" else (mode,)


def _found(some: Iterator[Trial], metric: str, step: Callable[[int], None], tests: int) -> dict[str, Any]:
    """How many of the simulated experiments call their metric different, with the binomial interval of that share."""
    found = better = searches = 0
    differences = 0.0
    for trial in some:
        comparison = trial.comparisons[metric]
        found += comparison.p < ALPHA
        better += comparison.p < ALPHA and comparison.difference > 0
        searches += trial.searches
        differences += comparison.difference
        step(1)
    low, high = wilson(found, tests)
    shares = {"found": found / tests, "low": low, "high": high, "found_better": better / tests}
    return {"metric": metric, **shares, "mean_difference": differences / tests, "mean_searches": searches / tests}


@contextmanager
def _at_work(words: str, total: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error to step."""
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(words, total=total)
        yield lambda n: progress.advance(task, n)


def _document(wanted: Reading, topics: Topics, joined: Joined, analysis: Analysis) -> dict[str, Any]:
    ratio, preference = analysis.sample_ratio, analysis.preference
    verdicts = {"ab": verdict(analysis)} if analysis.comparisons or analysis.problems or not preference else {}
    if preference:
        verdicts["interleaving"] = preference_verdict(preference)
    document = {
        "experiment": wanted.experiment,
        "surface": wanted.surface,
        "first_exposure": _iso(joined.first_us),
        "last_exposure": _iso(joined.last_us),
        "verdicts": {mode: _verdict(one) for mode, one in verdicts.items()},
        "arms": {name: asdict(arm) for name, arm in analysis.arms.items()},
        "candidate_minus_control": {name: asdict(one) | _guard(name, analysis) for name, one in analysis.comparisons.items()},
        "preference": asdict(preference) if preference else None,
        "sample_ratio": asdict(ratio) | {"broken": ratio.broken} if ratio else None,
        "mixed_units": analysis.mixed_units,
        "exposures_by_surface": dict(joined.surfaces),
        "counts": dict(joined.counts),
        "records_no_longer_kept": topics.gone,
    }
    return {name: _finite(value) for name, value in document.items()}


def _guard(name: str, analysis: Analysis) -> dict[str, Any]:
    return {"role": "primary"} if name == PRIMARY else {"role": "guardrail", "corrected_p": analysis.guardrail_p[name]}


def _verdict(one: Verdict) -> dict[str, Any]:
    return {"kind": one.kind, "words": list(one.words)}


def _finite(value: Any) -> Any:
    """The same with null for what is not a number, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _iso(at_us: int | None) -> str | None:
    return None if at_us is None else datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")


def _summary(one: Summary) -> dict[str, Any]:
    counted = {"arms": dict(one.arms), "surfaces": dict(one.surfaces), "outcomes": one.outcomes, "model_ids": sorted(one.model_ids)}
    return {"experiment": one.experiment, **counted, "first_exposure": _iso(one.first_us), "last_exposure": _iso(one.last_us)}


def _show_list(console: Console, rows: list[dict[str, Any]]) -> None:
    if not rows:
        console.print("No experiment has been written down. A canary writes one: `everpin rollout cutover --canary 5`")
        return
    table = Table("experiment", "exposures by arm", "by surface", "outcomes", "first", "last")
    for row in rows:
        arms, surfaces = (", ".join(f"{name} {number}" for name, number in sorted(row[key].items())) for key in ("arms", "surfaces"))
        table.add_row(row["experiment"], arms, surfaces, str(row["outcomes"]), row["first_exposure"] or "-", row["last_exposure"] or "-")
    console.print(table)


def _show_report(console: Console, document: dict[str, Any]) -> None:
    console.print(f"{document['experiment']}, {document['surface']}, exposures from {document['first_exposure']} to {document['last_exposure']}")
    for one in document["verdicts"].values():
        style = {"better": "green", "worse": "red", "broken": "bold red"}.get(one["kind"], "default")
        for place, words in enumerate(one["words"]):
            console.print(words, style=style if place == 0 else "default", markup=False, highlight=False)
    console.print(_arms_table(document))
    if document["preference"]:
        shown = document["preference"]
        console.print(f"Interleaving: {shown['candidate_wins']} searches won by the candidate, {shown['control_wins']} by the control")
    if document["candidate_minus_control"] or not document["preference"]:
        console.print(_ratio_words(document))
    told = [f"{COUNTS[name]} {number}" for name, number in document["counts"].items() if number]
    console.print(f"Messages: {'; '.join(told)}")
    others = [f"{name} {number}" for name, number in document["exposures_by_surface"].items() if name != document["surface"]]
    if others:
        console.print(f"Answers of other surfaces: {', '.join(others)} (--surface)")
    if document["records_no_longer_kept"]:
        console.print(f"The broker no longer keeps the first {document['records_no_longer_kept']} records of both topics; what they held is not in this")


def _arms_table(document: dict[str, Any]) -> Table:
    arms, compared = document["arms"], document["candidate_minus_control"]
    table = Table("metric", *arms, *([Column("candidate - control"), Column("p"), Column("finds")] if compared else []))
    for key in ("units", "searches"):
        table.add_row(key, *(str(arm[key]) for arm in arms.values()))
    table.add_row("model", *(", ".join(arm["model_ids"]) for arm in arms.values()))
    for metric in METRICS:
        cells = [_interval(arm["metrics"][metric.name], "value", "") for arm in arms.values()]
        if compared:
            one = compared[metric.name]
            p = one["p"] if one["role"] == "primary" else one["corrected_p"]
            cells += [_interval(one, "difference", "+"), _number(p, ".3f"), _number(one["detectable"], ".4f")]
        table.add_row(metric.name, *cells)
    return table


def _interval(one: dict[str, Any], name: str, sign: str) -> str:
    if one[name] is None:
        return "-"
    return _number(one[name], f"{sign}.4f") + (f" \\[{one['low']:{sign}.4f}, {one['high']:{sign}.4f}]" if one["low"] is not None else "")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _ratio_words(document: dict[str, Any]) -> str:
    ratio = document["sample_ratio"]
    if not ratio:
        return "Sample ratio: not checked, no single share is known"
    state = "too few units to check" if ratio["p"] is None else f"p {ratio['p']:.3g}, " + ("[bold red]broken[/]" if ratio["broken"] else "as dealt")
    return f"Sample ratio: {ratio['candidate']} of {ratio['control'] + ratio['candidate']} units are the candidate's, {ratio['share']:.2%} dealt: {state}"


def _show_simulation(console: Console, document: dict[str, Any]) -> None:
    planted = f"a lift of {document['lift_percent']:+g} % planted" if document["lift_percent"] else "nothing planted"
    table = Table("mode", "metric", "different", "95 %", "better", "difference", "searches")
    for mode, one in document["modes"].items():
        shares = f"{one['found']:.1%}", f"{one['low']:.1%}-{one['high']:.1%}", f"{one['found_better']:.1%}"
        table.add_row(mode, one["metric"], *shares, f"{one['mean_difference']:+.4f}", f"{one['mean_searches']:.0f}")
    console.print(f"{document['tests']} experiments of {document['units']} people each, {planted}. How many were called different, and better:")
    console.print(table)
    if not document["lift_percent"]:
        state = "within bounds" if document["within_bounds"] else "OUT OF BOUNDS"
        console.print(f"Of a null {ALPHA:.0%} are promised to be called different: {state}")
