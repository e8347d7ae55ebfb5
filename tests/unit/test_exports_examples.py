"""The batch jobs of examples/ find what the index itself would answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from everpin.exports.manifest import Head, Model
from everpin.exports.moment import Patience
from everpin.exports.writing import Wanted, write_export
from pins.features import UserAction
from pins.retrieval.feed import FeedOptions, home_feed
from tests.fakes import FakeIndex
from tests.unit.samples import T0
from tests.unit.space import bury, put

ROOT = Path(__file__).parents[2]
MODEL = Model(model_id="fake-v1", template_version=1, dimension=8, ordinal_head=Head(scale=8.0, thresholds=(1.0, 2.0, 3.0, 4.0)))
COUNT = 700


@pytest.fixture(scope="module")
def index() -> FakeIndex:
    made, chance = FakeIndex(), np.random.default_rng(3)
    for number in range(COUNT):
        vector = chance.normal(size=8).astype(np.float32)
        put(made, f"pin-{number}", vector / np.linalg.norm(vector))
    return made


@pytest.fixture(scope="module")
def folders(index: FakeIndex, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A full export, and an incremental one after a pin went: `index` is what both show."""
    root = tmp_path_factory.mktemp("exports")
    write_export(index, root / "full", Wanted(MODEL, 3), lambda: T0, Patience(True))
    bury(index, "pin-7")
    write_export(index, root / "more", Wanted(MODEL, 3, since_us=0), lambda: T0, Patience(True))
    return [root / "full", root / "more"]


def example(name: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_related_pins_are_the_nearest_ones(index: FakeIndex, folders: list[Path], tmp_path: Path) -> None:
    assert f"related pins of {COUNT - 1} pins" in example("related_pins.py", *folders, tmp_path / "related.parquet", "--limit", 5)
    rows = pq.read_table(tmp_path / "related.parquet").to_pylist()
    assert {row["pin_id"] for row in rows} == index.points.keys() - {"pin-7"}
    for row in rows[::40]:
        hits = index.search(index.vectors([row["pin_id"]])[row["pin_id"]], 6)[1:]
        assert row["related"] == [hit.pin_id for hit in hits]
        assert row["relevance"] == pytest.approx(MODEL.head.expected([hit.score for hit in hits]).tolist(), abs=1e-3)


def test_candidates_are_the_home_feed(index: FakeIndex, folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from home_feed import Candidates
    from related_pins import vectors_of

    candidates = Candidates(*vectors_of(folders))
    options = FeedOptions(depth=40, fresh_days=0)
    for seed in range(3):
        history = [UserAction(f"pin-{seed + 10 * turn}", "save", T0 - turn * 3_600_000_000) for turn in range(8)]
        expected = home_feed(history, index, T0, options, seed)
        found = candidates.feed(history, T0, options, seed)
        assert [(one.pin_id, one.interest) for one in found] == [(one.pin_id, one.interest) for one in expected.results]
        assert len(found) == 40
    assert candidates.feed([UserAction("unknown", "save", T0)], T0, options, 1) == []


def test_the_command_reads_histories_line_by_line(folders: list[Path], tmp_path: Path) -> None:
    action = {"pin_id": "pin-5", "action": "save", "time": "2026-08-04T12:38:01Z"}
    users = [{"user_id": "u1", "actions": [action]}, {"user_id": "u2", "actions": []}]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))
    example("home_feed.py", *folders, tmp_path / "users.jsonl", tmp_path / "feeds.jsonl", "--limit", 20)
    first, second = map(json.loads, (tmp_path / "feeds.jsonl").read_text().splitlines())
    assert (first["user_id"], len(first["candidates"]), first["candidates"][0]["interest"]) == ("u1", 20, "pin-5")
    assert second == {"user_id": "u2", "candidates": []}
