"""Home feed: some of a user's interests, one neighbour search for each, merged in turns; for a user without a usable history the newest pins.

Interests and how they are drawn: `pins.retrieval.interests`. Each page keeps its place FRESH_PLACE for a pin that was created lately and is close to
one of the interests. The whole ranking is made at once, so that pages are cut from one answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np

from pins.actions import usable
from pins.changes import IndexedPin
from pins.features import UserAction
from pins.ports import Ask, Hit, PinIndex, Vector, Where
from pins.retrieval.diversity import fold_duplicates, mmr
from pins.retrieval.interests import DAY_US, Interest, drawn, interests, pin_weights, recent
from pins.retrieval.related import RELATED_COSINE
from pins.retrieval.results import Stage, untimed

MERGE_DISTANCE = 1.1
"""Two pins are one interest from a cosine of 0.4 on; groups must be nearer to one another the more pins they hold. By the vectors of everpin-l6-v1 the
sample users then have 6 interests on average, 1 to 14; on planted users anything between 0.9 and 1.3 does as well (bench/feed.json)."""
FRESH_PLACE = 4
"""The place of a page that is kept for a fresh pin, counted from 0: the fifth, or the last of a shorter page."""
SAME_DAY_US = DAY_US
"""The interest of the user's latest action is asked for while that action is younger than this: what was done today is felt today."""
NEWEST = 1000
"""Pins that `newest_pins` finds: more than anybody without a history will look through."""
HOUR_US = 3_600_000_000
SPARE, SLACK = 1.5, 10
"""Neighbours asked for beyond an interest's share: for near-duplicates, pins found twice, and turns of interests that ran out."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How to make a feed. `limit`: pins of one page; `depth`: most pins of the whole ranking, never less than `limit`.

    `interests`: how many are asked for (PinnerSage: 3). `decay_per_day`: how fast an action loses importance (PinnerSage: 0.01, half in
    69 days). `merge_distance`: see `interests.ward`. `discount`, above 0 and at most 1: what a pin takes from the next of its interest, see
    `take_turns`. `diversity`, 0 to 1: see `diversity.mmr`, within each interest. `fresh_days`: age of a pin up to which it is fresh; 0 keeps no place
    for one. `without`: pins that must not appear, beside those acted on.
    """

    limit: int = 20
    depth: int = 200
    interests: int = 3
    decay_per_day: float = 0.01
    merge_distance: float = MERGE_DISTANCE
    discount: float = 0.5
    diversity: float = 0.0
    fresh_days: float = 7.0
    without: frozenset[str] = frozenset()

    @property
    def results(self) -> int:
        """Results of an answer, at most."""
        return max(self.depth, self.limit)

    @property
    def pages(self) -> int:
        """Pages of an answer, at most."""
        return math.ceil(self.results / self.limit)


@dataclass(frozen=True, slots=True)
class FeedInterest:
    """One interest of the user. `importance`: its share of all of them, 0 to 1; `pins`: how many; `sampled`: whether this feed drew on it."""

    medoid: str
    title: str
    importance: float
    pins: int
    sampled: bool


@dataclass(frozen=True, slots=True)
class FeedResult:
    """One pin of a feed. `score`: cosine with its interest's medoid, 0 where there is none; `why` in words.

    `interest`: the medoid; None for a pin in a place for fresh ones, and for users without a history.
    """

    hit: Hit
    score: float
    why: str
    interest: str | None

    @property
    def pin_id(self) -> str:
        return self.hit.pin_id


@dataclass(frozen=True, slots=True)
class Feed:
    """A user's home feed, all of it, and the interests it is made from, heaviest first."""

    kind: Literal["interests", "newest"]
    interests: tuple[FeedInterest, ...]
    results: tuple[FeedResult, ...]


