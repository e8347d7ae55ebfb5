"""Whether a teacher can stand in for people: metrics of single queries under its labels and under human grades.

After Pinterest's study of its judge (arXiv 2509.03764): the label is the most probable level; for each query a system's ranking is
measured once with human grades and once with labels, and the two lists of figures are compared by Kendall's tau, Spearman's
correlation and their mean difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pins.level_metrics import accuracy, most_probable, spearman, within_one
from pins.metrics import Floats, Interval, interval, kendall_tau, ndcg, precision, rank, resample, sdcg
from training.data import DataError, RelevanceData
from training.measures.answers import Answers
from training.measures.scorers import rows_by_query

METRICS = ("ndcg@20", "p@8", "sdcg@25")

Grades = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one language, each with its interval by group.

    `exact`, `within_one`: share of pairs. `kendall_tau`, `spearman`, `difference` (labels minus human) by metric, over `queries`
    queries that have a gain under both; empty where none has.
    """

    queries: int
    pairs: int
    exact: Interval
    within_one: Interval
    kendall_tau: dict[str, Interval]
    spearman: dict[str, Interval]
    difference: dict[str, Interval]


def agreement(data: RelevanceData, answers: Answers, levels: Floats | None, relevant: int, samples: int = 1000, seed: int = 7) -> dict[str, Agreement]:
    """Per language. `answers`: the system whose rankings are measured; `levels`: what the teacher says of the same pairs."""
    if levels is None:
        raise DataError(f"the teacher's levels are not the {data.levels} levels of {data.folder.name}; its labels cannot stand for these grades")
    found = {}
    for lang in sorted(set(answers.pairs.lang.tolist())):
        rows = answers.pairs.lang == lang
        both = _per_query(data, answers.where(rows), most_probable(levels[rows]), relevant)
        found[lang] = _agreement(data, answers.where(rows), levels[rows], both, samples, seed)
    return found


def _agreement(data: RelevanceData, answers: Answers, levels: Floats, both: dict[int, dict[str, tuple[float, float]]], samples: int, seed: int) -> Agreement:
    pairs = answers.pairs
    drawn = resample(pairs.group, samples, seed)

    def share(values: Floats) -> Interval:
        return interval(float(values.mean()), drawn.means(values, pairs.group))

    groups = np.array([data.queries[number].group for number in both], np.str_)
    metrics = {name: np.array([values[name] for values in both.values()]).T for name in (METRICS if both else ())}

    def compared(statistic: Callable[[Floats, Floats, Floats | None], Floats]) -> dict[str, Interval]:
        return {
            name: interval(float(statistic(human, labels, None)), drawn.statistics(lambda weights, x=human, y=labels: statistic(x, y, weights), groups))
            for name, (human, labels) in metrics.items()
        }

    apart = {name: interval(float((labels - human).mean()), drawn.means(labels - human, groups)) for name, (human, labels) in metrics.items()}
    shares = share(accuracy(levels, pairs.grade)), share(within_one(levels, pairs.grade))
    return Agreement(len(both), len(pairs), *shares, compared(kendall_tau), compared(spearman), apart)


def _per_query(data: RelevanceData, answers: Answers, labels: Grades, relevant: int) -> dict[int, dict[str, tuple[float, float]]]:
    """By place of the query: each metric of the system's ranking under human grades and under labels."""
    pairs, found = answers.pairs, {}
    for number, places in rows_by_query(pairs):
        if pairs.grade[places].any() and labels[places].any():
            ranked = places[rank([data.pins[pin].pin_id for pin in pairs.pin[places]], answers.scores[places], data.queries[number].query_id)]
            human, judged = (_figures(grades[ranked], relevant, data.levels - 1) for grades in (pairs.grade, labels))
            found[number] = {name: (human[name], judged[name]) for name in human}
    return found


def _figures(grades: Grades, relevant: int, best: int) -> dict[str, float]:
    return dict(zip(METRICS, (ndcg(grades, 20), precision(grades, 8, relevant), sdcg(grades, 25, best)), strict=True))
