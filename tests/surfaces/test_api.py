from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pins.events import PinDeleted, PinUpdated
from pins.features import FeatureRow
from surfaces.schemas import EmbeddingsAnswer, FeedAnswer, MapAnswer, PinAnswer, RelatedAnswer, SearchAnswer
from tests.surfaces.parts import T0, Running, running


def search(run: Running, query: str, **more: Any) -> SearchAnswer:
    response = run.client.post("/v1/search", json={"query": query} | more)
    assert response.status_code == 200, response.text
    return SearchAnswer.model_validate_json(response.content)


def problem(response: Any, status: int, kind: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["type"]) == (status, f"/problems/{kind}")
    assert body["instance"] == response.headers["x-request-id"]
    assert body["detail"]
    return body


def test_a_search_answers_with_relevant_pins_of_one_model(run: Running) -> None:
    answer = search(run, "  overnight  sourdough for absolute beginners ", limit=5)
    assert answer.query == "overnight sourdough for absolute beginners"
    assert answer.lang_guess == "en"
    assert answer.results[0].pin_id == "food-001"
    assert answer.results[0].level >= 4
    assert (answer.model_id, answer.collection) == ("everpin-l6-v1", "pins__everpin-l6-v1")
    assert 1 <= answer.results[-1].relevance <= answer.results[0].relevance <= 5
    assert {"encode", "retrieve", "rerank", "fold", "total"} <= answer.timings_ms.keys()
    assert answer.timings_ms["total"] >= max(answer.timings_ms.values()) - 1e-9


