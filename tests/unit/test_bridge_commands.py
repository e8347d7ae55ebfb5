"""`everpin bridge` on tiny models: one of them turned, one blind to words; with judgements, over the old collection, and where it must refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from embedder.artifact import open_artifact
from embedder.bridged import BridgedEncoder, read_bridge
from embedder.onnx import OnnxEncoder
from embedder.query import QueryEncoder
from everpin.cli import app
from everpin.published import folder_digest
from everpin.rollouts import Rollouts
from everpin.settings import settings
from index.edge import EdgePinIndex
from pins.bridge import Side
from pins.changes import IndexedPin, fingerprint
from pins.errors import ArtifactError, EverpinError, Unavailable
from pins.ports import PointWrite
from pins.retrieval.search import SearchOptions, search
from tests.tiny_models import DIMENSION, tiny_model, words

BLIND = tuple(words()[::2])
"""What the blind model does not know: half of the words."""


def texts(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(words(), size=5, replace=False)) for _ in range(count)]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A live model, the same turned, and one that is blind to half of the words."""
    tiny_model(tmp_path / "models" / "old", "old-v1")
    tiny_model(tmp_path / "models" / "new", "new-v2", seed=1)
    tiny_model(tmp_path / "models" / "blind", "blind-v1", blind=BLIND)
    monkeypatch.setenv("EVERPIN_MODEL", str(tmp_path / "models" / "old"))
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("QDRANT_URL", raising=False)
    settings.cache_clear()
    yield tmp_path / "models"
    settings.cache_clear()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of the cxc layout: 240 pins; each query has two words of its pin, the first 80 are held out, the last twenty are German."""
    titles = texts(240, seed=0)
    queries = [
        {
            "query_id": f"q{n}",
            "group": f"g{n}",
            "lang": "de" if n >= 220 or n < 10 else "en",
            "query": " ".join(title.split()[:2]),
            "split": "dev" if n < 80 else "train",
        }
        for n, title in enumerate(titles)
    ]
    tables: dict[str, list[dict[str, Any]]] = {
        "items": [{"item_id": f"p{n}", "lang": "en", "title": title} for n, title in enumerate(titles)],
        "queries": queries,
        "judgements": [{"query_id": f"q{n}", "item_id": f"p{n}", "grade": 4.0, "source": "own"} for n in range(240)],
    }
    folder = tmp_path / "cxc"
    folder.mkdir()
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def collection(models: Path, tmp_path: Path) -> list[str]:
    """The old model's collection of 120 pins; their texts."""
    encoder = OnnxEncoder(open_artifact(models / "old"))
    index = EdgePinIndex(tmp_path / "home" / "index", "old-v1", DIMENSION)
    pins = texts(120, seed=5)
    records = [IndexedPin(f"p{n}", 1, False, True, "old-v1", text=text, fingerprint=fingerprint(text)) for n, text in enumerate(pins)]
    index.write([PointWrite(record, None, vector) for record, vector in zip(records, encoder.encode(pins), strict=True)])
    index.write([PointWrite(IndexedPin("dead", 1, True, False, "old-v1"), None)])
    index.close()
    return pins


