"""From sums per unit to figures: each arm's metrics, candidate against control, the checks that must hold before any of it is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from pins.experiments.exposures import ARMS, CANDIDATE, CONTROL, INTERLEAVED
from pins.experiments.joining import Joined
from pins.experiments.metrics import METRICS, PREFERENCE, PRIMARY, UnitSums
from pins.experiments.statistics import Comparison, Estimate, RatioMismatch, against_zero, compare, estimate, holm, sample_ratio

MOST_MIXED = 0.01
"""Share of units that may have seen both arms; they are left out. More of them, and those who are left are no fair deal: active units go first."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm. `model_ids`: the models that its answers were of, `+` between the two of an interleaved one."""

    units: int
    searches: int
    model_ids: tuple[str, ...]
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Preference:
    """Interleaving: searches that either team won, and the test of the share won by the candidate less the share won by the control."""

    candidate_wins: int
    control_wins: int
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an experiment says. `guardrail_p`: p values of all metrics but the primary one, corrected for their number (Holm).

    `sample_ratio` is None where nobody said which share was dealt; `problems` are reasons not to read the comparisons at all.
    """

    arms: Mapping[str, Arm]
    comparisons: Mapping[str, Comparison]
    guardrail_p: Mapping[str, float]
    sample_ratio: RatioMismatch | None
    mixed_units: int
    preference: Preference | None
    problems: tuple[str, ...]


def analyse(joined: Joined, share: float | None = None) -> Analysis:
    """Compare the arms. `share` of the candidate: where it is None, the one that the exposures tell of. Units in both arms are left out."""
    mixed = joined.both_arms()
    arms = {name: _arm(sums, sorted("+".join(ids) for ids in joined.models[name]), mixed) for name in ARMS if len(sums := joined.arms[name])}
    comparisons = _comparisons(joined, mixed) if {CONTROL, CANDIDATE} <= arms.keys() else {}
    corrected = holm({name: comparison.p for name, comparison in comparisons.items() if name != PRIMARY})
    ratio = _sample_ratio(joined, mixed, share)
    interleaved = joined.arms[INTERLEAVED]
    return Analysis(
        arms=arms,
        comparisons=comparisons,
        guardrail_p=corrected,
        sample_ratio=ratio,
        mixed_units=len(mixed),
        preference=_preference(interleaved) if len(interleaved) else None,
        problems=tuple(_problems(joined, arms, ratio, len(mixed), share)),
    )


def _arm(sums: UnitSums, models: list[str], without: set[str]) -> Arm:
    metrics = {metric.name: estimate(sums.of(metric.above, without), sums.of(metric.below, without)) for metric in METRICS}
    searches = sums.of("searches", without)
    return Arm(len(searches), int(searches.sum()), tuple(models), metrics)


def _comparisons(joined: Joined, without: set[str]) -> dict[str, Comparison]:
    control, candidate = joined.arms[CONTROL], joined.arms[CANDIDATE]
    return {
        metric.name: compare(
            (control.of(metric.above, without), control.of(metric.below, without)), (candidate.of(metric.above, without), candidate.of(metric.below, without))
        )
        for metric in METRICS
    }


def _sample_ratio(joined: Joined, without: set[str], share: float | None) -> RatioMismatch | None:
    dealt = share or (next(iter(joined.shares)) if len(joined.shares) == 1 else None)
    control, candidate = (len(joined.arms[arm]) - len(without) for arm in (CONTROL, CANDIDATE))
    return sample_ratio(control, candidate, dealt) if dealt and control + candidate else None


def _preference(sums: UnitSums) -> Preference:
    preferred, credited = sums.of("preferred"), sums.of("credited")
    balance, decided = int(preferred.sum()), int(credited.sum())
    return Preference((decided + balance) // 2, (decided - balance) // 2, against_zero(preferred, sums.of(PREFERENCE.below)))


def _problems(joined: Joined, arms: Mapping[str, Arm], ratio: RatioMismatch | None, mixed: int, share: float | None) -> Iterator[str]:
    if ratio and ratio.broken:
        got = ratio.candidate / (ratio.control + ratio.candidate)
        yield f"{got:.2%} of units are the candidate's, where {ratio.share:.2%} were dealt (p {ratio.p:.1g}): one arm loses units or their exposures."
    if share is None and len(joined.shares) > 1:
        shares = ", ".join(f"{one:.2%}" for one in sorted(joined.shares))
        yield f"The candidate's share was changed meanwhile ({shares}): read only what came since the last change (--since)."
    if mixed > MOST_MIXED * len(set(chain(joined.arms[CONTROL].units, joined.arms[CANDIDATE].units))):
        yield f"{mixed} units saw both arms: the share or the dealing was changed meanwhile; read only what came since (--since)."
    for name, arm in arms.items():
        if len(arm.model_ids) > 1:
            yield f"The arm {name} was answered by several models ({', '.join(arm.model_ids)}): read them apart (--since)."
