"""How good a teacher is on the queries that choose it: nDCG, level accuracy, log loss. The full report is `training.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pins.metrics import bootstrap, ndcg, rank
from pins.text import render
from training.data import DataError, Pairs, RelevanceData
from training.teachers.config import TeacherConfig

SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Validation:
    """Graded pairs as texts, all of one length; `pin_ids` and `query_ids` break ties as everywhere else."""

    pairs: Pairs
    queries: Sequence[str]
    texts: Sequence[str]
    pin_ids: Sequence[str]
    query_ids: Sequence[str]

    @classmethod
    def of(cls, data: RelevanceData, pairs: Pairs) -> Validation:
        """The texts of some pairs."""
        rendered = {pin: render(data.pins[pin]).text for pin in set(pairs.pin.tolist())}
        asked = [data.queries[row] for row in pairs.query]
        return cls(
            pairs,
            [query.text for query in asked],
            [rendered[pin] for pin in pairs.pin.tolist()],
            [data.pins[pin].pin_id for pin in pairs.pin],
            [query.query_id for query in asked],
        )


def validation_pairs(data: RelevanceData, config: TeacherConfig, held: set[str]) -> Pairs:
    """The pairs that choose the best teacher: those of held-out groups, or the dev split where none are held out."""
    languages = config.languages or None
    if held:
        pairs = data.pairs("all" if data.splits == ["all"] else "train", languages)
        return pairs.where(np.isin(pairs.group, sorted(held)))
    if "dev" not in data.splits:
        raise DataError(f"{data.folder} has no dev split to choose the best teacher by; set training.hold_out in the recipe, 0.1 for a tenth of the queries")
    return data.pairs("dev", languages)


def figures(levels: NDArray[np.float64], seen: Validation) -> dict[str, float]:
    """nDCG@20 and @10 (mean over queries that have a gain, with the 95 % interval of @20 by group), accuracy, log loss (nats)."""
    grade = seen.pairs.grade
    likely = np.log(np.maximum(levels[np.arange(len(grade)), grade], SMALLEST))
    right = levels.argmax(axis=1) == grade
    others = ~seen.pairs.own
    scores = levels @ np.arange(levels.shape[1])
    found = {"ndcg20": 0.0, "ndcg20_low": 0.0, "ndcg20_high": 0.0, "ndcg10": 0.0}
    if ranked := _ranked(scores, seen):
        spread = bootstrap([ndcg(grades, 20) for grades, _ in ranked], [group for _, group in ranked])
        tenth = float(np.mean([ndcg(grades, 10) for grades, _ in ranked]))
        found = {"ndcg20": spread.mean, "ndcg20_low": spread.low, "ndcg20_high": spread.high, "ndcg10": tenth}
    found |= {"accuracy": float(right.mean()), "log_loss": float(-likely.mean())}
    if others.any():
        found["accuracy_without_own_pin"] = float(right[others].mean())
    return {name: round(value, 6) for name, value in found.items()}


def _ranked(scores: NDArray[np.float64], seen: Validation) -> list[tuple[NDArray[np.int64], str]]:
    """Per query with a gain: its grades in ranked order, and its group."""
    order = np.argsort(seen.pairs.query, kind="stable")
    queries = np.split(order, np.flatnonzero(np.diff(seen.pairs.query[order])) + 1)
    found = []
    for rows in queries:
        grades = seen.pairs.grade[rows]
        if grades.any():
            ranking = rank([seen.pin_ids[row] for row in rows], scores[rows], seen.query_ids[rows[0]])
            found.append((grades[ranking], str(seen.pairs.group[rows[0]])))
    return found
