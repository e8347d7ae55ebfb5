"""The journal of a captioning run: an events file that grows by whole lines, and beside it what failed and why."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pins.events import PinUpdated, encode
from training.data import DataError


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be captioned, and the reason."""

    pin_id: str
    image: str
    reason: str


class Journal:
    """Two files of JSON lines. Lines are on disk when `add` returns; a line that a killed run left half-written is cut off.

    `done`: pins with a caption or a recorded failure. `model`: the name stored with every caption of the file.
    """

    def __init__(self, path: Path, model: str, retry_failed: bool = False) -> None:
        """Open or go on. Raises DataError where the file holds other things, or captions of another model."""
        self.path, self.failures_path, self.model = path, path.with_name(f"{path.name}.failures"), model
        captioned = {event["pin_id"]: event["features"]["pin_caption"] for event in _lines(path, ("pin_id", "features"))}
        others = sorted({str(row.get("caption_model")) for row in captioned.values()} - {model})
        if others:
            raise DataError(f"{path} holds captions of {', '.join(others)}, not of {model}; name another --out")
        failed = [] if retry_failed else [row["pin_id"] for row in _lines(self.failures_path, ("pin_id", "reason"))]
        self.done = {*captioned, *failed}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._events, self._failures = path.open("ab"), self.failures_path.open("wb" if retry_failed else "ab")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error}; name a file in a folder that you may write to") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._events, self._failures):
            with suppress(OSError):  # a full disk, of which `add` has told; it leaves nothing unwritten
                file.close()

    def add(self, events: Sequence[PinUpdated], failures: Sequence[Failure]) -> None:
        """Append events and failures. Raises DataError where the disk does not take them."""
        told = [json.dumps(asdict(fault), ensure_ascii=False).encode() for fault in failures]
        try:
            for file, lines in ((self._events, list(map(encode, events))), (self._failures, told)):
                file.write(b"".join(line + b"\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise DataError(f"cannot write {self.path}: {error}; make room and run the same command again, it goes on where it stopped") from error
        self.done.update(made.pin_id for made in (*events, *failures))


def _lines(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The whole lines of a file that may not be there; what follows the last line end is cut off."""
    if not path.exists():
        return []
    body = path.read_bytes()
    whole = body.rfind(b"\n") + 1
    if whole < len(body):
        os.truncate(path, whole)
    try:
        rows = [json.loads(line) for line in body[:whole].splitlines() if line.strip()]
        if not all(key in row for row in rows for key in keys) or not all("pin_caption" in row["features"] for row in rows if "features" in keys):
            raise ValueError(f"a line without {', '.join(keys)}")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no journal of captions: {error}; name another --out") from error
    return rows
