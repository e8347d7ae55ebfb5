"""The queries that a teacher labels: train queries of a data folder and search logs, checked, without repeats, stratified.

Never labelled: a query outside the folder's train split, or any text that equals one after normalisation, whether the student
or only the teacher would read it. A log is a parquet file with columns text, lang, source (and count, how often it was asked), or
one of aligned text with en, xx, source, whose name is the language of xx.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.corpora import CLASSES, OPEN
from training.data import DataError, Query, RelevanceData
from training.labels.candidates import ENGLISH, Asked, lot

BANDS = ("head", "torso", "tail")


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """One query. The student learns `text` in `lang`; the teacher reads `asked`: the same text, or English that stands for it.

    `source`: the log's source, or the folder's name; `query_id`: None for a query of a log; `count`: how often it was asked, 0
    where the log does not say.
    """

    text: str
    lang: str
    asked: Asked
    source: str
    query_id: str | None = None
    count: int = 0

    @property
    def in_english(self) -> bool:
        """Whether the teacher reads English, be it the query's own or what stands for it."""
        return self.asked.lang in ENGLISH

    @property
    def logged(self) -> bool:
        """Whether it comes from a log, not from the data folder."""
        return self.query_id is None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which queries are taken: licence classes and, where not None, languages and sources of logs.

    `through_english`: queries of other languages are read by the teacher through English, and left out where none stands for
    them. `train_queries`: the folder's own train queries are labelled too.
    """

    licences: tuple[str, ...] = OPEN
    languages: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None
    through_english: bool = False
    train_queries: bool = True

    def __post_init__(self) -> None:
        if strange := set(self.licences) - set(CLASSES):
            raise DataError(f"--licences: {', '.join(sorted(strange))} is no licence class; choose from {', '.join(CLASSES)}")


@dataclass(frozen=True, slots=True)
class Pool:
    """Distinct queries, the folder's first, and how many rows were left out for which reason."""

    queries: list[LabelQuery]
    dropped: dict[str, int]


def gather(data: RelevanceData, logs: Sequence[Path], classes: Mapping[str, str], wanted: Wanted) -> Pool:
    """All queries that may be labelled. `classes`: licence class by source. Raises DataError where nothing is left."""
    if strange := set(wanted.sources or ()) - classes.keys():
        raise DataError(f"--only-sources: {', '.join(sorted(strange))} is in no list of sources; known are {', '.join(sorted(classes))}")
    held_out = {normalised(query.text) for query in data.queries if query.split != "train"}
    dropped: Counter[str] = Counter()
    kept: dict[tuple[str, str], LabelQuery] = {}
    for query in _rows(data, logs, classes, wanted):
        reason = _refusal(query, held_out, classes, wanted)
        place = query.lang, normalised(query.text)
        if reason is None and place in kept:
            kept[place] = _merged(kept[place], query)
            reason = "repeated"
        if reason is None:
            kept[place] = query
        else:
            dropped[reason] += 1
    queries = [query for query in kept.values() if query.in_english or not wanted.through_english]
    dropped["without an English side"] += len(kept) - len(queries)
    if not queries:
        raise DataError(f"no query is left to label; left out: {dict(+dropped) or 'none, there were none'}")
    return Pool(queries, dict(sorted((+dropped).items())))


