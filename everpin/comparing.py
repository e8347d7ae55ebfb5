"""Two students side by side on one set of queries and pins: what they find, how they score, and which answers change most.

Every pin is scored exactly, without an index, so a difference is the models' own. The first model is the old one, the second the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pins.metrics import bootstrap
from pins.ports import Vector
from pins.relevance import OrdinalHead

K = 10
CHUNK = 256
"""Texts that are encoded between two steps of a progress bar."""
BLOCK = 2**24
"""Scores held at once: 64 MB of float32."""
SAMPLED = 200
"""Pins per query whose scores make the distribution over all pairs."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Floats = NDArray[np.float64]


class Student(Protocol):
    """What is compared: an encoder with its head."""

    @property
    def model_id(self) -> str: ...

    @property
    def ordinal_head(self) -> OrdinalHead: ...

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 of shape (len(texts), dimension)."""


@dataclass(frozen=True, slots=True)
class Text:
    """A pin's rendered text or a query. `name` is the pin's id, or the query's group of the bootstrap; `title` is what a person is shown."""

    name: str
    title: str
    lang: str
    text: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """One model's vectors of the pins and of the queries, float32 of shape (n, dimension), and its head."""

    model_id: str
    head: OrdinalHead
    pins: Vector
    queries: Vector


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model answers. `pins` int64 and `cosines` float32 of shape (queries, k), best first; `sampled` cosines of (queries, s) random pins."""

    model_id: str
    head: OrdinalHead
    pins: NDArray[np.int64]
    cosines: Vector
    sampled: Vector


def encoded(student: Student, queries: Sequence[Text], pins: Sequence[Text], step: Callable[[int], None] = lambda n: None) -> Encoded:
    """Encode pins and queries; `step` hears how many texts are done."""
    return Encoded(student.model_id, student.ordinal_head, _vectors(student, pins, step), _vectors(student, queries, step))


def answers(found: Encoded) -> Answers:
    """Rank all pins for each query; ties by the pin's place."""
    queries, pins = len(found.queries), len(found.pins)
    k, sample = min(K, pins), np.random.default_rng(0).integers(pins, size=(queries, min(SAMPLED, pins)))  # the same pins for both models
    places, cosines, sampled = np.empty((queries, k), np.int64), np.empty((queries, k), np.float32), np.empty(sample.shape, np.float32)
    rows = max(1, BLOCK // pins)
    for start in range(0, queries, rows):
        some = slice(start, start + rows)
        scores = found.queries[some] @ found.pins.T
        places[some] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        cosines[some] = np.take_along_axis(scores, places[some], axis=1)
        sampled[some] = np.take_along_axis(scores, sample[some], axis=1)
    return Answers(found.model_id, found.head, places, cosines, sampled)


def _vectors(student: Student, texts: Sequence[Text], step: Callable[[int], None]) -> Vector:
    parts = []
    for start in range(0, len(texts), CHUNK):
        some = [text.text for text in texts[start : start + CHUNK]]
        parts.append(student.encode(some))
        step(len(some))
    return np.concatenate(parts)


def compared(old: Answers, new: Answers, queries: Sequence[Text], pins: Sequence[Text], changed: int = 10) -> dict[str, Any]:
    """Overlap, shift of scores, and the `changed` queries whose answers change most."""
    overlaps = overlap(old.pins, new.pins)
    return {
        "models": [old.model_id, new.model_id],
        "queries": len(queries),
        "pins": len(pins),
        f"overlap@{K}": _overlaps(overlaps, queries),
        "scores": _scores(old, new),
        "changed": list(_changed(old, new, overlaps, queries, pins, changed)),
    }


def overlap(old: NDArray[np.int64], new: NDArray[np.int64]) -> Floats:
    """Share of each row's entries that are in both, in any order: (queries, k) twice to (queries,)."""
    return np.array([len(np.intersect1d(one, other)) / len(one) for one, other in zip(old, new, strict=True)])


def _overlaps(overlaps: Floats, queries: Sequence[Text]) -> dict[str, Any]:
    langs = np.array([query.lang for query in queries])
    found = bootstrap(overlaps.tolist(), [query.name for query in queries])
    counts = np.bincount(np.rint(overlaps * K).astype(int), minlength=K + 1)
    return asdict(found) | {
        "sd": float(overlaps.std()),
        "quantiles": {f"p{round(q * 100)}": float(np.quantile(overlaps, q)) for q in QUANTILES},
        "histogram": {f"{shared / K:.1f}": int(count) for shared, count in enumerate(counts)},
        "languages": {str(lang): {"mean": float(overlaps[langs == lang].mean()), "queries": int((langs == lang).sum())} for lang in np.unique(langs)},
    }


def _scores(old: Answers, new: Answers) -> dict[str, Any]:
    """Of the pins that are found, and of random pairs: cosines, which two models scale differently, and expected relevance, which they share."""
    drawn = {f"top{K}": (old.cosines.ravel(), new.cosines.ravel()), "random": (old.sampled.ravel(), new.sampled.ravel())}
    return {
        "cosine": {name: shift(*pair) for name, pair in drawn.items()},
        "expected_relevance": {name: shift(old.head.expected(one), new.head.expected(other)) for name, (one, other) in drawn.items()},
    }


def shift(old: NDArray[Any], new: NDArray[Any]) -> dict[str, Any]:
    """Mean and standard deviation of both, [old, new], and the largest distance of their distribution functions (Kolmogorov-Smirnov)."""
    return {"mean": [float(old.mean()), float(new.mean())], "sd": [float(old.std()), float(new.std())], "ks": kolmogorov_smirnov(old, new)}


def kolmogorov_smirnov(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The two-sample statistic: the largest difference of the empirical distribution functions, 0 to 1 (Hodges 1958)."""
    everything = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(values), everything, side="right") / len(values) for values in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def _changed(old: Answers, new: Answers, overlaps: Floats, queries: Sequence[Text], pins: Sequence[Text], most: int) -> Iterator[dict[str, Any]]:
    """Least overlap first; among equals, those whose answers' expected relevance moved furthest."""
    gained = new.head.expected(new.cosines).mean(axis=1) - old.head.expected(old.cosines).mean(axis=1)
    for row in np.lexsort((-np.abs(gained), overlaps))[:most]:
        yield {
            "query": queries[row].text,
            "lang": queries[row].lang,
            "overlap": float(overlaps[row]),
            "relevance_gained": float(gained[row]),
            "old": _shown(old, row, pins),
            "new": _shown(new, row, pins),
        }


def _shown(found: Answers, row: int, pins: Sequence[Text]) -> list[dict[str, Any]]:
    expected = found.head.expected(found.cosines[row])
    return [
        {"pin_id": pins[place].name, "title": pins[place].title, "lang": pins[place].lang, "cosine": float(cosine), "relevance": float(relevance)}
        for place, cosine, relevance in zip(found.pins[row], found.cosines[row], expected, strict=True)
    ]
