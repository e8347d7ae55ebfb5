"""An export as a folder: `pins/part-*.parquet` by a hash of the pin id, and manifest.json. It is there whole or not at all.

Everything is written into FOLDER.part, made durable, and renamed. The lock on FOLDER.part is the kernel's, so what an interrupted export left
behind has none and is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from everpin.exports.manifest import MANIFEST, DataFile, ExportManifest, Model, metadata, moment, sha256
from everpin.exports.moment import Patience, read_at_one_moment
from everpin.exports.spill import Spill
from pins.errors import EverpinError
from pins.ports import PinIndex

DATA, SPILL, UNFINISHED = "pins", "spill", ".part"
PARTITIONS = 16
MOST_PARTITIONS = 256
"""Each partition is an open file while rows are read."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to export. `since`: the export or the moment to go on from, None for a full one. `text`: with each pin's text and surface fields."""

    model: Model
    partitions: int = PARTITIONS
    text: bool = False
    since_us: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """Who is told: of each page read, how many points it had, and of each partition written."""

    read: Callable[[int], None] = lambda n: None
    written: Callable[[int], None] = lambda n: None


def write_export(index: PinIndex, folder: Path, wanted: Wanted, clock: Callable[[], int], patience: Patience, told: Told = Told()) -> ExportManifest:
    """Write the index of one moment into a new folder. Raises EverpinError for a folder that is there or cannot be written, Unavailable."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EverpinError(f"{folder} is there already; name a new folder: an export is never changed once it is whole")
    try:
        with _unfinished(folder) as part:
            manifest = _fill(index, part, wanted, clock, patience, told)
    except OSError as error:
        raise EverpinError(f"cannot write {folder}: {error}; nothing was left of it. Name a folder on a disk that has room and can be written") from error
    return manifest


def following(previous: ExportManifest, folder: Path, model: Model, partitions: int | None, text: bool) -> Wanted:
    """What an export that goes on from `previous` must be. Raises EverpinError where it cannot."""
    if previous.model != model:
        raise EverpinError(
            f"{folder} is of model {previous.model.model_id} with {previous.model.dimension} dimensions, the live one is {model.model_id} with "
            f"{model.dimension}: their vectors must never meet. Make a full export of this model, without --since"
        )
    if partitions not in (None, previous.partitions):
        raise EverpinError(f"{folder} has {previous.partitions} partitions, not {partitions}; leave --partitions out, or make a full export")
    if text and not previous.text:
        raise EverpinError(f"{folder} is without texts; leave --text out, or make a full export")
    return Wanted(model, previous.partitions, previous.text, previous.as_of_us)


def _fill(index: PinIndex, part: Path, wanted: Wanted, clock: Callable[[], int], patience: Patience, told: Told) -> ExportManifest:
    full = wanted.since_us is None
    if full:
        _require_space(part, index.counts()["live"] * wanted.model.dimension * 4)
    model = wanted.model
    with Spill(part / SPILL, model.model_id, model.dimension, wanted.partitions, text=wanted.text, keep_deleted=not full) as spill:
        as_of_us, _ = read_at_one_moment(index, spill, wanted.since_us or 0, clock, patience, told.read)
        spill.finish()
        (part / DATA).mkdir()
        files, deleted = [], 0
        for partition in range(wanted.partitions):
            name = f"{DATA}/part-{partition:05d}-of-{wanted.partitions:05d}.parquet"
            rows, gone = spill.write_parquet(partition, part / name, metadata(model, as_of_us, wanted.since_us))
            files.append(_durable(part / name, name, rows))
            deleted += gone
            told.written(1)
    shutil.rmtree(part / SPILL)
    manifest = ExportManifest(
        kind="full" if full else "incremental",
        model=model,
        as_of_us=as_of_us,
        as_of=moment(as_of_us),
        since_us=wanted.since_us,
        partitions=wanted.partitions,
        text=wanted.text,
        rows=sum(file.rows for file in files),
        deleted=deleted,
        columns={field.name: str(field.type) for field in spill.schema},
        files=tuple(files),
    )
    (part / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    for path in (part / MANIFEST, part / DATA, part):
        _sync(path)
    return manifest


def _durable(path: Path, name: str, rows: int) -> DataFile:
    _sync(path)
    return DataFile(name=name, rows=rows, bytes=path.stat().st_size, sha256=sha256(path))


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """An empty FOLDER.part that is ours; FOLDER after the block, or gone when that failed. Raises EverpinError, OSError."""
    part = folder.with_name(f"{folder.name}{UNFINISHED}")
    part.mkdir(parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EverpinError(f"another export is writing {folder}; wait for it, or name another folder") from error
        try:
            for leftover in part.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            yield part
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _sync(folder.parent)
    finally:
        os.close(handle)


def _require_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise EverpinError(f"the disk of {part.parent} has {free >> 20} MiB free, the vectors alone take {needed >> 20}; free some space, or export elsewhere")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
