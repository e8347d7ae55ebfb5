"""What a teacher learns from: graded pairs as texts with soft level targets and weights, and the order in which they are shown.

Rows of held-out groups never train: not the rows of their queries, and not the rows of other queries with their own pins, since a
rating of two images appears in both directions (`RelevanceData.pairs` does the same for dev).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pins.text import render
from training.data import DataError, Pairs, RelevanceData
from training.teachers.config import TeacherConfig

DIRECT = "direct"
"""Source name of extra_text_pairs in a recipe's weights."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of one data set. `texts` are unique; `query` and `pin`: int64 (n,) indices into them. `targets`: float32 (n, levels), rows
    sum to 1. `grade`, `weight`: (n,). `group`: int64 (n,), equal for the candidates of one query."""

    head: str
    texts: Sequence[str]
    query: NDArray[np.int64]
    pin: NDArray[np.int64]
    group: NDArray[np.int64]
    grade: NDArray[np.int64]
    weight: NDArray[np.float32]
    targets: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.query)

    @property
    def queries(self) -> list[str]:
        """The query text of every row."""
        return [self.texts[row] for row in self.query]

    @property
    def pins(self) -> list[str]:
        """The pin text of every row."""
        return [self.texts[row] for row in self.pin]


def soft_targets(positions: NDArray[Any], levels: int, smoothing: float) -> NDArray[np.float32]:
    """Level targets, float32 (n, levels), from positions on the grade axis (n,), 0 to levels - 1.

    t_k = max(0, 1 - |x - k| / (1 + s)), divided by its sum over k: a triangle of half-width 1 + s around x. With s = 0 it is linear
    interpolation: raw 2.3 puts 0.7 on grade 2 and 0.3 on grade 3. Larger s lets whole grades reach their neighbours: with s = 0.5 grade 2
    puts 0.2 on grades 1 and 3 and 0.6 on itself.
    """
    distance = np.abs(np.clip(positions, 0, levels - 1)[:, None] - np.arange(levels))
    mass = np.maximum(0.0, 1.0 - distance / (1.0 + smoothing))
    return np.asarray(mass / mass.sum(axis=1, keepdims=True), np.float32)


def positions(grade: NDArray[np.int64], raw: NDArray[Any], levels: int) -> NDArray[np.float64]:
    """Where each row lies on the grade axis: its raw score where the folder's raw scores round to its grades, else the grade.

    cxc_pins: raw 0-5, cut at 4, rounds to the grade. commons: raw -1 to 1 is another axis, so the grade stands.
    """
    known = ~np.isnan(raw)
    near = np.clip(raw, 0, levels - 1)
    same_axis = known.any() and bool((np.abs(near[known] - grade[known]) <= 0.5 + 1e-6).all())
    return np.where(known & same_axis, near, grade).astype(np.float64)


def held_out(data: RelevanceData, share: float, seed: int) -> set[str]:
    """Query groups of the train split that do not train: a share chosen by hash, so that it does not depend on order or size."""
    groups = {query.group for query in data.queries if query.split != "dev"}
    return {group for group in groups if int.from_bytes(sha256(f"{seed}\n{group}".encode()).digest()[:8], "big") < share * 2**64}


def training_examples(data: RelevanceData, config: TeacherConfig, head: str, out: set[str]) -> Examples:
    """The train rows and the direct ratings that touch no dev pin and nothing held out. Raises DataError when nothing is left."""
    pairs = data.pairs(_train(data), config.languages or None)
    hidden = own_pins(data, out)
    pairs = pairs.where(~np.isin(pairs.group, sorted(out)) & ~np.isin(pairs.pin, hidden))
    return examples(data, config, head, pairs, _direct(data, config, hidden))


def held_out_examples(data: RelevanceData, config: TeacherConfig, head: str, out: set[str]) -> Examples:
    """The rows of held-out queries and the direct ratings of their pins: what a stack learns from, since its cross-encoder saw neither."""
    pairs = data.pairs(_train(data), config.languages or None)
    seen = set(_direct(data, config, own_pins(data, out)))
    unseen = [rating for rating in _direct(data, config, np.empty(0, np.int64)) if rating not in seen]
    return examples(data, config, head, pairs.where(np.isin(pairs.group, sorted(out))), unseen)


def own_pins(data: RelevanceData, groups: set[str]) -> NDArray[np.int64]:
    """Pins for which a query of these groups was written."""
    judged = data.judged
    return np.unique(judged.pin[judged.own & np.isin(judged.group, sorted(groups))])


def examples(data: RelevanceData, config: TeacherConfig, head: str, pairs: Pairs, direct: Sequence[tuple[str, int, int, float]]) -> Examples:
    """Pairs, and direct ratings as (text, pin, grade, raw), as rows. Rows of weight 0 are left out."""
    rendered = {pin: render(data.pins[pin]).text for pin in sorted({*pairs.pin.tolist(), *(pin for _, pin, _, _ in direct)})}
    queries = [data.queries[row].text for row in pairs.query] + [text for text, _, _, _ in direct]
    pins = np.array([*pairs.pin, *(pin for _, pin, _, _ in direct)], np.int64)
    grade = np.array([*pairs.grade, *(grade for _, _, grade, _ in direct)], np.int64)
    raw = np.array([*pairs.raw, *(raw for _, _, _, raw in direct)], np.float64)
    weight = np.array([config.weights.get(source, 1.0) for source in [*pairs.source, *[DIRECT] * len(direct)]], np.float32)
    # the candidates of one query, or of one rated text: two queries of one wording stay two
    group = _numbers([*(f"q{row}" for row in pairs.query), *(f"t{text}" for text, _, _, _ in direct)])
    targets = soft_targets(positions(grade, raw, config.heads[head]), config.heads[head], config.smoothing)
    keep = weight > 0
    if not keep.any():
        raise DataError(f"{data.folder}: no row left to train on; check languages, weights and hold_out of the recipe")
    texts = {text: number for number, text in enumerate(dict.fromkeys([*queries, *rendered.values()]))}
    asked = np.array([texts[query] for query in queries], np.int64)
    shown = np.array([texts[rendered[pin]] for pin in pins.tolist()], np.int64)
    return Examples(head, list(texts), *(array[keep] for array in (asked, shown, group, grade, weight, targets)))


def plan(rows: Examples, size: int, whole: bool, seed: int, number: int) -> list[NDArray[np.int64]]:
    """The batches of pass `number`, as row indices: shuffled rows, or (`whole`) shuffled queries with all their candidates.

    A batch holds at most `size` rows, or one query. The same arguments give the same batches, so a resumed run sees what it would have.
    """
    rng = np.random.default_rng([seed, number])
    if not whole:
        order = rng.permutation(len(rows))
        return [order[start : start + size] for start in range(0, len(order), size)]
    order = np.argsort(rows.group, kind="stable")
    units = np.split(order, np.flatnonzero(np.diff(rows.group[order])) + 1)
    batches: list[list[NDArray[np.int64]]] = []
    room = 0
    for place in rng.permutation(len(units)):
        if len(units[place]) > room:
            batches.append([])
            room = size
        batches[-1].append(units[place])
        room -= len(units[place])
    return [np.concatenate(batch) for batch in batches]


def _train(data: RelevanceData) -> str:
    return "all" if data.splits == ["all"] else "train"


def _direct(data: RelevanceData, config: TeacherConfig, hidden: NDArray[np.int64]) -> list[tuple[str, int, int, float]]:
    if config.languages and "en" not in config.languages:
        return []
    pins = set(hidden.tolist())
    texts = {text for pin in pins for text in (data.pins[pin].title, data.pins[pin].description, data.pins[pin].caption, data.pins[pin].link_description)}
    ratings = data.direct_for_training()
    return [(one.text, one.pin, one.grade, one.raw) for one in ratings if one.pin not in pins and one.text not in texts]


def _numbers(keys: Sequence[str]) -> NDArray[np.int64]:
    return np.asarray(np.unique(keys, return_inverse=True)[1], np.int64)
