"""The figures in bench/README.md are those of the committed results, and every result says how it was made."""

from __future__ import annotations

import json

import pytest

from bench.report import HERE, README, rewritten
from pins.retrieval.fusion import RRF_K, SPARSE_WEIGHT
from pins.retrieval.rerank import LATE_DEPTH, LATE_WEIGHT, LEXICAL_WEIGHT
from pins.retrieval.search import SearchOptions


def test_the_readme_shows_the_committed_results() -> None:
    assert README.read_text() == rewritten(README.read_text()), "run `python -m bench.report`"


@pytest.mark.parametrize("name", ["encoder", "worker", "freshness", "edits", "retrieval", "experiments"])
def test_a_result_names_its_command_machine_and_commit(name: str) -> None:
    body = json.loads((HERE / f"{name}.json").read_text())
    assert body["command"] == f"python -m bench.{name}"
    assert {"cpu", "cores", "commit", "date", "versions"} <= set(body["machine"])
    assert f"python -m bench.{name}" in README.read_text()


def test_the_retrieval_figures_are_of_the_weights_that_serve_and_these_were_the_best_on_train() -> None:
    body = json.loads((HERE / "retrieval.json").read_text())
    weights = {"SPARSE_WEIGHT": SPARSE_WEIGHT, "LEXICAL_WEIGHT": LEXICAL_WEIGHT, "LATE_WEIGHT": LATE_WEIGHT}
    assert body["constants"] == {"RRF_K": RRF_K, "LATE_DEPTH": LATE_DEPTH, "depth": SearchOptions().depth, **weights}
    for name, tried in body["tuning"]["mean_ndcg@20"].items():
        assert max(tried, key=tried.get) == str(weights[name])


def test_hybrid_and_re_ranked_search_lose_to_neither_part_on_english() -> None:
    means = {name: figure["mean"] for name, figure in json.loads((HERE / "retrieval.json").read_text())["languages"]["en"]["ndcg@20"].items()}
    assert means["hybrid"] >= max(means["dense"], means["sparse"])
    assert means["re-ranked"] >= means["hybrid"]


def test_simulated_nulls_are_left_alone_and_interleaving_finds_lifts_with_fewer_searches() -> None:
    body = json.loads((HERE / "experiments.json").read_text())
    for world in body["nulls"].values():
        figures = world["called_different"]
        assert all(
            figures[name]["tests"] == 1000 and figures[name]["low"] <= 0.05 <= figures[name]["high"] for name in ("A/B, fulfilment", "interleaving, preference")
        )
        assert figures["the mistake: fulfilment by search"]["low"] > 0.05
        assert world["sample_ratio_alarms"] <= 5
    assert all(one["times_fewer_searches"]["low"] > 1 for one in body["lifts"])
    assert body["lifts"][-1]["interleaving"]["share"] > 0.95
