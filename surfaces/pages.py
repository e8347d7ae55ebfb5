"""Pages of a ranking: the first shows its beginning and hands on the rest, the next reads those pins anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request

from everpin.serving import Served
from pins.ports import Hit
from surfaces.asked import Asked, Surface
from surfaces.cursors import Place, Rest, unpack
from surfaces.problems import Refused

PAGES = 3
"""Pages of the asked size that a ranking reaches for."""
LEAST_DEPTH, MOST_DEPTH = 60, 300


def depth(limit: int) -> int:
    """How deep a ranking goes for pages of this size."""
    return min(MOST_DEPTH, max(LEAST_DEPTH, PAGES * limit))


def resume(request: Request, cursor: str, asked: str) -> tuple[Asked, Rest]:
    """A request for a next page, bound to the model of its cursor. Raises BadCursor, or Refused (410) where that model is gone."""
    rest = unpack(cursor, asked)
    return Asked(request, ranked_by(request.app.state.surface, rest.model_id)), rest


def ranked_by(surface: Surface, model_id: str) -> Served:
    """The model that a cursor names. Raises Refused (410) where it is gone."""
    served = surface.live.of(model_id)
    if served is None:
        raise Refused(410, "cursor-gone", f"this page was ranked by {model_id[:80]}, which is not served any more; ask again without the cursor")
    return served


def read_again(asked: Asked, places: Sequence[Place], served: Served | None = None) -> list[tuple[Place, Hit]]:
    """The places whose pins are still live, each with its record as it is now, of the request's model or of `served`. Raises Unavailable."""
    with asked.stage("read"):
        records = (served or asked.served).index.known([place.pin_id for place in places])
    live = [(place, records[place.pin_id]) for place in places if place.pin_id in records and records[place.pin_id].embedded and not records[place.pin_id].dead]
    return [(place, Hit(place.pin_id, place.score, record.fields, int(record.v), None, record.refused)) for place, record in live]


def strings(value: Any) -> list[str]:
    """What a cursor's stage says to be a list of strings, if it is one."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def number(stages: Mapping[str, Any], name: str) -> float | None:
    """A number of a cursor's stages, if it is one."""
    value = stages.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
