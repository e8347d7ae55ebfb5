"""An analysis in plain words. A verdict never says more than its data can: what was found, how surely, or what could have been found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pins.experiments.analysis import Analysis, Preference
from pins.experiments.exposures import CONTROL, TEAMS
from pins.experiments.metrics import METRICS, PRIMARY
from pins.experiments.statistics import ALPHA, Comparison, units_needed

KINDS = {
    "broken": "a check failed: nothing else may be read",
    "better": "the candidate is better on the primary metric",
    "worse": "the candidate is worse on the primary metric",
    "no_difference": "none was seen; the words say which difference could have been",
    "too_little": "there is not enough data to say anything",
}
SMALL_LIFT = 0.02
"""What a search team would still ship for, relative to the control."""
ONE_LOOK = "This holds for one look at the end of a time that was fixed beforehand; who stops at the first good day finds lifts that are not there."


@dataclass(frozen=True, slots=True)
class Verdict:
    """`kind` is one of KINDS; `words` is for people, one sentence a line."""

    kind: str
    words: tuple[str, ...]


def verdict(analysis: Analysis) -> Verdict:
    """What the A/B test says, by its primary metric and its guardrails."""
    if analysis.problems:
        return Verdict("broken", ("The assignment is broken: do not read the rest.", *analysis.problems))
    primary = analysis.comparisons.get(PRIMARY)
    if primary is None or not primary.known:
        return Verdict("too_little", ("Too little data in one of the arms to compare them.",))
    kind = _kind(primary)
    words = [_difference(primary, kind, analysis), *_guardrails(analysis)]
    if analysis.sample_ratio is None:
        words.append("Nobody said which share was dealt, so the sample ratio was not checked (--share).")
    return Verdict(kind, (*words, ONE_LOOK))


def preference_verdict(preference: Preference) -> Verdict:
    """What interleaving says: whose pins people acted on more often when both were in one answer."""
    comparison = preference.comparison
    if not comparison.known:
        return Verdict("too_little", ("Too few interleaved searches with an action to tell a preference.",))
    kind = _kind(comparison)
    wins = f"{preference.candidate_wins} searches won against {preference.control_wins}"
    if kind == "no_difference":
        return Verdict(kind, (f"No preference seen ({wins}): {_signed(comparison)} of searches; {_could_find(comparison)}.", ONE_LOOK))
    preferred = "candidate" if kind == "better" else "control"
    return Verdict(kind, (f"People prefer the {preferred} ({wins}): {_signed(comparison)} of searches for the candidate.", ONE_LOOK))


def _kind(comparison: Comparison) -> str:
    if comparison.p >= ALPHA:
        return "no_difference"
    return "better" if comparison.difference > 0 else "worse"


def _difference(comparison: Comparison, kind: str, analysis: Analysis) -> str:
    base = analysis.arms[CONTROL].metrics[PRIMARY].value
    if kind == "no_difference":
        return f"No difference seen on {PRIMARY}: {_signed(comparison)}; {_could_find(comparison)} (control: {base:.4f}).{_length(comparison, base, analysis)}"
    relative = f", {comparison.difference / base:+.1%}" if base else ""
    return f"Candidate {kind} on {PRIMARY} by {_signed(comparison)} (control: {base:.4f}{relative})."


def _length(comparison: Comparison, base: float, analysis: Analysis) -> str:
    """How many units the next experiment needs for a lift that somebody might care for."""
    if not base:
        return ""
    needed = units_needed(comparison, sum(analysis.arms[team].units for team in TEAMS), SMALL_LIFT * base)
    return f" To find a lift of {SMALL_LIFT:.0%} as surely would take about {needed:,.0f} units, dealt like these."


def _guardrails(analysis: Analysis) -> Iterator[str]:
    """Guardrails that moved for the worse, after correction for their number. One that improved is no reason to ship: it is not named."""
    for metric in METRICS:
        comparison = analysis.comparisons[metric.name]
        if analysis.guardrail_p.get(metric.name, 1.0) < ALPHA and comparison.difference * metric.better < 0:
            yield f"Guardrail {metric.name} got worse: {_signed(comparison)}, {metric.meaning}."


def _signed(comparison: Comparison) -> str:
    return f"{comparison.difference:+.4f} [{comparison.low:+.4f}, {comparison.high:+.4f}]"


def _could_find(comparison: Comparison) -> str:
    return f"a true difference of {comparison.detectable:.4f} would have been found 4 times of 5"
