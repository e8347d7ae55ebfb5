"""Fits a bridge between two models and measures what it keeps: three systems on the same held-out queries over the same pins, all searched exactly.

| system | query | pins |
|---|---|---|
| old | old model | old collection |
| new | new model | embedded anew: what a whole backfill would give |
| bridged | new model, through the bridge | old collection |

A bridge keeps the share bridged / new of nDCG@20. Pins that nobody judged count as grade 0 in all three.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everpin.bridge_texts import Material, reads
from everpin.comparing import CHUNK, Student, Text, overlap
from everpin.evaluation import Query
from pins.bridge import Map
from pins.bridge_fit import Ranked, Training, fit_levels, fit_procrustes, fit_ranking
from pins.metrics import bootstrap, interval, ndcg, paired_bootstrap, resample
from pins.ports import Vector

KINDS: Mapping[str, Training | None] = {"linear": Training(), "residual": Training(hidden=256), "procrustes": None}
"""What can be fitted: a matrix that learned to rank, the same with a hidden layer beside it, or the rotation alone, which learned nothing of ranks."""
K, SHARED = 20, 10
"""nDCG@20; share of the first 10 that bridged queries have in common with the new model on its own collection."""
LEVEL_TEXTS, LEVEL_DEPTH = 2_000, 50
"""Texts at most, and pins of each, whose cosines correct the levels: those that a search would show."""
TIMED = 2_000
"""Single queries that are timed."""
BLOCK = 256

Floats = NDArray[np.float64]
Step = Callable[[str, int], None]
"""Hears what is going on, and how many of its units are done more."""


@dataclass(frozen=True, slots=True)
class Both:
    """The same texts by both models, float32 of shapes (n, new dimension) and (n, old dimension), in one order."""

    new: Vector
    old: Vector


@dataclass(frozen=True, slots=True)
class Vectors:
    """The material as vectors. `readable`: bool (asked,), whether the old model reads the language of a text, so that its vector of it means anything."""

    pins: Both
    asked: Both
    readable: NDArray[np.bool_]
    searched: Both
    queries: Both


def encode(material: Material, new: Student, old: Student, languages: Sequence[str], step: Callable[[int], None] = lambda n: None) -> Vectors:
    """Everything by both models; `languages` are those that the old one reads. `step` hears how many texts are done, of twice those there are."""
    readable = reads(languages)

    def both(texts: Sequence[str]) -> Both:
        return Both(_encoded(new, texts, step), _encoded(old, texts, step))

    return Vectors(
        pins=both(_texts(material.pins)),
        asked=both(_texts(material.asked)),
        readable=np.array([readable(text) for text in material.asked], np.bool_),
        searched=both(_texts(material.searched)),
        queries=both([query.text for query in material.queries]),
    )


def fitted(kind: str, vectors: Vectors, seed: int = 0, step: Callable[[int], None] = lambda epoch: None) -> Map:
    """A map of a kind of `KINDS`. `step` hears each epoch that is done. Raises ValueError.

    All begin as the rotation that brings pins, and the texts that the old model reads, closest. Ranking is learned from texts in every language.
    """
    new = np.concatenate([vectors.pins.new, vectors.asked.new[vectors.readable]])
    old = np.concatenate([vectors.pins.old, vectors.asked.old[vectors.readable]])
    rotation, training = fit_procrustes(new, old), KINDS[kind]
    if training is None:
        return rotation
    return fit_ranking(rotation, Ranked(vectors.asked.new, vectors.pins.new, vectors.pins.old), training, seed, step)


def levels(map_: Map, vectors: Vectors) -> tuple[float, float]:
    """Slope and intercept of `fit_levels`, from the pins that mapped texts find and those that the old model's own find, in languages it reads."""
    texts = np.flatnonzero(vectors.readable)[:LEVEL_TEXTS]
    sides = map_.apply(vectors.asked.new[texts]), vectors.asked.old[texts]
    mapped, own = (np.take_along_axis(side @ vectors.pins.old.T, nearest(side, vectors.pins.old, LEVEL_DEPTH), axis=1) for side in sides)
    return fit_levels(mapped, own)


