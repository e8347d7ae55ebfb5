"""The pins of one backfill, in the order in which they were found, in a Parquet file: a place in it means the same pin in every run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from backfill.blocks import Block
from backfill.checkpoint import Span

GROUP = 65_536
"""Pins in one row group: what is in memory at a time."""
SCHEMA = pa.schema([("pin_id", pa.string()), ("snapshot", pa.string())])

Found = tuple[str, str]
"""A pin id, and its features as of an export as JSON; empty where they are read online."""


def write(found: Iterable[Found], file: Path) -> int:
    """Write a scan, whole or not at all; how many pins it holds."""
    fresh, count, rows = file.with_name(f"{file.name}.part"), 0, iter(found)
    with pq.ParquetWriter(fresh, SCHEMA) as writer:
        while group := list(islice(rows, GROUP)):
            pin_ids, snapshots = zip(*group, strict=True)
            writer.write_table(pa.table([pin_ids, snapshots], schema=SCHEMA), row_group_size=GROUP)
            count += len(group)
    fresh.replace(file)
    return count


def blocks(file: Path, spans: Iterable[Span], size: int) -> Iterator[Block]:
    """The pins of these spans, which ascend, in blocks of at most `size`; a block never crosses a row group."""
    with pq.ParquetFile(file) as scan:
        held, table = -1, None
        for start, end in spans:
            place = start
            while place < end:
                group = place // GROUP
                if group != held:
                    held, table = group, scan.read_row_group(group)
                stop = min(end, place + size, (group + 1) * GROUP)
                yield _block(place, table, place - group * GROUP, stop - place)
                place = stop


def sample(file: Path, spans: Sequence[Span], count: int) -> list[str]:
    """Ids of `count` pins spread over these spans; all of them where there are fewer."""
    places = sum(end - start for start, end in spans)
    step = max(1, places // count) if count else 1
    some: list[Span] = []
    passed = 0
    for start, end in spans:
        first = start + (-passed) % step
        some += [(place, place + 1) for place in range(first, end, step)]
        passed += end - start
    return [block.pin_ids[0] for block in blocks(file, some[:count], 1)]


def _block(start: int, table: pa.Table, offset: int, length: int) -> Block:
    rows = table.slice(offset, length)
    snapshots = rows["snapshot"].to_pylist()
    return Block(start, rows["pin_id"].to_pylist(), snapshots if any(snapshots) else ())