def feed_seed(user_id: str, now_us: int, every_us: int = HOUR_US) -> int:
    """A seed that keeps a user's drawn interests for an hour."""
    text = f"{user_id}\0{now_us // every_us}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def home_feed(
    history: Sequence[UserAction],
    index: PinIndex,
    now_us: int,
    options: FeedOptions = FeedOptions(),
    seed: int = 0,
    newest: Sequence[IndexedPin] | None = None,
    stage: Stage = untimed,
) -> Feed:
    """A user's feed, without anything in the history. With the same seed and the same pins, the same feed.

    `newest`: what `newest_pins` found lately, for users without a usable history; None: the index is scanned now, which is for small ones. Stages:
    retrieve, cluster, merge. Raises Unavailable.
    """
    actions = recent(history, now_us)
    seen = options.without | {action.pin_id for action in usable(history)}
    with stage("retrieve"):
        vectors = index.vectors(list(dict.fromkeys(action.pin_id for action in actions))) if actions else {}
    with stage("cluster"):
        groups = interests(pin_weights(actions, now_us, options.decay_per_day), vectors, options.merge_distance)
        chosen = chosen_interests(groups, actions, now_us, options.interests, seed)
    if not chosen:
        return _newest_feed(index, options, seen, newest, stage)
    with stage("retrieve"):
        near, fresh = neighbours(chosen, index, now_us, options, seen)
        medoids = index.known([group.medoid for group in groups])
    with stage("merge"):
        titles = {pin_id: str(pin.fields.get("title") or pin_id) for pin_id, pin in medoids.items()}
        saved = {action.pin_id for action in actions if action.action == "save"}
        reasons = {group.medoid: f"you {'saved' if group.medoid in saved else 'clicked'} {titles.get(group.medoid, group.medoid)}" for group in chosen}
        results = merge(chosen, near, fresh, np.stack(list(vectors.values())), options, reasons)
    total = sum(group.weight for group in groups) or 1.0
    shown = {group.medoid for group in chosen}
    listed = (FeedInterest(g.medoid, titles.get(g.medoid, g.medoid), g.weight / total, len(g.pins), g.medoid in shown) for g in groups)
    return Feed("interests", tuple(listed), tuple(results))


def chosen_interests(groups: Sequence[Interest], actions: Sequence[UserAction], now_us: int, count: int, seed: int) -> list[Interest]:
    """The interests to ask for: drawn by importance; that of the latest action takes the last place while the action is of the same day.

    PinnerSage clusters once a day and follows the day itself with a lighter model of the latest 20 actions; here everything is
    clustered at every request, and one place of the draw keeps that promise.
    """
    chosen = drawn(groups, count, seed)
    today = (action.pin_id for action in actions if now_us - action.time_us < SAME_DAY_US)
    latest = next((group for pin_id in today for group in groups if pin_id in group.pins), None)
    return chosen if latest is None or latest in chosen else [*chosen[: count - 1], latest]


def neighbours(
    chosen: Sequence[Interest], index: PinIndex, now_us: int, options: FeedOptions, seen: frozenset[str]
) -> tuple[Sequence[Sequence[Hit]], Sequence[Sequence[Hit]]]:
    """Per interest its nearest pins, and its nearest fresh ones, in one round trip to the index."""
    share = math.ceil(SPARE * options.results / len(chosen)) + SLACK
    asks = [Ask(share, vector=group.vector, where=Where(without=seen)) for group in chosen]
    if options.fresh_days > 0:
        since = Where(created_since_us=now_us - round(options.fresh_days * DAY_US), without=seen)
        asks += [Ask(options.pages + SLACK, vector=group.vector, where=since) for group in chosen]
    answers = index.ask(asks)
    return answers[: len(chosen)], answers[len(chosen) :]


def merge(
    chosen: Sequence[Interest],
    near: Sequence[Sequence[Hit]],
    fresh: Sequence[Sequence[Hit]],
    shown: Vector,
    options: FeedOptions,
    reasons: Mapping[str, str],
) -> list[FeedResult]:
    """One ranking: each pin once, with the interest it is nearest to; no near-duplicates, also not of `shown`, shape (n, dimension); in turns."""
    ranked = sorted(((rank, turn, hit) for turn, hits in enumerate(near) for rank, hit in enumerate(hits)), key=lambda found: found[:2])
    lately = {hit.pin_id: hit for hits in fresh for hit in hits if hit.score >= RELATED_COSINE}
    pool = list(({hit.pin_id: hit for _, _, hit in ranked} | lately).values())
    pool = [hit for hit in pool if hit.vector is not None]
    if not pool:
        return []
    vectors, medoids = np.stack([hit.vector for hit in pool if hit.vector is not None]), np.stack([group.vector for group in chosen])
    cosines = vectors @ medoids.T
    kept = fold_duplicates(vectors, range(len(pool)), shown).kept
    scores, owners = cosines.max(axis=1), cosines.argmax(axis=1)
    new = sorted((place for place in kept if pool[place].pin_id in lately), key=lambda place: (-scores[place], pool[place].pin_id))
    new = new[: options.pages]
    found = {hit.pin_id for _, _, hit in ranked}
    old = [place for place in kept if place not in set(new) and pool[place].pin_id in found]
    lists = [_diverse([place for place in old if owners[place] == turn], scores, vectors, options.diversity) for turn in range(len(chosen))]
    turns = take_turns([[float(scores[place]) for place in places] for places in lists], medoids, options.discount)
    order = [(lists[turn][number], False) for turn, number in turns]
    for page, place in enumerate(new):
        order.insert(page * options.limit + min(FRESH_PLACE, options.limit - 1), (place, True))
    return [_result(pool[place], float(scores[place]), chosen[owners[place]].medoid, reasons, is_new) for place, is_new in order[: options.results]]


