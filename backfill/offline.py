"""Pins from a Feast offline store: one Parquet file per view with the history of its rows, as `feature_repo` declares them.

An export is older than the online store. Its features are therefore taken for pins only that have no record in the collection yet; whatever
has one, was written by the stream or an earlier run, and is decided on the online store's features. A rival's record that lands first
makes the guarded write fail, and the next round finds that record: the export never undoes a newer snapshot (docs/adr/0002).
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zlib import crc32

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from backfill.scan import Found
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.features import VIEWS, Column, PinFeatures, pin_features
from pins.ports import FeatureSource, PinIndex

PART_ROWS = 500_000
"""Rows of all views that are joined at once."""
READ_ROWS = 8192
TIME, CREATED = "event_timestamp", "created"
SPOOLED = pa.schema([("pin_id", pa.string()), ("view", pa.string()), ("event_us", pa.int64()), ("written_us", pa.int64()), ("row", pa.string())])


def view_files(folder: Path) -> dict[str, Path]:
    """The files (or folders of files) of the views under `folder` or `folder/offline`. Raises EverpinError where there is none."""
    for home in (folder, folder / "offline"):
        found = {view: path for view in VIEWS for path in (home / f"{view}.parquet", home / view) if path.exists()}
        if found:
            return found
    raise EverpinError(f"{folder} holds no view of pins; expected files such as {next(iter(VIEWS))}.parquet, as in EVERPIN_HOME/feast/offline")


def newest(folder: Path, scratch: Path) -> Iterator[Found]:
    """Every pin of the export with the newest row of each view, as JSON {view: [event time in us, values]}. In bounded memory.

    Pins are divided by a hash into parts, which are joined one after another; `scratch` holds them meanwhile. Raises EverpinError.
    """
    files = view_files(folder)
    try:
        sources = {view: ds.dataset(path, format="parquet") for view, path in files.items()}
        parts = 1 + sum(source.count_rows() for source in sources.values()) // PART_ROWS
        with tempfile.TemporaryDirectory(dir=scratch) as spool:
            _divide(sources, Path(spool), parts)
            for part in range(parts):
                yield from _joined(Path(spool) / f"{part}.parquet")
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise EverpinError(f"{folder} cannot be read as an offline store: {error}; see docs/backfill.md for its layout") from error


def _divide(sources: Mapping[str, ds.Dataset], spool: Path, parts: int) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(pq.ParquetWriter(spool / f"{part}.parquet", SPOOLED)) for part in range(parts)]
        for view, source in sources.items():
            there = [name for name in VIEWS[view] if name in source.schema.names]
            columns = ["pin_id", TIME, *([CREATED] if CREATED in source.schema.names else []), *there]
            for batch in source.to_batches(columns=columns, batch_size=READ_ROWS):
                for part, rows in _by_part(view, batch, there, parts).items():
                    writers[part].write_table(pa.Table.from_pylist(rows, SPOOLED))


def _by_part(view: str, batch: pa.RecordBatch, columns: Sequence[str], parts: int) -> dict[int, list[dict[str, Any]]]:
    divided: dict[int, list[dict[str, Any]]] = {}
    event = _microseconds(batch[TIME])
    written = _microseconds(batch[CREATED]) if CREATED in batch.schema.names else event
    for row, event_us, written_us in zip(batch.select(["pin_id", *columns]).to_pylist(), event, written, strict=True):
        if event_us is None or not row["pin_id"]:
            raise ValueError(f"a row of {view} has no pin_id or no {TIME}")
        values = {name: _plain(row[name], VIEWS[view][name]) for name in columns}
        kept = {"pin_id": row["pin_id"], "view": view, "event_us": event_us, "written_us": written_us or event_us, "row": json.dumps(values)}
        divided.setdefault(crc32(row["pin_id"].encode()) % parts, []).append(kept)
    return divided


def _joined(part: Path) -> Iterator[Found]:
    best: dict[str, dict[str, tuple[tuple[int, int], str]]] = {}
    for row in (row for batch in pq.ParquetFile(part).iter_batches(READ_ROWS) for row in batch.to_pylist()):
        views, time = best.setdefault(row["pin_id"], {}), (row["event_us"], row["written_us"])
        if row["view"] not in views or time >= views[row["view"]][0]:
            views[row["view"]] = time, row["row"]
    for pin_id in sorted(best):
        yield pin_id, "{" + ",".join(f'"{view}":[{time[0]},{row}]' for view, (time, row) in best[pin_id].items()) + "}"


def _microseconds(column: pa.Array) -> list[int | None]:
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return list(column.to_pylist())
    if not pa.types.is_timestamp(column.type):
        raise ValueError(f"a time is {column.type}; expected a timestamp, or integers in epoch microseconds")
    return list(pc.cast(column, pa.timestamp("us", tz=column.type.tz), safe=False).cast(pa.int64()).to_pylist())


def _plain(value: Any, column: Column) -> Any:
    """A value as its view keeps it: pandas writes integers with gaps as floats, and NaN for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return [] if column.dtype.startswith("Array") else None
    if column.dtype == "Int64":
        return int(value)
    if isinstance(value, list):
        return ["" if one is None else one for one in value]
    return value


def features(pin_id: str, snapshot: str) -> PinFeatures:
    """The features that `newest` found of a pin."""
    views = json.loads(snapshot)
    values = {name: value for _, row in views.values() for name, value in row.items()}
    return pin_features(pin_id, values, {view: event_us for view, (event_us, _) in views.items()})


class Recorded:
    """A PinIndex that remembers the ids it found when it was last asked for records. Everything else is passed through."""

    def __init__(self, index: PinIndex) -> None:
        self._index = index
        self.ids: frozenset[str] = frozenset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        found = self._index.known(pin_ids)
        self.ids = frozenset(found)
        return found


class Snapshots:
    """The features of a block: from the export for pins without a record, from the online store for all others. Passes everything else through.

    An indexer asks for records first and for features next, in one thread; `recorded` says what it was told.
    """

    def __init__(self, online: FeatureSource, recorded: Callable[[], frozenset[str]]) -> None:
        self._online, self._recorded = online, recorded
        self.held: Mapping[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._online, name)

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        recorded = self._recorded()
        exported = {pin_id: features(pin_id, self.held[pin_id]) for pin_id in pin_ids if pin_id in self.held and pin_id not in recorded}
        return {**self._online.of([pin_id for pin_id in pin_ids if pin_id not in exported]), **exported}
