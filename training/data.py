"""Data folders as training and evaluation read them: pins, queries, graded pairs, direct text ratings. Reading only.

A folder holds items.parquet (item_id, and of lang, title, description, caption, category, extra what it has), queries.parquet
(query_id, query, and group, lang, split), judgements.parquet (query_id, item_id, grade, and raw, source) and may hold
extra_text_pairs.parquet (text, item_id, grade, raw). Grades start at 0; how many levels there are is the folder's own scale:
scales of two folders are never pooled. Bad data is refused with what to change, before any training starts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pins.features import PinFeatures

OWN = ("own", "sits_own")
"""Sources of judgements that pair a query with the pin it was written for: an easy known-item hit."""
LEVELS = {"cxc_pins": 5, "esci_fraction": 4, "commons": 3}
"""Levels of the scales that are known by the folder's name; any other folder: its highest grade and one."""
MAX_LEVELS = 5
TEXTS = frozenset({"query_id", "item_id", "group", "split", "query", "text", "title", "description", "caption", "category", "extra", "lang", "source"})
"""Columns that hold strings."""


class DataError(SystemExit):
    """The data cannot be used; the message says which value and what to change. Ends a command with exit code 1."""


@dataclass(frozen=True, slots=True)
class Query:
    """One query. Queries of one `group` share their subject, and so their ratings: resample whole groups."""

    query_id: str
    group: str
    lang: str
    text: str
    split: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """Graded (query, pin) pairs, one row each.

    `query` and `pin`: int64 indices into the folder's queries and pins. `grade`: int64 from 0. `raw`: float32, the grade before
    it was rounded, NaN where the folder has none. `group`, `lang`, `source`: str. All of one length.
    """

    query: NDArray[np.int64]
    pin: NDArray[np.int64]
    grade: NDArray[np.int64]
    raw: NDArray[np.float32]
    group: NDArray[np.str_]
    lang: NDArray[np.str_]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.grade)

    @property
    def own(self) -> NDArray[np.bool_]:
        """True where a query meets the pin that it was written for."""
        return np.isin(self.source, OWN)

    def where(self, keep: NDArray[Any]) -> Pairs:
        """The rows that a boolean mask or indices choose."""
        return Pairs(*(getattr(self, name)[keep] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class DirectRating:
    """A text that a person compared with a pin directly: training only, since the text is also the text of some pin."""

    text: str
    pin: int
    grade: int
    raw: float


@dataclass(frozen=True)
class RelevanceData:
    """One folder. `levels` is its scale, `digest` the sha256 over its files, for a model's lineage."""

    folder: Path
    pins: Sequence[PinFeatures]
    queries: Sequence[Query]
    judged: Pairs
    direct: Sequence[DirectRating]
    levels: int
    digest: str
    _splits: NDArray[np.str_] = field(repr=False)

    def pairs(self, split: str = "all", languages: Collection[str] | None = None) -> Pairs:
        """The pairs of a split (`train`, `dev`, `all`, ...) and of some languages. Raises DataError when there are none.

        `train` leaves out every row whose pin is some dev query's own pin: a rating of two images appears in both directions, so
        those rows carry dev's ratings into training.
        """
        if split != "all" and split not in self.splits:
            raise DataError(f"{self.folder} has no split {split!r}; it has {', '.join(self.splits)} and all")
        keep = np.ones(len(self.judged), bool) if split == "all" else self._splits[self.judged.query] == split
        if split == "train":
            keep &= ~np.isin(self.judged.pin, self.dev_pins)
        if languages is not None:
            keep &= np.isin(self.judged.lang, list(languages))
        if not keep.any():
            raise DataError(f"split {split!r} of {self.folder} has no judgement in {sorted(languages or {'any language'})}; nothing can be learnt or measured")
        return self.judged.where(keep)

    @property
    def splits(self) -> list[str]:
        """The splits that occur."""
        return sorted(set(self._splits.tolist()))

    @cached_property
    def dev_pins(self) -> NDArray[np.int64]:
        """Pins for which a dev query was written."""
        return np.unique(self.judged.pin[self.judged.own & (self._splits[self.judged.query] == "dev")])

    def direct_for_training(self) -> list[DirectRating]:
        """Direct ratings that touch no dev query's own pin, by their pin or by their text."""
        dev = set(self.dev_pins.tolist())
        texts = {part for pin in dev for part in _texts(self.pins[pin])}
        return [rating for rating in self.direct if rating.pin not in dev and rating.text not in texts]


def read(folder: Path, levels: int | None = None) -> RelevanceData:
    """Read and check a folder. Raises DataError that names the file, the value and what to change."""
    items = _rows(folder, "items.parquet", ("item_id",))
    raw_queries = _rows(folder, "queries.parquet", ("query_id", "query"))
    rows = _rows(folder, "judgements.parquet", ("query_id", "item_id", "grade"))
    extra = _rows(folder, "extra_text_pairs.parquet", ("text", "item_id", "grade")) if (folder / "extra_text_pairs.parquet").exists() else []
    queries = [
        Query(row["query_id"], row.get("group") or row["query_id"], row.get("lang") or "?", row["query"], row.get("split") or "all") for row in raw_queries
    ]
    pins = [_pin(row) for row in items]
    place = _places([pin.pin_id for pin in pins], folder / "items.parquet", "item_id")
    asked = _places([query.query_id for query in queries], folder / "queries.parquet", "query_id")
    _known(rows, "query_id", asked, folder / "judgements.parquet")
    _known([*rows, *extra], "item_id", place, folder)
    scale = _scale([*rows, *extra], levels or LEVELS.get(folder.name), folder)
    judged = _pairs(rows, queries, asked, place)
    direct = [DirectRating(row["text"], place[row["item_id"]], int(row["grade"]), _number(row.get("raw"))) for row in extra]
    splits = np.array([query.split for query in queries])
    return RelevanceData(folder, pins, queries, judged, direct, scale, digest(folder), splits)


def digest(folder: Path) -> str:
    """sha256 over the names and bytes of a folder's parquet files, in order of name."""
    total = sha256()
    for path in sorted(folder.glob("*.parquet")):
        total.update(path.name.encode())
        total.update(sha256(path.read_bytes()).digest())
    return total.hexdigest()


def fields_kept(pin: PinFeatures, names: Collection[str]) -> PinFeatures:
    """The pin with only these fields of `PinFeatures`, for ablations."""
    blank: dict[str, Any] = {name: nothing for name, nothing in _TEXT_FIELDS.items() if name not in names}
    return replace(pin, **blank)


_TEXT_FIELDS: dict[str, Any] = dict.fromkeys(("title", "description", "caption", "link_title", "link_description"), "") | {
    "board_titles": (),
    "engaged_queries": (),
}


def _pin(row: dict[str, Any]) -> PinFeatures:
    texts = {name: row.get(name) or "" for name in ("title", "description", "caption", "category", "lang")}
    return PinFeatures(row["item_id"], link_description=row.get("extra") or "", **texts)


def _texts(pin: PinFeatures) -> list[str]:
    return [text for text in (pin.title, pin.description, pin.caption, pin.link_description) if text]


def _pairs(rows: list[dict[str, Any]], queries: Sequence[Query], asked: dict[str, int], place: dict[str, int]) -> Pairs:
    numbers = [asked[row["query_id"]] for row in rows]
    return Pairs(
        np.array(numbers, np.int64),
        np.array([place[row["item_id"]] for row in rows], np.int64),
        np.array([row["grade"] for row in rows], np.int64),
        np.array([_number(row.get("raw")) for row in rows], np.float32),
        np.array([queries[number].group for number in numbers], np.str_),
        np.array([queries[number].lang for number in numbers], np.str_),
        np.array([row.get("source") or "" for row in rows], np.str_),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _rows(folder: Path, name: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    path = folder / name
    if not path.exists():
        raise DataError(f"{path} does not exist; give the folder that holds items.parquet, queries.parquet and judgements.parquet")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}; copy it again") from error
    missing = [column for column in needed if column not in table.column_names]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(table.column_names)}")
    empty = [column for column in needed if table[column].null_count]
    if empty or not len(table):
        raise DataError(f"{path}: {'column ' + ', '.join(empty) + ' holds nulls' if empty else 'no rows'}; every row needs {', '.join(needed)}")
    numbers = [f"{column} is {table.schema.field(column).type}" for column in table.column_names if column in TEXTS and _holds_numbers(table[column])]
    if numbers:
        raise DataError(f"{path}: {', '.join(numbers)}; ids and texts must be strings")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _holds_numbers(column: pa.ChunkedArray) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind))


