"""Search: the pins most relevant to a query. Encode, retrieve by vector and by words at once, re-rank by expected relevance, fold and diversify.

An answer is a whole ranking, so that a page of it stays what it was while another is asked for. Each result carries what every stage gave it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pins.lexical import terms_of_query, terms_of_text, words
from pins.ports import Ask, Hit, PinIndex, Terms, Vector, Where
from pins.relevance import Level, most_probable
from pins.retrieval.diversity import fold_duplicates, mmr, unfolded
from pins.retrieval.fusion import Candidates, candidates
from pins.retrieval.late import SentenceVectors
from pins.retrieval.rerank import Ranking, by_fusion, by_late_interaction, by_relevance
from pins.retrieval.results import QueryEncoder, Stage, untimed


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search; the defaults are what a surface should use.

    `depth`: candidates asked of each ranking and, at most, results of the answer; never less than `limit`, the results of one page.
    `min_level`, 1 to 5: results whose most probable level is below are cut or marked. `diversity`, 0 to 1: see `pins.retrieval.diversity.mmr`.
    """

    limit: int = 20
    where: Where = Where()  # noqa: RUF009  frozen
    retrieval: Literal["hybrid", "dense", "sparse"] = "hybrid"
    rerank: Literal["relevance", "late_interaction", "none"] = "relevance"
    min_level: int = 1
    below: Literal["cut", "mark"] = "cut"
    fold: bool = True
    diversity: float = 0.0
    depth: int = 100

    @property
    def results(self) -> int:
        """Results of an answer, at most."""
        return max(self.depth, self.limit)


@dataclass(frozen=True, slots=True)
class Found:
    """One result. `hit` is as the index gave it; its score is the cosine, or the BM25 of a hit that only the words found.

    `relevance`: expected level, 1.0 to 5.0, and `level` the most probable one, both by the cosine alone; `score`: what the ranking is by.
    Ranks count from 1; None: that stage did not find or not look at the pin. `duplicates`: near-duplicates folded into this result, best first.
    """

    hit: Hit
    cosine: float
    relevance: float
    level: Level
    level_probabilities: tuple[float, ...]
    score: float
    fused: float
    dense_rank: int | None = None
    sparse_rank: int | None = None
    bm25: float | None = None
    late_interaction: float | None = None
    below_level: bool = False
    duplicates: tuple[str, ...] = ()
    matched_terms: tuple[str, ...] = ()

    @property
    def pin_id(self) -> str:
        return self.hit.pin_id


def search(
    text: str,
    encoder: QueryEncoder,
    index: PinIndex,
    options: SearchOptions = SearchOptions(),
    late: SentenceVectors | None = None,
    stage: Stage = untimed,
) -> list[Found]:
    """The pins most relevant to a query, best first.

    Stages: encode, retrieve, rerank, fold. Raises ValueError for an empty query, an encoder of another model, or late interaction without `late`.
    """
    require_one_model(encoder.model_id, index)
    if not text.strip():
        raise ValueError("the query is empty; give at least one word")
    with stage("encode"):
        query, terms = encoder.query(text), terms_of_query(text)
    with stage("retrieve"):
        found = _retrieve(query, terms, index, options)
    with stage("rerank"):
        ranking = _rerank(found, query, len(terms.ids), encoder, index, options, late)
    with stage("fold"):
        return _shown(ranking, options)


def with_matched_terms(page: Sequence[Found], text: str, index: PinIndex) -> list[Found]:
    """Results with the words of the query that their pins' texts hold. Reads the records of these results: for whoever asks for an explanation."""
    asked = {word: terms_of_query(word).ids for word in dict.fromkeys(words(text))}
    records = index.known([result.pin_id for result in page])
    return [replace(result, matched_terms=_matched(asked, records[result.pin_id].text)) if result.pin_id in records else result for result in page]


def require_one_model(model_id: str, index: PinIndex) -> None:
    """Raises ValueError when the query would be encoded by another model than the index was."""
    if model_id != index.model_id:
        raise ValueError(f"the query encoder is {model_id}, the index holds {index.model_id}; their vectors must not meet")


def _matched(asked: Mapping[str, tuple[int, ...]], text: str) -> tuple[str, ...]:
    held = set(terms_of_text(text).ids)
    return tuple(word for word, ids in asked.items() if held.issuperset(ids))


def _retrieve(query: Vector, terms: Terms, index: PinIndex, options: SearchOptions) -> Candidates:
    asks = {
        "dense": Ask(options.results, vector=query, where=options.where),
        "sparse": Ask(options.results, terms=terms, where=options.where),
    }
    wanted = [name for name in asks if options.retrieval in (name, "hybrid")]
    answers = dict(zip(wanted, index.ask([asks[name] for name in wanted]), strict=True))
    return candidates(query, answers.get("dense", ()), answers.get("sparse", ()))


def _rerank(
    found: Candidates, query: Vector, query_terms: int, encoder: QueryEncoder, index: PinIndex, options: SearchOptions, late: SentenceVectors | None
) -> Ranking:
    if options.rerank == "none":
        return by_fusion(found, encoder.ordinal_head)
    if options.rerank == "relevance":
        return by_relevance(found, encoder.ordinal_head, query_terms)
    if late is None:
        raise ValueError("late interaction needs an encoder of sentences: pass `late`, or choose rerank='relevance'")
    return by_late_interaction(found, encoder.ordinal_head, query_terms, query, late, index)


def _shown(ranking: Ranking, options: SearchOptions) -> list[Found]:
    """Levels, folding, diversity: from a ranking to its results."""
    found, levels = ranking.found, most_probable(ranking.probabilities)
    order = ranking.order if options.below == "mark" else [place for place in ranking.order if levels[place] >= options.min_level]
    folded = fold_duplicates(found.vectors, order) if options.fold else unfolded(order)
    kept = list(folded.kept[: options.results])
    duplicates = [tuple(found.hits[place].pin_id for place in places) for places in folded.duplicates[: options.results]]
    falling = np.minimum.accumulate(ranking.scores[kept])  # after late interaction the order is not that of the scores throughout
    results = _found(ranking, kept, levels[kept], duplicates, options.min_level)
    return [results[number] for number in mmr(falling, found.vectors[kept], options.diversity)]


def _found(ranking: Ranking, kept: list[int], levels: NDArray[np.int64], duplicates: Sequence[tuple[str, ...]], min_level: int) -> list[Found]:
    """The candidates at these places as results, with all that the stages gave them."""
    found = ranking.found
    columns = (found.cosines, ranking.relevance, ranking.scores, found.fused, found.bm25, ranking.late, found.dense_ranks, found.sparse_ranks)
    rows = zip(kept, levels.tolist(), ranking.probabilities[kept].tolist(), duplicates, *(column[kept].tolist() for column in columns), strict=True)
    return [
        Found(
            hit=found.hits[place],
            cosine=cosine,
            relevance=relevance,
            level=Level(level),
            level_probabilities=tuple(probabilities),
            score=score,
            fused=fused,
            dense_rank=dense_rank or None,
            sparse_rank=sparse_rank or None,
            bm25=bm25 if sparse_rank else None,
            late_interaction=None if math.isnan(late) else late,
            below_level=level < min_level,
            duplicates=folded,
        )
        for place, level, probabilities, folded, cosine, relevance, score, fused, bm25, late, dense_rank, sparse_rank in rows
    ]
