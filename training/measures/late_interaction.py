"""Late interaction: a pin is a few vectors, of its whole text and of each field; a query one vector, or several.

The score is MaxSim, as of ColBERT (arXiv 2004.12832) with fields in place of tokens and as Qdrant compares multivectors: each vector
of the query meets the nearest of the pin's, and these similarities are summed. All vectors come from one bi-encoder, which was trained
on whole texts; nothing is learnt here. Measuring is `training.scoring`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import Pairs
from training.measures.scorers import Floats, Scored, Vectors, VectorScorer, rows_by_query
from training.teachers.features import sentences

WINDOW, STRIDE = 6, 3
"""Words of a query that get a vector together, and how many words further the next such window starts."""

_WIDE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_WIDE}]{{1,2}}[^\w\s]*|[^\s{_WIDE}]+")
"""A run without blanks; of Japanese and Chinese, which write none, two characters: about the mean length of their words."""


def pin_parts(text: str) -> list[str]:
    """What a pin has vectors of: its whole text, then each of its fields; only the text where that is one field."""
    return list(dict.fromkeys([text, *sentences(text)]))


def query_parts(query: str) -> list[str]:
    """The whole query, then windows of WINDOW words, each STRIDE words further, the last one at the query's end.

    A query of at most WINDOW words is one part. Parts are cut from the query as it stands. Scripts other than Japanese and Chinese
    that write no blanks, as Thai, make one part.
    """
    words = [word.span() for word in _WORD.finditer(query)]
    last = len(words) - WINDOW
    if last <= 0:
        return [query]
    return [query, *(query[words[start][0] : words[start + WINDOW - 1][1]] for start in [*range(0, last, STRIDE), last])]


def max_sim(query: Vectors, pins: Vectors, starts: NDArray[np.intp]) -> Floats:
    """MaxSim of one query with n pins, float64 (n,).

    `query`: (vectors, dimension). `pins`: the vectors of all pins one below the other, (their number, dimension). `starts`: the first
    row of each pin, (n,), increasing: every pin has at least one vector.
    """
    best: Floats = np.maximum.reduceat(query @ pins.T, starts, axis=1).sum(axis=0, dtype=np.float64)
    return best


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of vectors in groups of different sizes. `vectors`: (rows, dimension). `sizes`: rows of each group, (groups,), 1 or more."""

    vectors: Vectors
    sizes: NDArray[np.intp]

    def take(self, groups: NDArray[np.intp]) -> tuple[Vectors, NDArray[np.intp]]:
        """The vectors of some groups one below the other, and the first row of each."""
        sizes = self.sizes[groups]
        starts = np.cumsum(sizes) - sizes
        first = (np.cumsum(self.sizes) - self.sizes)[groups]
        return self.vectors[np.repeat(first - starts, sizes) + np.arange(sizes.sum())], starts


@dataclass
class LateScorer:
    """A bi-encoder's MaxSim. `windows`: a query is as many vectors as `query_parts` finds; else it is one. It knows no levels."""

    student: VectorScorer
    windows: bool
    model_id: str
    lineage: Mapping[str, Any] = field(default_factory=dict)

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """As `training.measures.scorers.Scorer.score`. Sums over a query's vectors: scores of two queries cannot be compared."""
        judged, place = np.unique(pairs.pin, return_inverse=True)
        pins = self._embedded([pin_parts(texts[pin]) for pin in judged])
        rows = rows_by_query(pairs)
        asked = self._embedded([self.query_parts(queries[number]) for number, _ in rows])
        scores = np.empty(len(pairs))
        for position, (_, some) in enumerate(rows):
            query, _ = asked.take(np.array([position]))
            scores[some] = max_sim(query, *pins.take(place[some]))
        return Scored(scores, None)

    def query_parts(self, query: str) -> list[str]:
        """The texts that stand for a query."""
        return query_parts(query) if self.windows else [query]

    def _embedded(self, groups: Sequence[Sequence[str]]) -> Ragged:
        return Ragged(self.student.vectors([part for parts in groups for part in parts]), np.array([len(parts) for parts in groups], np.intp))
