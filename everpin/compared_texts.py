"""What two models are compared on: pins and queries of the shipped sample, of a file, or of a folder of the cxc layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from everpin.comparing import Text
from everpin.demo import SAMPLE
from everpin.evaluation import Query, read_queries
from everpin.importers import BadRow, PinRow, read_cxc, read_jsonl
from pins.errors import EverpinError
from pins.features import PinFeatures, pin_features
from pins.text import render


def sample_pins() -> list[Text]:
    """The shipped pins."""
    return _pins(read_jsonl(SAMPLE / "pins.jsonl"))


def sample_queries() -> list[Text]:
    """What led people to the shipped pins, each query once, in the language of its first pin."""
    queries = {query: row.lang or "?" for row in _rows(read_jsonl(SAMPLE / "pins.jsonl")) for query in sorted(row.engaged_queries)}
    return [Text(query, query, lang, query) for query, lang in queries.items()]


def cxc_pins(folder: Path) -> list[Text]:
    """The pins of a folder. Raises EverpinError."""
    try:
        return _pins(read_cxc(folder))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise EverpinError(f"cannot read {folder}: {error}; expected items.parquet, queries.parquet and judgements.parquet") from error


def cxc_queries(folder: Path) -> tuple[list[Text], list[Query]]:
    """The queries of a folder, `dev` where it has one, and what people judged of them. Raises EverpinError."""
    judged = read_queries(folder, None)
    return [Text(query.group, query.text, query.lang, query.text) for query in judged], judged


def file_queries(path: Path) -> list[Text]:
    """One query a line: plain text, or a JSON object with `query` and `lang`. Raises EverpinError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise EverpinError(f"--queries {path} cannot be read: {error}") from error
    found = [query for number, line in enumerate(lines, start=1) if line.strip() and (query := _query(path, number, line.strip()))]
    if not found:
        raise EverpinError(f'--queries {path} holds no query; write one a line, as text or as {{"query": "red chair", "lang": "en"}}')
    return found


def _query(path: Path, number: int, line: str) -> Text:
    if not line.startswith("{"):
        return Text(line, line, "?", line)
    try:
        body = json.loads(line)
        text = str(body["query"])
    except (ValueError, KeyError) as error:
        raise EverpinError(f'--queries {path}, line {number}: {error!r}; write plain text, or {{"query": "red chair", "lang": "en"}}') from error
    return Text(text, text, str(body.get("lang") or "?"), text)


def _pins(rows: Iterable[PinRow | BadRow]) -> list[Text]:
    """Pins that have a text; the others have no vector in any index."""
    rendered = [(row, render(_features(row)).text) for row in _rows(rows)]
    return [Text(row.pin_id, row.title or text[:60], row.lang or "?", text) for row, text in rendered if text]


def _rows(rows: Iterable[PinRow | BadRow]) -> Iterator[PinRow]:
    return (row for row in rows if isinstance(row, PinRow))


def _features(row: PinRow) -> PinFeatures:
    values = {name: value for feature in row.rows(0) for name, value in feature.values.items()}
    return pin_features(row.pin_id, values, {})
