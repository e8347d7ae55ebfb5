"""PinnerSage's variants side by side on GENERATED users: `python -m bench.feed FOLDER_OF_CXC_PINS`.

No real person's history is in this: the development data has no users. What is real are the pins and people's judgements of which of them
belong together, and the users are planted on those judgements, not on vectors: an interest is the pins that people judged relevant to one query
(grade 3 or 4), one half of it acted on, the other half what a good feed would show. Actions come while an interest is alive, a span of days with
a beginning and mostly an end, in one to three sittings, beside stray clicks. How importance fades is nowhere in the planting. The same topics
are never used both for choosing the merge distance and for the figures that are reported.

Pins that nobody judged count as wrong, so precision is a lower bound and only differences between variants mean anything.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.machine import machine, write
from everpin.importers import PinRow, read_cxc
from everpin.settings import SHIPPED_MODEL, Settings
from everpin.wiring import build_encoder
from pins.features import UserAction, pin_features
from pins.ports import Ask, Hit, Vector
from pins.retrieval.feed import MERGE_DISTANCE, FeedOptions, chosen_interests, merge, neighbours
from pins.retrieval.interests import DAY_US, Interest, drawn, interest, interests, pin_weights
from pins.text import render

NOW_US = 1_764_000_000_000_000
DAYS = 90
TOPIC_PINS = 8
"""Judged pins that a topic needs: half are acted on."""
MEAN_LIFE_DAYS = 120.0
LIVES = (30.0, 480.0)
"""Other mean lives, for the effect of lambda: it depends on nothing so much."""
STRAY = 0.15
"""Stray clicks per planted action."""
REQUESTS = 4
"""Feeds per user of a variant that draws interests."""
PAGE, DEPTH = 20, 60
DISTANCES = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6)
RESAMPLES = 2000
METRICS = ("interest_recall", "pin_recall", "precision", "diversity")


@dataclass(frozen=True)
class Planted:
    """A generated user: the history, and per interest that is alive now the pins that were held back."""

    history: Sequence[UserAction]
    wanted: Sequence[frozenset[str]]


class Corpus:
    """Exact nearest neighbours over the pins, as a `PinIndex` would answer them."""

    def __init__(self, ids: Sequence[str], vectors: Vector) -> None:
        self.ids, self.matrix = list(ids), vectors
        self.vectors = dict(zip(ids, vectors, strict=True))
        self.places = {pin_id: place for place, pin_id in enumerate(ids)}

    def ask(self, asks: Sequence[Ask]) -> list[list[Hit]]:
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask: Ask) -> list[Hit]:
        scores = self.matrix @ ask.vector
        scores[[self.places[pin_id] for pin_id in ask.where.without]] = -np.inf
        best = np.argpartition(-scores, ask.limit)[: ask.limit]
        return [Hit(self.ids[place], float(scores[place]), {}, 1, self.matrix[place]) for place in best[np.lexsort((best, -scores[best]))]]


def topics(folder: Path) -> list[frozenset[str]]:
    """Pins that belong together in people's eyes: those judged relevant to one English query, where there are enough."""
    english = {row["query_id"] for row in pq.read_table(folder / "queries.parquet", columns=["query_id", "lang"]).to_pylist() if row["lang"] == "en"}
    found: dict[str, set[str]] = {}
    for row in pq.read_table(folder / "judgements.parquet", columns=["query_id", "item_id", "grade"]).to_pylist():
        if row["query_id"] in english and row["grade"] >= 3:
            found.setdefault(row["query_id"], set()).add(row["item_id"])
    return [frozenset(found[query]) for query in sorted(found) if len(found[query]) >= TOPIC_PINS]


