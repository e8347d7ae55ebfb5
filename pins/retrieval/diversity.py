"""Not the same twice: near-duplicates are folded, and maximal marginal relevance (MMR) puts unlike pins beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pins.ports import Vector
from pins.retrieval.results import SAME_PIN_COSINE

Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Folded:
    """Places in a ranking: those to show, in order; for each of them its near-duplicates; and the near-duplicates of what is shown already."""

    kept: Sequence[int]
    duplicates: Sequence[Sequence[int]]
    of_shown: Sequence[int] = ()


def fold_duplicates(vectors: Vector, order: Sequence[int], shown: Vector | None = None) -> Folded:
    """Go through `vectors` (n, dimension) in this order; what is within SAME_PIN_COSINE of an earlier one goes to the earliest such.

    `shown` (m, dimension): vectors that are on the page already, whose near-duplicates go to `of_shown`.
    """
    same = np.asarray(vectors @ vectors.T >= SAME_PIN_COSINE)
    free = np.ones(len(vectors), bool) if shown is None else np.asarray((vectors @ shown.T < SAME_PIN_COSINE).all(axis=1))
    of_shown = [place for place in order if not free[place]]
    alone = (same.sum(axis=1) <= 1).tolist()
    rank = {place: number for number, place in enumerate(order)}
    kept: list[int] = []
    duplicates: list[list[int]] = []
    for place in order:
        if free[place]:
            mine = [] if alone[place] else np.flatnonzero(same[place] & free).tolist()
            free[[place, *mine]] = False
            kept.append(place)
            duplicates.append(sorted((other for other in mine if other in rank and other != place), key=rank.__getitem__))
    return Folded(kept, duplicates, of_shown)


def unfolded(order: Sequence[int]) -> Folded:
    """Everything shown, nothing folded."""
    return Folded(list(order), [[] for _ in order])


def mmr(scores: ArrayLike, vectors: Vector, diversity: float) -> Places:
    """Places in the order of maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998), of shape (n,).

    The next one is that with the largest (1 - diversity) * score - diversity * its largest cosine to one that was taken. Scores, shape (n,), are
    stretched to 0..1 over the list first, so that one `diversity` means the same for every query. Ties go by the order of the list, and
    `diversity` 0 is the order of the scores.
    """
    values = np.asarray(scores, np.float64)
    if not diversity or len(values) < 2:
        return np.argsort(-values, kind="stable")
    spread = float(np.ptp(values))
    relevance = (1 - diversity) * (values - values.min()) / (spread or 1.0)
    alike = vectors @ vectors.T
    taken = [int(np.argmax(values))]
    nearest = np.full(len(values), -np.inf)
    for _ in range(len(values) - 1):
        nearest = np.maximum(nearest, alike[taken[-1]])
        nearest[taken[-1]] = np.inf
        taken.append(int(np.argmax(relevance - diversity * nearest)))
    return np.array(taken, np.int64)
