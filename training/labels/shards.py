"""Labels on disk: parquet shards and labels.json, written so that a killed run continues, and read with checks.

labels.json says who labelled what with which settings; `rows` and `queries` count the finished shards. A shard is written beside
its place and renamed into it, so it is there as a whole or not at all. One run at a time writes a folder.
"""

from __future__ import annotations

import errno
import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pins.relevance import Level
from training.data import DataError, RelevanceData
from training.folder import write_json

ABOUT = "labels.json"
LEVELS = len(Level)
IDENTITY = ("teacher_id", "data_digest", "seed", "config")
"""Keys of labels.json that must agree before a run continues a folder."""
TOLERANCE = 1e-3
"""How far from 1 the probabilities of a row may add up: float32 sums stay within 1e-6."""
SCHEMA = pa.schema(
    {
        "query": pa.string(),
        "lang": pa.string(),
        "query_id": pa.string(),
        "item_id": pa.string(),
        "levels": pa.list_(pa.float32(), LEVELS),
        "source": pa.string(),
        "band": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class LabelledQuery:
    """A query of the labels; `query_id` is None where it comes from a log, `band` its popularity."""

    text: str
    lang: str
    query_id: str | None
    band: str


@dataclass(frozen=True, slots=True)
class Labels:
    """A teacher's labels, one row per (query, pin).

    `query`, `item`: int64 places in `queries` and `items` (item ids); `levels`: float32 of shape (n, 5), the probability of each
    level, lowest first; `source`: judged, bm25, index or random. `about` is labels.json.
    """

    about: Mapping[str, Any]
    queries: Sequence[LabelledQuery]
    items: Sequence[str]
    query: NDArray[np.int64]
    item: NDArray[np.int64]
    levels: NDArray[np.float32]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.query)

    @property
    def teacher_id(self) -> str:
        return str(self.about["teacher_id"])

    @property
    def grades(self) -> NDArray[np.float64]:
        """Expected grade of each row, 0 to 4."""
        return self.levels.astype(np.float64) @ np.arange(LEVELS)

    def where(self, keep: NDArray[Any]) -> Labels:
        """The rows that a boolean mask or indices choose; queries and items stay as they are."""
        return replace(self, query=self.query[keep], item=self.item[keep], levels=self.levels[keep], source=self.source[keep])

    def pins(self, data: RelevanceData) -> NDArray[np.int64]:
        """Place of each row's pin in `data.pins`. Raises DataError where the labels were made on other data."""
        if data.digest != self.about["data_digest"]:
            raise DataError(f"the labels are for data {self.about['data_digest'][:12]}..., {data.folder} is {data.digest[:12]}...; label that folder anew")
        place = {pin.pin_id: number for number, pin in enumerate(data.pins)}
        return np.array([place[item] for item in self.items], np.int64)[self.item]


def read_labels(folder: Path, teacher_id: str | None = None, unfinished: bool = False) -> Labels:
    """Read and check a folder of labels. Raises DataError that says what is wrong.

    `teacher_id`: the only teacher whose labels will do. `unfinished`: take the finished shards of an interrupted run (a random
    sample of its queries).
    """
    about = _about(folder)
    if not about["teacher_id"] or teacher_id not in (None, about["teacher_id"]):
        raise DataError(f"{folder} holds labels of teacher {about['teacher_id']!r}, wanted are those of {teacher_id or 'a named teacher'!r}")
    if about["shards"] < about["of_shards"] and not unfinished:
        raise DataError(f"{folder} is unfinished: {about['shards']} of {about['of_shards']} shards; give the command of its run again and it continues")
    if not about["shards"]:
        raise DataError(f"{folder} holds no label yet; give the command of its run again and it continues")
    table = pa.concat_tables([_read_shard(folder / shard_name(number)) for number in range(about["shards"])])
    if len(table) != about["rows"]:
        raise DataError(f"{folder}: the shards hold {len(table)} rows, {ABOUT} says {about['rows']}; a file was replaced: label into a new folder")
    labels = _labels(about, table, folder)
    if len(labels.queries) != about["queries"]:
        raise DataError(
            f"{folder}: the shards hold {len(labels.queries)} queries, {ABOUT} says {about['queries']}; a file was replaced: label into a new folder"
        )
    return labels


def table_of(queries: Sequence[LabelledQuery], query: NDArray[np.int64], item_ids: Sequence[str], levels: NDArray[Any], source: NDArray[np.str_]) -> pa.Table:
    """One shard: `query` (n,) places in `queries`, the rest one per row. Raises DataError where `levels` are no distributions."""
    if problem := _not_distributions(levels):
        raise DataError(f"the teacher gave no level probabilities: {problem}; check the teacher with python -m training.evaluate before labelling")
    rows = [queries[place] for place in query.tolist()]
    columns = {
        "query": [row.text for row in rows],
        "lang": [row.lang for row in rows],
        "query_id": [row.query_id for row in rows],
        "item_id": list(item_ids),
        "levels": pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(levels, np.float32).ravel()), LEVELS),
        "source": source.tolist(),
        "band": [row.band for row in rows],
    }
    return pa.table(columns, SCHEMA)


