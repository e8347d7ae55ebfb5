from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pins.experiments.analysis import Analysis, analyse
from pins.experiments.exposures import ARMS, CANDIDATE, CONTROL, INTERLEAVED
from pins.experiments.joining import Joined
from pins.experiments.metrics import METRICS, PRIMARY
from pins.experiments.verdict import KINDS, ONE_LOOK, SMALL_LIFT, Verdict, preference_verdict, verdict


def experiment(units: tuple[int, int] = (2000, 2000), fulfilment: tuple[float, float] = (0.3, 0.3), hides: tuple[float, float] = (0.1, 0.1)) -> Joined:
    """People of one search each, in two arms."""
    joined, rng = Joined(), np.random.default_rng(1)
    for side, arm in enumerate((CONTROL, CANDIDATE)):
        for number in range(units[side]):
            found, hidden = float(rng.random() < fulfilment[side]), float(rng.random() < hides[side])
            facts = {"searches": 1.0, "fulfilled": found, "saves": found, "hides": hidden, "clicks": found, "ndcg": 0.7 * found, "engaged": found}
            joined.arms[arm].add(f"{arm}-{number}", facts)
        joined.models[arm].add((f"model-{side}",))
    joined.shares[0.5] += sum(units)
    return joined


def interleaved(wins: int, losses: int, searches: int = 400) -> Joined:
    joined = Joined()
    for number in range(searches):
        won = 1.0 if number < wins else -1.0 if number < wins + losses else 0.0
        joined.arms[INTERLEAVED].add(f"u{number}", {"searches": 1.0, "preferred": won, "credited": abs(won)})
    joined.models[INTERLEAVED].add(("model-0", "model-1"))
    return joined


def said(joined: Joined, share: float | None = None) -> Verdict:
    return verdict(analyse(joined, share))


def test_a_lift_is_called_better_with_its_interval() -> None:
    analysis = analyse(experiment(fulfilment=(0.3, 0.4)))
    primary = analysis.comparisons[PRIMARY]
    assert (primary.low, primary.high) == (pytest.approx(0.1, abs=0.06), pytest.approx(0.1, abs=0.06))
    got = verdict(analysis)
    assert got.kind == "better"
    base = analysis.arms[CONTROL].metrics[PRIMARY].value
    interval = f"{primary.difference:+.4f} [{primary.low:+.4f}, {primary.high:+.4f}]"
    assert got.words[0] == f"Candidate better on fulfilment by {interval} (control: {base:.4f}, {primary.difference / base:+.1%})."
    assert got.words[-1] == ONE_LOOK


def test_a_loss_is_called_worse() -> None:
    got = said(experiment(fulfilment=(0.4, 0.3)))
    assert got.kind == "worse"
    assert got.words[0].startswith("Candidate worse on fulfilment by -0.")


def test_no_difference_comes_with_what_could_have_been_found() -> None:
    analysis = analyse(experiment())
    got = verdict(analysis)
    assert got.kind == "no_difference"
    assert f"a true difference of {analysis.comparisons[PRIMARY].detectable:.4f} would have been found 4 times of 5" in got.words[0]
    base = analysis.arms[CONTROL].metrics[PRIMARY].value
    needed = 4000 * (analysis.comparisons[PRIMARY].detectable / (SMALL_LIFT * base)) ** 2
    assert f"To find a lift of 2% as surely would take about {needed:,.0f} units" in got.words[0]
    assert "To find" not in said(experiment((2000, 2000), (0.0, 0.001))).words[0]


def test_a_control_that_never_fulfils_has_no_relative_lift() -> None:
    got = said(experiment(fulfilment=(0.0, 0.4)))
    assert got.words[0].endswith("(control: 0.0000).")


def test_a_guardrail_can_only_warn() -> None:
    got = said(experiment(fulfilment=(0.3, 0.4), hides=(0.1, 0.3)))
    assert got.kind == "better"
    assert [words for words in got.words if words.startswith("Guardrail")] == [words for words in got.words if "hides got worse: +0." in words]
    assert not any(words.startswith("Guardrail") for words in said(experiment(hides=(0.3, 0.1))).words)


