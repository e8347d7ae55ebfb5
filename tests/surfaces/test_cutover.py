"""The alias moves between two collections under load: every answer is of one model, none fails, and the move is seen in time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from everpin.settings import SHIPPED_MODEL
from pins.errors import ArtifactError
from tests.surfaces.parts import BASE_MODEL, Running, running

QUERIES = ("sourdough bread", "reading corner", "herbs on a balcony", "wool trousers")
SEEN_WITHIN_S = 2.0


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path, (SHIPPED_MODEL, BASE_MODEL), pins=40) as run:
        yield run


def expected(run: Running) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """What each model alone answers to each query."""
    found = {}
    for model_id in run.indexers:
        point(run, model_id)
        run.surface.live.refresh()
        for query in QUERIES:
            found[model_id, query] = shown(run.client.post("/v1/search", json={"query": query, "limit": 10}).json())
    return found


def shown(body: dict[str, Any]) -> list[tuple[str, float]]:
    return [(result["pin_id"], round(result["score"], 3)) for result in body["results"]]


def point(run: Running, model_id: str) -> None:
    run.stores.moved.point(model_id)


def test_no_failed_and_no_mixed_answer_while_the_alias_moves(two: Running) -> None:
    alone = expected(two)
    point(two, "everpin-l6-v1")
    two.surface.live.refresh()
    two.surface.live.start()
    stop, wrong, answers = threading.Event(), [], Counter[str]()

    def ask(number: int) -> None:
        while not stop.is_set():
            query = QUERIES[number % len(QUERIES)]
            response = two.client.post("/v1/search", json={"query": query, "limit": 10})
            body = response.json()
            if response.status_code != 200:
                wrong.append(body)
                return
            answers[body["model_id"]] += 1
            if body["collection"] != f"pins__{body['model_id']}" or shown(body) != alone[body["model_id"], query]:
                wrong.append(body)

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for asker in askers:
        asker.start()
    try:
        for model_id in ("minilm-l6-v1", "everpin-l6-v1", "minilm-l6-v1"):
            point(two, model_id)
            moved = time.monotonic()
            while two.client.get("/version").json()["model_id"] != model_id:
                assert time.monotonic() - moved < SEEN_WITHIN_S, f"{model_id} was not served within {SEEN_WITHIN_S} s"
                time.sleep(0.01)
            until = answers[model_id] + 20
            while answers[model_id] < until and not wrong:
                assert time.monotonic() - moved < 30
                time.sleep(0.01)
    finally:
        stop.set()
        for asker in askers:
            asker.join(30)
    assert not wrong
    assert set(answers) == {"everpin-l6-v1", "minilm-l6-v1"}


def test_a_page_is_of_the_model_that_ranked_it(two: Running) -> None:
    first = two.client.post("/v1/search", json={"query": QUERIES[0], "limit": 5}).json()
    point(two, "minilm-l6-v1")
    two.surface.live.refresh()
    second = two.client.post("/v1/search", json={"query": QUERIES[0], "limit": 5, "cursor": first["cursor"]}).json()
    assert (first["model_id"], second["model_id"]) == ("everpin-l6-v1", "everpin-l6-v1")
    assert two.client.get("/version").json()["model_id"] == "minilm-l6-v1"


def test_a_page_of_a_model_that_is_gone_is_refused(two: Running) -> None:
    point(two, "minilm-l6-v1")
    two.surface.live.refresh()
    cursor = two.client.post("/v1/search", json={"query": QUERIES[0], "limit": 5}).json()["cursor"]
    point(two, "everpin-l6-v1")
    two.surface.live.refresh()
    two.surface.live.forget("minilm-l6-v1")
    response = two.client.post("/v1/search", json={"query": QUERIES[0], "limit": 5, "cursor": cursor})
    assert (response.status_code, response.json()["type"]) == (410, "/problems/cursor-gone")


def test_an_alias_that_cannot_be_followed_leaves_the_model_before_it(two: Running) -> None:
    two.stores.home.joinpath("pins__no-such-model", "segments").mkdir(parents=True)
    point(two, "no-such-model")
    two.surface.live.refresh()
    assert two.client.post("/v1/search", json={"query": QUERIES[0]}).json()["model_id"] == "everpin-l6-v1"
    ready = two.client.get("/readyz").json()
    assert ready["ready"]
    assert "no-such-model" in ready["alias_problem"]
    assert "everpin_alias_behind 1.0" in two.client.get("/metrics").text
    point(two, "minilm-l6-v1")
    two.surface.live.refresh()
    assert two.client.get("/readyz").json()["alias_problem"] == ""
    assert "everpin_alias_behind 0.0" in two.client.get("/metrics").text


def test_a_damaged_model_folder_is_not_served(two: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(folder: Path) -> Any:
        raise ArtifactError(f"{folder}/model.onnx has another sha256 than the manifest says")

    monkeypatch.setattr("everpin.serving.open_artifact", damaged)
    point(two, "minilm-l6-v1")
    two.surface.live.refresh()
    assert two.client.get("/version").json()["model_id"] == "everpin-l6-v1"
    assert "sha256" in two.surface.live.problem