def test_every_answer_names_its_request(run: Running) -> None:
    response = run.client.post("/v1/search", json={"query": "soup"}, headers={"X-Request-Id": "mine-1"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine-1"
    other = run.client.post("/v1/search", json={"query": "soup"})
    assert other.json()["request_id"] == other.headers["x-request-id"] != "mine-1"


def test_filters_hold_for_every_result(run: Running) -> None:
    everything = search(run, "soft light", limit=100)
    langs = {result.lang for result in everything.results}
    category = everything.results[0].category
    assert len(langs) > 1
    assert {r.lang for r in search(run, "soft light", filters={"lang": "de"}).results} == {"de"}
    assert {r.category for r in search(run, "soft light", filters={"category": category}).results} == {category}
    board = next(r.boards[0] for r in everything.results if r.boards)
    assert all(board in r.boards for r in search(run, "soft light", filters={"board": board}).results)
    created = sorted(r.created_at for r in everything.results if r.created_at)
    late = search(run, "soft light", limit=100, filters={"created_since": created[len(created) // 2].isoformat()})
    assert late.results
    assert all(r.created_at and r.created_at >= created[len(created) // 2] for r in late.results)


def test_each_way_of_retrieving_and_ranking_can_be_switched(run: Running) -> None:
    dense, sparse = search(run, "sourdough bread", retrieval="dense"), search(run, "sourdough bread", retrieval="sparse")
    assert {r.pin_id for r in sparse.results} < {r.pin_id for r in search(run, "sourdough bread", retrieval="hybrid", limit=100).results}
    assert [r.score for r in search(run, "sourdough bread", retrieval="dense", rerank="none").results] == sorted((r.score for r in dense.results), reverse=True)
    assert search(run, "sourdough bread", rerank="late_interaction", explain=True).results[0].explain.late_interaction is not None  # type: ignore[union-attr]


def test_explain_tells_what_each_stage_gave(run: Running) -> None:
    best = search(run, "sourdough bread", explain=True).results[0]
    assert best.explain is not None
    assert best.explain.dense_rank is not None
    assert best.explain.sparse_rank is not None
    assert best.explain.bm25 is not None
    assert set(best.explain.matched_terms) <= {"sourdough", "bread"}
    assert best.explain.matched_terms
    assert sum(best.explain.level_probabilities) == pytest.approx(1, abs=1e-3)
    assert search(run, "sourdough bread").results[0].explain is None


def test_results_below_a_level_are_cut_or_marked(run: Running) -> None:
    cut, marked = search(run, "sourdough bread", min_level=4, limit=50), search(run, "sourdough bread", min_level=4, below="mark", limit=50)
    assert cut.results
    assert all(r.level >= 4 for r in cut.results)
    assert any(r.below_level for r in marked.results)
    assert all(r.below_level == (r.level < 4) for r in marked.results)


def test_diversity_changes_what_follows_the_best(run: Running) -> None:
    plain, diverse = search(run, "bread", limit=10), search(run, "bread", limit=10, diversity=0.7)
    assert plain.results[0].pin_id == diverse.results[0].pin_id
    assert [r.pin_id for r in plain.results] != [r.pin_id for r in diverse.results]


def test_pages_of_a_search_are_its_ranking_cut_in_pieces(run: Running) -> None:
    whole = search(run, "garden in pots", limit=15)
    pages, cursor = [], None
    for _ in range(3):
        page = search(run, "garden in pots", limit=5, cursor=cursor, explain=True)
        pages += page.results
        cursor = page.cursor
    assert [(r.pin_id, r.score, r.level) for r in pages] == [(r.pin_id, r.score, r.level) for r in whole.results]
    assert pages[7].explain is not None
    assert pages[7].explain.dense_rank is not None


def test_pages_end(run: Running) -> None:
    cursor, seen = None, []
    for _ in range(100):
        page = search(run, "bread", limit=20, cursor=cursor)
        seen += [r.pin_id for r in page.results]
        cursor = page.cursor
        if cursor is None:
            break
    assert cursor is None
    assert len(seen) == len(set(seen)) >= 60


def test_pages_stand_still_while_pins_change(tmp_path: Any) -> None:
    with running(tmp_path, pins=60) as run:
        first = search(run, "bread", limit=10)
        before = [r.pin_id for r in search(run, "bread", limit=30).results]
        (indexer,) = run.indexers.values()
        indexer.apply([PinDeleted(before[12], T0 + 10), PinUpdated(before[2], T0 + 10, {"pin_caption": {"caption": "nothing to eat at all: a motorcycle"}})])
        second = search(run, "bread", limit=10, cursor=first.cursor)
        third = search(run, "bread", limit=10, cursor=second.cursor)
        shown = [r.pin_id for page in (first, second, third) for r in page.results]
        assert shown == [pin_id for pin_id in before if pin_id != before[12]]


def test_a_cursor_of_another_request_or_of_nobody_is_refused(run: Running) -> None:
    cursor = search(run, "bread", limit=5).cursor
    problem(run.client.post("/v1/search", json={"query": "soup", "cursor": cursor}), 400, "bad-cursor")
    problem(run.client.post("/v1/search", json={"query": "bread", "cursor": "AAAA"}), 400, "bad-cursor")
    problem(run.client.get("/v1/users/fan/feed", params={"cursor": cursor}), 400, "bad-cursor")


@pytest.mark.parametrize(
    "body",
    [
        {}, [], {"query": ""}, {"query": "x" * 501}, {"query": 3}, {"query": "x", "limit": 0}, {"query": "x", "limit": 101}, {"query": "x", "diversity": 1.5},
        {"query": "x", "min_level": 6}, {"query": "x", "retrieval": "magic"}, {"query": "x", "filters": {"langauge": "en"}},
        {"query": "x", "filters": {"created_since": "soon"}},
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_told_where(run: Running, body: Any) -> None:
    assert problem(run.client.post("/v1/search", json=body), 422, "validation")["errors"]


def test_a_blank_query_is_refused(run: Running) -> None:
    problem(run.client.post("/v1/search", json={"query": " \u3000 "}), 422, "empty-query")


def test_related_pins_come_with_a_reason_and_in_pages(run: Running) -> None:
    def related(**params: Any) -> RelatedAnswer:
        return RelatedAnswer.model_validate_json(run.client.get("/v1/pins/food-001/related", params=params).content)

    whole = related(limit=8)
    assert "food-001" not in [r.pin_id for r in whole.results]
    assert all(r.why for r in whole.results)
    first = related(limit=4)
    second = related(limit=4, cursor=first.cursor)
    assert [(r.pin_id, r.why) for r in (*first.results, *second.results)] == [(r.pin_id, r.why) for r in whole.results]
    assert {r.lang for r in related(lang="de").results} == {"de"}


def test_pins_without_related_ones_say_why(tmp_path: Any) -> None:
    with running(tmp_path, pins=20) as run:
        (indexer,) = run.indexers.values()
        empty = {"title": None, "description": None, "link_title": None, "link_description": None}
        content = empty | {"link_url": None, "image_url": None, "category": None, "lang": None, "created_at_us": None}
        indexer.apply([PinDeleted("food-001", T0 + 10), PinUpdated("blank", T0 + 10, {"pin_content": content})])
        for pin_id, words in (("food-001", "deleted"), ("nobody", "unknown"), ("blank", "no text"), ("a/b c", "unknown")):
            assert words in problem(run.client.get(f"/v1/pins/{pin_id}/related"), 404, "pin-not-found")["detail"]


def test_a_pin_embedded_a_moment_ago_is_a_source_and_a_result(tmp_path: Any) -> None:
    with running(tmp_path, pins=20) as run:
        (indexer,) = run.indexers.values()
        indexer.apply([PinUpdated("fresh/1", T0 + 10, {"pin_caption": {"caption": "a sourdough loaf with a scored crust"}})])
        assert run.client.get("/v1/pins/fresh%2F1/related").json()["results"][0]["pin_id"] == "food-001"
        assert "fresh/1" in [r["pin_id"] for r in run.client.get("/v1/pins/food-001/related").json()["results"]]
        assert search(run, "scored sourdough crust").results[0].pin_id in ("fresh/1", "food-001")


def test_a_pin_tells_its_own_story(run: Running) -> None:
    answer = PinAnswer.model_validate_json(run.client.get("/v1/pins/food-001", params={"features": True}).content)
    assert (answer.state, answer.reason, answer.pin.title) == ("live", "new", "Overnight sourdough for absolute beginners")
    assert "scored crust" in answer.text
    assert answer.v == answer.pin.v > 0
    assert answer.reason_meaning
    assert answer.features_as_of.keys() >= {"pin_content", "pin_caption"}
    assert answer.features is not None
    assert answer.features["save_count"] == 8421
    problem(run.client.get("/v1/pins/nobody"), 404, "pin-not-found")


def test_embeddings_are_the_live_models(run: Running) -> None:
    answer = EmbeddingsAnswer.model_validate_json(run.client.post("/v1/embeddings", json={"texts": ["a red chair", "Suppe"]}).content)
    expected = run.surface.live.now.encoder.encode(["a red chair", "Suppe"])
    assert answer.dimension == expected.shape[1]
    assert np.allclose(answer.vectors, expected, atol=1e-6)
    problem(run.client.post("/v1/embeddings", json={"texts": []}), 422, "validation")
    problem(run.client.post("/v1/embeddings", json={"texts": ["x"] * 65}), 422, "validation")


def test_a_home_feed_shows_interests_and_nothing_seen(run: Running) -> None:
    answer = FeedAnswer.model_validate_json(run.client.get("/v1/users/fan/feed", params={"limit": 10}).content)
    seen = {action.pin_id for action in run.features.history("fan")}
    assert answer.kind == "interests"
    assert answer.interests
    assert {interest.medoid for interest in answer.interests} <= seen
    assert not seen & {r.pin_id for r in answer.results}
    assert all(r.why for r in answer.results)
    second = FeedAnswer.model_validate_json(run.client.get("/v1/users/fan/feed", params={"limit": 10, "cursor": answer.cursor}).content)
    assert second.interests == answer.interests
    assert not {r.pin_id for r in answer.results} & {r.pin_id for r in second.results}


def test_a_user_without_a_history_gets_the_newest_pins(run: Running) -> None:
    answer = FeedAnswer.model_validate_json(run.client.get("/v1/users/nobody/feed", params={"limit": 5}).content)
    assert (answer.kind, answer.interests) == ("newest", [])
    created = [r.created_at for r in answer.results]
    assert len(created) == 5
    assert created == sorted(created, key=lambda at: at.timestamp() if at else 0, reverse=True)


def test_the_map_holds_every_pin_within_its_frame(run: Running) -> None:
    answer = MapAnswer.model_validate_json(run.client.get("/v1/map").content)
    assert len(answer.points) == 120
    assert all(-1 <= point.x <= 1 and -1 <= point.y <= 1 for point in answer.points)
    assert len({(point.x, point.y) for point in answer.points}) > 100
    assert len(MapAnswer.model_validate_json(run.client.get("/v1/map", params={"limit": 10}).content).points) == 10


def test_an_edit_becomes_an_event_with_the_whole_row(run: Running) -> None:
    run.sent.events.clear()
    response = run.client.patch("/v1/pins/food-001", json={"title": "Overnight rye"})
    assert response.status_code == 202, response.text
    (event,) = run.sent.events
    assert isinstance(event, PinUpdated)
    row = event.features["pin_content"]
    assert row["title"] == "Overnight rye"
    assert row["description"].startswith("Mix it after dinner")
    assert row["category"] == "food"
    assert response.json()["event_time_us"] == event.event_time_us
    problem(run.client.patch("/v1/pins/food-001", json={}), 422, "nothing-to-change")
    problem(run.client.patch("/v1/pins/nobody", json={"title": "x"}), 404, "pin-not-found")


def test_events_are_sent_all_or_none(run: Running) -> None:
    run.sent.events.clear()
    good = {"type": "pin_updated", "pin_id": "p1", "features": {"pin_caption": {"caption": "a chair"}}}
    assert run.client.post("/v1/events", json={"events": [good, {"type": "pin_deleted", "pin_id": "p2"}]}).json()["accepted"] == 2
    assert [type(event) for event in run.sent.events] == [PinUpdated, PinDeleted]
    run.sent.events.clear()
    assert "events[1]" in problem(run.client.post("/v1/events", json={"events": [good, {"type": "nonsense"}]}), 422, "invalid-event")["detail"]
    assert not run.sent.events


def test_actions_are_sent_with_their_times(run: Running) -> None:
    run.sent.actions.clear()
    body = {"actions": [{"pin_id": "food-001"}, {"pin_id": "food-003", "action": "click", "time": "2026-01-02T03:04:05Z"}]}
    assert run.client.post("/v1/users/fan/actions", json=body).json()["accepted"] == 2
    first, second = run.sent.actions
    assert (first.user_id, first.pin_id, first.action) == ("fan", "food-001", "save")
    assert (second.action, second.event_time_us) == ("click", 1_767_323_045_000_000)
    far = {"actions": [{"pin_id": "food-001", "time": "2999-01-01T00:00:00Z"}]}
    problem(run.client.post("/v1/users/fan/actions", json=far), 422, "time-out-of-range")


def test_operations_routes_answer(run: Running) -> None:
    assert run.client.get("/livez").json() == {"alive": True}
    ready = run.client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["alias_problem"]) == (200, True, "")
    assert run.client.get("/version").json()["model_id"] == "everpin-l6-v1"
    search(run, "a query for the cache")
    search(run, "a query for the cache")
    figures = run.client.get("/metrics").text
    assert 'everpin_serving_info{collection="pins__everpin-l6-v1",model_id="everpin-l6-v1",version="test"} 1.0' in figures
    assert 'everpin_http_requests_total{route="/v1/search",status="200"}' in figures
    assert 'everpin_query_cache_total{outcome="hit"}' in figures


def test_unknown_paths_and_methods_are_problems(run: Running) -> None:
    problem(run.client.get("/v1/nothing"), 404, "not-found")
    problem(run.client.delete("/v1/search"), 405, "method-not-allowed")


def test_the_page_is_served(run: Running) -> None:
    page = run.client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]


def test_what_people_saved_together_moves_up(tmp_path: Any) -> None:
    with running(tmp_path, pins=60) as run:
        before = [r["pin_id"] for r in run.client.get("/v1/pins/food-001/related", params={"limit": 10}).json()["results"]]
        liked = {"pin_ids": ["food-001", before[4]], "actions": ["save", "save"], "action_times_us": [T0, T0]}
        run.features.write([FeatureRow("user_history", f"u{number}", T0, liked) for number in range(30)])
        run.surface.cosaves.read()
        after = run.client.get("/v1/pins/food-001/related", params={"limit": 10}).json()["results"]
        place = [r["pin_id"] for r in after].index(before[4])
        assert place < 4
        assert "saved together by 30" in after[place]["why"]
        without = run.client.get("/v1/pins/food-001/related", params={"limit": 10, "cosaves": False}).json()["results"]
        assert [r["pin_id"] for r in without] == before
