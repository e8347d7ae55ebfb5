"""Cursors: the rest of a ranking, carried by whoever asked for it.

A ranking moves while pins change, so a page cannot be found again by its number. The first answer therefore ranks to a depth once and hands the
places that it did not show to the asker, packed; the next page reads those pins anew and ranks nothing. So no pin comes twice, none that was
ranked is passed over, a pin deleted meanwhile is left out, any server can answer, and no server remembers anything. A cursor names its model:
a page is of one model like any answer, and the rest of an interleaved one of both of its own (`surfaces.interleaved`). It is no secret and proves
nothing: it holds what its holder could ask for anyway.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson

from surfaces.schemas import MAX_CURSOR_CHARS, MAX_ID_CHARS

MAX_UNPACKED_BYTES = 200_000
"""A cursor that unpacks to more was not made here."""
_KEYS = {"m", "q", "r", "x"}


class BadCursor(ValueError):
    """Not a cursor of this request; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """One ranked pin that was not shown yet. `stages` holds what ranking knew of it, by name, where somebody may ask."""

    pin_id: str
    score: float
    stages: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rest:
    """The rest of a ranking by `model_id`, best first. `extra` is what else the next page needs, as JSON."""

    model_id: str
    places: Sequence[Place]
    extra: Any = None


def digest(*asked: Any) -> str:
    """Of everything that a request asked but its cursor and limit: a cursor fits that request alone."""
    return blake2b(orjson.dumps(asked, default=str, option=orjson.OPT_SORT_KEYS), digest_size=9).hexdigest()


def pack(rest: Rest, asked: str) -> str | None:
    """The cursor of a rest, None where there is none. Places beyond what a cursor can hold are left off: rankings end somewhere."""
    places = list(rest.places)
    while places:
        body = {"m": rest.model_id, "q": asked, "r": [[p.pin_id, round(p.score, 5), p.stages] for p in places], "x": rest.extra}
        packed = base64.urlsafe_b64encode(zlib.compress(orjson.dumps(body, default=dict), 1)).decode().rstrip("=")
        if len(packed) <= MAX_CURSOR_CHARS:
            return packed
        places = places[: len(places) * 3 // 4]
    return None


def unpack(cursor: str, asked: str) -> Rest:
    """What a cursor holds. Raises BadCursor for anything but a cursor that this request was given."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        opened = zlib.decompressobj()
        text = opened.decompress(raw, MAX_UNPACKED_BYTES)
        body = orjson.loads(text)
    except (ValueError, zlib.error, RecursionError) as error:
        raise BadCursor("this is no cursor of an answer; ask again without one") from error
    if opened.unconsumed_tail or not _fits(body):
        raise BadCursor("this is no cursor of an answer; ask again without one")
    if body["q"] != asked:
        raise BadCursor("this cursor belongs to another request; send the same query, filters and options with it, or none")
    return Rest(body["m"], [Place(pin_id, float(score), stages) for pin_id, score, stages in body["r"]], body["x"])


def _fits(body: Any) -> bool:
    if not (isinstance(body, dict) and body.keys() == _KEYS and isinstance(body["m"], str) and isinstance(body["q"], str) and isinstance(body["r"], list)):
        return False
    return all(isinstance(row, list) and len(row) == 3 and _is_place(*row) for row in body["r"])


def _is_place(pin_id: Any, score: Any, stages: Any) -> bool:
    number = isinstance(score, (int, float)) and not isinstance(score, bool) and abs(score) < 1e6
    return isinstance(pin_id, str) and 0 < len(pin_id) <= MAX_ID_CHARS and number and isinstance(stages, dict)
