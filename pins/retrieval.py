"""The read side: search, related pins and home feed as pure merges over a PinIndex. Every answer is one model's.

First cut of the home feed after PinnerSage (arXiv 2007.03634): interests are groups of the user's pins, each represented by
its medoid (a real pin), weighted by age, one neighbour search per medoid, merged round-robin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from pins.errors import PinNotFound
from pins.features import UserAction
from pins.ports import Hit, PinIndex, Vector, Where
from pins.relevance import Level, OrdinalHead

SAME_PIN_COSINE = 0.985
"""Two pins this close show the same idea in the same words: one of them is enough."""
SAME_INTEREST_COSINE = 0.45
"""A pin joins an interest when it is at least this close to the pin that opened it."""
INTERESTS = 3
"""Interests sampled per feed (PinnerSage, section 4.2)."""
DECAY_PER_DAY = 0.01
"""Importance of an action halves in 69 days (PinnerSage, section 4.1)."""
HISTORY = 200
"""Latest actions that are looked at."""
_DAY_US = 86_400_000_000


class QueryEncoder(Protocol):
    """Text of a query to a unit vector of the index's own model."""

    @property
    def model_id(self) -> str: ...
    @property
    def ordinal_head(self) -> OrdinalHead: ...
    def query(self, text: str) -> Vector: ...


@dataclass(frozen=True, slots=True)
class Result:
    """One pin of an answer. `score` is the cosine; relevance and level only where there is a query; `why` in words.

    `refused`: why the pin's newer text could not be embedded; it is then found by its previous one.
    """

    pin_id: str
    title: str
    score: float
    model_id: str
    fields: Mapping[str, Any]
    relevance: float | None = None
    level: Level | None = None
    why: str = ""
    refused: str = ""


def search(text: str, encoder: QueryEncoder, index: PinIndex, limit: int = 10, where: Where = Where()) -> list[Result]:
    """The pins most relevant to a query, best first, each with its expected relevance (1 to 5) and most probable level."""
    _one_model(encoder.model_id, index)
    if not text.strip():
        raise ValueError("the query is empty; give at least one word")
    hits = index.search(encoder.query(text), limit, where)
    expected = encoder.ordinal_head.expected([hit.score for hit in hits])
    return [
        replace(_result(hit, index.model_id), relevance=float(relevance), level=encoder.ordinal_head.level(hit.score))
        for hit, relevance in zip(hits, expected, strict=True)
    ]


def related_pins(pin_id: str, index: PinIndex, limit: int = 10, where: Where = Where()) -> list[Result]:
    """Pins near a pin, without the pin itself and without near-duplicates. Raises PinNotFound when it has no vector."""
    vector = index.vectors([pin_id]).get(pin_id)
    if vector is None:
        raise PinNotFound(f"pin {pin_id!r} has no vector in {index.model_id}: unknown, deleted, or without text; see `everpin explain {pin_id}`")
    hits = index.search(vector, 2 * limit + 1, replace(where, without=where.without | {pin_id}))
    return [_result(hit, index.model_id, f"like {pin_id}") for hit in _fold(hits, [vector])[:limit]]


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
    merged = _fold([hit for hit, _ in turns.values()], [vectors[medoid] for medoid in medoids])
    return [_result(hit, index.model_id, f"you saved {medoids[turns[hit.pin_id][1]]}") for hit in merged[:limit]]


def _one_model(model_id: str, index: PinIndex) -> None:
    if model_id != index.model_id:
        raise ValueError(f"the query encoder is {model_id}, the index holds {index.model_id}; their vectors must not meet")


def _result(hit: Hit, model_id: str, why: str = "") -> Result:
    return Result(hit.pin_id, str(hit.fields.get("title", "")), hit.score, model_id, hit.fields, why=why, refused=hit.refused)


def _fold(hits: Sequence[Hit], shown: Iterable[Vector]) -> list[Hit]:
    """The hits without near-duplicates of one another and of what is shown already."""
    kept, vectors = [], list(shown)
    for hit in hits:
        if hit.vector is None or all(float(hit.vector @ other) < SAME_PIN_COSINE for other in vectors):
            kept.append(hit)
            vectors += [] if hit.vector is None else [hit.vector]
    return kept


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
