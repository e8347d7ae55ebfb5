"""Home feed after PinnerSage (arXiv 2007.03634): a user's interests, one neighbour search per interest, merged round-robin.

First cut: interests are groups of the user's pins, each represented by its medoid (a real pin), weighted by age.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pins.features import UserAction
from pins.ports import Hit, PinIndex, Vector, Where
from pins.retrieval.results import Result, fold, result

SAME_INTEREST_COSINE = 0.45
"""A pin joins an interest when it is at least this close to the pin that opened it."""
INTERESTS = 3
"""Interests sampled per feed (PinnerSage, section 4.2)."""
DECAY_PER_DAY = 0.01
"""Importance of an action halves in 69 days (PinnerSage, section 4.1)."""
HISTORY = 200
"""Latest actions that are looked at."""
_DAY_US = 86_400_000_000


def home_feed(history: Sequence[UserAction], index: PinIndex, now_us: int, limit: int = 20) -> list[Result]:
    """A mix of the user's strongest interests, none of it seen before. No usable history: the newest pins of the index."""
    actions = sorted(history, key=lambda action: (-action.time_us, action.pin_id))[:HISTORY]
    seen = frozenset(action.pin_id for action in history)
    vectors = index.vectors(list(dict.fromkeys(action.pin_id for action in actions)))
    if not vectors:
        return _newest(index, limit, seen)
    importance: dict[str, float] = {}
    for action in actions:
        age_days = max(0, now_us - action.time_us) / _DAY_US
        importance[action.pin_id] = importance.get(action.pin_id, 0.0) + math.exp(-DECAY_PER_DAY * age_days)
    groups = _interests([pin_id for pin_id in importance if pin_id in vectors], vectors)
    groups.sort(key=lambda group: (-sum(importance[pin_id] for pin_id in group), group[0]))
    medoids = [_medoid(group, vectors) for group in groups[:INTERESTS]]
    feeds = [index.search(vectors[medoid], 2 * limit, Where(without=seen)) for medoid in medoids]
    turns = _round_robin(feeds)
    merged = fold([hit for hit, _ in turns.values()], [vectors[medoid] for medoid in medoids])
    return [result(hit, index.model_id, f"you saved {medoids[turns[hit.pin_id][1]]}") for hit in merged[:limit]]


def _interests(pin_ids: Sequence[str], vectors: Mapping[str, Vector]) -> list[list[str]]:
    """Leader clustering, newest pin first: a pin joins the nearest interest that is close enough, else opens its own."""
    groups: list[list[str]] = []
    for pin_id in pin_ids:
        cosines = [float(vectors[group[0]] @ vectors[pin_id]) for group in groups]
        best = int(np.argmax(cosines)) if cosines else -1
        if best >= 0 and cosines[best] >= SAME_INTEREST_COSINE:
            groups[best].append(pin_id)
        else:
            groups.append([pin_id])
    return groups


def _medoid(group: Sequence[str], vectors: Mapping[str, Vector]) -> str:
    matrix = np.stack([vectors[pin_id] for pin_id in group])
    return group[int(np.argmax((matrix @ matrix.T).sum(axis=1)))]


def _round_robin(feeds: Sequence[Sequence[Hit]]) -> dict[str, tuple[Hit, int]]:
    """By pin id, in the order of the turns: each hit once, with the number of the feed whose turn it was."""
    merged: dict[str, tuple[Hit, int]] = {}
    for turn in zip(*feeds, strict=False):  # all as long as one another: the same limit and filter
        for number, hit in enumerate(turn):
            merged.setdefault(hit.pin_id, (hit, number))
    return merged


def _newest(index: PinIndex, limit: int, seen: frozenset[str]) -> list[Result]:
    """A feed for a user without a history: the pins created last."""
    live = (pin for batch in index.scan() for pin in batch if pin.embedded and not pin.dead and pin.pin_id not in seen)
    newest = sorted(live, key=lambda pin: (-int(pin.fields.get("created_at_us", 0)), pin.pin_id))[:limit]
    return [Result(pin.pin_id, str(pin.fields.get("title", "")), 0.0, index.model_id, pin.fields, why="new") for pin in newest]
