from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.artifact import DRIFT, GOLDEN, MANIFEST, MODEL, TOKENIZER, open_artifact, read_manifest, verify_file
from pins.errors import ArtifactError
from pins.text import TEMPLATE_VERSION
from tests.unit.test_manifest import BODY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder of small files."""
    for name in (MODEL, TOKENIZER, DRIFT):
        (tmp_path / name).write_bytes(f"the bytes of {name}".encode())
    np.savez(tmp_path / GOLDEN, texts=np.array(["soup", "日本"]), vectors=np.eye(2, 4))
    write_manifest(tmp_path)
    return tmp_path


def write_manifest(folder: Path, **changes: Any) -> None:
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != MANIFEST}
    (folder / MANIFEST).write_text(json.dumps(BODY | {"template_version": TEMPLATE_VERSION, "files": files} | changes))


def refusal(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(folder)
    return str(caught.value)


def test_a_whole_folder_opens(folder: Path) -> None:
    artifact = open_artifact(folder)
    assert artifact.manifest.model_id == "m1"
    assert (artifact.model, artifact.tokenizer, artifact.drift) == (folder / MODEL, folder / TOKENIZER, folder / DRIFT)
    texts, vectors = artifact.golden()
    assert texts == ["soup", "日本"]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.eye(2, 4))


def test_a_student_without_a_drift_bound_needs_no_predictor(folder: Path) -> None:
    (folder / DRIFT).unlink()
    write_manifest(folder, drift=None)
    assert open_artifact(folder).drift is None


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, GOLDEN, DRIFT])
def test_a_file_with_other_bytes_is_named(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"!")
    found = sha256((folder / name).read_bytes()).hexdigest()
    assert f"{folder / name} has sha256 {found[:12]}..., the manifest says" in refusal(folder)


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, GOLDEN, DRIFT])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name} is missing; copy the whole model folder again"


@pytest.mark.parametrize("name", [MODEL, TOKENIZER, GOLDEN, DRIFT])
def test_a_file_that_the_manifest_does_not_vouch_for_is_named(folder: Path, name: str) -> None:
    files = read_manifest(folder).files
    write_manifest(folder, files={other: digest for other, digest in files.items() if other != name})
    assert refusal(folder) == f"{folder / MANIFEST} lists no hash for {[name]}; export the model again"


def test_every_file_that_is_listed_is_verified(folder: Path) -> None:
    write_manifest(folder, files=dict(read_manifest(folder).files) | {"notes.md": "00"})
    assert "notes.md is missing" in refusal(folder)


def test_a_folder_without_a_manifest_says_how_to_get_one(tmp_path: Path) -> None:
    assert f"{tmp_path / MANIFEST} does not exist; set EVERPIN_MODEL" in refusal(tmp_path)
    assert f"{tmp_path / 'none' / MANIFEST} does not exist" in refusal(tmp_path / "none")


@pytest.mark.parametrize("body", [b"", b'{"model_id": "m', b"\xff\xfe\x00"], ids=["empty", "half", "not text"])
def test_a_manifest_that_is_not_json_is_named(folder: Path, body: bytes) -> None:
    (folder / MANIFEST).write_bytes(body)
    assert f"{folder / MANIFEST} is not JSON" in refusal(folder)


@pytest.mark.parametrize("body", [b"[]", b'"m1"', b"null", b"7"])
def test_a_manifest_that_is_no_object_is_named(folder: Path, body: bytes) -> None:
    (folder / MANIFEST).write_bytes(body)
    assert f"{folder / MANIFEST} must hold a JSON object" in refusal(folder)


@pytest.mark.parametrize("name", ["dimension", "pooling", "files", "ordinal_head"])
def test_a_manifest_without_a_field_is_named(folder: Path, name: str) -> None:
    body = json.loads((folder / MANIFEST).read_text())
    del body[name]
    (folder / MANIFEST).write_text(json.dumps(body))
    assert refusal(folder) == f"manifest.json has no field '{name}'; export the model again"


def test_another_template_is_refused_with_both_versions(folder: Path) -> None:
    write_manifest(folder, template_version=TEMPLATE_VERSION + 1)
    assert f"m1 was made for pin text template {TEMPLATE_VERSION + 1}, this Everpin renders template {TEMPLATE_VERSION};" in refusal(folder)


def test_a_file_of_several_blocks_is_hashed_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * ((1 << 20) + 1))
    verify_file(path, sha256(path.read_bytes()).hexdigest())
    with pytest.raises(ArtifactError, match="large"):
        verify_file(path, sha256(b"x" * (1 << 20)).hexdigest())
