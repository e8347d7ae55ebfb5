"""A full export and the incremental ones after it as the pins of the last moment, one partition at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everpin.exports.manifest import ExportManifest, damaged, read_export
from pins.errors import EverpinError


def chain(folders: Sequence[Path], *, check_files: bool = False) -> list[ExportManifest]:
    """The manifests of a full export and of those that go on from it, in this order.

    Raises EverpinError where a link is missing, of another model, or (with `check_files`, which reads every file) damaged.
    """
    manifests = [read_export(folder) for folder in folders]
    if not manifests or manifests[0].kind != "full":
        raise EverpinError("the first folder must be a full export")
    for (folder, before), (next_folder, after) in pairwise(zip(folders, manifests, strict=True)):
        if (before.model, before.partitions, before.text) != (after.model, after.partitions, after.text):
            raise EverpinError(f"{next_folder} does not go on from {folder}: it is of another model, or of other columns or partitions")
        if after.since_us is None or after.since_us > before.as_of_us:
            raise EverpinError(f"{next_folder} shows changes since {after.since_us}, {folder} ends at {before.as_of_us}: an export between them is missing")
    for folder, manifest in zip(folders, manifests, strict=True):
        if check_files and (wrong := damaged(folder, manifest)):
            raise EverpinError(f"{folder} is damaged: {wrong}; export again")
    return manifests


def live_pins(folders: Sequence[Path]) -> Iterator[Any]:
    """Per partition a pyarrow.Table of the pins that are live after the last of these exports, each pin once; columns as in the exports.

    One partition of every export is held at once. Raises EverpinError, see `chain`.
    """
    manifests = chain(folders)
    for partition in range(manifests[0].partitions):
        files = [folder / manifest.files[partition].name for folder, manifest in zip(folders, manifests, strict=True)]
        rows = pa.concat_tables([pq.read_table(file).replace_schema_metadata() for file in files])
        last = {pin_id: place for place, pin_id in enumerate(rows.column("pin_id").to_pylist())}
        kept = np.zeros(len(rows), bool)
        kept[list(last.values())] = True
        yield rows.filter(pa.array(kept & ~rows.column("deleted").to_numpy()))
