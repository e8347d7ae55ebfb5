"""How far a backfill got: which places of a scan are done, kept in a file so that the next run goes on there.

The index itself is the truth of what is embedded. A checkpoint only saves looking at what is done already, so one that is damaged, or that
does not fit, is not an error: the scan begins anew and costs reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pins.text import TEMPLATE_VERSION

FORMAT = 1
Span = tuple[int, int]
"""Places start <= place < end of a scan."""


def united(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same places in as few spans as hold them, ascending."""
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return tuple(merged)


def left(done: Sequence[Span], pins: int) -> Iterator[Span]:
    """The spans of `pins` places that are not in `done`, which is united."""
    start = 0
    for begin, end in (*done, (pins, pins)):
        if start < min(begin, pins):
            yield start, min(begin, pins)
        start = max(start, end)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A scan of `pins` pins from `source` (a folder of an export, empty: the online store) at `scanned_us`, and the spans of it that are done."""

    model_id: str
    source: str
    scanned_us: int
    pins: int
    done: tuple[Span, ...] = ()
    template_version: int = TEMPLATE_VERSION
    complete: bool = False
    format: int = FORMAT

    @property
    def done_pins(self) -> int:
        return sum(end - start for start, end in self.done)

    def with_done(self, spans: Iterable[Span]) -> Checkpoint:
        """The same with more done."""
        done = united((*self.done, *spans))
        return replace(self, done=done, complete=not any(True for _ in left(done, self.pins)))

    def write(self, file: Path) -> None:
        """Replace the file whole."""
        fresh = file.with_name(f"{file.name}.part")
        fresh.write_text(json.dumps(asdict(self)))
        fresh.replace(file)


def read(file: Path) -> Checkpoint | None:
    """The checkpoint of a file; None where there is none, or none that this release can use."""
    try:
        body = json.loads(file.read_text())
        spans = [(int(start), int(end)) for start, end in body["done"]]
        found = Checkpoint(**body | {"done": united(spans)})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.format == FORMAT and found.template_version == TEMPLATE_VERSION else None
