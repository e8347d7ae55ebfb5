"""Searches while a rollout reads queries by the new model and answers them from the old model's collection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedder.bridged import BridgedEncoder
from embedder.query import QueryEncoder
from everpin.bridges import bridge_file, keep_bridge, side
from everpin.settings import SHIPPED_MODEL
from pins.assignment import in_canary
from pins.bridge import Bridge
from pins.bridge_fit import fit_procrustes
from pins.errors import Unavailable
from pins.retrieval.search import SearchOptions, search
from pins.rollout import Rollout
from tests.surfaces.parts import BASE_MODEL, Remembering, Running
from tests.surfaces.rolling import NEW, OLD, end_rollout, roll_out, two_models

QUERY = "Brot backen"
"""German: the old model reads English alone."""
ASKED = {"query": QUERY, "limit": 5, "retrieval": "dense", "rerank": "none", "fold": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with two_models(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(scope="module")
def bridge(run: Running) -> Bridge:
    """The rotation between both models' vectors of the pins, kept where serving looks for it."""
    texts = [record.text for records in run.stores.opened[OLD].scan() for record in records]
    new, old = (Remembering.of(model).encode(texts) for model in (SHIPPED_MODEL, BASE_MODEL))
    made = Bridge(side(SHIPPED_MODEL), side(BASE_MODEL), fit_procrustes(new, old))
    keep_bridge(bridge_file(run.surface.config, made.digest), made)
    return made


@pytest.fixture(autouse=True)
def no_rollout(run: Running) -> Iterator[None]:
    yield
    end_rollout(run)


def ask(run: Running, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = run.client.post("/v1/search", json=ASKED | more).raise_for_status().json()
    return body


def test_queries_are_read_by_the_new_model_and_answered_by_the_old_collection(run: Running, bridge: Bridge) -> None:
    before = ask(run)
    assert (before["model_id"], before["query_model_id"]) == (OLD, None)
    roll_out(run, Rollout(NEW, OLD, 1, bridge=bridge.digest))
    over = ask(run)
    assert (over["model_id"], over["collection"], over["query_model_id"]) == (OLD, f"pins__{OLD}", NEW)
    reader = BridgedEncoder(QueryEncoder(Remembering.of(SHIPPED_MODEL)), bridge, Remembering.of(BASE_MODEL).ordinal_head)
    expected = search(QUERY, reader, run.stores.opened[OLD], SearchOptions(limit=5, retrieval="dense", rerank="none", fold=False))[:5]
    assert [result["pin_id"] for result in over["results"]] == [found.pin_id for found in expected]
    assert [result["score"] for result in over["results"]] == pytest.approx([found.cosine for found in expected], abs=1e-4)
    assert [result["pin_id"] for result in over["results"]] != [result["pin_id"] for result in before["results"]]
    assert f'everpin_serving_info{{collection="pins__{OLD}",model_id="{OLD}",version="test"}} 1.0' in run.surface.metrics.exposition().decode()
    roll_out(run, Rollout(NEW, OLD, 1, version=2))
    assert ask(run)["results"] == before["results"]


def test_texts_are_embedded_by_the_live_model_itself(run: Running, bridge: Bridge) -> None:
    asked = {"texts": ["a red chair by a window"]}
    before = run.client.post("/v1/embeddings", json=asked).json()
    roll_out(run, Rollout(NEW, OLD, 1, bridge=bridge.digest))
    over = run.client.post("/v1/embeddings", json=asked).json()
    assert (over["model_id"], over["vectors"]) == (OLD, before["vectors"])
    np.testing.assert_allclose(over["vectors"], Remembering.of(BASE_MODEL).encode(asked["texts"]), atol=1e-5)


def test_the_next_page_goes_on(run: Running, bridge: Bridge) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, bridge=bridge.digest))
    whole = [result["pin_id"] for result in ask(run, limit=10)["results"]]
    first = ask(run)
    second = ask(run, cursor=first["cursor"])
    assert [result["pin_id"] for result in first["results"] + second["results"]] == whole
    assert second["query_model_id"] == NEW


