"""Rows of an export on their way: in the order in which they were read, one file per partition, and then the last row of each pin as Parquet.

The spill is what keeps the memory bounded: a pin that changes while it is exported gets a second row, and which is the last is only known at the
end, one partition at a time. Rows are held until ROWS_HELD of them are together; of a partition, only its pin ids are ever held whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from everpin.exports.moment import Point
from everpin.exports.one_file import FIELDS
from pins.changes import IndexedPin
from pins.ports import Vector

ROWS_HELD = 8192
"""Rows in memory before they are spilled: some 20 MB at 384 dimensions."""
ROW_GROUP = 16_384
"""Rows of a row group of a Parquet file."""


def partition_of(pin_id: str, partitions: int) -> int:
    """The partition of a pin, the same in every export of as many partitions: a hash of its id, modulo their number."""
    digest = blake2b(pin_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def schema(dimension: int, *, text: bool) -> Any:
    """The columns of an export. `vector` and what describes the pin are null where `deleted`."""
    columns = [
        pa.field("pin_id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.field("element", pa.float32()), dimension)),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("v", pa.int64(), nullable=False),
        pa.field("deleted", pa.bool_(), nullable=False),
    ]
    return pa.schema(columns + ([pa.field("text", pa.string()), pa.field("fields", FIELDS)] if text else []))


class Spill:
    """Rows by partition, in files of a folder of its own. `keep_deleted`: whether pins without a vector are rows, as in an incremental export."""

    def __init__(self, folder: Path, model_id: str, dimension: int, partitions: int, *, text: bool, keep_deleted: bool) -> None:
        self.model_id, self.dimension, self.partitions = model_id, dimension, partitions
        self.schema, self.text, self.keep_deleted = schema(dimension, text=text), text, keep_deleted
        self._held: list[list[Point]] = [[] for _ in range(partitions)]
        self._count = 0
        self._paths = [folder / f"{partition:05d}.arrows" for partition in range(partitions)]
        self._files = ExitStack()
        folder.mkdir()
        self._writers = [
            self._files.enter_context(pa.ipc.new_stream(self._files.enter_context(pa.OSFile(str(path), "wb")), self.schema)) for path in self._paths
        ]

    def __enter__(self) -> Spill:
        return self

    def __exit__(self, *failure: object) -> None:
        self._files.close()

    def add(self, points: Sequence[Point], *, again: bool) -> None:
        """Take points in the order in which they were read. `again`: a row of the same pin may have come before. Raises OSError."""
        for record, vector in points:
            if record.pin_id and (again or self.keep_deleted or self._live(record, vector)):
                self._held[partition_of(record.pin_id, self.partitions)].append((record, vector))
                self._count += 1
        if self._count >= ROWS_HELD:
            self._spill()

    def finish(self) -> None:
        """Close the files. Raises OSError."""
        self._spill()
        self._files.close()

    def write_parquet(self, partition: int, path: Path, metadata: dict[bytes, bytes]) -> tuple[int, int]:
        """The last row of each pin of a partition as a Parquet file, and the spill of it away: rows, and deleted ones of them. Raises OSError."""
        spilled = self._paths[partition]
        last: dict[str, int] = {}
        place = 0
        for batch in _batches(spilled):
            for pin_id in batch.column("pin_id").to_pylist():
                last[pin_id] = place
                place += 1
        kept = np.zeros(place, bool)
        kept[list(last.values())] = True
        del last
        rows, deleted = self._write(spilled, kept, path, metadata)
        spilled.unlink()
        return rows, deleted

    def _write(self, spilled: Path, kept: Any, path: Path, metadata: dict[bytes, bytes]) -> tuple[int, int]:
        rows = deleted = start = 0
        with pq.ParquetWriter(path, self.schema.with_metadata(metadata), compression="zstd", use_dictionary=["model_id"]) as writer:
            group: list[Any] = []
            for batch in _batches(spilled):
                mask = kept[start : start + batch.num_rows]
                start += batch.num_rows
                if not self.keep_deleted:
                    mask = mask & ~batch.column("deleted").to_numpy(zero_copy_only=False)
                chosen = batch if mask.all() else batch.filter(pa.array(mask))
                rows += chosen.num_rows
                deleted += chosen.column("deleted").true_count
                group.append(chosen)
                if sum(one.num_rows for one in group) >= ROW_GROUP:
                    writer.write_table(pa.Table.from_batches(group, self.schema))
                    group = []
            writer.write_table(pa.Table.from_batches(group, self.schema))
        return rows, deleted

    def _live(self, record: IndexedPin, vector: Vector | None) -> bool:
        """Whether the point is a vector of this model; another model's, which a damaged record may be, is no vector here."""
        return not record.dead and vector is not None and record.model_id == self.model_id

    def _spill(self) -> None:
        for writer, held in zip(self._writers, self._held, strict=True):
            if held:
                writer.write_batch(self._batch(held))
                held.clear()
        self._count = 0

    def _batch(self, points: Sequence[Point]) -> Any:
        live = np.array([self._live(record, vector) for record, vector in points])
        vectors = np.zeros((len(points), self.dimension), np.float32)
        for row, (_, vector) in enumerate(points):
            if live[row]:
                vectors[row] = vector
        columns = [
            pa.array([record.pin_id for record, _ in points], pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=self.schema.field("vector").type, mask=pa.array(~live)),
            pa.array([self.model_id] * len(points), pa.string()),
            pa.array([int(record.v) for record, _ in points], pa.int64()),
            pa.array(~live),
        ]
        if self.text:
            described = [record if alive else None for (record, _), alive in zip(points, live, strict=True)]
            columns.append(pa.array([record and record.text for record in described], pa.string()))
            columns.append(pa.array([record and dict(record.fields) for record in described], FIELDS))
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


def _batches(spilled: Path) -> Iterator[Any]:
    """The batches of a partition, mapped from its file: a column that is not looked at is not read."""
    with pa.memory_map(str(spilled)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream
