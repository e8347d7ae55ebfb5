from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.experiments.exposures import CANDIDATE, CONTROL, INTERLEAVED, Exposure, Outcome
from pins.experiments.joining import COUNTS, EARLY_US, WINDOW_US, Joined, Pass, hashed
from pins.experiments.metrics import METRICS, NDCG_AT, PREFERENCE, PRIMARY, SUMS, UnitSums, facts
from pins.metrics import ndcg
from tests.unit.samples import T0

SHOWN = ("p0", "p1", "p2", "p3")


def shown(request: str, unit: str = "u", arm: str = CONTROL, at_us: int = T0, surface: str = "search", share: float | None = None) -> Exposure:
    teams = (CONTROL, CANDIDATE, CONTROL, CANDIDATE) if arm == INTERLEAVED else ()
    models = {CONTROL: ("old",), CANDIDATE: ("new",), INTERLEAVED: ("old", "new")}[arm]
    return Exposure("x", unit, arm, surface, request, models, SHOWN, at_us, teams, share)


def done(request: str, pin: str = "p1", action: str = "save", after_us: int = 1000, dwell_ms: int | None = None) -> Outcome:
    return Outcome("x", "someone", request, pin, action, T0 + after_us, dwell_ms)


def joined(outcomes: Iterable[Outcome], exposures: Iterable[Exposure], **options: int) -> Joined:
    result = Joined()
    one = Pass(result, "search", **options)
    for outcome in outcomes:
        one.act(outcome)
    for exposure in exposures:
        one.show(exposure)
    one.close()
    return result


def counts(result: Joined) -> dict[str, int]:
    return {name: number for name, number in result.counts.items() if number}


def sums(result: Joined, arm: str = CONTROL) -> dict[str, float]:
    return {name: float(result.arms[arm].of(name).sum()) for name in SUMS if result.arms[arm].of(name).sum()}


def test_an_action_reaches_the_answer_that_it_is_about() -> None:
    result = joined([done("r1"), done("r2", "p0", "click"), done("r2", "p2", "click", dwell_ms=20_000)], [shown("r1"), shown("r2"), shown("r3", "v")])
    assert counts(result) == {"exposures": 3, "outcomes": 3}
    got = sums(result)
    assert {name: got[name] for name in ("searches", "fulfilled", "clicks", "long_clicks", "saves", "engaged")} == {
        "searches": 3, "fulfilled": 2, "clicks": 2, "long_clicks": 1, "saves": 1, "engaged": 2,
    }  # fmt: skip
    assert got["ndcg"] == pytest.approx(ndcg([0, 3, 0, 0], 20) + ndcg([1, 0, 2, 0], 20))
    assert result.arms[CONTROL].of("searches").tolist() == [2, 1]
    assert (result.first_us, result.last_us) == (T0, T0)


def test_what_becomes_of_other_actions_is_counted() -> None:
    result = joined(
        [
            done("r1"), done("r1"), done("r1", "p0", after_us=WINDOW_US + 1), done("r1", "p2", after_us=-EARLY_US - 1), done("r1", "elsewhere"),
            done("gone"), done("gone", "p2"),
        ],
        [shown("r1"), shown("r1", at_us=T0 + 5)],
    )  # fmt: skip
    assert counts(result) == {
        "exposures": 1, "repeated_exposures": 1, "outcomes": 1, "repeated_outcomes": 1, "late_outcomes": 2, "elsewhere_outcomes": 1, "unknown_outcomes": 2,
    }  # fmt: skip
    assert set(result.counts) == set(COUNTS)
    assert sums(result)["saves"] == 1


def test_the_edges_of_the_window_belong_to_it() -> None:
    result = joined([done("r1", "p0", after_us=500), done("r1", "p1", after_us=-EARLY_US), done("r1", "p2", after_us=501)], [shown("r1")], window_us=500)
    assert counts(result) == {"exposures": 1, "outcomes": 2, "late_outcomes": 1}


def test_of_the_same_action_twice_the_earlier_counts() -> None:
    late, early = done("r1", after_us=WINDOW_US + 1), done("r1", after_us=7)
    for outcomes in ([late, early], [early, late]):
        assert counts(joined(outcomes, [shown("r1")])) == {"exposures": 1, "outcomes": 1, "repeated_outcomes": 1}


def test_a_click_that_became_a_long_one_is_one_click() -> None:
    result = joined([done("r1", action="click"), done("r1", action="click", dwell_ms=11_000)], [shown("r1")])
    assert (sums(result)["clicks"], sums(result)["long_clicks"]) == (1, 1)


def test_answers_of_another_surface_or_from_before_are_left_out() -> None:
    result = joined([done("old"), done("feed")], [shown("old", at_us=T0 - 1), shown("feed", surface="feed"), shown("r1")], since_us=T0)
    assert counts(result) == {"exposures": 1}
    assert result.surfaces == {"search": 1, "feed": 1}
    assert sums(result) == {"searches": 1}


