"""POST /v1/search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from embedder.query import normalise
from pins.ports import Hit, Where
from pins.relevance import OrdinalHead
from pins.retrieval.language import guess_language
from pins.retrieval.search import Found, SearchOptions, search
from surfaces.asked import Asked, answer, card
from surfaces.cursors import Place, Rest, digest, pack
from surfaces.interleaved import draft, explained, marked, models_of, read_places, rejoin, side
from surfaces.pages import depth, number, resume, strings
from surfaces.problems import Refused
from surfaces.schemas import Explanation, Filters, SearchAnswer, SearchRequest, SearchResult

router = APIRouter(tags=["search"])


@router.post("/v1/search", response_model=SearchAnswer, summary="The pins most relevant to a query")
def search_pins(request: Request, wanted: SearchRequest) -> Response:
    """By meaning and by words, re-ranked by expected relevance. Each result has its level, 1 (highly irrelevant) to 5 (highly relevant)."""
    query = normalise(wanted.query)
    if not query:
        raise Refused(422, "empty-query", "the query is blank; give at least one word")
    same = digest("search", query, wanted.model_dump(mode="json", exclude={"query", "cursor", "limit", "explain"}))
    asked, page, teams, rest = _next(request, wanted, same) if wanted.cursor is not None else _first(request, wanted, query)
    if wanted.explain:
        with asked.stage("read"):
            page = explained(asked, page, teams, query)
    if wanted.cursor is None:
        asked.shown("search", [found.pin_id for found in page], teams)
    models, other = models_of(asked, page, teams), asked.beside.model_id if asked.beside else None
    results = [_result(found, model_id, explain=wanted.explain) for found, model_id in zip(page, models, strict=True)]
    cursor = pack(Rest(asked.served.model_id, rest, other), same)
    reader, lang = asked.served.query_model_id, guess_language(query)
    return answer(SearchAnswer(query=query, query_model_id=reader, interleaved_with=other, lang_guess=lang, results=results, cursor=cursor, **asked.head()))


def where(filters: Filters) -> Where:
    """Filters as the index knows them; a time without a zone is in UTC."""
    since = filters.created_since
    return Where(lang=filters.lang, category=filters.category, board=filters.board, created_since_us=None if since is None else micros(since))


def micros(moment: datetime) -> int:
    """Epoch microseconds; a time without a zone is in UTC."""
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)


def _first(request: Request, wanted: SearchRequest, query: str) -> tuple[Asked, Sequence[Found], Sequence[str], Sequence[Place]]:
    asked = Asked(request, unit=query, drafts=True)
    options = SearchOptions(
        limit=wanted.limit,
        where=where(wanted.filters),
        retrieval=wanted.retrieval,
        rerank=wanted.rerank,
        min_level=wanted.min_level,
        below=wanted.below,
        fold=wanted.fold,
        diversity=wanted.diversity,
        depth=depth(wanted.limit),
    )
    ranking, teams = draft(asked, lambda served: search(query, served.reader, served.index, options, served.sentences, asked.stage), options.results)
    rest = [Place(found.pin_id, found.cosine, _stages(found)) for found in ranking[wanted.limit :]]
    return asked, ranking[: wanted.limit], teams[: wanted.limit], marked(rest, teams[wanted.limit :])


def _next(request: Request, wanted: SearchRequest, same: str) -> tuple[Asked, Sequence[Found], Sequence[str], Sequence[Place]]:
    asked, rest = resume(request, wanted.cursor or "", same)
    rejoin(asked, rest)
    read = read_places(asked, rest.places[: wanted.limit])
    page = [_found(hit, place.stages, side(asked, team).reader.ordinal_head, wanted.min_level) for place, hit, team in read]
    return asked, page, [team for _, _, team in read], rest.places[wanted.limit :]


def _stages(found: Found) -> dict[str, Any]:
    """What a later page may be asked to explain, under short names."""
    known = {"d": found.dense_rank, "s": found.sparse_rank, "b": found.bm25, "f": found.fused, "l": found.late_interaction, "n": list(found.duplicates)}
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in known.items() if value}


def _found(hit: Hit, stages: Mapping[str, Any], head: OrdinalHead, min_level: int) -> Found:
    level = head.level(hit.score)
    dense, sparse = (int(rank) if (rank := number(stages, key)) is not None else None for key in ("d", "s"))
    return Found(
        hit=hit,
        cosine=hit.score,
        relevance=float(head.expected(hit.score)),
        level=level,
        level_probabilities=tuple(head.probabilities(hit.score).tolist()),
        score=hit.score,
        fused=number(stages, "f") or 0.0,
        dense_rank=dense,
        sparse_rank=sparse,
        bm25=number(stages, "b"),
        late_interaction=number(stages, "l"),
        below_level=int(level) < min_level,
        duplicates=tuple(strings(stages.get("n"))),
    )


def _result(found: Found, model_id: str | None, *, explain: bool) -> SearchResult:
    return SearchResult(
        model_id=model_id,
        score=round(found.cosine, 5),
        relevance=round(found.relevance, 4),
        level=int(found.level),
        level_label=found.level.label,
        below_level=found.below_level,
        duplicates=list(found.duplicates),
        explain=_explanation(found) if explain else None,
        **card(found.hit),
    )


def _explanation(found: Found) -> Explanation:
    return Explanation(
        dense_rank=found.dense_rank,
        cosine=round(found.cosine, 5),
        sparse_rank=found.sparse_rank,
        bm25=found.bm25,
        fused=found.fused,
        late_interaction=found.late_interaction,
        level_probabilities=[round(share, 5) for share in found.level_probabilities],
        matched_terms=list(found.matched_terms),
    )
