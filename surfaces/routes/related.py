"""GET /v1/pins/{id}/related."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pins.ports import Where
from pins.retrieval.related import RelatedOptions, related_pins
from surfaces.asked import Asked, answer, card
from surfaces.cursors import Place, Rest, digest, pack
from surfaces.pages import depth, read_again, resume, strings
from surfaces.parameters import CursorQuery, DiversityQuery, LabelQuery, LimitQuery, PinIdPath
from surfaces.schemas import RelatedAnswer, RelatedResult

router = APIRouter(tags=["related pins"])


@router.get("/v1/pins/{pin_id:path}/related", response_model=RelatedAnswer, summary="Pins like a pin")
def related(
    request: Request,
    pin_id: PinIdPath,
    limit: LimitQuery = 20,
    lang: LabelQuery = None,
    category: LabelQuery = None,
    diversity: DiversityQuery = 0.0,
    cosaves: Annotated[bool, Query(description="Move up what people saved together with the pin.")] = True,
    cursor: CursorQuery = None,
) -> Response:
    """Neighbours in the live model's collection, without the pin itself and its near-duplicates, each with the reason. 404 for a pin that has no vector."""
    same = digest("related", pin_id, lang, category, diversity, cosaves)
    if cursor is not None:
        asked, rest = resume(request, cursor, same)
        page = [
            RelatedResult(score=place.score, why=str(place.stages.get("w", "")), duplicates=strings(place.stages.get("n")), **card(hit))
            for place, hit in read_again(asked, rest.places[:limit])
        ]
        return _answer(asked, pin_id, page, rest.places[limit:], same)
    asked = Asked(request, unit=pin_id)
    options = RelatedOptions(limit=limit, where=Where(lang=lang, category=category), diversity=diversity, depth=depth(limit))
    found = related_pins(pin_id, asked.served.index, options, asked.surface.cosaves.of(pin_id) if cosaves else None, asked.stage).results
    page = [RelatedResult(score=round(one.cosine, 5), why=one.why, duplicates=list(one.duplicates), **card(one.hit)) for one in found[:limit]]
    asked.shown("related", [one.pin_id for one in page])
    places = [Place(one.pin_id, round(one.cosine, 5), {"w": one.why} | ({"n": list(one.duplicates)} if one.duplicates else {})) for one in found[limit:]]
    return _answer(asked, pin_id, page, places, same)


def _answer(asked: Asked, pin_id: str, page: list[RelatedResult], rest: Sequence[Place], same: str) -> Response:
    return answer(RelatedAnswer(pin_id=pin_id, results=page, cursor=pack(Rest(asked.served.model_id, rest), same), **asked.head()))
