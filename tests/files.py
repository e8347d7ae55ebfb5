"""What stands in the files of a folder. The engines make files of 32 MiB that hold little: their holes are not read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path


def holding(folder: Path, needle: bytes) -> list[Path]:
    """The files under `folder` in which these bytes stand."""
    return holding_each(folder, [needle])[0]


def holding_each(folder: Path, needles: Sequence[bytes]) -> list[list[Path]]:
    """The same for each of several, every file read once."""
    found: list[list[Path]] = [[] for _ in needles]
    for path in folder.rglob("*"):
        if path.is_file():
            stretches = list(_stretches(path))
            for number, needle in enumerate(needles):
                if any(needle in stretch for stretch in stretches):
                    found[number].append(path)
    return found


def _stretches(path: Path) -> Iterator[bytes]:
    """What was written to a file, without the holes between."""
    with path.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # no data after `end`
                    return
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield os.pread(file.fileno(), end - start, start)
