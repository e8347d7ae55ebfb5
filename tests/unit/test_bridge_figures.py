"""The figures of docs/bridge.md are those of bench/bridge.json, which says how it was made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BENCH = json.loads((ROOT / "bench/bridge.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/bridge.md").read_text(encoding="utf-8")
KINDS = ("procrustes", "linear", "residual")


def case(new: str, old: str) -> dict[str, Any]:
    return next(one["kinds"] for one in BENCH["cases"] if (one["new"], one["old"]) == (new, old))


def rows(head: str) -> list[list[str]]:
    table = PAGE[PAGE.index(head) :].split("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def percent(quality: dict[str, Any], part: str) -> str:
    return f"{100 * quality[part]['kept']['mean']:.1f} %"


def test_the_page_shows_what_each_kind_keeps() -> None:
    parts = {"English": "read", "the seven languages that minilm-l6-v1 cannot read": "unread", "all queries": "all"}
    models = ("everpin-l6-v1", "minilm-l6-v1")
    for name, *kept, means in rows("| New model on old collection"):
        models = (found[1], found[2]) if (found := re.match(r"(\S+) on ([^\s,]+)", name)) else models
        part = parts[re.split(r", |the same, ", name)[-1]]
        quality = [case(*models)[kind]["20000"]["quality"] for kind in KINDS]
        assert kept == [percent(one, part) for one in quality], name
        assert means == ", ".join(f"{quality[1][part]['ndcg@20'][system]['mean']:.3f}" for system in ("old", "bridged", "new")), name


def test_the_page_shows_what_more_texts_bring() -> None:
    for name, *kept in rows("| Texts fitted on"):
        kind = next(kind for kind in KINDS if f"`{kind}`" in name)
        assert kept == [percent(one["quality"], "all") for one in case("everpin-l6-v1", "minilm-l6-v1")[kind].values()]


def test_the_page_names_the_measurement_and_its_cost() -> None:
    assert f"on {BENCH['queries']} dev queries" in PAGE
    assert f"over {BENCH['searched_pins']:,} pins" in PAGE
    assert BENCH["command"] in PAGE
    assert {"cpu", "cores", "commit", "date", "versions"} <= set(BENCH["machine"])
    costs = {kind: [one["microseconds_per_query"]["p50"] for found in BENCH["cases"] for one in found["kinds"][kind].values()] for kind in KINDS}
    assert all(10 <= cost <= 22 for kind in ("linear", "procrustes") for cost in costs[kind])


def test_the_default_kind_keeps_no_less_than_any_other_and_more_than_the_rotation() -> None:
    for found in BENCH["cases"]:
        kept = {kind: one["20000"]["quality"]["all"]["kept"]["mean"] for kind, one in found["kinds"].items()}
        assert kept["linear"] >= kept["residual"] - 0.001
        assert kept["linear"] > kept["procrustes"]