def measured(map_: Map, vectors: Vectors, material: Material, languages: Sequence[str]) -> dict[str, Any]:
    """nDCG@20 of the three systems and what the bridge keeps of the new one's, with 95 % bootstrap intervals over groups of queries.

    Over `all` queries, over those in languages that the old model `reads` or not (`unread`), and for each language.
    """
    queries, names = material.queries, [pin.name for pin in material.searched]
    places = {
        "old": nearest(vectors.queries.old, vectors.searched.old, K),
        "new": nearest(vectors.queries.new, vectors.searched.new, K),
        "bridged": nearest(map_.apply(vectors.queries.new), vectors.searched.old, K),
    }
    scores = {
        system: np.array([_ndcg(query, [names[place] for place in row]) for query, row in zip(queries, rows, strict=True)]) for system, rows in places.items()
    }
    shared = overlap(places["new"][:, :SHARED], places["bridged"][:, :SHARED])
    groups = np.array([query.group for query in queries])
    return {name: _part(scores, shared, groups, rows) for name, rows in _parts(queries, languages).items()}


def cost(map_: Map, queries: Vector, rounds: int = TIMED) -> dict[str, float]:
    """Microseconds that the map adds to one query, over single vectors one after another: median, 99th percentile."""
    taken = np.empty(rounds)
    for number in range(rounds):
        one = queries[number % len(queries)]
        started = time.perf_counter_ns()
        map_.apply(one)
        taken[number] = (time.perf_counter_ns() - started) / 1000
    return {"p50": round(float(np.quantile(taken, 0.5)), 1), "p99": round(float(np.quantile(taken, 0.99)), 1)}


def nearest(queries: Vector, pins: Vector, k: int) -> NDArray[np.intp]:
    """Places of the k pins with the highest cosine to each query, best first, ties by place; shape (queries, min(k, pins))."""
    parts = [np.argsort(-(queries[start : start + BLOCK] @ pins.T), axis=1, kind="stable")[:, :k] for start in range(0, len(queries), BLOCK)]
    return np.concatenate(parts) if parts else np.empty((0, min(k, len(pins))), np.intp)


def _part(scores: Mapping[str, Floats], shared: Floats, groups: NDArray[np.str_], rows: NDArray[np.intp]) -> dict[str, Any]:
    mine, names = {system: values[rows] for system, values in scores.items()}, groups[rows].tolist()
    draws = resample(names)
    samples = {system: draws.means(values, names) for system, values in mine.items()}
    means = {system: float(values.mean()) for system, values in mine.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        kept = interval(float(np.float64(means["bridged"]) / means["new"]), samples["bridged"] / samples["new"])
    return {
        "queries": len(rows),
        "ndcg@20": {system: asdict(interval(means[system], samples[system])) for system in mine},
        "kept": asdict(kept),
        "bridged - old": asdict(paired_bootstrap(mine["bridged"].tolist(), mine["old"].tolist(), names)),
        "overlap@10": asdict(bootstrap(shared[rows].tolist(), names)),
    }


def _parts(queries: Sequence[Query], languages: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """Rows of the queries by part; a part without a query is left out."""
    readable = reads(languages)
    read = np.array([readable(Text(query.query_id, "", query.lang, query.text)) for query in queries])
    langs = np.array([query.lang for query in queries])
    parts = {"all": np.ones(len(queries), bool), "read": read, "unread": ~read} | {str(lang): langs == lang for lang in np.unique(langs)}
    return {name: np.flatnonzero(rows) for name, rows in parts.items() if rows.any()}


def _ndcg(query: Query, shown: Sequence[str]) -> float:
    """nDCG@20 of a ranking, against the best ranking of every pin that was judged for the query."""
    grades = {pin_id: grade for pin_id, grade, _ in query.candidates}
    found = [grades.pop(pin_id, 0.0) for pin_id in shown]
    return ndcg([*found, *[0.0] * (K - len(found)), *grades.values()], K)


def _encoded(student: Student, texts: Sequence[str], step: Callable[[int], None]) -> Vector:
    parts = []
    for start in range(0, len(texts), CHUNK):
        parts.append(student.encode(texts[start : start + CHUNK]))
        step(len(parts[-1]))
    return np.concatenate(parts)


def _texts(texts: Sequence[Text]) -> list[str]:
    return [text.text for text in texts]
