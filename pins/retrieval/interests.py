"""What a user likes, after PinnerSage (Pal et al., KDD 2020, arXiv 2007.03634): groups of the pins that the user acted on.

The user's latest actions are clustered (Ward's method, a merge threshold, no number of clusters given), each cluster is spoken for by its medoid,
a real pin, and weighs as much as its actions, which fade with their age. The feed asks for a few of them, drawn in proportion to their weight.
Pure functions of pins, vectors and times: nothing here asks an index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pins.actions import KEPT_US, MOST_ACTIONS, usable
from pins.features import UserAction
from pins.ports import Vector

DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Interest:
    """One group of a user's pins. `medoid` is the pin that speaks for it, first of `pins`; `weight` the sum of its faded actions.

    `vector`: what is searched with, float32 of shape (dimension,), unit length: the medoid's.
    """

    medoid: str
    pins: tuple[str, ...]
    weight: float
    vector: Vector


def recent(history: Sequence[UserAction], now_us: int) -> list[UserAction]:
    """The actions that count, newest first: the latest MOST_ACTIONS, as far as KEPT_US before the latest of them (PinnerSage: 90 days).

    The window ends with the user's latest action, not now: who comes back after a year finds the interests that he left with.
    """
    actions = sorted(usable(history), key=lambda action: (-action.time_us, action.pin_id, action.action))[:MOST_ACTIONS]
    since_us = min(actions[0].time_us, now_us) - KEPT_US if actions else 0
    return [action for action in actions if action.time_us >= since_us]


def pin_weights(actions: Sequence[UserAction], now_us: int, decay_per_day: float) -> dict[str, float]:
    """The importance of each pin: the sum over its actions of exp(-decay_per_day * age in days). An action of the future is of now."""
    weights: dict[str, float] = {}
    for action in actions:
        age_days = max(0, now_us - action.time_us) / DAY_US
        weights[action.pin_id] = weights.get(action.pin_id, 0.0) + math.exp(-decay_per_day * age_days)
    return weights


def interests(weights: Mapping[str, float], vectors: Mapping[str, Vector], merge_distance: float) -> list[Interest]:
    """The interests, heaviest first. Pins without a vector, because they are unknown or deleted, are left out."""
    pin_ids = sorted(pin_id for pin_id in weights if pin_id in vectors)
    if not pin_ids:
        return []
    matrix = np.stack([vectors[pin_id] for pin_id in pin_ids])
    groups = [interest([pin_ids[place] for place in places], matrix[places], weights) for places in ward(matrix, merge_distance)]
    return sorted(groups, key=lambda group: (-group.weight, group.medoid))


def interest(pin_ids: Sequence[str], vectors: Vector, weights: Mapping[str, float]) -> Interest:
    """One group of pins, with `vectors` of shape (pins, dimension). The medoid has the least squared distance to the others."""
    middle = int(np.argmax(vectors @ vectors.sum(axis=0)))
    others = (pin_id for place, pin_id in enumerate(pin_ids) if place != middle)
    return Interest(pin_ids[middle], (pin_ids[middle], *others), sum(weights[pin_id] for pin_id in pin_ids), vectors[middle])


def ward(vectors: Vector, merge_distance: float) -> list[list[int]]:
    """Ward's clusters of the rows of `vectors`, shape (n, dimension): places, ascending, the cluster of the first row first.

    Two clusters are merged while their distance is at most `merge_distance`. The distance is the Euclidean one between two rows, and
    sqrt(2 |A||B| / (|A| + |B|)) times that of the centroids between clusters A and B, as in scipy. Nearest-neighbour chain with the Lance-Williams
    update (Murtagh and Contreras, arXiv 1105.0121), O(n^2). Ward's distances only grow as clusters merge, so a pair of mutual neighbours that is too
    far apart is two finished clusters.
    """
    rows = np.asarray(vectors, np.float64)
    norms = (rows * rows).sum(axis=1)
    squared = np.maximum(norms[:, None] + norms - 2 * rows @ rows.T, 0.0)
    np.fill_diagonal(squared, np.inf)
    clusters = {place: [place] for place in range(len(rows))}
    sizes = np.ones(len(rows))
    finished: list[list[int]] = []
    chain: list[int] = []
    while clusters:
        chain = chain or [next(iter(clusters))]
        one, other = _mutual_neighbours(squared, chain)
        if other >= 0 and squared[one, other] <= merge_distance**2:
            squared[one] = squared[:, one] = _to_union(squared, sizes, one, other)
            sizes[one] += sizes[other]
            clusters[one] += clusters[other]
            gone = [other]
        else:
            gone = [one, other] if other >= 0 else [one]
            finished += [sorted(clusters[place]) for place in gone]
        squared[gone] = squared[:, gone] = np.inf
        for place in gone:
            del clusters[place]
    return sorted(finished)


def _mutual_neighbours(squared: NDArray[np.float64], chain: list[int]) -> tuple[int, int]:
    """Walk on from the end of `chain` to two clusters that are each other's nearest, and take both off it; (cluster, -1) where it is alone."""
    while True:
        end, before = chain[-1], chain[-2] if len(chain) > 1 else -1
        nearest = int(np.argmin(squared[end]))
        if not np.isfinite(squared[end, nearest]):
            chain.pop()
            return end, -1
        if before >= 0 and squared[end, before] <= squared[end, nearest]:
            del chain[-2:]
            return min(end, before), max(end, before)
        chain.append(nearest)


def _to_union(squared: NDArray[np.float64], sizes: NDArray[np.float64], one: int, other: int) -> NDArray[np.float64]:
    """Lance and Williams' update for Ward: squared distances from the union of two clusters to every cluster, infinite where there is none."""
    between, total = squared[one, other], sizes + sizes[one] + sizes[other]
    union: NDArray[np.float64] = ((sizes + sizes[one]) * squared[one] + (sizes + sizes[other]) * squared[other] - sizes * between) / total
    return union


def drawn(groups: Sequence[Interest], count: int, seed: int) -> list[Interest]:
    """Interests drawn without replacement, each with a chance in proportion to its weight, in the order of the draw.

    By exponential clocks, -ln(u) / weight, the least first. Each interest's u is a hash of the seed and of its medoid, so that with one seed an
    interest keeps its luck when others come and go.
    """
    return sorted(groups, key=lambda group: (_clock(group, seed), group.medoid))[:count]


def _clock(group: Interest, seed: int) -> float:
    digest = blake2b(f"{seed}\0{group.medoid}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)
    return -math.log(uniform) / max(group.weight, 1e-300)
