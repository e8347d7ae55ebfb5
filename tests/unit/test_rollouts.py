from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from everpin import rollouts as module
from everpin.owner import Owner, announce, ownership, place
from everpin.rollout_plan import readable_bytes, readable_seconds, share
from everpin.rollouts import Refused, Rollouts
from everpin.settings import SHIPPED_MODEL, Settings
from index.edge import EdgePinIndex
from pins.errors import ArtifactError, EverpinError, Unavailable
from pins.rollout import Readiness

OLD, NEW = "minilm-l6-v1", "everpin-l6-v1"
FULL = Readiness(100, 100, 0)


class Watched(Rollouts):
    """Rollouts whose look at workers and collections a test decides."""

    def __init__(self, config: Settings) -> None:
        super().__init__(config, lambda: self.at_us)
        self.at_us, self.seen, self.looks = 1_000_000, FULL, 0

    def look(self) -> Readiness:
        self.looks += 1
        return self.seen


@pytest.fixture
def house(tmp_path: Path) -> Watched:
    """An installation with the collections of two models, the older one live."""
    config = Settings(home=tmp_path, model=SHIPPED_MODEL.parent / OLD)
    for model_id in (OLD, NEW):
        EdgePinIndex(config.index_home, model_id, 384).close()
    return Watched(config)


def test_a_rollout_goes_from_its_beginning_to_the_end_of_the_old_collection(house: Watched) -> None:
    begun = house.begin(NEW)
    assert (begun.candidate, begun.previous, house.place.live()) == (NEW, OLD, OLD)
    house.filled()
    assert house.canary(0.05).phase(house.place.live()) == "canary"
    assert house.cut_over().phase(house.place.live()) == "live"
    assert house.roll_back().phase(house.place.live()) == "rolled back"
    assert house.cut_over().phase(house.place.live()) == "live"
    house.at_us += 11_000_000
    assert house.retire(OLD, hold_s=10) is None
    assert (house.now(), house.place.live()) == (None, NEW)
    assert not (house.config.index_home / f"pins__{OLD}").exists()


@pytest.mark.parametrize("end", [Rollouts.cut_over, Rollouts.roll_back, lambda house: house.retire(NEW, 0), lambda house: house.bridge("")])
def test_a_bridge_ends_with_whatever_ends_its_use(house: Watched, end: Any) -> None:
    house.begin(NEW)
    assert house.bridge("digest") == house.bridge("digest")
    assert house.required().crossing(OLD) == "digest"
    assert house.required().crossing(NEW) == ""
    house.filled()
    end(house)
    left = house.now()
    assert left is None or left.bridge == ""


ENDS = [Rollouts.cut_over, Rollouts.roll_back, lambda house: house.retire(NEW, 0), lambda house: house.canary(0.0), lambda house: house.canary(0.05)]


@pytest.mark.parametrize("end", ENDS)
def test_an_interleaved_canary_ends_with_whatever_ends_its_use(house: Watched, end: Any) -> None:
    house.begin(NEW)
    house.filled()
    assert house.canary(0.05, interleave=True) == house.canary(0.05, interleave=True)
    drafts = house.required()
    assert (drafts.share, drafts.interleave, drafts.phase(OLD)) == (0.05, True, "canary")
    end(house)
    left = house.now()
    assert left is None or not left.interleave


