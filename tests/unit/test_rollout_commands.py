from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from everpin.cli import app
from everpin.commands.rollouts import _speed
from everpin.live import live_settings
from everpin.rollouts import Refused, Rollouts
from everpin.settings import SHIPPED_MODEL, Settings, settings
from everpin.wiring import now_us
from index.edge import EdgePinIndex
from pins.errors import EverpinError
from pins.rollout import Readiness, Rollout

LIVE, CANDIDATE = SHIPPED_MODEL.name, "minilm-l6-v1"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path))
    monkeypatch.delenv("EVERPIN_MODEL", raising=False)
    settings.cache_clear()
    for model_id in (LIVE, CANDIDATE):
        EdgePinIndex(tmp_path / "index", model_id, 384).close()
    yield tmp_path
    settings.cache_clear()


def rollout(*arguments: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["rollout", *arguments, "--json"])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, json.loads(done.stdout)


def test_without_a_rollout_the_status_names_the_live_model() -> None:
    assert rollout("status") == (0, {"live": LIVE, "phase": None, "rollout": None})


def test_the_plan_changes_nothing(home: Path) -> None:
    code, document = rollout("start", CANDIDATE, "--workers", "2", "--price", "1")
    planned = document["plan"]
    assert (code, document["started"], planned["candidate"], planned["previous"], planned["workers"]) == (0, False, CANDIDATE, LIVE, 2)
    assert planned["texts_per_s"] > 0
    assert Rollouts(Settings(home=home)).now() is None


def test_a_candidate_that_is_not_ready_says_everything_that_is_missing(home: Path) -> None:
    Rollouts(Settings(home=home)).begin(CANDIDATE)
    code, document = rollout("status", "--queries", "0")
    assert (code, document["phase"], document["lag"], document["overlap"], document["pins_per_second"]) == (1, "filling", None, None, None)
    assert document["canary_cosine"] > 0.99
    assert [words.split(" ")[0] for words in document["refusals"]] == ["the", "no", "gate:"]
    for step in (["cutover"], ["cutover", "--canary", "5"]):
        with pytest.raises(Refused, match="may not answer yet"):
            rollout(*step)


def test_a_held_rollout_goes_on_when_it_is_told_to(home: Path) -> None:
    Rollouts(Settings(home=home)).begin(CANDIDATE)
    assert rollout("pause")[1]["phase"] == "paused"
    with pytest.raises(EverpinError, match="`everpin rollout resume` first"):
        rollout("start", CANDIDATE, "--yes")
    assert rollout("resume")[1]["phase"] == "filling"


def test_a_collection_is_not_dropped_by_accident(home: Path) -> None:
    Rollouts(Settings(home=home)).begin(CANDIDATE)
    with pytest.raises(EverpinError, match=f"would drop the collection of {CANDIDATE}; add --yes"):
        rollout("retire", CANDIDATE)
    assert rollout("retire", CANDIDATE, "--yes") == (0, {"retired": CANDIDATE, "live": LIVE, "rollout": None})


def test_after_a_cut_over_commands_follow_the_alias(home: Path) -> None:
    rollouts = Rollouts(Settings(home=home))
    rollouts.begin(CANDIDATE)
    rollouts.filled()
    rollouts.place.alias.point(CANDIDATE)
    assert rollout("cutover")[1]["phase"] == "live"
    assert live_settings(Settings(home=home)).model.name == CANDIDATE
    assert live_settings(Settings(home=home, model=SHIPPED_MODEL)).model.name == LIVE, "a model that is named is meant"
    assert rollout("rollback")[1] | {"rollout": None} == {"live": LIVE, "phase": "rolled back", "rollout": None}


def test_an_interleaved_canary_is_told_in_words(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = Rollouts(Settings(home=home))
    rollouts.begin(CANDIDATE)
    rollouts.filled()
    monkeypatch.setattr(Rollouts, "look", lambda self: Readiness(100, 100, 0))
    words = f"5.0% of the searches are drafted from the rankings of {LIVE} and {CANDIDATE}; {LIVE} answers everything else"
    for step in (["cutover", "--canary", "5", "--interleave"], ["status", "--queries", "0"]):
        told = CliRunner().invoke(app, ["rollout", *step])
        assert (told.exit_code, words in " ".join(told.stdout.split())) == (0, True), told.stdout
    assert rollout("status", "--queries", "0")[1]["rollout"]["interleave"] is True
    assert rollout("cutover", "--canary", "5")[1]["rollout"] | {"version": 0} == rollout("status", "--queries", "0")[1]["rollout"] | {"version": 0}
    assert rollouts.required().interleave is False


@pytest.mark.parametrize(
    ("options", "words"), [(["--interleave"], "--interleave is a way of --canary"), (["--canary", "0", "--interleave"], "nothing to interleave")]
)
def test_there_is_no_interleaving_without_a_share(home: Path, options: list[str], words: str) -> None:
    Rollouts(Settings(home=home)).begin(CANDIDATE)
    with pytest.raises(EverpinError, match=words):
        rollout("cutover", *options)


def test_the_rate_is_told_while_pins_are_filled() -> None:
    begun = Rollout("new", "old", now_us() - 10_000_000)
    told = _speed(begun, "old", Readiness(300, 100, 0))
    assert told["pins_per_second"] == pytest.approx(10, rel=0.1)
    assert told["eta_s"] == pytest.approx(20, rel=0.1)
    for rollout_, seen in ((begun, Readiness(300, 0, 0)), (begun.changed(filled_us=1), Readiness(300, 100, 0))):
        assert _speed(rollout_, "old", seen) == {"pins_per_second": None, "eta_s": None}
