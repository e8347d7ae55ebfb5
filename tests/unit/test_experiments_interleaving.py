from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.experiments.exposures import CANDIDATE, CONTROL, MAX_SHOWN
from pins.experiments.interleaving import Draft, coins, folded_draft, preference, team_draft, team_drafts

ids = st.lists(st.integers(0, 30).map(str), max_size=25, unique=True)
flips = st.lists(st.booleans(), min_size=30, max_size=30)


def test_teams_choose_in_turns_and_the_coin_says_who_begins() -> None:
    control, candidate = ["a", "b", "c", "d"], ["b", "e", "a", "f"]
    assert team_draft(control, candidate, 4, [False, True]) == Draft(("a", "b", "e", "c"), (CONTROL, CANDIDATE, CANDIDATE, CONTROL))
    assert team_draft(control, candidate, 4, [True, True]) == Draft(("b", "a", "e", "c"), (CANDIDATE, CONTROL, CANDIDATE, CONTROL))


def test_a_ranking_that_is_used_up_leaves_the_rest_to_the_other() -> None:
    assert team_draft(["a"], ["a", "b", "c"], 9, [False] * 6) == Draft(("a", "b", "c"), (CONTROL, CANDIDATE, CANDIDATE))
    assert team_draft(["a", "b", "c"], ["a"], 9, [True] * 6) == Draft(("a", "b", "c"), (CANDIDATE, CONTROL, CONTROL))
    assert team_draft([], [], 9, [True] * 6) == Draft((), ())
    assert team_draft(["a", "b"], [], 1, [True, True]) == Draft(("a",), (CONTROL,))


@given(ids, ids, st.integers(0, 40), flips)
def test_a_draft_holds_each_pin_once_and_each_team_in_its_own_order(control: list[str], candidate: list[str], limit: int, coin: list[bool]) -> None:
    draft = team_draft(control, candidate, limit, coin)
    assert len(draft.shown) == len(draft.teams) == len(set(draft.shown)) == min(limit, len({*control, *candidate}))
    for team, ranking in ((CONTROL, control), (CANDIDATE, candidate)):
        mine = [pin for pin, of in zip(draft.shown, draft.teams, strict=True) if of == team]
        assert mine == [pin for pin in ranking if pin in mine]
    for place in range(0, len(draft.teams) - 1, 2):  # as long as both have pins, each has one of every two places
        if set(control) - set(draft.shown[:place]) and set(candidate) - set(draft.shown[: place + 1]):
            both = set(control) - set(draft.shown[: place + 1])
            assert {*draft.teams[place : place + 2]} == {CONTROL, CANDIDATE} or not both


def test_what_either_ranking_folds_into_one_result_is_drafted_once() -> None:
    control: dict[str, list[str]] = {"a": ["b"], "c": [], "d": []}
    candidate: dict[str, list[str]] = {"b": ["a"], "e": ["c"], "f": [], "g": ["f2"]}
    assert folded_draft(control, candidate, 9, [False] * 6) == Draft(("a", "e", "d", "f", "g"), (CONTROL, CANDIDATE, CONTROL, CANDIDATE, CANDIDATE))
    assert folded_draft(control, candidate, 2, [True] * 6) == Draft(("b", "c"), (CANDIDATE, CONTROL))


@st.composite
def folds(draw: st.DrawFn) -> dict[str, list[str]]:
    """A ranking of pins, some of them folded into one before."""
    kept: dict[str, list[str]] = {}
    for pin in draw(ids):
        if kept and draw(st.booleans()):
            kept[draw(st.sampled_from(sorted(kept)))].append(pin)
        else:
            kept[pin] = []
    return kept


@given(folds(), folds(), st.integers(0, 40), flips)
def test_a_draft_of_folded_results_shows_results_of_each_team_in_its_order(
    control: dict[str, list[str]], candidate: dict[str, list[str]], limit: int, coin: list[bool]
) -> None:
    draft = folded_draft(control, candidate, limit, coin)
    assert len(draft.shown) == len(set(draft.shown)) == len(draft.teams) <= limit
    for team, ranking in ((CONTROL, control), (CANDIDATE, candidate)):
        mine = [pin for pin, of in zip(draft.shown, draft.teams, strict=True) if of == team]
        assert mine == [pin for pin in ranking if pin in mine]


@given(ids, ids, st.integers(0, 40), flips)
def test_where_nothing_is_folded_the_draft_is_the_plain_one(control: list[str], candidate: list[str], limit: int, coin: list[bool]) -> None:
    plain: tuple[dict[str, list[str]], dict[str, list[str]]] = ({pin: [] for pin in control}, {pin: [] for pin in candidate})
    assert folded_draft(*plain, limit, coin) == team_draft(control, candidate, limit, coin)


@given(ids, ids, st.integers(1, 20))
def test_a_draft_begins_with_what_both_rank_first(control: list[str], candidate: list[str], limit: int) -> None:
    draft = team_draft(["top", *control], ["top", *candidate], limit, coins("r", "x"))
    assert draft.shown[0] == "top"


def test_the_coins_of_a_request_are_always_the_same_and_fair() -> None:
    assert coins("r1", "x") == coins("r1", "x")
    assert coins("r1", "x") != coins("r1", "y")
    assert len(coins("r1", "x")) == MAX_SHOWN
    heads = np.array([coins(f"r{n}", "x", 50) for n in range(4000)]).mean(axis=0)
    assert np.abs(heads - 0.5).max() < 5 * 0.5 / 4000**0.5


@pytest.mark.parametrize(
    ("kinds", "won"),
    [
        ({}, 0), ({0: {"click"}}, -1), ({1: {"click"}}, 1), ({0: {"click"}, 1: {"click"}}, 0), ({0: {"click"}, 1: {"save"}}, 1),
        ({0: {"save"}, 1: {"long_click"}}, -1), ({0: {"save"}, 1: {"long_click"}, 2: {"long_click"}}, 1), ({1: {"hide"}}, 0),
        ({0: {"click", "save"}, 1: {"save"}}, 0), ({1: set()}, 0),
    ],
)  # fmt: skip
def test_actions_speak_for_the_team_whose_pins_they_are_on(kinds: dict[int, set[str]], won: int) -> None:
    assert preference((CONTROL, CANDIDATE, CANDIDATE), kinds) == won


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_many_drafts_are_what_one_by_one_gives(seed: int, limit: int) -> None:
    rng = np.random.default_rng(seed)
    control, candidate = (np.argsort(rng.random((5, 12)), axis=1).astype(np.int8) for _ in range(2))
    coin = rng.random((5, (limit + 1) // 2)) < 0.5
    shown, of_candidate = team_drafts(control, candidate, limit, coin)
    for row in range(5):
        one, other = ([str(pin) for pin in np.argsort(places[row])] for places in (control, candidate))
        draft = team_draft(one, other, limit, coin[row].tolist())
        assert draft.shown == tuple(map(str, shown[row]))
        assert draft.teams == tuple(CANDIDATE if mine else CONTROL for mine in of_candidate[row])
