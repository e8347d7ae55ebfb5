"""docs/scale.md holds what the script computes from the committed results, and the computation moves the right way."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from bench.scale import HERE, PAGE, Assumptions, Measured, computed, rewritten

MEASURED = Measured(100.0, kept=0.95, skip_events_per_second=2000.0, embed_events_per_second=100.0, around_us=800.0, guarded_per_second=2500.0)


def figures(assumptions: Assumptions) -> dict[str, str]:
    return {name: value for rows in computed(assumptions, MEASURED).values() for name, value, _ in rows}


def test_the_page_shows_what_is_computed() -> None:
    assert PAGE.read_text() == rewritten(PAGE.read_text()), "run `python -m bench.scale`"


def test_a_backfill_of_a_million_pins_by_hand() -> None:
    found = figures(replace(Assumptions(), pins=1_000_000, hours=1.0))
    assert found["core-hours"] == "3"
    assert found["cores for 1 hours"] == "3"
    assert found["rows"] == "0.0 billion"
    assert found["memory, int8, originals on disk"] == "1 GiB"


@pytest.mark.parametrize("change", [{"pins": 2_000_000_000}, {"dimension": 768}, {"replicas": 3}])
def test_more_of_anything_needs_more_memory(change: dict[str, Any]) -> None:
    before, after = figures(Assumptions()), figures(replace(Assumptions(), **change))
    name = "memory, float32 in memory"
    assert float(after[name].split()[0].replace(",", "")) > float(before[name].split()[0].replace(",", ""))


def test_the_benchmark_names_its_command_machine_and_load() -> None:
    body = json.loads((HERE / "backfill.json").read_text())
    assert body["command"] == "python -m bench.backfill"
    assert {"cpu", "cores", "commit", "date", "versions"} <= set(body["machine"])
    assert set(body["share_of_encoder"]) == {"1 x 1", "2 x 1", "1 x 2"}
    assert body["load_before"]
