"""`everpin model publish` and what list, show and verify say of a published model, on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("mlflow", reason="needs the extra registry: pip install 'everpin[registry]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of MLflow's own modules

from everpin.cli import app  # noqa: E402  after the skip
from everpin.registry import open_registry  # noqa: E402
from everpin.settings import Settings, settings  # noqa: E402
from pins.errors import ArtifactError  # noqa: E402
from tests.tiny_models import tiny_model  # noqa: E402


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("registry")
    open_registry(Settings(home=home))
    return home / "registry"


@pytest.fixture
def home(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder with an empty registry and a live model."""
    shutil.copytree(tables, tmp_path / "home" / "registry")
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EVERPIN_MODEL", str(tiny_model(tmp_path / "models" / "live", "live-v1", seed=1)))
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "made" / "new", "new-v2")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Rules under which a tiny model passes without evaluations, whatever else the machine does."""
    (tmp_path / "gate.toml").write_text('[ranking]\nallow_missing = ["*"]\n[speed]\ntexts_per_s_ratio = 0\nquery_ms = 1000\n')
    return tmp_path / "gate.toml"


def model(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["model", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def evaluation(path: Path, model_id: str, mean: float) -> str:
    value = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
    data = {"folder": "cxc", "digest": "0123456789abcdef", "split": "dev"}
    path.write_text(json.dumps({"model_id": model_id, "languages": {"en": {"ndcg@20": value, "queries": 9}}, "data": data}))
    return str(path)


def row(model_id: str) -> dict[str, Any]:
    (found,) = (row for row in json.loads(model("list", "--json")[1])["models"] if row["model_id"] == model_id)
    return dict(found)


def test_a_model_is_published_listed_shown_and_verified(home: Path, folder: Path, gate: Path) -> None:
    code, text, _ = model("publish", str(folder), "--gate", str(gate), "--json")
    document = json.loads(text)
    assert (code, document["published"], document["already"], document["version"]) == (0, True, False, "1")
    assert document["path"] == str(home / "models" / "new-v2")
    assert row("new-v2") | {"published": True, "version": "1", "digest": document["digest"], "live": False} == row("new-v2")
    assert row("live-v1") | {"published": False, "version": None, "live": True} == row("live-v1")
    shown = json.loads(model("show", "new-v2", "--json")[1])
    assert shown["publication"]["gate"] == document["gate"]["lines"]
    assert shown["publication"]["lineage"] == document["lineage"]
    assert shown["lineage"]["code_version"] == "a1b2c3d"
    assert model("verify", "new-v2")[0] == 0
    assert json.loads(model("publish", str(folder), "--json")[1])["already"]


def test_a_person_sees_every_line_of_the_gate_and_what_the_model_was_made_from(home: Path, folder: Path, gate: Path) -> None:
    code, text, _ = model("publish", str(folder), "--gate", str(gate))
    words = " ".join(text.split())
    assert code == 0
    for said in ("ndcg@20", "megabytes", "licences", "canary", "new-v2 is published: version 1", "teacher teacher-1, data cxc_pins d0d0"):
        assert said in words
    assert "new-v2 is already published" in " ".join(model("publish", str(folder))[1].split())
    assert "version 1 in sqlite" in " ".join(model("show", "new-v2")[1].split())
    assert "version 1," in model("list")[1]


def test_a_refusal_names_the_lines_and_exits_1(home: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text("[size]\nmegabytes = 0.001\n[speed]\ntexts_per_s_ratio = 0\nquery_ms = 1000\n")
    code, text, said = model("publish", str(folder), "--gate", str(tmp_path / "small.toml"), "--json")
    assert (code, json.loads(text)["published"], json.loads(text)["gate"]["passed"]) == (1, False, False)
    assert "new-v2 is not published, its gate refuses: ndcg@20, megabytes" in said
    code, text, _ = model("publish", str(folder), "--gate", str(tmp_path / "small.toml"), "--force", "a trial [of size]")
    assert code == 0
    assert "published although its gate refused (a trial [of size])" in " ".join(text.split())
    assert "a trial [of size]" in " ".join(model("show", "new-v2")[1].split())


@pytest.mark.parametrize(("mean", "expected"), [(0.9, 0), (0.8, 1)])
def test_evaluations_decide(home: Path, folder: Path, tmp_path: Path, mean: float, expected: int) -> None:
    (tmp_path / "speed.toml").write_text("[speed]\ntexts_per_s_ratio = 0\nquery_ms = 1000\n")
    files = ["--evaluation", evaluation(tmp_path / "new.json", "new-v2", mean), "--live-evaluation", evaluation(tmp_path / "live.json", "live-v1", 0.9)]
    assert model("publish", str(folder), "--gate", str(tmp_path / "speed.toml"), *files)[0] == expected


def test_a_changed_published_copy_is_found_by_its_id(home: Path, folder: Path, gate: Path) -> None:
    model("publish", str(folder), "--gate", str(gate))
    path = home / "models" / "new-v2" / "tokenizer.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"home/models/new-v2/tokenizer\.json has sha256"):
        model("verify", "new-v2")


def test_a_lost_receipt_is_said_and_hides_no_other_model(home: Path, folder: Path, gate: Path) -> None:
    model("publish", str(folder), "--gate", str(gate))
    (home / "models" / ".published" / "new-v2.json").write_text("{")
    code, text, said = model("list", "--json")
    assert code == 0
    assert {row["model_id"]: row["published"] for row in json.loads(text)["models"]} == {
        "everpin-l6-v1": False, "minilm-l6-v1": False, "live-v1": False, "new-v2": False,
    }  # fmt: skip
    assert "nothing proves what was published as new-v2" in said


def test_the_alias_names_the_live_model(home: Path, folder: Path, gate: Path) -> None:
    model("publish", str(folder), "--gate", str(gate))
    (home / "index").mkdir()
    (home / "index" / "aliases.json").write_text('{"pins": "pins__new-v2"}')
    assert (row("new-v2")["live"], row("live-v1")["live"]) == (True, False)
    (home / "index" / "aliases.json").write_text('{"pins": "pins__elsewhere"}')
    code, text, said = model("list", "--json")
    assert (code, any(row["live"] for row in json.loads(text)["models"])) == (1, False)
    assert "the live model is elsewhere, which has no folder on this machine" in said


def test_an_alias_that_cannot_be_read_is_said(home: Path) -> None:
    (home / "index").mkdir()
    (home / "index" / "aliases.json").write_text("{")
    code, text, said = model("list", "--json")
    assert code == 0
    assert [row["model_id"] for row in json.loads(text)["models"] if row["live"]] == ["live-v1"]
    assert "EVERPIN_MODEL is taken for the live model" in said
