"""Where model folders lie on this machine: those that ship with Everpin, those beside EVERPIN_MODEL, and those published in EVERPIN_HOME."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from embedder.artifact import MANIFEST, read_manifest
from everpin.settings import SHIPPED_MODEL, Settings
from pins.errors import ArtifactError
from pins.manifest import Manifest


def model_folders(config: Settings) -> Iterator[tuple[Path, Manifest]]:
    """Model folders in order of path. One that says nothing readable of itself is named on standard error and left out."""
    homes = {SHIPPED_MODEL.parent.resolve(), config.model.resolve().parent, config.models_home.resolve()}
    for folder in sorted({path.parent for home in homes for path in home.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")}):
        try:
            yield folder, read_manifest(folder)
        except ArtifactError as error:
            print(f"everpin: {folder} is left out: {error}", file=sys.stderr)


def model_folder(config: Settings, model: str) -> Path:
    """The folder of a path or of a model id. Where several folders have one id, EVERPIN_MODEL wins, then the published one.

    Raises ArtifactError that names the ids there are.
    """
    if (Path(model) / MANIFEST).exists() or Path(model).is_dir():
        return Path(model).resolve()
    known = {manifest.model_id: folder for folder, manifest in model_folders(config)}
    known |= {model_id: folder for model_id in known if (folder := published_folder(config, model_id)) is not None}
    if (config.model / MANIFEST).exists():
        known[read_manifest(config.model).model_id] = config.model.resolve()
    if model not in known:
        raise ArtifactError(f"{model!r} is neither a model folder nor one of the models here: {', '.join(sorted(known))}")
    return known[model]


def published_folder(config: Settings, model_id: str) -> Path | None:
    """The folder that `everpin model publish` made of a model; None where it made none."""
    folder = config.models_home.resolve() / model_id
    return folder if (folder / MANIFEST).exists() else None
