"""A pin's own story, embeddings of texts, and the map of a collection."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from everpin.wiring import now_us
from pins.changes import REASONS, IndexedPin
from pins.errors import PinNotFound
from surfaces.asked import Asked, answer, moment, shown
from surfaces.parameters import PinIdPath
from surfaces.projection import WORDS
from surfaces.schemas import Card, EmbeddingsAnswer, EmbeddingsRequest, MapAnswer, MapPoint, PinAnswer

router = APIRouter(tags=["pins"])
MAX_MAP_POINTS = 10_000


@router.get("/v1/pins/{pin_id:path}", response_model=PinAnswer, summary="What was embedded of a pin, when and why")
def pin(request: Request, pin_id: PinIdPath, features: Annotated[bool, Query(description="Also the pin's features now, from the store.")] = False) -> Response:
    """The pin's record in the live model's collection. A pin without a record is unknown; a deleted one says so."""
    asked = Asked(request)
    with asked.stage("read"):
        record = asked.served.index.known([pin_id]).get(pin_id)
        now = asked.surface.people.pin(pin_id) if features else None
    if record is None:
        raise PinNotFound(f"pin {pin_id!r} is unknown to {asked.served.collection}: it never had an event, or its event has not arrived yet")
    body = PinAnswer(
        pin=Card(**shown(pin_id, dict(record.fields), int(record.v), record.refused)),
        state="deleted" if record.dead else "live" if record.embedded else "no_text",
        text=record.text,
        v=int(record.v),
        embedded_at=moment(record.embedded_at_us),
        age_s=max(0.0, (now_us() - record.embedded_at_us) / 1e6) if record.embedded and record.embedded_at_us else None,
        reason=record.reason,
        reason_meaning=REASONS.get(record.reason, ""),
        features_as_of={view: at for view, at_us in record.as_of.items() if (at := moment(at_us))},
        features=asdict(now) if now else None,
        **asked.head(),
    )
    return answer(body)


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, summary="Vectors of texts, by the live model")
def embeddings(request: Request, wanted: EmbeddingsRequest) -> Response:
    """Unit vectors of the model that answers searches now; compare them with vectors of the same `model_id` only."""
    asked = Asked(request)
    with asked.stage("encode"):
        vectors = asked.served.encoder.encode(wanted.texts)
    return answer(EmbeddingsAnswer(dimension=vectors.shape[1], vectors=vectors.tolist(), **asked.head()))


@router.get("/v1/map", response_model=MapAnswer, summary="The embeddings on a plane")
def embedding_map(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_MAP_POINTS, description="Most pins on the map.")] = 3000) -> Response:
    """A projection of the collection's vectors, made on the server and at most some seconds old."""
    asked = Asked(request)
    with asked.stage("read"):
        plane = asked.surface.maps.of(asked.served, limit)
    points = [_point(pin, x, y) for pin, (x, y) in zip(plane.pins, plane.places.tolist(), strict=True)]
    return answer(MapAnswer(projection=WORDS, made_at=datetime.fromtimestamp(plane.made_at, UTC), points=points, **asked.head()))


def _point(pin: IndexedPin, x: float, y: float) -> MapPoint:
    fields = {name: str(pin.fields.get(name) or "") for name in ("title", "lang", "category")}
    return MapPoint(pin_id=pin.pin_id, x=round(x, 4), y=round(y, 4), **fields)
