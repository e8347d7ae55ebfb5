"""Two rankings into one: the candidates of a search, where each of them was found, and reciprocal rank fusion (RRF).

RRF after Cormack, Clarke and Buettcher (SIGIR 2009): a pin's score is the sum over the rankings of weight / (60 + its rank).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pins.ports import Hit, Vector

RRF_K = 60
"""Of the paper, where it was the best of several values on four collections."""
DENSE_WEIGHT, SPARSE_WEIGHT = 1.0, 0.1
"""Chosen on the English train queries of cxc_pins, with what else was tried: `tuning` in bench/retrieval.json. Equal weights lose to the dense
ranking alone: that ranking is much the better one, and queries in a language the pins are not in meet their words by accident only."""

Floats = NDArray[np.float64]
Ranks = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the rankings found, each pin once: n hits with their unit `vectors`, shape (n, dimension).

    `cosines`, `bm25` and `fused` have shape (n,); `bm25` is 0 where the sparse ranking did not find the pin. Ranks count from 1, 0 means not found.
    """

    hits: Sequence[Hit]
    vectors: Vector
    cosines: Floats
    bm25: Floats
    dense_ranks: Ranks
    sparse_ranks: Ranks
    fused: Floats

    @property
    def pin_ids(self) -> NDArray[np.str_]:
        """Shape (n,)."""
        return np.array([hit.pin_id for hit in self.hits], np.str_)


def candidates(query: Vector, dense: Sequence[Hit], sparse: Sequence[Hit], sparse_weight: float = SPARSE_WEIGHT) -> Candidates:
    """The hits of a ranking by vector and of one by words, fused. A hit without a vector is left out: no relevance could be told of it."""
    found: dict[str, Hit] = {}
    for hit in (*dense, *sparse):
        if hit.vector is not None:
            found.setdefault(hit.pin_id, hit)
    vectors = np.array([hit.vector for hit in found.values()], np.float32).reshape(len(found), len(query))
    places = [{hit.pin_id: rank for rank, hit in enumerate(ranking, start=1)} for ranking in (dense, sparse)]
    dense_ranks, sparse_ranks = (np.array([ranks.get(pin_id, 0) for pin_id in found], np.int64) for ranks in places)
    scores = {hit.pin_id: hit.score for hit in sparse}
    return Candidates(
        hits=list(found.values()),
        vectors=vectors,
        cosines=(vectors @ query).astype(np.float64),
        bm25=np.array([scores.get(pin_id, 0.0) for pin_id in found], np.float64),
        dense_ranks=dense_ranks,
        sparse_ranks=sparse_ranks,
        fused=reciprocal(dense_ranks, DENSE_WEIGHT) + reciprocal(sparse_ranks, sparse_weight),
    )


def reciprocal(ranks: Ranks, weight: float) -> Floats:
    """weight / (60 + rank), and 0 for rank 0; shape (n,) in, (n,) out."""
    return np.where(ranks > 0, weight / (RRF_K + ranks), 0.0)
