"""How good one system is on one split of a data folder: every figure with its bootstrap samples, and two systems compared on them.

Per language, with and without the query's own pin, and as the macro average over all languages but English (`mean_other`):

- nDCG@10, nDCG@20, P@8: judged candidates re-ranked by score; queries without any gain are left out, as `everpin evaluate` does.
- recall@100: all pins of the folder ranked; the share of a query's relevant judged pins (`relevant_grade` or more) among the first
  100, averaged over the queries that have any. Equal scores share the last places; pins that word search cannot find have none.
- accuracy, within_one, log_loss, ece (expected calibration error): over pairs, where the system's levels are the folder's levels.
- auroc@2+, @3+, @4+: whether a pair's grade reaches 2, 3, 4; ranked by the probability of those levels, else by score.
- spearman: score against grade, over pairs.

Intervals and differences come from one set of bootstrap draws of whole groups: paired wherever two systems answer the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pins import level_metrics
from pins.level_metrics import Reliability
from pins.metrics import Difference, Floats, Interval, Resampling, difference, interval, ndcg, precision, rank, resample
from pins.text import render
from training.data import Pairs, RelevanceData
from training.labels.candidates import Asked, Bm25
from training.labels.queries import BANDS, LabelQuery, popularity
from training.measures.answers import Answers
from training.measures.scorers import Scorer, rows_by_query

RELEVANT_GRADE = 3
"""Grades of at least this count as relevant; on a shorter scale its highest grade does."""
THRESHOLDS = (2, 3, 4)
MAIN = "en"
"""The language that `mean_other` leaves out: the one that the base encoder knows."""
RANKING = ("ndcg@10", "ndcg@20", "p@8", "recall@100")

Strings = NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: its value on the data, and on each bootstrap sample, float64 (samples,)."""

    value: float
    samples: Floats

    def interval(self) -> Interval:
        """The value and its 95 % interval."""
        return interval(self.value, self.samples)

    def minus(self, other: Figure) -> Difference:
        """What this figure has more than another one that was made from the same draws."""
        return difference(self.value - other.value, self.samples - other.samples)


@dataclass(frozen=True, slots=True)
class Part:
    """Figures of one language, and what they rest on: queries with a gain, and pairs."""

    queries: int
    pairs: int
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Quality:
    """Everything that was measured of one system. `parts` and `bands` map a name to languages, and those to their figures.

    `parts`: "languages", "languages_without_own_pin"; each may hold `mean_other`. `bands`: head, torso, tail.
    `confusion`: pairs per grade and most probable level; `reliability`: curves by name. Both are empty without levels.
    """

    model_id: str
    lineage: Mapping[str, Any]
    answers: Answers
    queries: int
    relevant_grade: int
    parts: dict[str, dict[str, Part]]
    bands: dict[str, dict[str, Part]]
    confusion: NDArray[np.int64] | None
    reliability: dict[str, Reliability]


@dataclass(frozen=True, slots=True)
class PerQuery:
    """Ranking figures per query, one row each; NaN where a query says nothing of a figure."""

    query: NDArray[np.int64]
    group: Strings
    lang: Strings
    values: dict[str, Floats]

    def where(self, keep: NDArray[Any]) -> PerQuery:
        """The rows that a boolean mask chooses."""
        return PerQuery(self.query[keep], self.group[keep], self.lang[keep], {name: values[keep] for name, values in self.values.items()})


def measure(scorer: Scorer, data: RelevanceData, answers: Answers, bands: Strings, samples: int = 1000, seed: int = 7) -> Quality:
    """All figures. `bands`: the band of each query of the folder (`popularity_bands`)."""
    relevant = min(RELEVANT_GRADE, data.levels - 1)
    parts, tables = {}, {}
    for name, keep in (("languages", np.ones(len(answers.pairs), bool)), ("languages_without_own_pin", ~answers.pairs.own)):
        kept = answers.where(keep)
        tables[name] = per_query(data, kept, relevant)
        parts[name] = _languages(tables[name], kept, data.levels, samples, seed)
    table = tables["languages"]
    banded = {band: _languages(table.where(bands[table.query] == band), None, data.levels, samples, seed) for band in BANDS}
    confusion, curves = None, {}
    if answers.levels is not None:
        grades, confusion = answers.pairs.grade, level_metrics.confusion(answers.levels, answers.pairs.grade)
        right = level_metrics.accuracy(answers.levels, grades)
        curves["most probable level"] = level_metrics.reliability(answers.levels.max(axis=1), right)
        curves[f"grade {relevant} or more"] = level_metrics.reliability(answers.levels[:, relevant:].sum(axis=1).clip(0, 1), grades >= relevant)
    asked = len(np.unique(answers.pairs.query))
    return Quality(scorer.model_id, scorer.lineage, answers, asked, relevant, parts, banded, confusion, curves)


def compare(first: Mapping[str, Part], second: Mapping[str, Part]) -> dict[str, dict[str, Difference]]:
    """Per language and figure that both have: first minus second, on the same draws."""
    return {
        lang: {name: figure.minus(second[lang].figures[name]) for name, figure in part.figures.items() if name in second[lang].figures}
        for lang, part in first.items()
        if lang in second
    }


def per_query(data: RelevanceData, answers: Answers, relevant: int) -> PerQuery:
    """Ranking figures of every query that has a gain, in the order of the folder."""
    pairs, rows = answers.pairs, []
    for number, places in rows_by_query(pairs):
        if pairs.grade[places].any():
            names = [data.pins[pin].pin_id for pin in pairs.pin[places]]
            ranked = places[rank(names, answers.scores[places], data.queries[number].query_id)]
            rows.append((number, _ranking(pairs.grade[ranked], None if answers.found is None else answers.found[ranked], relevant)))
    query = np.array([number for number, _ in rows], np.int64)
    group, lang = (np.array([getattr(data.queries[number], name) for number in query], np.str_) for name in ("group", "lang"))
    names = [name for name in RANKING if name != "recall@100" or answers.found is not None]
    return PerQuery(query, group, lang, {name: np.array([values[name] for _, values in rows], np.float64) for name in names})


