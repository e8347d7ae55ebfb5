"""The live pins of the index as a file: JSON lines or parquet, streamed. Deleted pins and points without a name are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pins.errors import EverpinError
from pins.ports import PinIndex, Vector

BATCH = 1000
FIELDS = pa.struct(
    [
        ("title", pa.string()),
        ("category", pa.string()),
        ("lang", pa.string()),
        ("boards", pa.list_(pa.string())),
        ("created_at_us", pa.int64()),
        ("image_url", pa.string()),
        ("link_url", pa.string()),
    ]
)
"""The surface fields of `pins.changes`, typed."""
COLUMNS = [("pin_id", pa.string()), ("text", pa.string()), ("fields", FIELDS), ("model_id", pa.string()), ("v", pa.int64())]


class Sink(Protocol):
    """Takes rows, one batch at a time."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None: ...


@dataclass(slots=True)
class ExportReport:
    """Pins written, and of them those without a vector because they have no text; `left_out`: deleted pins and nameless points."""

    pins: int = 0
    textless: int = 0
    left_out: int = 0


def export(index: PinIndex, path: Path, *, vectors: bool, step: Callable[[int], None] = lambda n: None) -> ExportReport:
    """Write the file, whole or not at all. Raises EverpinError for another suffix, Unavailable."""
    report = ExportReport()
    unfinished = path.with_name(f"{path.name}.part")
    try:
        with _sink(path, unfinished, vectors) as sink:
            for rows, records in _batches(index, report, vectors):
                sink.write(rows)
                step(records)
        unfinished.replace(path)
    except OSError as error:
        raise EverpinError(f"cannot write {path}: {error}; name a file in a folder that exists and has room") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return report


def _batches(index: PinIndex, report: ExportReport, vectors: bool) -> Iterator[tuple[list[dict[str, Any]], int]]:
    for records in index.scan(BATCH):
        live = [record for record in records if record.pin_id and not record.dead]
        stored: Mapping[str, Vector] = index.vectors([record.pin_id for record in live]) if vectors else {}
        rows = [
            {"pin_id": record.pin_id, "text": record.text, "fields": dict(record.fields), "model_id": record.model_id, "v": record.v}
            | ({"vector": _numbers(stored.get(record.pin_id))} if vectors else {})
            for record in live
        ]
        report.pins += len(live)
        report.textless += sum(not record.embedded for record in live)
        report.left_out += len(records) - len(live)
        yield rows, len(records)


@contextmanager
def _sink(path: Path, unfinished: Path, vectors: bool) -> Iterator[Sink]:
    match path.suffix:
        case ".jsonl":
            with unfinished.open("w", encoding="utf-8") as file:
                yield _JsonLines(file.write)
        case ".parquet":
            schema = pa.schema(COLUMNS + ([("vector", pa.list_(pa.float32()))] if vectors else []))
            with pq.ParquetWriter(unfinished, schema) as writer:
                yield _Parquet(writer, schema)
        case other:
            raise EverpinError(f"cannot export to {path}: {other or 'no suffix'!r} is not known; name the file .jsonl or .parquet")


@dataclass(frozen=True, slots=True)
class _JsonLines:
    put: Callable[[str], int]

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.put("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@dataclass(frozen=True, slots=True)
class _Parquet:
    writer: Any
    schema: Any

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self.writer.write_table(pa.Table.from_pylist(list(rows), self.schema))


def _numbers(vector: Vector | None) -> list[float] | None:
    return None if vector is None else vector.tolist()