def test_too_little_data_is_said() -> None:
    assert said(experiment((2000, 20)), 0.01).kind == "too_little"
    assert said(experiment((2000, 0))).kind == "broken"  # half of the units were dealt to an arm that shows nothing
    assert said(experiment((5, 0)), 0.01).kind == "too_little"
    assert said(Joined()).kind == "too_little"


def test_a_deal_that_is_no_accident_breaks_the_experiment() -> None:
    analysis = analyse(experiment((2000, 1600), (0.3, 0.5)))
    assert analysis.sample_ratio
    assert analysis.sample_ratio.broken
    got = verdict(analysis)
    assert (got.kind, got.words[0]) == ("broken", "The assignment is broken: do not read the rest.")
    assert "44.44% of units are the candidate's, where 50.00% were dealt" in got.words[1]
    assert said(experiment((2000, 1600), (0.3, 0.5)), 1600 / 3600).kind == "better"


def test_an_unknown_share_is_told_and_not_checked() -> None:
    joined = experiment(fulfilment=(0.3, 0.4))
    joined.shares.clear()
    got = said(joined)
    assert got.kind == "better"
    assert any("--share" in words for words in got.words)


def test_a_share_that_was_changed_breaks_the_experiment_unless_one_is_given() -> None:
    joined = experiment()
    joined.shares[0.05] += 1
    got = said(joined)
    assert got.kind == "broken"
    assert "(5.00%, 50.00%)" in got.words[1]
    assert said(joined, 0.5).kind == "no_difference"


def test_few_units_in_both_arms_are_left_out_and_many_break_it() -> None:
    joined = experiment()
    for number in range(10):
        joined.arms[CANDIDATE].add(f"{CONTROL}-{number}", {"searches": 1.0})
    analysis = analyse(joined)
    assert (analysis.mixed_units, analysis.arms[CONTROL].units, analysis.arms[CANDIDATE].units) == (10, 1990, 2000)
    assert verdict(analysis).kind == "no_difference"
    for number in range(10, 60):
        joined.arms[CANDIDATE].add(f"{CONTROL}-{number}", {"searches": 1.0})
    assert any("60 units saw both arms" in words for words in said(joined).words)


def test_an_arm_of_two_models_breaks_the_experiment() -> None:
    joined = experiment()
    joined.models[CONTROL].add(("another",))
    assert any("arm control was answered by several models (another, model-0)" in words for words in said(joined).words)


def test_interleaving_tells_whom_people_prefer() -> None:
    analysis = analyse(interleaved(90, 40))
    assert analysis.arms[INTERLEAVED].model_ids == ("model-0+model-1",)
    assert not analysis.comparisons
    assert analysis.preference
    assert (analysis.preference.candidate_wins, analysis.preference.control_wins) == (90, 40)
    got = preference_verdict(analysis.preference)
    assert got.kind == "better"
    assert got.words[0].startswith("People prefer the candidate (90 searches won against 40): +0.1250 [")
    lost = analyse(interleaved(40, 90)).preference
    assert lost
    assert preference_verdict(lost).words[0].startswith("People prefer the control (40 searches won against 90): -0.1250")


def test_no_preference_is_told_with_what_could_have_been_found() -> None:
    even, none = analyse(interleaved(50, 52)).preference, analyse(interleaved(0, 0)).preference
    assert even
    assert none
    assert preference_verdict(even).kind == "no_difference"
    assert "4 times of 5" in preference_verdict(even).words[0]
    assert preference_verdict(none).kind == "too_little"


def test_guardrails_that_cannot_be_measured_do_not_warn() -> None:
    analysis: Analysis = analyse(experiment(hides=(0.0, 0.0)))
    assert math.isnan(analysis.guardrail_p["hides"])
    assert len(analysis.guardrail_p) == len(METRICS) - 1
    silent = replace(analysis, guardrail_p={})
    assert verdict(silent).kind == "no_difference"


def test_every_kind_of_verdict_has_a_meaning() -> None:
    kinds = [said(experiment(fulfilment=pair)).kind for pair in ((0.3, 0.4), (0.4, 0.3), (0.3, 0.3))]
    assert {*kinds, said(Joined()).kind, said(experiment((2000, 1600))).kind} == set(KINDS)
    assert set(ARMS) == set(Joined().arms)