def take_turns(scores: Sequence[Sequence[float]], medoids: Vector, discount: float) -> list[tuple[int, int]]:
    """The order in which lists of scores, each best first, are merged: (list, number in it). `medoids`, shape (lists, dimension), are unit vectors.

    The same-interest discount: the next pin is that with the largest score * discount^n, where n counts the pins taken so far, each by the cosine of
    its interest's medoid and this one's (its own: 1; at least 0). Our formula. At 1 it is one ranking by score; the smaller it is, the nearer to
    round-robin, which is what serves people better (arXiv 2506.23060: one ranking by score lost 0.35 % of those who save). At 0.5, a pin must be
    twice as near to be given a turn out of order, and two interests that are close to one another share turns that unlike ones get whole.
    """
    if not 0 < discount <= 1:
        raise ValueError(f"discount is {discount}; give a number above 0 and at most 1")
    drops = (math.log(discount) * np.maximum(medoids @ medoids.T, 0.0)).tolist()
    logs = [[math.log(max(score, 1e-9)) for score in one] for one in scores]
    taken, discounts = [0] * len(logs), [0.0] * len(logs)
    order: list[tuple[int, int]] = []
    while waiting := [(logs[turn][taken[turn]] + discounts[turn], -turn) for turn in range(len(logs)) if taken[turn] < len(logs[turn])]:
        turn = -max(waiting)[1]
        order.append((turn, taken[turn]))
        taken[turn] += 1
        discounts = [before + drop for before, drop in zip(discounts, drops[turn], strict=True)]
    return order


def _diverse(places: list[int], scores: Vector, vectors: Vector, diversity: float) -> list[int]:
    return [places[turn] for turn in mmr(scores[places], vectors[places], diversity)]


def _result(hit: Hit, score: float, medoid: str, reasons: Mapping[str, str], is_new: bool) -> FeedResult:
    return FeedResult(hit, score, f"new, and {reasons[medoid]}", None) if is_new else FeedResult(hit, score, reasons[medoid], medoid)


def newest_pins(index: PinIndex, limit: int = NEWEST) -> list[IndexedPin]:
    """The live pins created last, newest first. It scans the whole index in bounded memory: for one of many pins do it in the background, and give
    `home_feed` what was found; that looks again whether each pin is still live. Raises Unavailable."""
    live = (pin for batch in index.scan() for pin in batch if pin.embedded and not pin.dead)
    return heapq.nsmallest(limit, live, key=_by_age)


def _newest_feed(index: PinIndex, options: FeedOptions, seen: frozenset[str], newest: Sequence[IndexedPin] | None, stage: Stage) -> Feed:
    with stage("retrieve"):
        listed = newest_pins(index, options.results + len(seen) + SLACK) if newest is None else newest
        wanted = [pin.pin_id for pin in listed if pin.pin_id not in seen][: round(SPARE * options.results) + SLACK]
        vectors, known = index.vectors(wanted), index.known(wanted)
    with stage("merge"):
        live = sorted((known[pin_id] for pin_id in wanted if pin_id in vectors and pin_id in known), key=_by_age)
        kept = fold_duplicates(np.stack([vectors[pin.pin_id] for pin in live]), range(len(live))).kept if live else []
        hits = [Hit(pin.pin_id, 0.0, pin.fields, pin.v, vectors[pin.pin_id], pin.refused) for pin in (live[place] for place in kept)]
    return Feed("newest", (), tuple(FeedResult(hit, 0.0, "new", None) for hit in hits[: options.results]))


def _by_age(pin: IndexedPin) -> tuple[int, str]:
    return -int(pin.fields.get("created_at_us") or 0), pin.pin_id