def test_no_share_is_no_interleaving(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    assert not house.canary(0.0, interleave=True).interleave


def test_each_step_may_be_repeated(house: Watched) -> None:
    for act in (lambda: house.begin(NEW), house.filled, lambda: house.canary(0.2), house.cut_over, house.roll_back, house.cut_over):
        assert act() == act()
    for paused in (True, False):
        assert house.pause(paused=paused) == house.pause(paused=paused)


def test_the_alias_is_set_before_anything_else_so_that_no_setting_moves_it(house: Watched) -> None:
    assert house.place.alias.live() is None
    house.begin(NEW)
    assert Rollouts(Settings(home=house.config.home, model=SHIPPED_MODEL)).place.live() == OLD


def test_a_second_candidate_waits_for_the_first(house: Watched) -> None:
    house.begin(NEW)
    with pytest.raises(Refused, match=f"{NEW} is being rolled out; end that first: `everpin rollout retire {NEW}`"):
        house.begin("another")
    with pytest.raises(Refused, match="is the live model already"):
        Watched(house.config.model_copy(update={"home": house.config.home / "elsewhere"})).begin(OLD)


def test_an_unknown_candidate_is_refused_before_anything_is_kept(house: Watched) -> None:
    with pytest.raises(ArtifactError, match="neither a model folder nor one of the models here"):
        house.begin("no-such-model")
    assert house.now() is None


@pytest.mark.parametrize("act", [Rollouts.cut_over, lambda house: house.canary(0.05)])
@pytest.mark.parametrize(
    ("seen", "words"),
    [(Readiness(100, 60, 0), "pins are missing"), (Readiness(100, 100, 900), "900 events behind"), (Readiness(100, 100, None), "no worker of")],
)
def test_a_candidate_that_is_not_there_yet_answers_nobody(house: Watched, act: Any, seen: Readiness, words: str) -> None:
    house.begin(NEW)
    with pytest.raises(Refused, match="has not looked at every pin"):
        act(house)
    house.filled()
    house.seen = seen
    with pytest.raises(Refused, match=words):
        act(house)
    assert (house.place.live(), house.required().share, house.required().cut_over_us) == (OLD, 0.0, 0)


def test_a_canary_ends_whatever_the_candidate_looks_like(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    house.canary(0.5)
    house.seen = Readiness(100, 0, None)
    assert house.canary(0.0).phase(OLD) == "ready"


def test_a_roll_back_asks_nothing_of_the_candidate(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    house.cut_over()
    house.seen = Readiness(100, 0, None, ["gate"])
    house.roll_back()
    assert house.place.live() == OLD


def test_a_cut_over_that_died_half_way_is_finished_by_the_same_command(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    house.place.alias.point(NEW)  # and there the process was killed
    assert house.cut_over().cut_over_us == house.at_us
    assert house.looks == 0


def test_a_roll_back_that_died_half_way_is_finished_by_the_same_command(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    house.cut_over()
    house.place.alias.point(OLD)
    house.at_us += 1
    assert house.roll_back().phase(house.place.live()) == "rolled back"


def test_the_old_collection_is_held_and_the_live_one_never_goes(house: Watched) -> None:
    house.begin(NEW)
    house.filled()
    house.cut_over()
    house.at_us += 3_000_000
    with pytest.raises(Refused, match=r"the alias moved 3 s ago; minilm-l6-v1 is kept for 7 s more"):
        house.retire(OLD, hold_s=10)
    with pytest.raises(Refused, match=f"{NEW} is the live model"):
        house.retire(NEW, hold_s=0)
    with pytest.raises(Refused, match="is not in this rollout"):
        house.retire("third", hold_s=0)
    assert (house.config.index_home / f"pins__{OLD}").exists()


def test_a_candidate_that_never_went_live_can_be_given_up(house: Watched) -> None:
    house.begin(NEW)
    assert house.retire(NEW, hold_s=86_400) is None
    assert house.place.live() == OLD
    assert not (house.config.index_home / f"pins__{NEW}").exists()


def test_a_worker_that_still_runs_keeps_its_collection_and_the_command_can_be_given_again(house: Watched) -> None:
    house.begin(NEW)
    with ownership(place(house.config.home, NEW), "worker"), pytest.raises(Refused, match="still runs"):
        house.retire(NEW, hold_s=0, wait_s=0.2)
    assert house.required().retiring == NEW
    with pytest.raises(Refused, match="is being retired"):
        house.roll_back()
    assert house.retire(NEW, hold_s=0) is None


def test_changes_of_others_are_not_undone(house: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    house.begin(NEW)
    state, raced = house.place.state, []
    replace = type(state).replace

    def after_another(self: Any, before: Any, after: Any) -> bool:
        if not raced:
            raced.append(replace(self, before, before.changed(paused=True)))
        return replace(self, before, after)

    monkeypatch.setattr(type(state), "replace", after_another)
    filled = house.filled()
    assert filled.paused
    assert filled.filled_us
    monkeypatch.setattr(type(state), "replace", lambda *_: False)
    with pytest.raises(Unavailable, match="try again"):
        house.pause(paused=False)


def test_without_a_rollout_every_step_says_how_to_begin(house: Watched) -> None:
    for act in (house.filled, house.cut_over, house.roll_back, lambda: house.canary(0.1), lambda: house.retire(NEW, 0)):
        with pytest.raises(Refused, match="everpin rollout start MODEL"):
            act()


def test_what_is_seen_of_a_candidate_without_worker_is_nothing(house: Watched) -> None:
    house.begin(NEW)
    assert Rollouts.look(house) == Readiness(0, 0, None, [f"{NEW} is not published; `everpin model publish FOLDER` checks it first"])


def test_workers_that_do_not_come_are_told_how_to_start(house: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.01)
    folder = place(house.config.home, NEW)
    with ownership(folder, "worker"):
        announce(folder, Owner(1, "http://127.0.0.1:9", "", "worker"))
        with pytest.raises(Unavailable, match=f"no worker of {NEW} was ready .* EVERPIN_MODEL=.*{NEW} everpin worker"):
            house.wait_for_workers(NEW, 0.05)


@pytest.mark.parametrize(("words", "part"), [("5", 0.05), ("5%", 0.05), ("0", 0.0), ("100", 1.0), ("0.5", 0.005)])
def test_a_share_is_in_per_cent(words: str, part: float) -> None:
    assert share(words) == pytest.approx(part)


@pytest.mark.parametrize("words", ["-1", "101", "half", "", "nan"])
def test_a_share_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(EverpinError, match="per cent"):
        share(words)


def test_sizes_and_times_for_people() -> None:
    words: Sequence[str] = [readable_bytes(12), readable_bytes(3 << 20), readable_seconds(12.4), readable_seconds(190), readable_seconds(7500)]
    assert words == ["12 bytes", "3.0 MiB", "12 s", "3 min 10 s", "2 h 5 min"]
