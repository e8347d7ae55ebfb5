"""People's own pins in: JSON lines, parquet, and folders of the `cxc` evaluation layout; and events from a file of JSON lines.

Features go to Feast, an event goes to Kafka, the worker does the rest. A bad row is reported with its line, field and cure,
counted, and never stops the others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from pins.errors import EverpinError, InvalidEvent
from pins.events import PinEvent, decode
from pins.features import INT64_MAX, FeatureRow
from pins.wire import MAX_ID_CHARS

T = TypeVar("T")
BATCH = 256


class PinRow(BaseModel):
    """One pin of an import file. Only `pin_id` is required; a pin without any text is indexed as such."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pin_id: str = Field(min_length=1, max_length=MAX_ID_CHARS, description="the pin's id, stable for ever")
    title: str | None = Field(None, description="title as the author wrote it")
    description: str | None = Field(None, description="description; HTML is removed")
    caption: str | None = Field(None, description="caption of the image, by a person or a model")
    caption_model: str | None = Field(None, description="name of the model that wrote the caption; absent for a person's")
    board_titles: list[str] = Field([], description="titles of boards it is saved to; a repeated title counts twice")
    engaged_queries: dict[str, FiniteFloat] = Field({}, description="queries that led to engagement, with their counts (a list counts 1 each)")
    link_title: str | None = Field(None, description="title of the linked page")
    link_description: str | None = Field(None, description="description of the linked page")
    link_url: str | None = Field(None, description="address of the linked page")
    image_url: str | None = Field(None, description="address of the image")
    category: str | None = Field(None, description="category, for filters")
    lang: str | None = Field(None, description="language code such as en, for filters")
    created_at: datetime | None = Field(None, description="ISO 8601 time; without an offset it is UTC")
    save_count: int | None = Field(None, ge=0, le=INT64_MAX, description="number of saves")
    like_count: int | None = Field(None, ge=0, le=INT64_MAX, description="number of likes")

    @field_validator("pin_id")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("blank")
        return value

    @field_validator("engaged_queries", mode="before")
    @classmethod
    def _counted(cls, value: Any) -> Any:
        if value is None:
            return {}
        return dict.fromkeys(value, 1.0) if isinstance(value, list) and all(isinstance(query, str) for query in value) else value

    @field_validator("board_titles", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [] if value is None else value

    def rows(self, event_time_us: int) -> list[FeatureRow]:
        """The feature rows of this pin, valid from `event_time_us` (epoch microseconds)."""
        created = self.created_at and (self.created_at if self.created_at.tzinfo else self.created_at.replace(tzinfo=UTC))
        content = self.model_dump(include={"title", "description", "link_title", "link_description", "link_url", "image_url", "category", "lang"})
        values: Mapping[str, Mapping[str, Any]] = {
            "pin_content": content | {"created_at_us": int(created.timestamp() * 1e6) if created else None},
            "pin_caption": {"caption": self.caption, "caption_model": self.caption_model},
            "pin_boards": {"board_titles": self.board_titles},
            "pin_engagement": {
                "engaged_queries": list(self.engaged_queries),
                "engaged_counts": list(self.engaged_queries.values()),
                "save_count": self.save_count,
                "like_count": self.like_count,
            },
        }
        return [FeatureRow(view, self.pin_id, event_time_us, row) for view, row in values.items()]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out: its line (or row number, from 1), the field, what is wrong and what to write instead."""

    line: int
    field: str
    problem: str
    instead: str


def read_jsonl(path: Path) -> Iterator[PinRow | BadRow]:
    """Pins of a JSON lines file; empty lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                body = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield BadRow(number, "(line)", f"not JSON: {error}", 'one JSON object per line, such as {"pin_id": "p1", "title": "Red chair"}')
                continue
            yield parse_row(number, body)


def read_parquet(path: Path) -> Iterator[PinRow | BadRow]:
    """Pins of a parquet file with the same columns; null means absent. A row's line is its number from 1."""
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(BATCH):
        for body in batch.to_pylist():
            number += 1
            if isinstance(queries := body.get("engaged_queries"), list) and queries and all(isinstance(pair, tuple) for pair in queries):
                body["engaged_queries"] = dict(queries)  # a parquet map arrives as pairs
            yield parse_row(number, body)


def read_cxc(folder: Path) -> Iterator[PinRow | BadRow]:
    """Pins of `items.parquet` in a folder of the cxc layout: item_id, lang, title, description, caption, category, extra."""
    names = {"item_id": "pin_id", "extra": "link_description"}
    kept = {"item_id", "extra", "lang", "title", "description", "caption", "category"}
    number = 0
    for batch in pq.ParquetFile(folder / "items.parquet").iter_batches(BATCH):
        for body in batch.to_pylist():
            number += 1
            yield parse_row(number, {names.get(key, key): value for key, value in body.items() if key in kept})


def read_events(path: Path, now_us: int) -> Iterator[PinEvent | BadRow]:
    """Events of a JSON lines file, in the wire form of docs/events.md; empty lines are passed over.

    `now_us` (epoch microseconds) is the time of an event that names none, and what is too far ahead is measured from it.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield decode(None, line, timestamp_us=now_us, now_us=now_us)
            except InvalidEvent as error:
                yield BadRow(number, "(line)", str(error), "one event per line, as docs/events.md shows them")


def parse_row(line: int, body: Any) -> PinRow | BadRow:
    """Validate one row."""
    if not isinstance(body, dict):
        return BadRow(line, "(line)", f"expected an object, got {type(body).__name__}", 'an object such as {"pin_id": "p1", "title": "Red chair"}')
    try:
        return PinRow.model_validate({key: value for key, value in body.items() if value is not None} if None in body.values() else body)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "(line)"
        if first["type"] == "extra_forbidden":
            close = get_close_matches(name, PinRow.model_fields, n=1)
            return BadRow(line, name, "unknown field", f"did you mean {close[0]!r}?" if close else f"one of {', '.join(PinRow.model_fields)}")
        wanted = PinRow.model_fields[name].description or ""
        return BadRow(line, name, f"{first['msg']}, got {first['input']!r:.80}", wanted)


def batches(rows: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The rows in lists of at most `size`."""
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


def count_rows(kind: str, path: Path) -> int:
    """How many rows there are, for a progress bar. Raises EverpinError when the file cannot be read."""
    try:
        if kind == "jsonl":
            with path.open("rb") as file:
                return sum(1 for line in file if line.strip())
        return int(pq.ParquetFile(path / "items.parquet" if kind == "cxc" else path).metadata.num_rows)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise EverpinError(f"cannot read {path}: {error}") from error


READERS = {"cxc": read_cxc, "jsonl": read_jsonl, "parquet": read_parquet}
