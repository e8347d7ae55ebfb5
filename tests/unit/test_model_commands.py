"""`everpin model`: which folders there are, what one says of itself, whether one is whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from everpin.cli import app
from everpin.settings import SHIPPED_MODEL, settings
from pins.errors import ArtifactError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of models with one of our own, which EVERPIN_MODEL names."""
    folder = tmp_path / "models" / "mine"
    shutil.copytree(SHIPPED_MODEL.with_name("minilm-l6-v1"), folder)
    change(folder, model_id="mine-v1")
    monkeypatch.setenv("EVERPIN_MODEL", str(folder))
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield folder
    settings.cache_clear()


@pytest.fixture
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("EVERPIN_MODEL", raising=False)
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield
    settings.cache_clear()


UNPUBLISHED = {"published": False, "version": None, "digest": None, "published_at": None}


def change(folder: Path, **fields: Any) -> None:
    body = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(body | fields))


def model(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["model", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_shipped_model_is_live_unless_another_is_named(default: None) -> None:
    code, text, _ = model("list", "--json")
    assert code == 0
    assert json.loads(text) == {
        "models": [
            {"model_id": "everpin-l6-v1", "path": str(SHIPPED_MODEL), "live": True, **UNPUBLISHED},
            {"model_id": "minilm-l6-v1", "path": str(SHIPPED_MODEL.with_name("minilm-l6-v1")), "live": False, **UNPUBLISHED},
        ]
    }


def test_the_models_beside_the_named_one_are_listed(own: Path) -> None:
    shutil.copytree(own, own.with_name("other"))
    change(own.with_name("other"), model_id="other-v2")
    code, text, _ = model("list", "--json")
    rows = json.loads(text)["models"]
    assert code == 0
    assert {(row["model_id"], row["live"]) for row in rows} == {("everpin-l6-v1", False), ("minilm-l6-v1", False), ("mine-v1", True), ("other-v2", False)}
    assert all({name: row[name] for name in UNPUBLISHED} == UNPUBLISHED for row in rows)
    assert [row["path"] for row in rows if row["live"]] == [str(own)]


def test_a_folder_that_cannot_be_read_is_named_and_left_out(own: Path) -> None:
    (own.parent / "broken").mkdir()
    (own.parent / "broken" / "manifest.json").write_text("{")
    code, text, said = model("list")
    assert code == 0
    assert "mine-v1" in text
    assert "broken is left out" in said
    assert "broken" not in text


def test_a_named_folder_that_is_none_is_said(own: Path) -> None:
    shutil.rmtree(own)
    code, text, said = model("list", "--json")
    assert code == 1
    assert [row["live"] for row in json.loads(text)["models"]] == [False, False]
    assert f"EVERPIN_MODEL names {own}, which is no model folder" in said


@pytest.mark.parametrize("by", ["id", "path"])
def test_a_manifest_is_shown_by_id_and_by_path(own: Path, by: str) -> None:
    code, text, _ = model("show", "mine-v1" if by == "id" else str(own), "--json")
    document = json.loads(text)
    assert code == 0
    assert (document["model_id"], document["path"], document["live"]) == ("mine-v1", str(own), True)
    assert document["drift"]["bound"] == 0.02
    assert document["lineage"] is None


def test_a_manifest_is_shown_for_people(own: Path) -> None:
    lineage = {"labels": {"rows": 9}, "data_digests": {"cxc": "d"}, "licence_classes": ["open"], "seeds": {"student": 7}, "config": {}, "code_version": "c"}
    change(own, lineage=lineage)
    text = model("show", "mine-v1")[1]
    assert "golden_cosine_min: 0.9996" in text
    assert "licence_classes" in text
    assert "sha256" not in text


@pytest.mark.parametrize("command", ["show", "verify"])
def test_an_unknown_model_is_refused_with_the_known_ones(own: Path, command: str) -> None:
    with pytest.raises(ArtifactError, match="'mine-v2' is neither a model folder nor one of the models here: everpin-l6-v1, mine-v1, minilm-l6-v1"):
        model(command, "mine-v2")


def test_a_whole_folder_is_verified(own: Path) -> None:
    code, text, _ = model("verify", str(own), "--json")
    document = json.loads(text)
    assert code == 0
    assert document["ok"]
    assert (document["model_id"], document["files"]) == ("mine-v1", 4)
    assert document["golden_texts"] >= 64
    assert document["golden_cosine_min"] >= document["golden_tolerance"]
    assert "whole" in model("verify", "mine-v1")[1]


def test_a_folder_that_strays_on_a_later_golden_text_exits_1(own: Path) -> None:
    change(own, golden_tolerance=0.9997)
    code, text, said = model("verify", str(own), "--json")
    assert code == 1
    assert not json.loads(text)["ok"]
    assert "mine-v1 strays from its golden vectors most on" in said


def test_a_changed_file_is_named(own: Path) -> None:
    with (own / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json has sha256"):
        model("verify", str(own))
