"""The order of a search's candidates: by fusion alone, by expected relevance and words, or with late interaction on top.

The weights were chosen on the English train queries of cxc_pins and are reported on dev: `tuning` in bench/retrieval.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pins.ports import PinIndex, Vector
from pins.relevance import OrdinalHead
from pins.retrieval.fusion import Candidates, Floats
from pins.retrieval.late import SentenceVectors

LEXICAL_WEIGHT = 0.2
"""Levels that a BM25 of 1 per query term is worth beside the expected relevance. Per term, so that a long query of another language, which meets
one word of a pin by accident, gains nothing by it, and one rare word that is the whole query gains much."""
LATE_WEIGHT = 0.2
"""Share of MaxSim in the cosine that late interaction ranks by."""
LATE_DEPTH = 50
"""Candidates that late interaction looks at: the best by relevance. Each costs the encoding of its sentences the first time."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """n candidates in order, with what re-ranking gave each.

    `probabilities` of the levels (n, 5), `relevance` (n,) the expected level, both by the cosine alone; `late` (n,) MaxSim, NaN where not
    computed; `scores` (n,) what the order is by; `order`: places of the candidates, best first.
    """

    found: Candidates
    probabilities: Floats
    relevance: Floats
    late: Floats
    scores: Floats
    order: Sequence[int]


def by_fusion(found: Candidates, head: OrdinalHead) -> Ranking:
    """As the rankings say; of one ranking alone that is its own order."""
    return _ranking(found, head, found.fused)


def by_relevance(found: Candidates, head: OrdinalHead, query_terms: int, lexical_weight: float = LEXICAL_WEIGHT) -> Ranking:
    """By expected relevance, plus `lexical_weight` levels for each unit of BM25 per term of the query."""
    return _ranking(found, head, head.expected(found.cosines) + lexical_weight * _per_term(found, query_terms))


def by_late_interaction(
    found: Candidates, head: OrdinalHead, query_terms: int, query: Vector, late: SentenceVectors, index: PinIndex, late_weight: float = LATE_WEIGHT
) -> Ranking:
    """As `by_relevance`; then the best LATE_DEPTH anew, by the relevance of a cosine that MaxSim has its share in."""
    before = by_relevance(found, head, query_terms)
    first = before.order[:LATE_DEPTH]
    nearest = np.full(len(found.hits), np.nan)
    nearest[first] = late.max_sim(query, [found.hits[place] for place in first], index)
    cosines = np.where(np.isnan(nearest), found.cosines, (1 - late_weight) * found.cosines + late_weight * nearest)
    after = _ranking(found, head, head.expected(cosines) + LEXICAL_WEIGHT * _per_term(found, query_terms), nearest)
    again = set(first)
    order = [*(place for place in after.order if place in again), *before.order[LATE_DEPTH:]]
    return Ranking(found, after.probabilities, after.relevance, nearest, after.scores, order)


def _per_term(found: Candidates, query_terms: int) -> Floats:
    return found.bm25 / max(1, query_terms)


def _ranking(found: Candidates, head: OrdinalHead, scores: Floats, late: Floats | None = None) -> Ranking:
    """Best score first; ties by pin id."""
    order: list[int] = np.lexsort((found.pin_ids, -scores)).tolist()
    unknown = np.full(len(found.hits), np.nan)
    return Ranking(found, head.probabilities(found.cosines), head.expected(found.cosines), unknown if late is None else late, scores, order)
