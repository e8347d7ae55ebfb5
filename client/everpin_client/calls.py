"""Every call of the API as a value: what is asked, what the answer is read into, and when it may be sent again. No I/O here.

An argument that is None is left out of the request, so the server's default holds; `everpin_client.models` documents each field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from everpin_client.errors import BadRequest
from everpin_client.models import (
    Accepted,
    ActionsRequest,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EventsRequest,
    FeedAnswer,
    Filters,
    MapAnswer,
    PinAnswer,
    PinEdit,
    RelatedAnswer,
    Request,
    SearchAnswer,
    SearchRequest,
    UserActionIn,
)

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[A]):
    """One request, and the model its answer is read into.

    `repeatable`: sending it twice does what sending it once does, so it may be sent again even where the first may have been handled.
    """

    method: Literal["GET", "POST", "PATCH"]
    path: str
    answer: type[A]
    params: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    repeatable: bool = True

    def content(self) -> bytes | None:
        """The body as JSON. Raises BadRequest where it holds what JSON has no word for."""
        try:
            return None if self.body is None else json.dumps(self.body, allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            raise BadRequest(f"not sent, the body is not JSON: {error}") from error

    def from_cursor(self, cursor: str) -> Call[A]:
        """The same call for the page that a cursor names."""
        if self.body is None:
            return replace(self, params={**self.params, "cursor": cursor})
        return replace(self, body={**self.body, "cursor": cursor})


def search(
    query: str,
    *,
    limit: int | None = None,
    filters: Filters | None = None,
    cursor: str | None = None,
    retrieval: Literal["hybrid", "dense", "sparse"] | None = None,
    rerank: Literal["relevance", "late_interaction", "none"] | None = None,
    min_level: int | None = None,
    below: Literal["cut", "mark"] | None = None,
    fold: bool | None = None,
    diversity: float | None = None,
    explain: bool | None = None,
) -> Call[SearchAnswer]:
    """The pins most relevant to a text, best first."""
    fields = {
        "query": query, "limit": limit, "filters": filters, "cursor": cursor, "retrieval": retrieval, "rerank": rerank, "min_level": min_level,
        "below": below, "fold": fold, "diversity": diversity, "explain": explain,
    }  # fmt: skip
    return Call("POST", "/v1/search", SearchAnswer, body=_body(SearchRequest, fields))


def related(
    pin_id: str,
    *,
    limit: int | None = None,
    lang: str | None = None,
    category: str | None = None,
    diversity: float | None = None,
    cosaves: bool | None = None,
    cursor: str | None = None,
) -> Call[RelatedAnswer]:
    """Pins like a pin, each with the reason. NotFound for a pin that is not there."""
    params = _given(limit=limit, lang=lang, category=category, diversity=diversity, cosaves=cosaves, cursor=cursor)
    return Call("GET", f"/v1/pins/{_segment('pin_id', pin_id)}/related", RelatedAnswer, params)


def feed(user_id: str, *, limit: int | None = None, diversity: float | None = None, cursor: str | None = None) -> Call[FeedAnswer]:
    """A user's home feed. For a user without a history it is the newest pins."""
    return Call("GET", f"/v1/users/{_segment('user_id', user_id)}/feed", FeedAnswer, _given(limit=limit, diversity=diversity, cursor=cursor))


def embed(texts: Iterable[str]) -> Call[EmbeddingsAnswer]:
    """Unit vectors of texts, by the live model, in the order of the texts."""
    return Call("POST", "/v1/embeddings", EmbeddingsAnswer, body=_body(EmbeddingsRequest, {"texts": _listed("texts", texts)}))


def pin(pin_id: str, *, features: bool = False) -> Call[PinAnswer]:
    """A pin's own story: what was embedded, when and why; with its features now, where they are asked for. NotFound for a pin that is not there."""
    return Call("GET", f"/v1/pins/{_segment('pin_id', pin_id)}", PinAnswer, {"features": True} if features else {})


def map_pins(*, limit: int | None = None) -> Call[MapAnswer]:
    """The embeddings, projected onto a plane."""
    return Call("GET", "/v1/map", MapAnswer, _given(limit=limit))


def edit_pin(pin_id: str, *, title: str | None = None, description: str | None = None) -> Call[Accepted]:
    """Give a pin another title or description. Accepted is not embedded: watch `v` of `pin(pin_id)`."""
    return Call("PATCH", f"/v1/pins/{_segment('pin_id', pin_id)}", Accepted, body=_body(PinEdit, {"title": title, "description": description}))


def send_events(events: Iterable[Mapping[str, Any]]) -> Call[Accepted]:
    """Send events of pins, in the format of Everpin's docs/events.md. Where all have `event_time_us`, sending them twice is harmless."""
    sent = [dict(event) for event in events]
    _checked(EventsRequest, {"events": sent})
    return Call("POST", "/v1/events", Accepted, body={"events": sent}, repeatable=all(event.get("event_time_us") is not None for event in sent))


def send_actions(user_id: str, actions: Iterable[UserActionIn]) -> Call[Accepted]:
    """Send what a user saved and clicked, oldest first. Where all have `time`, sending them twice is harmless: an action is known by pin, kind and time."""
    body = _body(ActionsRequest, {"actions": list(actions)})
    path = f"/v1/users/{_segment('user_id', user_id)}/actions"
    return Call("POST", path, Accepted, body=body, repeatable=all(action.get("time") is not None for action in body["actions"]))


def _body(model: type[Request], fields: Mapping[str, object]) -> dict[str, Any]:
    """The given fields as JSON values. Raises BadRequest for what the API would refuse."""
    return _checked(model, fields).model_dump(mode="json", exclude_unset=True)


def _checked(model: type[Request], fields: Mapping[str, object]) -> Request:
    try:
        return model.model_validate(_given(**fields))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}, got {str(item['input'])[:80]!r}" for item in error.errors())
        raise BadRequest(f"not sent, the API would refuse it: {wrong}") from error


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _listed(name: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise BadRequest(f"{name} is one text, {texts[:80]!r}; give a list of texts")
    return list(texts)


def _segment(name: str, identifier: str) -> str:
    """An id as one segment of a path. A lone dot is escaped too, for `..` would lead to another route."""
    if not identifier:
        raise BadRequest(f"{name} is empty; give an id")
    try:
        escaped = quote(identifier, safe="")
    except UnicodeEncodeError as error:
        raise BadRequest(f"{name} {identifier!r} is not Unicode text; give the id as the API shows it") from error
    return escaped if escaped.strip(".") else escaped.replace(".", "%2E")