def plant(some: Sequence[frozenset[str]], ids: Sequence[str], users: int, seed: int, life: float = MEAN_LIFE_DAYS) -> list[Planted]:
    """Users with two to nine interests that have no pin in common; at least one is alive now."""
    chance = random.Random(seed)
    made: list[Planted] = []
    while len(made) < users:
        mine: list[frozenset[str]] = []
        for topic in chance.sample(some, 40):
            if len(mine) < 2 + len(made) % 8 and all(topic.isdisjoint(other) for other in mine):
                mine.append(topic)
        user = _user(mine, ids, chance, life)
        if user.wanted:
            made.append(user)
    return made


def _user(mine: Sequence[frozenset[str]], ids: Sequence[str], chance: random.Random, life: float) -> Planted:
    actions: list[tuple[str, float]] = []
    wanted: list[frozenset[str]] = []
    for topic in mine:
        pins = chance.sample(sorted(topic), len(topic))
        end = chance.expovariate(1 / life) + (begin := chance.uniform(-DAYS, DAYS))
        if end <= 0:
            continue
        some = pins[: len(pins) // 2][: chance.randint(1, len(pins))]
        sittings = [chance.uniform(max(begin, 0), min(end, DAYS)) for _ in range(chance.randint(1, 3))]
        actions += [(pin, chance.choice(sittings) + chance.uniform(0, 0.01)) for pin in some]
        if end >= DAYS:
            wanted.append(frozenset(pins[len(pins) // 2 :]))
    actions += [(chance.choice(ids), chance.uniform(0, DAYS)) for _ in range(round(STRAY * len(actions)))]
    history = sorted((UserAction(pin, "save", NOW_US - round(max(DAYS - day, 0.0) * DAY_US)) for pin, day in actions), key=lambda action: action.time_us)
    return Planted(history, wanted)


Choose = Callable[[Planted, Corpus, int], list[Interest]]


def _groups(user: Planted, corpus: Corpus, decay: float, distance: float) -> list[Interest]:
    weights = pin_weights(user.history, NOW_US, decay)
    return interests(weights, {pin: corpus.vectors[pin] for pin in weights}, distance)


def _all(user: Planted, corpus: Corpus, decay: float = 0.01) -> tuple[list[str], Vector, Mapping[str, float]]:
    weights = pin_weights(user.history, NOW_US, decay)
    pins = sorted(weights)
    return pins, np.stack([corpus.vectors[pin] for pin in pins]), weights


def last_pin(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    pin = user.history[-1].pin_id
    return [Interest(pin, (pin,), 1.0, corpus.vectors[pin])]


def decay_average(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    pins, vectors, weights = _all(user, corpus)
    return [Interest("", tuple(pins), 1.0, _unit(np.array([weights[pin] for pin in pins]) @ vectors))]


def one_medoid(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    return [interest(*_all(user, corpus))]


def kmeans_5(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    pins, vectors, weights = _all(user, corpus)
    labels = _kmeans(vectors, min(5, len(pins)))
    places = [np.flatnonzero(labels == label) for label in set(labels.tolist())]
    return drawn([interest([pins[place] for place in some], vectors[some], weights) for some in places], 3, seed)


def ward_centroid(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    chosen = drawn(_groups(user, corpus, 0.01, MERGE_DISTANCE), 3, seed)
    return [replace(group, vector=_unit(np.sum([corpus.vectors[pin] for pin in group.pins], axis=0))) for group in chosen]


def ward_medoid(decay: float, distance: float = MERGE_DISTANCE, count: int = 3) -> Choose:
    return lambda user, corpus, seed: drawn(_groups(user, corpus, decay, distance), count, seed)


def as_served(user: Planted, corpus: Corpus, seed: int) -> list[Interest]:
    return chosen_interests(_groups(user, corpus, 0.01, MERGE_DISTANCE), list(reversed(user.history)), NOW_US, 3, seed)


ROUND_ROBIN, BY_SCORE = 1e-6, 1.0
VARIANTS: Mapping[str, tuple[Choose, float]] = {
    "last pin": (last_pin, ROUND_ROBIN),
    "decay average": (decay_average, ROUND_ROBIN),
    "one medoid": (one_medoid, ROUND_ROBIN),
    "k-means 5, medoids": (kmeans_5, ROUND_ROBIN),
    "Ward, centroids": (ward_centroid, ROUND_ROBIN),
    "Ward, medoids, lambda 0": (ward_medoid(0.0), ROUND_ROBIN),
    "Ward, medoids, lambda 0.1": (ward_medoid(0.1), ROUND_ROBIN),
    "Ward, medoids, lambda 0.01": (ward_medoid(0.01), ROUND_ROBIN),
    "the same, merged by score": (ward_medoid(0.01), BY_SCORE),
    "the same, one interest": (ward_medoid(0.01, count=1), ROUND_ROBIN),
    "the same, six interests": (ward_medoid(0.01, count=6), ROUND_ROBIN),
    "as served": (as_served, FeedOptions().discount),
}
"""How interests are chosen, and the same-interest discount of the merge. The first eight are PinnerSage's; the rest are ours."""
PUBLISHED = {
    "decay average": (28, 14), "one medoid": (33, 18), "k-means 5, medoids": (91, 68), "Ward, centroids": (105, 81),
    "Ward, medoids, lambda 0": (97, 72), "Ward, medoids, lambda 0.1": (94, 69), "Ward, medoids, lambda 0.01": (110, 88),
}  # fmt: skip
"""Lift over the last pin in percent, relevance and recall, as PinnerSage published it (arXiv 2007.03634)."""


def feed(user: Planted, corpus: Corpus, choose: Choose, discount: float, seed: int) -> list[Hit]:
    """The ranking that the serving code makes of these interests."""
    options = FeedOptions(limit=PAGE, depth=DEPTH, discount=discount, fresh_days=0)
    chosen = choose(user, corpus, seed)
    seen = frozenset(action.pin_id for action in user.history)
    near, fresh = neighbours(chosen, corpus, NOW_US, options, seen)
    shown = np.stack([corpus.vectors[pin] for pin in seen])
    return [result.hit for result in merge(chosen, near, fresh, shown, options, {group.medoid: "" for group in chosen})]


def score(user: Planted, corpus: Corpus, choose: Choose, discount: float) -> list[float]:
    """METRICS of one user, the mean over requests."""
    rows = []
    for seed in range(1 if choose in (last_pin, decay_average, one_medoid) else REQUESTS):
        ranking = feed(user, corpus, choose, discount, seed)
        page, all_found = {hit.pin_id for hit in ranking[:PAGE]}, {hit.pin_id for hit in ranking}
        wanted = frozenset().union(*user.wanted)
        vectors = np.stack([hit.vector for hit in ranking[:PAGE]])
        pairs = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
        recall = np.mean([bool(page & pins) for pins in user.wanted])
        rows.append([recall, len(all_found & wanted) / len(wanted), len(page & wanted) / PAGE, 1 - pairs.mean()])
    mean: list[float] = np.mean(rows, axis=0).tolist()
    return mean


def table(users: Sequence[Planted], corpus: Corpus, variants: Mapping[str, tuple[Choose, float]]) -> dict[str, NDArray[np.float64]]:
    """Per variant METRICS of each user, shape (users, metrics)."""
    return {name: np.array([score(user, corpus, choose, discount) for user in users]) for name, (choose, discount) in variants.items()}


def intervals(rows: NDArray[np.float64]) -> dict[str, list[float]]:
    """Mean and 95 % bootstrap interval over users, per metric."""
    picks = np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))
    low, high = np.percentile(rows[picks].mean(axis=1), [2.5, 97.5], axis=0)
    return {name: [round(float(value[column]), 4) for value in (rows.mean(axis=0), low, high)] for column, name in enumerate(METRICS)}


def _unit(vector: Vector) -> Vector:
    unit: Vector = (vector / np.linalg.norm(vector)).astype(np.float32)
    return unit


def _kmeans(vectors: Vector, count: int, rounds: int = 50) -> NDArray[np.int64]:
    """Lloyd's algorithm from k-means++ seeds; fixed chance."""
    chance = np.random.default_rng(0)
    centres = [vectors[chance.integers(len(vectors))]]
    for _ in range(count - 1):
        far = np.min([((vectors - centre) ** 2).sum(axis=1) for centre in centres], axis=0) + 1e-12
        centres.append(vectors[chance.choice(len(vectors), p=far / far.sum())])
    for _ in range(rounds):
        labels = np.argmin([((vectors - centre) ** 2).sum(axis=1) for centre in centres], axis=0)
        centres = [vectors[labels == place].mean(axis=0) if (labels == place).any() else centre for place, centre in enumerate(centres)]
    return labels


def corpus_of(folder: Path) -> Corpus:
    """The pins of a folder of the cxc layout, embedded by the shipped student from their rendered text."""
    rows = [row for row in read_cxc(folder) if isinstance(row, PinRow)]
    values = [{name: value for view in row.rows(0) for name, value in view.values.items()} for row in rows]
    texts = [render(pin_features(row.pin_id, some, {})).text for row, some in zip(rows, values, strict=True)]
    return Corpus([row.pin_id for row in rows], build_encoder(Settings(model=SHIPPED_MODEL)).encode(texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the development set cxc_pins: items, queries and judgements as parquet")
    parser.add_argument("--users", type=int, default=160)
    parser.add_argument("--quick", action="store_true", help="few users; writes nothing")
    arguments = parser.parse_args()
    users = 10 if arguments.quick else arguments.users
    corpus = corpus_of(arguments.folder)
    some = topics(arguments.folder)
    random.Random(7).shuffle(some)
    half = len(some) // 2
    tuning, reported = plant(some[:half], corpus.ids, users // 2, 1), plant(some[half:], corpus.ids, users, 2)
    sweep = table(tuning, corpus, {str(distance): (ward_medoid(0.01, distance), ROUND_ROBIN) for distance in DISTANCES})
    found = table(reported, corpus, VARIANTS)
    faded = {name: VARIANTS[name] for name in ("Ward, medoids, lambda 0", "Ward, medoids, lambda 0.01", "Ward, medoids, lambda 0.1")}
    lives = {MEAN_LIFE_DAYS: {name: found[name] for name in faded}} | {
        life: table(plant(some[half:], corpus.ids, users, 2, life), corpus, faded) for life in LIVES
    }
    result: dict[str, Any] = {
        "command": "python -m bench.feed FOLDER",
        "users_are": "GENERATED: interests planted on people's relevance judgements of real pins; no real person's history",
        "machine": machine("numpy", "onnxruntime"),
        "model_id": SHIPPED_MODEL.name,
        "users": users,
        "topics": {"tuning": half, "reported": len(some) - half},
        "actions_per_user": round(float(np.mean([len(user.history) for user in reported])), 1),
        "live_interests_per_user": round(float(np.mean([len(user.wanted) for user in reported])), 2),
        "metrics": {
            "interest_recall": f"share of the live interests with a held-back pin among the first {PAGE}",
            "pin_recall": f"share of the held-back pins of live interests among the first {DEPTH}",
            "precision": f"share of the first {PAGE} that are held-back pins of live interests; unjudged pins count as wrong",
            "diversity": f"1 - mean cosine of two of the first {PAGE}",
        },
        "variants": {name: intervals(rows) for name, rows in found.items()},
        "minus_full": {name: intervals(rows - found["Ward, medoids, lambda 0.01"]) for name, rows in found.items() if name != "Ward, medoids, lambda 0.01"},
        "published_lift_percent": PUBLISHED,
        "lambda_by_mean_life_days": {f"{life:g}": {name: intervals(rows) for name, rows in of_life.items()} for life, of_life in sorted(lives.items())},
        "merge_distance": MERGE_DISTANCE,
        "merge_distance_on_tuning_topics": {name: intervals(rows) for name, rows in sweep.items()},
    }
    write("feed", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