def normalised(text: str) -> str:
    """Letters and digits only, NFKC, case folded: texts that agree in this count as equal."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())))


def licence_classes(path: Path) -> dict[str, str]:
    """Licence class (`cls`) of every source of a sources.json. Raises DataError."""
    try:
        return {name: str(entry["cls"]) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is no list of sources: {error!r}; it needs {{"source": {{"cls": "open"}}, ...}}') from error


def popularity(queries: Sequence[LabelQuery], found: NDArray[np.int64]) -> NDArray[np.str_]:
    """The band of each query among those of its language: head, torso or tail.

    With counts, by traffic: the most asked queries that together make a third of it are the head, those of the next third the
    torso. Without, by `found`, the number of pins that share a term with the query: thirds of the queries, and one that finds
    none is tail. Equal queries share a band: that of the middle one among them.
    """
    bands = np.full(len(queries), "tail", dtype="<U5")
    strata: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        strata[query.lang, query.count > 0].append(number)
    for (_, counted), places in strata.items():
        counts = np.array([queries[place].count for place in places]) if counted else found[places]
        bands[places] = _thirds(counts, counts if counted else np.sign(counts))
    return bands


def choose(queries: Sequence[LabelQuery], bands: NDArray[np.str_], limit: int | None, seed: int) -> list[int]:
    """Places of at most `limit` queries, as many of each language and band as of any other while they last.

    The folder's own queries come before those of logs. They are returned in an order drawn by the seed, so that any first part
    is a random sample, with queries that the teacher reads alike side by side.
    """
    luck = [lot(seed, query.asked.text) for query in queries]
    order = sorted(range(len(queries)), key=lambda place: (luck[place], queries[place].lang, queries[place].text))
    taken: Counter[tuple[bool, str, str]] = Counter()
    ranked = []
    for place in order:
        stratum = queries[place].logged, queries[place].lang, str(bands[place])
        ranked.append((stratum[0], taken[stratum], luck[place], place))
        taken[stratum] += 1
    chosen = {place for *_, place in sorted(ranked)[:limit]}
    return [place for place in order if place in chosen]


def _thirds(values: NDArray[np.int64], weight: NDArray[np.int64]) -> NDArray[np.str_]:
    """Bands by the share of the whole weight that lies above a value, its equals counted half. No weight: tail."""
    _, place = np.unique(values, return_inverse=True)
    weights = np.bincount(place, weight)
    above = weights.sum() - weights.cumsum()
    share = ((above + weights / 2) / max(weights.sum(), 1))[place]
    return np.where(weight == 0, "tail", np.where(share <= 1 / 3, "head", np.where(share <= 2 / 3, "torso", "tail")))


def _refusal(query: LabelQuery, held_out: set[str], classes: Mapping[str, str], wanted: Wanted) -> str | None:
    """Why a query is left out; None where it may be labelled."""
    if query.logged and classes[query.source] not in wanted.licences:
        return f"licence class {classes[query.source]}"
    if query.logged and wanted.sources is not None and query.source not in wanted.sources:
        return "other source"
    if wanted.languages is not None and query.lang not in wanted.languages:
        return "other language"
    if not normalised(query.text) or not normalised(query.asked.text):
        return "no letter or digit"
    if {normalised(query.text), normalised(query.asked.text)} & held_out:
        return "equal to a held-out query"
    return None


def _merged(first: LabelQuery, second: LabelQuery) -> LabelQuery:
    """Two rows of one text: counts are added, and English that one of them knows serves."""
    asked = first.asked if first.in_english or not second.in_english else replace(first.asked, text=second.asked.text, lang="en")
    return replace(first, asked=asked, count=first.count + second.count)


def _rows(data: RelevanceData, logs: Sequence[Path], classes: Mapping[str, str], wanted: Wanted) -> Iterator[LabelQuery]:
    if wanted.train_queries:
        yield from _train_queries(data, wanted.through_english)
    for path in logs:
        yield from _log(path, classes, wanted.through_english)


def _train_queries(data: RelevanceData, through_english: bool) -> Iterator[LabelQuery]:
    """The train queries, each with its judged pins; their English is the English query of the same group (the same photo)."""
    pairs = data.pairs("train")
    judged: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for query, pin, own in zip(pairs.query.tolist(), pairs.pin.tolist(), pairs.own.tolist(), strict=True):
        judged[query, own].append(pin)
    english: dict[str, Query] = {}
    for query in data.queries:
        if query.lang == "en" and query.split == "train":
            english.setdefault(query.group, query)
    for number, query in enumerate(data.queries):
        if query.split == "train":
            read = english.get(query.group, query) if through_english and query.lang not in ENGLISH else query
            asked = Asked(read.text, read.lang, tuple(judged[number, True]), tuple(judged[number, False]))
            yield LabelQuery(query.text, query.lang, asked, data.folder.name, query.query_id)


def _log(path: Path, classes: Mapping[str, str], through_english: bool) -> Iterator[LabelQuery]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    columns = set(table.column_names)
    aligned = {"en", "xx", "source"} <= columns
    if not aligned and not {"text", "lang", "source"} <= columns:
        raise DataError(f"{path} is no search log: it has columns {', '.join(table.column_names)}, and needs text, lang, source, or en, xx, source")
    unknown = sorted(set(table["source"].to_pylist()) - classes.keys(), key=str)
    if unknown:
        raise DataError(f"{path}: no licence class for source {unknown[0]!r}; add it to the file given as --sources")
    for batch in table.to_batches():
        for row in batch.to_pylist():
            yield _aligned_row(row, path.stem, through_english) if aligned else _log_row(row, path)


def _log_row(row: dict[str, Any], path: Path) -> LabelQuery:
    text, lang, count = row["text"] or "", row["lang"] or "?", row.get("count") or 0
    if not isinstance(count, int) or count < 0:
        raise DataError(f"{path}: count {count!r} of {text!r}; how often a query was asked is a whole number of at least 0, or null")
    return LabelQuery(text, lang, Asked(text, lang), row["source"], count=count)


def _aligned_row(row: dict[str, Any], lang: str, through_english: bool) -> LabelQuery:
    text, english = row["xx"] or "", row["en"] or ""
    return LabelQuery(text, lang, Asked(english, "en") if through_english and english else Asked(text, lang), row["source"])
