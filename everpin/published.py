"""The published models of one EVERPIN_HOME: where they lie, how a folder gets there, and what is kept of how it got there.

    models/<model_id>/              a published folder, never changed; files are read-only
    models/.published/<id>.json     its receipt: digest, registered version, lineage, what the gate said
    models/.publishing-<id>-<pid>   a copy that is being made; what a killed publication left goes with the next one

The receipt is written before the folder gets its name: a folder that can be seen has one, and a receipt without a folder says nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from embedder.artifact import MANIFEST, open_artifact, read_manifest
from everpin.model_folders import published_folder
from everpin.settings import Settings
from pins.errors import ArtifactError, Unavailable

RECEIPTS, UNFINISHED, LOCK = ".published", ".publishing-", ".publish.lock"
READ_ONLY = 0o444


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a published folder without the registry."""

    model_id: str
    digest: str
    version: str
    registry: str
    published_at: str
    forced: str
    gate: list[dict[str, Any]]
    lineage: dict[str, Any]
    evaluation: dict[str, Any] | None


def folder_digest(folder: Path) -> str:
    """One sha256 of a folder's content: over the name and hash of each file, which the manifest lists, and of the manifest itself."""
    manifest = read_manifest(folder)
    hashes = dict(manifest.files) | {MANIFEST: sha256((folder / MANIFEST).read_bytes()).hexdigest()}
    return sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


def receipt_of(config: Settings, model_id: str) -> Receipt | None:
    """The receipt of a published model; None where it is not published here. Raises ArtifactError for a damaged one."""
    if published_folder(config, model_id) is None:
        return None
    path = config.models_home.resolve() / RECEIPTS / f"{model_id}.json"
    try:
        return Receipt(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}), so nothing proves what was published as {model_id}; remove models/{model_id} and publish it again"
        ) from error


def verify_published(config: Settings, folder: Path, model_id: str) -> None:
    """Where `folder` is a published one, compare it with its receipt: files and manifest may have been changed together. Raises ArtifactError."""
    if folder != published_folder(config, model_id):
        return
    receipt = receipt_of(config, model_id)
    if receipt is not None and (digest := folder_digest(folder)) != receipt.digest:
        raise ArtifactError(
            f"{folder} was changed after it was published: digest {digest[:12]}..., published was {receipt.digest[:12]}...; "
            "remove the folder and publish the model again from where it was made"
        )


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One publication at a time in one folder of models, rid of what killed ones left; the lock dies with its process. Raises Unavailable."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / LOCK).open("a")
    except OSError as error:
        raise Unavailable(f"{home} cannot be written: {error}; nothing was published") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"another publication is going on in {home}; run this one when it has ended") from error
        for leftover in home.glob(f"{UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def copied(source: Path, names: Sequence[str], digest: str, place: Path) -> Iterator[Path]:
    """A verified, durable copy beside `place`, gone after the block unless it was renamed. Raises Unavailable where it cannot be written."""
    copy = place.with_name(f"{UNFINISHED}{place.name}-{os.getpid()}")
    try:
        copy.mkdir()
        for name in names:
            _copy(source / name, copy / name)
        _sync(copy)
        open_artifact(copy)
        if folder_digest(copy) != digest:
            raise ArtifactError(f"{source} changed while it was copied; publish it again when nobody writes to it")
        yield copy
    except OSError as error:
        raise Unavailable(f"{place.parent} cannot be written: {error}; nothing was published: mend that (free some space?) and run it again") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def put(copy: Path, place: Path, receipt: Receipt) -> None:
    """Write the receipt, then give the copy its name: from here on it is published. Raises OSError."""
    _write_receipt(place.parent, receipt)
    copy.rename(place)
    _sync(place.parent)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, target.open("xb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())
    target.chmod(READ_ONLY)


def _write_receipt(home: Path, receipt: Receipt) -> None:
    folder = home / RECEIPTS
    folder.mkdir(exist_ok=True)
    fresh = folder / f".{receipt.model_id}.{os.getpid()}"
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(receipt), file, ensure_ascii=False, indent=2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(folder / f"{receipt.model_id}.json")
        _sync(folder)
    finally:
        fresh.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