def test_beside_a_canary_the_control_crosses_the_bridge_and_the_candidate_does_not(run: Running, bridge: Bridge) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, share=0.5, bridge=bridge.digest))
    queries = [f"bread {number}" for number in range(20)]
    answers = [ask(run, query=query) for query in queries]
    assert [answer["query_model_id"] for answer in answers] == [None if answer["model_id"] == NEW else NEW for answer in answers]
    assert [answer["model_id"] for answer in answers] == [NEW if in_canary(query, NEW, 0.5) else OLD for query in queries]


def test_of_an_interleaved_answer_the_controls_results_alone_cross_the_bridge(run: Running, bridge: Bridge) -> None:
    query = next(f"bread {number}" for number in range(20) if in_canary(f"bread {number}", NEW, 0.5))
    roll_out(run, Rollout(NEW, OLD, 1, bridge=bridge.digest))
    over = {result["pin_id"]: result["score"] for result in ask(run, query=query, limit=40)["results"]}
    roll_out(run, Rollout(NEW, OLD, 1, version=2, filled_us=2, share=0.5, interleave=True, bridge=bridge.digest))
    drafted = ask(run, query=query, limit=10)
    assert (drafted["model_id"], drafted["query_model_id"], drafted["interleaved_with"]) == (OLD, NEW, NEW)
    crossed = {result["pin_id"]: result["score"] for result in drafted["results"] if result["model_id"] == OLD}
    assert crossed
    assert crossed == pytest.approx({pin_id: over[pin_id] for pin_id in crossed}, abs=1e-4)
    reader, index = QueryEncoder(Remembering.of(SHIPPED_MODEL)), run.stores.opened[NEW]
    alone = {found.pin_id: found.cosine for found in search(query, reader, index, SearchOptions(limit=40, retrieval="dense", rerank="none", fold=False))}
    own = {result["pin_id"]: result["score"] for result in drafted["results"] if result["model_id"] == NEW}
    assert own
    assert own == pytest.approx({pin_id: alone[pin_id] for pin_id in own}, abs=1e-4)


def test_after_the_cut_over_nobody_crosses_it(run: Running, bridge: Bridge) -> None:
    run.stores.moved.point(NEW)
    roll_out(run, Rollout(NEW, OLD, 1, filled_us=2, bridge=bridge.digest))
    answer = ask(run)
    assert (answer["model_id"], answer["query_model_id"]) == (NEW, None)
    assert run.surface.live.now.bridged is None


def test_a_bridge_that_is_not_here_is_a_problem_and_the_old_model_reads_its_queries(run: Running) -> None:
    roll_out(run, Rollout(NEW, OLD, 1, bridge="0" * 64), well=False)
    assert f"{OLD} reads its queries itself: the bridge" in run.surface.live.problem
    assert ask(run)["query_model_id"] is None


def test_a_bridge_of_other_models_leads_nowhere(run: Running, bridge: Bridge) -> None:
    other = Bridge(bridge.old, bridge.new, bridge.map)
    keep_bridge(bridge_file(run.surface.config, other.digest), other)
    roll_out(run, Rollout(NEW, OLD, 1, bridge=other.digest), well=False)
    assert f"this bridge was fitted for {OLD}" in run.surface.live.problem
    assert ask(run)["query_model_id"] is None


def test_another_bridge_of_the_same_file_name_is_refused(run: Running, bridge: Bridge) -> None:
    keep_bridge(bridge_file(run.surface.config, "f" * 64), bridge)
    roll_out(run, Rollout(NEW, OLD, 1, bridge="f" * 64), well=False)
    assert "the rollout names ffffffffffffffff" in run.surface.live.problem
    assert ask(run)["query_model_id"] is None


def test_the_candidate_needs_no_collection_to_read_queries(run: Running, bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    place = run.stores.place
    run.surface.live.forget(NEW)

    def only_the_old(model_id: str) -> str:
        if model_id == NEW:
            raise Unavailable("its worker has not begun yet")
        return place(model_id)

    monkeypatch.setattr(run.stores, "place", only_the_old)
    roll_out(run, Rollout(NEW, OLD, 1, bridge=bridge.digest))
    assert run.surface.live.problem == ""
    assert ask(run)["query_model_id"] == NEW
