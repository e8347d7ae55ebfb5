"""Interleaved answers of a canary: places are drafted from two rankings, and everything of a result is of the one model that it names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from embedder.query import QueryEncoder
from everpin.settings import SHIPPED_MODEL
from index.loopback import LoopbackPinIndex
from pins.assignment import in_canary
from pins.errors import Unavailable
from pins.experiments.analysis import analyse
from pins.experiments.exposures import CANDIDATE, CONTROL, INTERLEAVED, Exposure, Outcome, decode, encode, unit_name
from pins.experiments.interleaving import coins, folded_draft
from pins.experiments.joining import Joined, Pass
from pins.experiments.verdict import preference_verdict
from pins.rollout import Rollout
from surfaces.cursors import Place, Rest, digest, pack
from surfaces.exposures import WAITING
from surfaces.metrics import STAGES
from surfaces.schemas import SearchRequest
from tests.serving import hosted
from tests.surfaces.parts import BASE_MODEL, Remembering, Running
from tests.surfaces.rolling import NEW, OLD, QUERIES, end_rollout, roll_out, two_models

MODELS = {OLD: BASE_MODEL, NEW: SHIPPED_MODEL}
SHARE = 0.4
INSIDE = [query for query in QUERIES if in_canary(query, NEW, SHARE)]
OUTSIDE = [query for query in QUERIES if not in_canary(query, NEW, SHARE)]
CANARY = Rollout(NEW, OLD, 1, filled_us=2, share=SHARE, interleave=True)
LIMIT = 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with two_models(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(autouse=True)
def no_rollout(run: Running) -> Iterator[None]:
    yield
    end_rollout(run)


def ask(run: Running, query: str, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = run.client.post("/v1/search", json={"query": query, "limit": LIMIT} | more).raise_for_status().json()
    return body


def alone(run: Running, query: str, **more: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """By model: its whole ranking of a query where nothing is rolled out, by pin."""
    found = {}
    for model_id in MODELS:
        run.stores.moved.point(model_id)
        run.surface.live.refresh()
        found[model_id] = {result["pin_id"]: result for result in ask(run, query, limit=100, **more)["results"]}
    run.stores.moved.point(OLD)
    run.surface.live.refresh()
    return found


def written(run: Running) -> list[Exposure | Outcome]:
    """What was written for experiments since the last look, as it travels."""
    events = run.surface.exposures._drain(WAITING)
    return [decode(event.request_id.encode(), encode(event), now_us=event.at_us) for event in events]


def ids(body: dict[str, Any]) -> list[str]:
    return [result["pin_id"] for result in body["results"]]


def teams(body: dict[str, Any]) -> tuple[str, ...]:
    return tuple(CANDIDATE if result["model_id"] == NEW else CONTROL for result in body["results"])


def test_each_result_is_ranked_and_scored_by_the_model_that_it_names(run: Running) -> None:
    before = {query: alone(run, query) for query in INSIDE[:4]}
    roll_out(run, CANARY)
    for query, rankings in before.items():
        body = ask(run, query)
        assert (body["model_id"], body["collection"], body["interleaved_with"]) == (OLD, f"pins__{OLD}", NEW)
        assert {result["model_id"] for result in body["results"]} == {OLD, NEW}
        for result in body["results"]:
            assert result == rankings[result["model_id"]][result["pin_id"]] | {"model_id": result["model_id"]}
            vector = QueryEncoder(Remembering.of(MODELS[result["model_id"]])).query(query)
            of_pin = run.stores.opened[result["model_id"]].vectors([result["pin_id"]])[result["pin_id"]]
            assert result["score"] == pytest.approx(float(np.dot(vector, of_pin)), abs=1e-4)


def test_places_are_the_draft_of_both_rankings_by_the_request_id(run: Running) -> None:
    query = INSIDE[0]
    folds = {model_id: {pin_id: one["duplicates"] for pin_id, one in ranking.items()} for model_id, ranking in alone(run, query).items()}
    roll_out(run, CANARY)
    for name in ("first", "second", "third"):
        body = run.client.post("/v1/search", json={"query": query, "limit": LIMIT}, headers={"X-Request-Id": name}).json()
        expected = folded_draft(folds[OLD], folds[NEW], LIMIT, coins(name, NEW))
        assert (tuple(ids(body)), teams(body)) == (expected.shown, expected.teams)


def test_searches_outside_the_share_and_other_surfaces_are_the_controls_and_no_part_of_the_experiment(run: Running) -> None:
    roll_out(run, CANARY)
    for query in OUTSIDE[:4]:
        body = ask(run, query)
        assert (body["model_id"], body["interleaved_with"], {result["model_id"] for result in body["results"]}) == (OLD, None, {None})
    for number in range(8):
        assert run.client.get(f"/v1/users/user-{number}/feed").json()["model_id"] == OLD
    assert run.client.get("/v1/pins/food-001/related").json()["model_id"] == OLD
    assert written(run) == []


def test_pages_go_on_with_both_models_and_no_pin_comes_twice(run: Running) -> None:
    query = INSIDE[0]
    rankings = alone(run, query, explain=True)
    roll_out(run, CANARY)
    body = ask(run, query, limit=6, explain=True)
    pages = [body]
    while body["cursor"]:
        body = ask(run, query, limit=6, explain=True, cursor=body["cursor"])
        pages.append(body)
    assert len(pages) > 2
    assert {(page["model_id"], page["interleaved_with"]) for page in pages} == {(OLD, NEW)}
    assert set(teams(pages[1])) == {CONTROL, CANDIDATE}
    shown = [result for page in pages for result in page["results"]]
    assert len({result["pin_id"] for result in shown}) == len(shown)
    for result in shown:
        expected = rankings[result["model_id"]][result["pin_id"]]
        assert (result["level"], result["duplicates"]) == (expected["level"], expected["duplicates"])
        assert (result["score"], result["relevance"]) == pytest.approx((expected["score"], expected["relevance"]), abs=1e-4)
        for name in ("dense_rank", "sparse_rank", "matched_terms"):
            assert result["explain"][name] == expected["explain"][name]
        assert result["explain"]["level_probabilities"] == pytest.approx(expected["explain"]["level_probabilities"], abs=1e-4)


def test_a_next_page_outlives_the_canary_and_ends_with_either_model(run: Running) -> None:
    roll_out(run, CANARY)
    query = INSIDE[0]
    first = ask(run, query, limit=4)
    second = ask(run, query, limit=4, cursor=first["cursor"])
    roll_out(run, CANARY.without_canary())
    again = ask(run, query, limit=4, cursor=first["cursor"])
    assert (again["interleaved_with"], again["results"]) == (NEW, second["results"])
    roll_out(run, CANARY.without_canary().changed(retiring=NEW))
    gone = run.client.post("/v1/search", json={"query": query, "limit": 4, "cursor": first["cursor"]})
    assert (gone.status_code, gone.json()["type"]) == (410, "/problems/cursor-gone")
    assert NEW in gone.json()["detail"]


@pytest.mark.parametrize(("extra", "status"), [(3, 400), ({"a": 1}, 400), ("no-such-model", 410)])
def test_a_cursor_that_no_search_has_is_refused(run: Running, extra: Any, status: int) -> None:
    wanted = SearchRequest(query="bread")
    same = digest("search", "bread", wanted.model_dump(mode="json", exclude={"query", "cursor", "limit", "explain"}))
    cursor = pack(Rest(OLD, [Place("food-001", 0.5, {"t": "?"})], extra), same)
    assert run.client.post("/v1/search", json={"query": "bread", "cursor": cursor}).status_code == status


def test_a_pin_deleted_meanwhile_is_left_out_of_the_next_page(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    roll_out(run, CANARY)
    first = ask(run, INSIDE[0], limit=4)
    second = ask(run, INSIDE[0], limit=4, cursor=first["cursor"])
    gone = next(result["pin_id"] for result in second["results"] if result["model_id"] == NEW)
    known = run.stores.opened[NEW].known
    monkeypatch.setattr(run.stores.opened[NEW], "known", lambda pin_ids: {pin_id: one for pin_id, one in known(pin_ids).items() if pin_id != gone})
    assert ids(ask(run, INSIDE[0], limit=4, cursor=first["cursor"])) == [pin_id for pin_id in ids(second) if pin_id != gone]


@pytest.mark.parametrize("explain", [False, True])
def test_where_the_candidate_does_not_answer_the_control_does_and_nothing_is_written(
    run: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, explain: bool
) -> None:
    query = INSIDE[0]
    before = ask(run, query, explain=explain)
    roll_out(run, CANARY)

    def away(*_: Any) -> Any:
        raise Unavailable("its owner is gone")

    for read in ("ask", "known"):
        monkeypatch.setattr(run.stores.opened[NEW], read, away)
    with caplog.at_level(logging.WARNING, "everpin.surfaces"):
        body = ask(run, query, explain=explain)
    assert (body["model_id"], body["interleaved_with"], body["results"]) == (OLD, None, before["results"])
    following = ask(run, query, explain=explain, cursor=body["cursor"])
    assert (following["interleaved_with"], {result["model_id"] for result in following["results"]}) == (None, {None})
    assert written(run) == []
    assert f"{body['request_id']}: {OLD} answers alone, because {NEW} did not rank: its owner is gone" in caplog.text


def test_a_dead_owner_of_the_candidate_fails_no_request(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ask(run, INSIDE[0])
    roll_out(run, CANARY)
    owner = FastAPI()
    owner.add_api_route("/index/counts", lambda: {"model_id": NEW, "counts": {}})
    with hosted(owner) as url:
        gone = LoopbackPinIndex(httpx.Client(base_url=url, timeout=10), NEW)
    canary = run.surface.live.canary
    assert canary is not None
    monkeypatch.setattr(run.surface.live, "canary", replace(canary, served=replace(canary.served, index=gone)))
    body = ask(run, INSIDE[0])
    assert (body["interleaved_with"], body["results"]) == (None, before["results"])
    assert written(run) == []
    gone.close()


def test_where_the_control_does_not_answer_the_request_is_refused(run: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    roll_out(run, CANARY)

    def away(asks: Any) -> Any:
        raise Unavailable("its owner is gone")

    monkeypatch.setattr(run.stores.opened[OLD], "ask", away)
    assert run.client.post("/v1/search", json={"query": INSIDE[0]}).status_code == 503
    assert written(run) == []


def test_stages_are_those_of_both_rankings(run: Running) -> None:
    roll_out(run, CANARY)
    timings = ask(run, INSIDE[1], explain=True)["timings_ms"]
    assert timings.keys() == {"encode", "retrieve", "rerank", "fold", "merge", "read", "total"}
    assert timings.keys() - {"total"} <= set(STAGES)
    assert sum(ms for stage, ms in timings.items() if stage != "total") <= timings["total"]


def test_a_search_without_results_is_drafted_all_the_same(run: Running) -> None:
    roll_out(run, CANARY)
    body = ask(run, INSIDE[0], filters={"board": "no such board"}, explain=True)
    assert (body["interleaved_with"], body["results"], body["cursor"]) == (NEW, [], None)
    [shown] = written(run)
    assert isinstance(shown, Exposure)
    assert (shown.arm, shown.shown, shown.teams) == (INTERLEAVED, (), ())


def test_what_people_do_is_credited_to_the_team_whose_pin_it_was(run: Running) -> None:
    roll_out(run, CANARY)
    joined = Joined()
    one = Pass(joined, "search")
    exposures, wins = [], {CANDIDATE: 0, CONTROL: 0}
    for number, query in enumerate(query for query in map("herbs {}".format, range(150)) if in_canary(query, NEW, SHARE)):
        body = ask(run, query)
        ask(run, query, cursor=body["cursor"])
        liked = CONTROL if number % 4 == 0 else CANDIDATE
        place = teams(body).index(liked)
        acted = {"pin_id": ids(body)[place], "action": "save", "request_id": body["request_id"]}
        assert run.client.post("/v1/users/ann/actions", json={"actions": [acted]}).status_code == 202
        wins[liked] += 1
        [shown, done] = written(run)
        assert isinstance(shown, Exposure)
        assert isinstance(done, Outcome)
        assert (shown.experiment, shown.arm, shown.surface, shown.request_id, shown.share) == (NEW, INTERLEAVED, "search", body["request_id"], SHARE)
        assert (shown.model_ids, shown.shown, shown.teams) == ((OLD, NEW), tuple(ids(body)), teams(body))
        assert shown.unit == unit_name(query, NEW)
        exposures.append(shown)
        one.act(done)
    for shown in exposures:
        one.show(shown)
    one.close()
    analysis = analyse(joined)
    assert analysis.preference is not None
    assert (analysis.preference.candidate_wins, analysis.preference.control_wins) == (wins[CANDIDATE], wins[CONTROL])
    assert (analysis.problems, analysis.sample_ratio, set(analysis.arms)) == ((), None, {INTERLEAVED})
    assert analysis.arms[INTERLEAVED].model_ids == (f"{OLD}+{NEW}",)
    assert preference_verdict(analysis.preference).kind == "better"


def test_a_plain_canary_before_is_read_apart_and_raises_no_alarm(run: Running) -> None:
    joined = Joined()
    one = Pass(joined, "search")
    for rollout in (CANARY.changed(interleave=False, share=0.5), CANARY):
        roll_out(run, rollout)
        for query in QUERIES:
            ask(run, query)
        for event in written(run):
            assert isinstance(event, Exposure)
            one.show(event)
    analysis = analyse(joined)
    assert analysis.arms.keys() == {CONTROL, CANDIDATE, INTERLEAVED}
    assert {name: arm.searches for name, arm in analysis.arms.items()} == {
        CONTROL: sum(not in_canary(query, NEW, 0.5) for query in QUERIES),
        CANDIDATE: sum(in_canary(query, NEW, 0.5) for query in QUERIES),
        INTERLEAVED: len(INSIDE),
    }
    assert analysis.sample_ratio is not None
    assert analysis.sample_ratio.share == 0.5
    assert analysis.problems == ()


@pytest.mark.parametrize(
    ("live", "rollout", "answers"),
    [
        (OLD, CANARY.without_canary(), OLD),
        (NEW, CANARY.without_canary(cut_over_us=3), NEW),
        (NEW, CANARY, NEW),
        (OLD, CANARY.without_canary(cut_over_us=3, rolled_back_us=4), OLD),
        (OLD, CANARY.changed(retiring=NEW), OLD),
    ],
)
def test_whatever_ends_the_canary_ends_its_drafts(run: Running, live: str, rollout: Rollout, answers: str) -> None:
    roll_out(run, CANARY)
    assert ask(run, INSIDE[0])["interleaved_with"] == NEW
    written(run)
    run.stores.moved.point(live)
    roll_out(run, rollout)
    body = ask(run, INSIDE[0])
    assert (body["model_id"], body["interleaved_with"], {result["model_id"] for result in body["results"]}) == (answers, None, {None})
    assert written(run) == []


def test_all_of_the_traffic(run: Running) -> None:
    roll_out(run, CANARY.changed(share=1.0))
    assert {ask(run, query)["interleaved_with"] for query in QUERIES} == {NEW}
    assert {event.share for event in written(run) if isinstance(event, Exposure)} == {None}
