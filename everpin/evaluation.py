"""`everpin evaluate`: scores the vectors that are in the index against human judgements.

Re-ranks each query's judged candidates by the cosine of the live model's query vector to the vectors that the stream wrote,
so a path that damages vectors shows as lost nDCG. Intervals are 95 % bootstrap over query groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from pins.errors import EverpinError
from pins.metrics import Difference, Interval, bootstrap, ndcg, paired_bootstrap, precision, rank
from pins.ports import Vector

OWN_PIN = {"own", "sits_own"}
"""Judgement sources that pair a query with the pin it was written for: an easy known-item hit."""
RELEVANT_GRADE = 3
"""P@8 counts grades of at least this, on the 0-4 scale."""
METRICS = ("ndcg@10", "ndcg@20", "p@8")
CHUNK = 512


class Student(Protocol):
    """What encodes the queries."""

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 of shape (len(texts), dimension)."""


class Scored(Protocol):
    """Where the vectors are that are scored: an index, or vectors that are held."""

    @property
    def model_id(self) -> str: ...

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        """Vectors of pins; a pin without one is absent."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query and its judged candidates."""

    query_id: str
    group: str
    lang: str
    text: str
    candidates: tuple[tuple[str, float, str], ...]


def read_queries(folder: Path, split: str | None) -> list[Query]:
    """Queries of a folder of the cxc layout. `split` None: `dev` where the folder has one, else all. Raises EverpinError."""
    try:
        queries = pq.read_table(folder / "queries.parquet").to_pylist()
        judgements = pq.read_table(folder / "judgements.parquet").to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise EverpinError(f"cannot read {folder}: {error}; expected queries.parquet and judgements.parquet") from error
    splits = {query.get("split") for query in queries}
    chosen = split or ("dev" if "dev" in splits else "all")
    if chosen != "all" and chosen not in splits:
        raise EverpinError(f"{folder} has no split {chosen!r}; it has {sorted(map(str, splits))}")
    candidates: dict[str, list[tuple[str, float, str]]] = defaultdict(list)
    for row in judgements:
        candidates[row["query_id"]].append((row["item_id"], float(row["grade"]), row.get("source") or ""))
    return [
        Query(row["query_id"], row.get("group") or row["query_id"], row.get("lang") or "?", row["query"], tuple(candidates[row["query_id"]]))
        for row in queries
        if chosen in ("all", row.get("split")) and candidates[row["query_id"]]
    ]


@dataclass(frozen=True, slots=True)
class Scores:
    """What one model gives to the candidates of each query, in their order, by query id, and how many candidate pins had no vector.

    A candidate without a vector has a score below every cosine, so it ranks last.
    """

    model_id: str
    by_query: Mapping[str, Sequence[float]]
    missing_pins: int


def evaluate(queries: Sequence[Query], encoder: Student, index: Scored, step: Callable[[int], None] = lambda n: None) -> dict[str, Any]:
    """Figures of every query; `step` hears how many are done. Candidates without a vector rank last and are counted."""
    return summary(queries, score(queries, encoder, index, step))


def score(queries: Sequence[Query], encoder: Student, index: Scored, step: Callable[[int], None] = lambda n: None) -> Scores:
    """Score the candidates of every query; `step` hears how many queries are done."""
    vectors = _vectors(index, sorted({pin_id for query in queries for pin_id, _, _ in query.candidates}))
    missing = {pin_id for query in queries for pin_id, _, _ in query.candidates} - vectors.keys()
    scores: dict[str, Sequence[float]] = {}
    for start in range(0, len(queries), CHUNK):
        some = queries[start : start + CHUNK]
        for query, vector in zip(some, encoder.encode([query.text for query in some]), strict=True):
            scores[query.query_id] = [float(vectors[pin_id] @ vector) if pin_id in vectors else -2.0 for pin_id, _, _ in query.candidates]
        step(len(some))
    return Scores(index.model_id, scores, len(missing))


def summary(queries: Sequence[Query], scores: Scores) -> dict[str, Any]:
    """The figures of one model's scores, by language, with their intervals."""
    return {
        "model_id": scores.model_id,
        "queries": len(queries),
        "missing_pins": scores.missing_pins,
        "languages": _languages(queries, scores.by_query, own=True),
        "languages_without_own_pin": _languages(queries, scores.by_query, own=False),
    }


def paired(queries: Sequence[Query], first: Scores, second: Scores) -> dict[str, dict[str, Difference]]:
    """By language and metric: what the first model has more than the second on the same queries, with the own pin in."""
    apart = {}
    for lang, some in _by_language(queries).items():
        sides = [[_measure(query, side.by_query[query.query_id], own=True) for query in some] for side in (first, second)]
        told = [(query.group, one, other) for query, one, other in zip(some, *sides, strict=True) if one]
        if told:
            groups = [group for group, _, _ in told]
            apart[lang] = {metric: paired_bootstrap([one[metric] for _, one, _ in told], [other[metric] for _, _, other in told], groups) for metric in METRICS}
    return apart


def _vectors(index: Scored, pin_ids: Sequence[str]) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for start in range(0, len(pin_ids), CHUNK):
        found |= index.vectors(pin_ids[start : start + CHUNK])
    return found


def _languages(queries: Sequence[Query], scores: Mapping[str, Sequence[float]], *, own: bool) -> dict[str, dict[str, Any]]:
    languages = {}
    for lang, some in _by_language(queries).items():
        measured = {query: _measure(query, scores[query.query_id], own=own) for query in some}
        scored = [(query.group, values) for query, values in measured.items() if values]
        if not scored:
            continue  # no query of this language has a gain: nothing can be said of it
        languages[lang] = {metric: asdict(_interval([(values[metric], group) for group, values in scored])) for metric in METRICS} | {"queries": len(scored)}
    return languages


def _by_language(queries: Sequence[Query]) -> dict[str, list[Query]]:
    by_language: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        by_language[query.lang].append(query)
    return dict(sorted(by_language.items()))


def _measure(query: Query, scores: Sequence[float], *, own: bool) -> dict[str, float]:
    """The metrics of one query; empty where no candidate has a gain, which can tell nothing."""
    kept = [(candidate, score) for candidate, score in zip(query.candidates, scores, strict=True) if own or candidate[2] not in OWN_PIN]
    order = rank([candidate[0] for candidate, _ in kept], [score for _, score in kept], query.query_id)
    grades = [kept[position][0][1] for position in order]
    if not any(grade > 0 for grade in grades):
        return {}
    return {"ndcg@10": ndcg(grades, 10), "ndcg@20": ndcg(grades, 20), "p@8": precision(grades, 8, RELEVANT_GRADE)}


def _interval(values: Sequence[tuple[float, str]]) -> Interval:
    return bootstrap(np.array([value for value, _ in values]).tolist(), [group for _, group in values])
