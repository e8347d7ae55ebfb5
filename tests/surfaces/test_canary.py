from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pins.assignment import in_canary
from pins.experiments.exposures import Exposure
from pins.rollout import Rollout
from surfaces.exposures import WAITING
from tests.surfaces.parts import Running
from tests.surfaces.rolling import NEW, OLD, QUERIES, end_rollout, roll_out, two_models

SHARE = 0.4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with two_models(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_rollout(run: Running) -> Iterator[None]:
    yield
    end_rollout(run)


def models_of(run: Running) -> dict[str, str]:
    found = {}
    for query in QUERIES:
        body = run.client.post("/v1/search", json={"query": query}).raise_for_status().json()
        assert body["collection"] == f"pins__{body['model_id']}"
        found[query] = body["model_id"]
    return found


def test_the_candidate_answers_its_share_and_each_query_always_falls_on_one_side(run: Running) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=SHARE))
    first = models_of(run)
    assert first == {query: NEW if in_canary(query, NEW, SHARE) else OLD for query in QUERIES}
    assert set(Counter(first.values())) == {OLD, NEW}
    assert models_of(run) == first


def test_a_user_stays_on_one_side_of_the_canary(run: Running) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=SHARE))
    for user in map("user-{}".format, range(12)):
        expected = NEW if in_canary(user, NEW, SHARE) else OLD
        assert {run.client.get(f"/v1/users/{user}/feed").json()["model_id"] for _ in range(2)} == {expected}


def test_the_next_page_is_of_the_model_of_the_first_whatever_the_canary_does(run: Running) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=1.0))
    first = run.client.post("/v1/search", json={"query": QUERIES[0], "limit": 3}).json()
    assert first["model_id"] == NEW
    roll_out(run, Rollout(NEW, OLD, 1, version=2, filled_us=2))
    second = run.client.post("/v1/search", json={"query": QUERIES[0], "limit": 3, "cursor": first["cursor"]}).raise_for_status().json()
    assert second["model_id"] == NEW
    assert run.client.post("/v1/search", json={"query": QUERIES[0]}).json()["model_id"] == OLD


def test_first_pages_are_exposures_of_their_arm_and_nothing_is_written_without_a_canary(run: Running) -> None:
    models_of(run)
    assert run.surface.exposures._drain(WAITING) == []
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=SHARE))
    body = run.client.post("/v1/search", json={"query": QUERIES[0], "limit": 3}).json()
    run.client.post("/v1/search", json={"query": QUERIES[0], "limit": 3, "cursor": body["cursor"]}).raise_for_status()
    feed = run.client.get("/v1/users/fan/feed").json()
    related = run.client.get("/v1/pins/food-001/related").json()
    exposures = [event for event in run.surface.exposures._drain(WAITING) if isinstance(event, Exposure)]
    assert [(event.surface, event.request_id) for event in exposures] == [
        ("search", body["request_id"]),
        ("feed", feed["request_id"]),
        ("related", related["request_id"]),
    ]
    assert exposures[0].shown == tuple(result["pin_id"] for result in body["results"])
    for event, answer in zip(exposures, (body, feed, related), strict=True):
        assert (event.experiment, event.model_ids, event.share) == (NEW, (answer["model_id"],), SHARE)
        assert event.arm == ("candidate" if answer["model_id"] == NEW else "control")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_none_or_all_of_the_traffic(run: Running, share: float) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=share))
    assert set(models_of(run).values()) == {NEW if share else OLD}


def test_after_the_cut_over_the_share_means_nothing(run: Running) -> None:
    run.stores.moved.point(NEW)
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=SHARE))
    assert set(models_of(run).values()) == {NEW}


def test_a_retiring_candidate_answers_nobody(run: Running) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=1.0, retiring=NEW))
    assert set(models_of(run).values()) == {OLD}


def test_a_canary_that_cannot_be_opened_is_a_problem_and_nobody_waits_for_it(run: Running) -> None:
    run.stores.state.replace(None, Rollout("no-such-model", OLD, 1, share=1.0))
    run.surface.live.refresh()
    assert "no-such-model" in run.surface.live.problem
    assert set(models_of(run).values()) == {OLD}


def test_a_candidate_that_is_not_there_before_it_is_asked_for_is_no_problem(run: Running) -> None:
    run.stores.state.replace(None, Rollout("no-such-model", OLD, 1))
    run.surface.live.refresh()
    assert run.surface.live.problem == ""


def test_a_damaged_state_leaves_the_answers_as_they_are_and_is_told(run: Running, tmp_path: Path) -> None:
    state = run.stores.home / "rollout.json"
    state.write_text("{")
    run.surface.live.refresh()
    assert "damaged" in run.surface.live.problem
    assert set(models_of(run).values()) == {OLD}
    state.unlink()
