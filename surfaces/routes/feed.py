"""GET /v1/users/{id}/feed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from everpin.wiring import now_us
from pins.retrieval.feed import FeedOptions, feed_seed, home_feed
from surfaces.asked import Asked, answer, card
from surfaces.cursors import BadCursor, Place, Rest, digest, pack
from surfaces.pages import depth, read_again, resume
from surfaces.parameters import CursorQuery, DiversityQuery, LimitQuery, UserIdPath
from surfaces.schemas import FeedAnswer, FeedResult, Interest

router = APIRouter(tags=["home feed"])
SAMPLED_FOR_US = 60_000_000
"""The same interests are sampled for a user within one minute: a reload shows the same feed, a later visit another mix."""


@router.get("/v1/users/{user_id:path}/feed", response_model=FeedAnswer, summary="A user's home feed")
def feed(request: Request, user_id: UserIdPath, limit: LimitQuery = 20, diversity: DiversityQuery = 0.0, cursor: CursorQuery = None) -> Response:
    """Three of the user's interests, sampled by importance, mixed; nothing the user has saved or clicked. The newest pins for a user without a history."""
    same = digest("feed", user_id, diversity)
    if cursor is not None:
        return _next(request, user_id, limit, cursor, same)
    asked = Asked(request, unit=user_id)
    with asked.stage("history"):
        history = asked.surface.people.history(user_id)
    at_us = now_us()
    options = FeedOptions(limit=limit, diversity=diversity, depth=depth(limit))
    newest = asked.surface.newest.of(asked.served)
    found = home_feed(history, asked.served.index, at_us, options, feed_seed(user_id, at_us, SAMPLED_FOR_US), newest, asked.stage)
    page = [FeedResult(score=round(one.score, 5), why=one.why, interest=one.interest, **card(one.hit)) for one in found.results[:limit]]
    interests = [Interest(**asdict(interest)) for interest in found.interests]
    asked.shown("feed", [one.pin_id for one in page])
    places = [Place(one.pin_id, one.score, {"w": one.why, "i": one.interest}) for one in found.results[limit:]]
    extra = {"kind": found.kind, "interests": [interest.model_dump() for interest in interests]}
    return _answer(asked, user_id, extra, page, places, same)


def _next(request: Request, user_id: str, limit: int, cursor: str, same: str) -> Response:
    asked, rest = resume(request, cursor, same)
    page = [
        FeedResult(score=place.score, why=str(place.stages.get("w", "")), interest=str(medoid) if (medoid := place.stages.get("i")) else None, **card(hit))
        for place, hit in read_again(asked, rest.places[:limit])
    ]
    return _answer(asked, user_id, rest.extra, page, rest.places[limit:], same)


def _answer(asked: Asked, user_id: str, extra: Any, page: Sequence[FeedResult], rest: Sequence[Place], same: str) -> Response:
    try:
        interests = [Interest.model_validate(interest) for interest in extra["interests"]]
        body = FeedAnswer(user_id=user_id, kind=extra["kind"], interests=interests, results=list(page), cursor=None, **asked.head())
    except (TypeError, KeyError, ValueError) as error:
        raise BadCursor("this is no cursor of a home feed; ask again without one") from error
    return answer(body.model_copy(update={"cursor": pack(Rest(asked.served.model_id, rest, extra), same)}))
