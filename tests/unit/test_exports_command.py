"""`everpin export` on the embedded index, and the documentation's own lines on what it wrote."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from embedder.artifact import read_manifest
from everpin.cli import app
from everpin.exports.manifest import read_export
from everpin.settings import SHIPPED_MODEL, settings
from everpin.wiring import now_us
from index.edge import EdgePinIndex
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.ports import PointWrite, Vector

ROOT = Path(__file__).parents[2]
MODEL = read_manifest(SHIPPED_MODEL)
COUNT = 30


def vector(seed: int) -> Vector:
    values = np.random.default_rng(seed).normal(size=MODEL.dimension).astype(np.float32)
    return values / np.linalg.norm(values)


def written(home: Path, pins: dict[str, Vector | None]) -> None:
    """Write these pins, None for a deleted one."""
    index = EdgePinIndex(home / "index", MODEL.model_id, MODEL.dimension)
    known, v = index.known(list(pins)), now_us()
    records = {
        p: IndexedPin(p, v, dead=new is None, embedded=new is not None, model_id=MODEL.model_id, text=p, fields={"lang": "en"}) for p, new in pins.items()
    }
    writes = [PointWrite(records[pin_id], known[pin_id].v if pin_id in known else None, new) for pin_id, new in pins.items()]
    assert index.write(writes) == pins.keys()
    index.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of an index with some pins; its parent is the working directory."""
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERPIN_MODEL", str(SHIPPED_MODEL))
    monkeypatch.delenv("QDRANT_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    written(tmp_path / "home", {f"pin-{n}": vector(n) for n in range(COUNT)} | {"gone": None})
    yield tmp_path / "home"
    settings.cache_clear()


def everpin(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["export", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def exported(*arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(everpin(*arguments, "--json"))
    return document


def test_a_folder_of_the_live_model_is_written(home: Path) -> None:
    document = exported("--out", "exports/monday", "--partitions", "4", "--text")
    manifest = read_export(Path("exports/monday"))
    assert document == {"folder": "exports/monday", "seconds": document["seconds"], **manifest.model_dump(mode="json")}
    assert (manifest.rows, manifest.partitions, manifest.text, manifest.model.model_id) == (COUNT, 4, True, MODEL.model_id)
    assert manifest.model.head == MODEL.ordinal_head
    words = everpin("--out", "exports/again")
    assert f"{COUNT} rows of {MODEL.model_id} written to exports/again" in words
    assert read_export(Path("exports/again")).partitions == 16


def test_the_documented_lines_read_it(home: Path) -> None:
    everpin("--out", "exports/monday")
    written(home, {"pin-1": vector(100), "pin-2": None, "new": vector(101)})
    assert ", 2 of them deletions," in everpin(
        "--out", "exports/tuesday", "--since", "exports/monday"
    )  # the pin that was deleted before is among the last ten seconds
    everpin("--out", "exports/full")
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / "docs/exports.md").read_text(), re.DOTALL)
    assert len(first.splitlines()) == 5
    read = run(first)["pins"]
    assert read.relevance[0] == pytest.approx(float(MODEL.ordinal_head.expected(1.0)), abs=1e-4)
    cosine = float(read.vector[0] @ read.vector[1])
    assert read.relevance[1] == pytest.approx(float(MODEL.ordinal_head.expected(cosine)), abs=1e-4)
    live = run(second)["live"].sort_values("pin_id").reset_index(drop=True)
    full = pd.read_parquet("exports/full/pins").sort_values("pin_id").reset_index(drop=True)
    pd.testing.assert_frame_equal(live, full)
    assert len(live) == COUNT


def run(lines: str) -> dict[str, Any]:
    """The names that a piece of documentation leaves."""
    Path("doc.py").write_text(lines)
    return runpy.run_path("doc.py")


def test_what_cannot_be_gone_on_from_is_refused(home: Path) -> None:
    everpin("--out", "exports/monday")
    manifest = json.loads(Path("exports/monday/manifest.json").read_text())
    Path("exports/monday/manifest.json").write_text(json.dumps(manifest | {"as_of_us": manifest["as_of_us"] - 25 * 3_600_000_000}))
    with pytest.raises(EverpinError, match=r"25\.0 hours ago: a sweep with a hold of 24h may have removed"):
        everpin("--out", "exports/late", "--since", "exports/monday")
    everpin("--out", "exports/late", "--since", "exports/monday", "--hold", "2d")
    Path("exports/monday/manifest.json").write_text(json.dumps(manifest | {"model": manifest["model"] | {"model_id": "another"}}))
    with pytest.raises(EverpinError, match="is of model another"):
        everpin("--out", "exports/other", "--since", "exports/monday")
    with pytest.raises(EverpinError, match="is not a finished export"):
        everpin("--out", "exports/other", "--since", str(home))
    with pytest.raises(EverpinError, match="neither the folder of an export nor a moment"):
        everpin("--out", "exports/other", "--since", "yesterday")
    assert not Path("exports/other").exists()


def test_a_moment_may_be_written_in_three_ways(home: Path) -> None:
    at = datetime.fromtimestamp(now_us() / 1e6 - 3600, UTC)
    micros = int(at.timestamp() * 1e6)
    for number, words in enumerate((at.isoformat(), at.replace(tzinfo=None).isoformat(), str(micros))):
        document = exported("--out", f"exports/{number}", "--since", words)
        assert (document["kind"], document["rows"], document["deleted"]) == ("incremental", COUNT + 1, 1)
        assert abs(document["since_us"] - micros) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a FILE, or a folder with --out"),
        (["pins.jsonl", "--out", "folder"], "one of the two"),
        (["pins.jsonl", "--text"], "are of an export to a folder"),
        (["--out", "folder", "--vectors"], "leave --vectors out"),
    ],
)
def test_what_does_not_go_together_is_said(home: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(EverpinError, match=words):
        everpin(*arguments)


def test_one_file_is_written_as_before(home: Path) -> None:
    assert exported("pins.jsonl", "--vectors") == {"pins": COUNT, "textless": 0, "left_out": 1, "file": "pins.jsonl"}
    assert len(Path("pins.jsonl").read_text().splitlines()) == COUNT