class LabelWriter:
    """The folder of one run. `about`: everything that labels.json says but the counts; `of_shards`: how many there will be."""

    def __init__(self, folder: Path, about: Mapping[str, Any], of_shards: int) -> None:
        self._folder = folder
        about = json.loads(json.dumps(about))
        if (folder / ABOUT).exists():
            refuse_other(folder, _about(folder), about)
        self.shards, self.rows, self.queries = 0, 0, 0
        self._about = {**about, "of_shards": of_shards}
        while self.shards < of_shards and (folder / shard_name(self.shards)).exists():
            self._count(_read_shard(folder / shard_name(self.shards)))
        self._write_about()

    def write(self, table: pa.Table) -> None:
        """Add the next shard, whole. Raises DataError, with nothing half written, when the disk is full."""
        place = self._folder / shard_name(self.shards)
        scratch = place.with_name(f".{place.name}.new")
        with room(self._folder, scratch):
            pq.write_table(table, scratch, compression="zstd")
            scratch.replace(place)
        self._count(table)
        self._write_about()

    def _count(self, table: pa.Table) -> None:
        self.shards += 1
        self.rows += len(table)
        self.queries += len(pc.unique(_query_key(table)))

    def _write_about(self) -> None:
        body = {**self._about, "rows": self.rows, "queries": self.queries, "shards": self.shards}
        with room(self._folder, self._folder / f".{ABOUT}.new"):
            write_json(self._folder / ABOUT, body)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder of labels for the time of the block. Raises DataError when another run holds it; the kernel frees a dead one's."""
    with room(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another run is writing labels into {folder}; wait for it, or give another --out") from error
        yield


@contextmanager
def room(folder: Path, scratch: Path | None = None) -> Iterator[None]:
    """Turn a full disk or a folder that cannot be written into a DataError, and remove the half-written file."""
    try:
        yield
    except OSError as error:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"no space is left for {folder}: {error}; the finished shards are whole: free some space and give the command again") from error
        raise DataError(f"{folder} cannot be written: {error}; check the path and its rights, then give the command again") from error


def refuse_other(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise DataError that names each setting in which the labels of a folder and a run differ."""
    told = [difference for key in IDENTITY for difference in _differences(key, there.get(key), now.get(key))]
    if told:
        raise DataError(f"{folder} holds other labels ({'; '.join(told)}); give another --out, or the settings it was begun with")


def shard_name(number: int) -> str:
    """labels-00000.parquet, ..."""
    return f"labels-{number:05d}.parquet"


def _differences(name: str, there: Any, now: Any) -> Iterator[str]:
    if isinstance(there, Mapping) and isinstance(now, Mapping):
        for key in sorted(there.keys() | now.keys()):
            yield from _differences(f"{name}.{key}", there.get(key), now.get(key))
    elif there != now:
        yield f"{name}: {there!r} there, {now!r} now"


def _about(folder: Path) -> dict[str, Any]:
    path = folder / ABOUT
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; give a folder made by python -m training.label") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); copy the folder again") from error
    missing = {"teacher_id", "data_digest", "rows", "queries", "shards", "of_shards"} - set(body)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}; give a folder made by python -m training.label")
    return dict(body)


def _read_shard(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}; copy it again, or delete it and every later shard and give the command of the run again") from error
    if not table.schema.equals(SCHEMA):
        raise DataError(f"{path} is no shard of labels: it has columns {', '.join(table.column_names)}; it needs {', '.join(SCHEMA.names)}")
    return table


def _labels(about: dict[str, Any], table: pa.Table, folder: Path) -> Labels:
    levels = table["levels"].combine_chunks().flatten().to_numpy().reshape(-1, LEVELS)
    if problem := _not_distributions(levels):
        raise DataError(f"{folder}: {problem}; the labels are damaged: label into a new folder")
    key = _query_key(table).combine_chunks().dictionary_encode()
    item = table["item_id"].combine_chunks().dictionary_encode()
    query = key.indices.to_numpy().astype(np.int64)
    first = table.take(pa.array(np.unique(query, return_index=True)[1]))
    names = (first[name].to_pylist() for name in ("query", "lang", "query_id", "band"))
    queries = [LabelledQuery(*row) for row in zip(*names, strict=True)]
    source = np.array(table["source"].to_pylist(), np.str_)
    return Labels(about, queries, item.dictionary.to_pylist(), query, item.indices.to_numpy().astype(np.int64), levels, source)


def _query_key(table: pa.Table) -> Any:
    """One string per row that tells queries apart: equal texts in two languages are two queries."""
    return pc.binary_join_element_wise(table["lang"], table["query"], "\t")


def _not_distributions(levels: NDArray[Any]) -> str | None:
    """What is wrong with rows that should be level probabilities; None where nothing is."""
    if levels.ndim != 2 or levels.shape[1] != LEVELS:
        return f"shape {levels.shape} where (rows, {LEVELS}) is needed"
    sums = levels.sum(axis=1)
    bad = ~((np.abs(sums - 1) <= TOLERANCE) & (levels >= 0).all(axis=1))
    if not bad.any():
        return None
    row = int(bad.argmax())
    return f"row {row} is {levels[row].tolist()}, which adds up to {sums[row]:.4g}; {int(bad.sum())} of {len(bad)} rows are no distributions"