def popularity_bands(data: RelevanceData, pairs: Pairs) -> Strings:
    """The band of each query of the folder, "" for queries without a pair: `training.labels.queries.popularity`.

    Judged data has no traffic, so a query is as popular as pins share a term with it: thirds of its language, and one that finds
    none is tail. A query of another language stands where the English query of its group does, if there is one: pins are written
    in English, and word search would find nothing.
    """
    asked = np.unique(pairs.query).tolist()
    english = {query.group: query for query in reversed(data.queries) if query.lang == MAIN}
    read = [english.get(data.queries[number].group, data.queries[number]) for number in asked]
    search = Bm25([render(pin).text for pin in data.pins], [pin.lang for pin in data.pins])
    found = np.array([np.count_nonzero(search.scores(query.text, query.lang)) for query in read], np.int64)
    queries = [LabelQuery(data.queries[number].text, data.queries[number].lang, Asked("", ""), "") for number in asked]
    bands = np.full(len(data.queries), "", "<U5")
    bands[asked] = popularity(queries, found)
    return bands


def _ranking(grades: NDArray[np.int64], found: Floats | None, relevant: int) -> dict[str, float]:
    wanted = grades >= relevant
    values = {"ndcg@10": ndcg(grades, 10), "ndcg@20": ndcg(grades, 20), "p@8": precision(grades, 8, relevant)}
    if found is not None:
        values["recall@100"] = float(found[wanted].mean()) if wanted.any() else float("nan")
    return values


def _languages(table: PerQuery, answers: Answers | None, levels: int, samples: int, seed: int) -> dict[str, Part]:
    """Figures per language that has a query with a gain, and `mean_other`. Without `answers`: ranking figures only."""
    parts = {}
    for lang in sorted(set(table.lang.tolist())):
        rows, own = table.where(table.lang == lang), None if answers is None else answers.where(answers.pairs.lang == lang)
        drawn = resample(rows.group, samples, seed)
        parts[lang] = _part(rows, own, levels, drawn, drawn if own is None else resample(own.pairs.group, samples, seed))
    others = [lang for lang in parts if lang != MAIN]
    if len(others) > 1:
        groups = table.group[table.lang != MAIN] if answers is None else answers.pairs.group[answers.pairs.lang != MAIN]
        drawn = resample(groups, samples, seed)
        shared = [
            _part(table.where(table.lang == lang), None if answers is None else answers.where(answers.pairs.lang == lang), levels, drawn, drawn)
            for lang in others
        ]
        parts["mean_other"] = _macro(shared)
    return parts


def _macro(parts: Sequence[Part]) -> Part:
    """The plain mean over languages, in each bootstrap sample over those that it holds; figures that every language has."""
    names = [name for name in parts[0].figures if all(name in part.figures for part in parts)]
    figures = {name: [part.figures[name] for part in parts] for name in names}
    means = {
        name: Figure(float(np.mean([one.value for one in some])), _mean_of_numbers(np.array([one.samples for one in some]))) for name, some in figures.items()
    }
    return Part(sum(part.queries for part in parts), sum(part.pairs for part in parts), means)


def _mean_of_numbers(values: Floats) -> Floats:
    """The mean over the first axis without what is no number."""
    known = np.isfinite(values)
    means: Floats = np.where(known, values, 0.0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)
    return means


def _part(table: PerQuery, answers: Answers | None, levels: int, queries: Resampling, pairs: Resampling) -> Part:
    figures = {name: _mean(values, table.group, queries) for name, values in table.values.items()}
    if answers is not None:
        figures |= _level_figures(answers, pairs) | _score_figures(answers, levels, pairs)
    known = {name: figure for name, figure in figures.items() if np.isfinite(figure.value)}
    return Part(len(table.query), 0 if answers is None else len(answers.pairs), known)


def _level_figures(answers: Answers, drawn: Resampling) -> dict[str, Figure]:
    levels, grades, groups = answers.levels, answers.pairs.grade, answers.pairs.group
    if levels is None:
        return {}
    means = {name: _mean(getattr(level_metrics, name)(levels, grades), groups, drawn) for name in ("accuracy", "within_one", "log_loss")}
    return means | {"ece": _statistic(lambda weights: level_metrics.calibration_error(levels, grades, weights=weights), groups, drawn)}


def _score_figures(answers: Answers, levels: int, drawn: Resampling) -> dict[str, Figure]:
    grades, groups = answers.pairs.grade, answers.pairs.group
    figures = {}
    for least in (threshold for threshold in THRESHOLDS if threshold < levels):
        by = answers.scores if answers.levels is None else answers.levels[:, least:].sum(axis=1)
        figures[f"auroc@{least}+"] = _statistic(lambda weights, by=by, least=least: level_metrics.auroc(grades >= least, by, weights), groups, drawn)
    return figures | {"spearman": _statistic(lambda weights: level_metrics.spearman(answers.scores, grades, weights), groups, drawn)}


def _mean(values: Floats, groups: Strings, drawn: Resampling) -> Figure:
    known = np.isfinite(values)
    if not known.any():
        return Figure(float("nan"), np.full(len(drawn.draws), np.nan))
    return Figure(float(values[known].mean()), drawn.means(values[known], groups[known]))


def _statistic(statistic: Callable[[Floats | None], Floats], groups: Strings, drawn: Resampling) -> Figure:
    return Figure(float(statistic(None)), drawn.statistics(statistic, groups))