def test_interleaved_answers_are_won_or_not() -> None:
    result = joined(
        [done("r1", "p1"), done("r2", "p0", "click"), done("r4", "p1", "click"), done("r4", "p2", "click")],
        [shown(f"r{n}", arm=INTERLEAVED) for n in (1, 2, 3, 4)],
    )
    assert (result.arms[INTERLEAVED].of("preferred").sum(), result.arms[INTERLEAVED].of("credited").sum()) == (0, 2)
    won = joined([done("r1", "p3")], [shown("r1", arm=INTERLEAVED)])
    assert won.arms[INTERLEAVED].of("preferred").tolist() == [1]


def test_shares_models_and_units_of_both_arms_are_kept() -> None:
    first, last = shown("r1", share=0.05, at_us=T0 - 9), shown("r3", "v", CANDIDATE, share=0.2, at_us=T0 + 9)
    result = joined([], [shown("r2", "u", CANDIDATE, share=0.05), first, last])
    assert result.shares == {0.05: 2, 0.2: 1}
    assert dict(result.models) == {CONTROL: {("old",)}, CANDIDATE: {("new",)}}
    assert result.both_arms() == {"u"}
    assert (result.first_us, result.last_us) == (T0 - 9, T0 + 9)


def test_the_share_of_interleaved_answers_deals_no_arms() -> None:
    result = joined([], [shown("r1", share=0.05), shown("r2", "v", INTERLEAVED, share=0.5)])
    assert result.shares == {0.05: 1}


@given(st.integers(0, 2**32), st.integers(1, 5))
def test_order_and_number_of_passes_change_nothing(seed: int, parts: int) -> None:
    chance = random.Random(seed)
    exposures = [shown(f"r{n}", f"u{n % 5}", chance.choice([CONTROL, CANDIDATE, INTERLEAVED])) for n in range(20)]
    exposures += chance.sample(exposures, 3)
    outcomes = [done(f"r{chance.randrange(25)}", f"p{chance.randrange(5)}", chance.choice(["save", "click", "hide"])) for _ in range(30)]
    whole = joined(outcomes, exposures)
    apart = Joined()
    for part in range(parts):
        one = Pass(apart, "search")
        for outcome in chance.sample(outcomes, len(outcomes)):
            if hashed(outcome.request_id) % parts == part:
                one.act(outcome)
        for exposure in chance.sample(exposures, len(exposures)):
            if hashed(exposure.request_id) % parts == part:
                one.show(exposure)
        one.close()
    assert apart.counts == whole.counts
    for arm in whole.arms:
        assert sorted(apart.arms[arm].units) == sorted(whole.arms[arm].units)
        for name in SUMS:
            of = [dict(zip(result.arms[arm].units, result.arms[arm].of(name).round(9), strict=True)) for result in (whole, apart)]
            assert of[0] == of[1]
    assert sum(whole.counts.values()) == len(exposures) + len(outcomes)


def test_sums_are_kept_per_unit_and_some_can_be_left_out() -> None:
    made = UnitSums()
    for unit in ("a", "b", "a"):
        made.add(unit, {"searches": 1.0, "saves": 2.0})
    made.add("c", {})
    assert (len(made), "a" in made, "d" in made) == (3, True, False)
    assert made.of("saves").tolist() == [4, 2, 0]
    assert made.of("searches", {"a"}).tolist() == [1, 0]
    assert UnitSums().of("searches").shape == (0,)


def test_a_search_without_an_action_has_no_ndcg() -> None:
    nothing = {"searches": 1.0} | dict.fromkeys(["fulfilled", "clicks", "long_clicks", "saves", "hides", "ndcg", "engaged"], 0.0)
    assert facts(20, {}) == nothing
    assert facts(20, {3: {"hide"}}) == nothing | {"hides": 1.0}
    assert facts(50, {NDCG_AT: {"save"}}) == nothing | {"saves": 1.0, "fulfilled": 1.0}


@given(st.dictionaries(st.integers(0, 11), st.sets(st.sampled_from(["click", "long_click", "save", "hide"]), min_size=1)))
def test_ndcg_by_engagement_is_that_of_the_greatest_action_on_each_pin(kinds: dict[int, set[str]]) -> None:
    grade = {"click": 1, "long_click": 2, "save": 3, "hide": 0}
    grades = [max((grade[kind] for kind in kinds.get(place, ())), default=0) for place in range(12)]
    got = facts(12, kinds)
    assert got["engaged"] == float(any(grades))
    assert got["ndcg"] == (pytest.approx(ndcg(grades, 20)) if any(grades) else 0)


def test_every_metric_is_a_ratio_of_two_sums() -> None:
    assert {name for metric in (*METRICS, PREFERENCE) for name in (metric.above, metric.below)} <= set(SUMS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert METRICS[0].name == PRIMARY == "fulfilment"
    assert np.unique([metric.better for metric in METRICS]).tolist() == [-1, 1]