def _places(ids: list[str], path: Path, column: str) -> dict[str, int]:
    places = {key: number for number, key in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(key for number, key in enumerate(ids) if places[key] != number)
        raise DataError(f"{path}: {column} {twice!r} occurs twice; ids must be unique")
    return places


def _known(rows: list[dict[str, Any]], column: str, known: Collection[str], where: Path) -> None:
    strange = sorted({row[column] for row in rows} - set(known))
    if strange:
        raise DataError(f"{where}: {len(strange)} unknown {column}, first {strange[0]!r}; every judged id must be in its own table")


def _scale(rows: list[dict[str, Any]], levels: int | None, folder: Path) -> int:
    """How many levels there are: as given, else the highest grade and one."""
    if levels is not None and not 2 <= levels <= MAX_LEVELS:
        raise DataError(f"{folder}: {levels} levels; grades need 2 to {MAX_LEVELS} levels, 0 being the lowest (a single class teaches nothing)")
    bad = next((row for row in rows if not _is_grade(row["grade"], levels or MAX_LEVELS)), None)
    if bad is not None:
        raise DataError(f"{folder}: grade {bad['grade']!r} of item {bad['item_id']!r} is off the scale of whole grades 0 to {(levels or MAX_LEVELS) - 1}")
    if len({row["grade"] for row in rows}) < 2:
        raise DataError(f"{folder}: every judgement has grade {rows[0]['grade']}; a single class teaches nothing")
    return levels or 1 + max(int(row["grade"]) for row in rows)


def _is_grade(value: object, levels: int) -> bool:
    return isinstance(value, (int, float)) and float(value).is_integer() and 0 <= value < levels
