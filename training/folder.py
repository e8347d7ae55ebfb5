"""The model folder as training writes it: all files and hashes at once, or not at all.

A folder is built beside its place and renamed into it, so that no reader ever sees half of one. Reading and refusing folders
is `embedder.artifact`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from embedder.artifact import MANIFEST, read_manifest
from pins.manifest import Manifest


@contextmanager
def rebuilt(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the place of `folder` when the block ends well; on an error `folder` stays as it was."""
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as room:
        fresh, old = Path(room) / "new", Path(room) / "old"
        fresh.mkdir()
        yield fresh
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def amend(folder: Path, add_files: Callable[[Path], None], change: Callable[[Manifest], Manifest]) -> Manifest:
    """Add or replace files of a model folder and rewrite its manifest, atomically."""
    with rebuilt(folder) as fresh:
        shutil.copytree(folder, fresh, dirs_exist_ok=True)
        add_files(fresh)
        return write_manifest(fresh, change(read_manifest(fresh)))


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write manifest.json with the hashes of the files that lie in the folder now."""
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir()) if path.name != MANIFEST}
    body = asdict(manifest) | {"files": files}
    write_json(folder / MANIFEST, body)
    return Manifest.from_json(json.loads((folder / MANIFEST).read_bytes()))


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """Write a JSON document for people and diffs: indented, in the given order, floats to six digits, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(json.dumps(_rounded(body), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.rename(path)


def _rounded(value: Any) -> Any:
    if isinstance(value, (float, np.floating)):
        return float(f"{float(value):.6g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
