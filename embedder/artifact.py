"""The model folder of a published student: read it, verify it, refuse it.

A folder holds `manifest.json`, `model.onnx`, `tokenizer.json`, `golden.npz` (texts and reference vectors) and, where the
student publishes a drift bound, `drift.npz`. Nothing starts on a folder whose hashes do not match.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pins.errors import ArtifactError
from pins.manifest import Manifest
from pins.text import TEMPLATE_VERSION

MODEL, TOKENIZER, GOLDEN, DRIFT, MANIFEST = "model.onnx", "tokenizer.json", "golden.npz", "drift.npz", "manifest.json"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model folder."""

    folder: Path
    manifest: Manifest

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER

    @property
    def drift(self) -> Path | None:
        """Arrays of the drift predictor; None where the student publishes no bound."""
        return self.folder / DRIFT if self.manifest.drift else None

    def golden(self) -> tuple[list[str], NDArray[np.float32]]:
        """Reference texts and their vectors, float32 of shape (n, dimension), as the torch model gave them."""
        with np.load(self.folder / GOLDEN, allow_pickle=False) as arrays:
            return [str(text) for text in arrays["texts"]], arrays["vectors"].astype(np.float32)


def open_artifact(folder: Path) -> Artifact:
    """Read and verify a model folder. Raises ArtifactError that names the file and says what to do."""
    manifest = read_manifest(folder)
    needed = {MODEL, TOKENIZER, GOLDEN} | ({DRIFT} if manifest.drift else set())
    if unlisted := needed - manifest.files.keys():
        raise ArtifactError(f"{folder / MANIFEST} lists no hash for {sorted(unlisted)}; export the model again")
    for name, expected in manifest.files.items():
        verify_file(folder / name, expected)
    if manifest.template_version != TEMPLATE_VERSION:
        raise ArtifactError(
            f"{manifest.model_id} was made for pin text template {manifest.template_version}, this Everpin renders template "
            f"{TEMPLATE_VERSION}; export the model again, or run the Everpin release it was made for"
        )
    return Artifact(folder, manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`. Raises ArtifactError."""
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist; set EVERPIN_MODEL to a folder made by `python -m training.export`") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); copy the whole model folder again") from error
    if not isinstance(body, dict):
        raise ArtifactError(f"{path} must hold a JSON object; copy the whole model folder again")
    return Manifest.from_json(body)


def verify_file(path: Path, expected: str) -> None:
    """Compare a file with its sha256. Raises ArtifactError."""
    try:
        with path.open("rb") as file:
            digest = sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing; copy the whole model folder again") from error
    if digest.hexdigest() != expected:
        raise ArtifactError(f"{path} has sha256 {digest.hexdigest()[:12]}..., the manifest says {expected[:12]}...; the copy is damaged or was edited")
