from __future__ import annotations

import json
from typing import Any

import pytest

from pins.errors import ArtifactError
from pins.rollout import Readiness, Rollout, read, refusals, stored

NEW = Rollout("new", "old", started_us=1)
FULL = NEW.changed(filled_us=2)


@pytest.mark.parametrize(
    ("changes", "live", "phase"),
    [
        ({}, "old", "filling"),
        ({"paused": True}, "old", "paused"),
        ({"filled_us": 2}, "old", "ready"),
        ({"filled_us": 2, "share": 0.05}, "old", "canary"),
        ({"filled_us": 2, "cut_over_us": 3}, "new", "live"),
        ({"filled_us": 2, "cut_over_us": 3, "rolled_back_us": 4}, "old", "rolled back"),
        ({"filled_us": 2, "cut_over_us": 5, "rolled_back_us": 4}, "new", "live"),
        ({"filled_us": 2, "cut_over_us": 3, "retiring": "old"}, "new", "retiring"),
    ],
)
def test_the_phase_follows_from_the_alias_and_the_facts(changes: dict[str, Any], live: str, phase: str) -> None:
    assert NEW.changed(**changes).phase(live) == phase


def test_both_models_are_kept_until_one_is_retired() -> None:
    assert NEW.models() == ("new", "old")
    assert NEW.changed(retiring="old").models() == ("new",)
    assert (NEW.other("old"), NEW.other("new")) == ("new", "old")


def test_each_change_is_a_version_of_its_own() -> None:
    assert [NEW.version, FULL.version, FULL.changed(share=0.1).version] == [1, 2, 3]


@pytest.mark.parametrize(
    ("rollout", "seen", "words"),
    [
        (NEW, Readiness(100, 40, 0), ["has not looked at every pin yet (40.0% there)"]),
        (FULL, Readiness(100, 100, None), ["no worker of new answers"]),
        (FULL, Readiness(100, 100, 101), ["101 events behind, at most 100"]),
        (FULL, Readiness(2000, 1997, 0), ["3 of 2000 pins are missing"]),
        (FULL.changed(paused=True), Readiness(100, 100, 0), ["paused; `everpin rollout resume`"]),
        (FULL.changed(retiring="old"), Readiness(100, 100, 0), ["old is being retired"]),
        (FULL, Readiness(100, 100, 0, ["ndcg@20 en 0.90 < 0.92"]), ["gate: ndcg@20 en 0.90 < 0.92"]),
        (NEW, Readiness(100, 40, None, ["x"]), ["has not looked", "no worker", "gate: x"]),
    ],
)
def test_a_candidate_that_may_not_answer_is_told_why(rollout: Rollout, seen: Readiness, words: list[str]) -> None:
    why = refusals(rollout, seen)
    assert len(why) == len(words)
    for line, part in zip(why, words, strict=True):
        assert part in line


@pytest.mark.parametrize("seen", [Readiness(100, 100, 0), Readiness(100, 95, 5), Readiness(2000, 1998, 0), Readiness(90, 100, 100), Readiness(0, 0, 0)])
def test_a_full_candidate_that_keeps_up_may_answer(seen: Readiness) -> None:
    assert refusals(FULL, seen) == []
    assert 0 <= seen.coverage <= 1


def test_what_is_kept_is_read_again_and_what_is_unknown_is_left_out() -> None:
    kept = FULL.changed(share=0.05, interleave=True, retiring="old")
    assert read(json.loads(json.dumps(stored(kept))) | {"of a later release": 1}) == kept


@pytest.mark.parametrize("damage", [{"candidate": 3}, {"share": 2}, {"share": "5"}, {"paused": 1}, {"interleave": 1}, {"version": "x"}, {"previous": None}])
def test_damage_is_named(damage: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="state of the rollout is damaged"):
        read(stored(NEW) | damage)


def test_a_state_of_an_earlier_release_interleaves_nothing() -> None:
    kept = stored(FULL.changed(share=0.05))
    del kept["interleave"]
    assert read(kept) == FULL.changed(share=0.05)


def test_nothing_is_left_of_canary_and_bridge() -> None:
    ended = FULL.changed(share=0.05, interleave=True, bridge="digest").without_canary(cut_over_us=9)
    assert (ended.share, ended.interleave, ended.bridge, ended.cut_over_us, ended.version) == (0.0, False, "", 9, 4)


def test_a_state_that_names_no_model_is_damaged() -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        read({"previous": "old"})