def bridge(*arguments: str) -> tuple[int, str, str]:
    return run("bridge", *arguments)


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["linear", "residual", "procrustes"])
def test_between_a_model_and_the_same_one_turned_nothing_is_lost(models: Path, data: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "bridges" / "one.npz"
    code, text, said = bridge("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(out), "--kind", kind, "--json")
    document = json.loads(text)
    assert (code, said) == (0, "")
    assert document["kept"] > 0.98
    assert document["quality"]["all"]["ndcg@20"]["bridged"]["mean"] == pytest.approx(document["kept"] * document["quality"]["all"]["ndcg@20"]["new"]["mean"])
    assert (document["passed"], document["path"], document["kind"]) == (True, str(out), kind)
    assert document["microseconds_per_query"]["p50"] > 0
    assert document["measured_on"]["judged"] == "people"
    made = read_bridge(out)
    made.require(Side("new-v2", DIMENSION, folder_digest(models / "new")), Side("old-v1", DIMENSION, folder_digest(models / "old")))
    assert [path.name for path in out.parent.iterdir()] == ["one.npz"]


def test_languages_are_measured_apart_and_by_what_the_old_model_reads(models: Path, data: Path, tmp_path: Path) -> None:
    quality = json.loads(bridge("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(tmp_path / "b.npz"), "--json")[1])["quality"]
    assert set(quality) == {"all", "read", "unread", "de", "en"}
    assert quality["unread"] == quality["de"]
    assert quality["read"]["queries"] + quality["unread"]["queries"] == quality["all"]["queries"] > 20


def test_held_out_queries_and_searched_pins_teach_nothing(models: Path, data: Path, tmp_path: Path) -> None:
    document = json.loads(bridge("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(tmp_path / "b.npz"), "--json")[1])
    assert document["fitted_on"]["pins"] + document["measured_on"]["pins"] == 240
    assert document["fitted_on"]["texts_old_reads"] < document["fitted_on"]["texts"]  # German train queries: ranking learns from them, the rotation does not


def test_below_the_threshold_nothing_is_written_and_by_how_much_is_said(models: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.npz"
    code, text, said = bridge("fit", "new-v2", "blind-v1", "--data", str(data), "--out", str(out), "--json")
    document = json.loads(text)
    assert code == 1
    assert (document["passed"], document["path"]) == (False, None)
    assert document["kept"] < 0.95
    assert not out.exists()
    assert f"keeps {document['kept']:.1%} of full re-embedding's nDCG@20, {0.95 - document['kept']:.1%} below the threshold of 95.0%" in said
    accepted = said.rsplit("--threshold ", 1)[1].strip()
    assert bridge("fit", "new-v2", "blind-v1", "--data", str(data), "--out", str(out), "--threshold", accepted)[0] == 0
    assert out.exists()


def test_the_same_seed_gives_the_same_bridge(models: Path, data: Path, tmp_path: Path) -> None:
    arguments = ("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(tmp_path / "b.npz"), "--json")
    first, again = (json.loads(bridge(*arguments)[1]) for _ in range(2))
    assert first["digest"] == again["digest"]
    assert first["quality"] == again["quality"]


def test_without_judgements_the_old_collection_is_what_it_is_fitted_on(models: Path, collection: list[str], tmp_path: Path) -> None:
    (tmp_path / "log").write_text("red chair\n" + "\n".join(texts(60, seed=9)))
    out = tmp_path / "b.npz"
    code, text, _ = bridge("fit", "new-v2", "old-v1", "--out", str(out), "--texts", str(tmp_path / "log"), "--json")
    document = json.loads(text)
    assert code == 0
    assert document["measured_on"]["judged"] == "known item"
    assert document["measured_on"]["pins"] + document["fitted_on"]["pins"] <= 120
    assert document["fitted_on"]["texts"] > 60
    assert document["kept"] > 0.98

    new, old = (OnnxEncoder(open_artifact(models / name)) for name in ("new", "old"))
    through = BridgedEncoder(QueryEncoder(new), read_bridge(out), old.ordinal_head)
    index = EdgePinIndex(tmp_path / "home" / "index", "old-v1", DIMENSION)
    try:
        options = SearchOptions(retrieval="dense", rerank="none", fold=False)
        found = [search(query, through, index, options)[0] for query in collection[:30]]
    finally:
        index.close()
    assert [result.pin_id for result in found] == [f"p{n}" for n in range(30)]
    assert min(result.level for result in found) == 5


def test_a_person_is_shown_the_table_and_the_file_says_the_same(models: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.npz"
    text = bridge("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(out))[1]
    again = bridge("show", str(out))[1]
    assert again == text
    assert "new-v2 -> old-v1, linear" in text
    assert "us more per query" in text
    document = json.loads(bridge("show", str(out), "--json")[1])
    assert (document["new"]["model_id"], document["old"]["model_id"], document["threshold"]) == ("new-v2", "old-v1", 0.95)


def test_what_cannot_be_fitted_is_refused(models: Path, data: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "b.npz"))
    with pytest.raises(EverpinError, match="old-v1 and old-v1 are one model"):
        bridge("fit", "old-v1", "old-v1", *out)
    with pytest.raises(EverpinError, match="0 pins and 0 texts to fit a bridge on"):
        bridge("fit", "new-v2", "old-v1", *out)
    with pytest.raises(EverpinError, match="cannot read"):
        bridge("fit", "new-v2", "old-v1", "--data", str(tmp_path), *out)
    with pytest.raises(ArtifactError, match="neither a model folder nor one of the models here"):
        bridge("fit", "new-v9", "old-v1", *out)
    with pytest.raises(ArtifactError, match=r"b\.npz cannot be read"):
        bridge("show", str(tmp_path / "b.npz"))


def test_a_place_that_cannot_be_written_is_named(models: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EverpinError, match=r"cannot be written: .*give --out another place"):
        bridge("fit", "new-v2", "old-v1", "--data", str(data), "--out", str(tmp_path / "file" / "b.npz"))


def test_a_rollout_begins_with_the_bridge_that_was_kept_or_fits_one(collection: list[str], tmp_path: Path) -> None:
    started = ("rollout", "start", "new-v2", "--yes", "--wait", "0")
    with pytest.raises(Unavailable, match=r"no worker of new-v2 was ready"):
        run(*started, "--bridge")
    (file,) = (tmp_path / "home" / "bridges").iterdir()
    made = read_bridge(file)
    rollouts = Rollouts(settings())
    assert rollouts.required().bridge == made.digest
    assert json.loads(run("rollout", "status", "--queries", "0", "--json")[1])["queries_read_by"] == "new-v2"
    with pytest.raises(Unavailable, match=r"no worker of new-v2 was ready"):
        run(*started, "--no-bridge")
    assert rollouts.required().bridge == ""
    written = file.stat().st_mtime_ns
    with pytest.raises(Unavailable, match=r"no worker of new-v2 was ready"):
        run(*started, "--bridge")
    assert rollouts.required().bridge == made.digest
    assert file.stat().st_mtime_ns == written, "the kept one serves again"


def test_a_rollout_does_not_begin_with_a_bridge_below_the_threshold(collection: list[str], tmp_path: Path) -> None:
    with pytest.raises(EverpinError, match=r"below the threshold of 95\.0%.*everpin bridge fit blind-v1 old-v1"):
        run("rollout", "start", "blind-v1", "--yes", "--wait", "0", "--bridge")
    assert Rollouts(settings()).now() is None
    assert not (tmp_path / "home" / "bridges").exists()
