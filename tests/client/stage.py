"""A real uvicorn server that answers as the API does, and plays the failures that a test asks of it, one a request."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from pydantic import BaseModel

from surfaces import schemas

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
COMMON: dict[str, Any] = {"request_id": "r1", "model_id": "everpin-l6-v1", "collection": "pins__everpin-l6-v1", "timings_ms": {"total": 4.2}}
CARD: dict[str, Any] = {
    "pin_id": "garden-012", "title": "Herbs", "lang": "en", "category": "garden", "boards": ["Balcony"], "image_url": "", "link_url": "",
    "created_at": NOW, "v": 1_764_000_000_000_000,
}  # fmt: skip


@dataclass(frozen=True)
class Refuse:
    """An error status, with a problem document unless other bytes are given."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Slow:
    """The answer, after a while."""

    seconds: float


@dataclass(frozen=True)
class Drop:
    """The head of an answer and half its body, then a closed connection."""


@dataclass(frozen=True)
class Trickle:
    """A body that comes byte by byte and has no end."""

    every_s: float


@dataclass(frozen=True)
class Say:
    """A success with these bytes."""

    body: bytes


@dataclass(frozen=True)
class Asked:
    """What a request held. `path`: as it was sent, escapes and all."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Stage:
    """The server's address, what to play for the next requests, and what was asked. Searches have `pages` pages."""

    url: str = ""
    plays: deque[Any] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    pages: int = 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        params = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = Asked(scope["method"], scope["raw_path"].decode(), params, headers, json.loads(body) if body else None)
        self.asked.append(asked)
        await play(self.plays.popleft() if self.plays else None, self.answer(asked), send)

    def answer(self, asked: Asked) -> BaseModel:  # noqa: PLR0911  # one return for each route
        """What the API answers. A body that does not fit the API's own schemas fails here."""
        turn = int(asked.params.get("cursor") or (asked.body or {}).get("cursor") or 1)
        cursor = str(turn + 1) if turn < self.pages else None
        match asked.method, asked.path.split("/")[2:]:
            case "POST", ["search"]:
                wanted = schemas.SearchRequest.model_validate(asked.body)
                result = schemas.SearchResult(**CARD, score=0.7, relevance=4.2, level=4, level_label="relevant")
                return schemas.SearchAnswer(**COMMON, query=wanted.query, lang_guess="en", results=[result], cursor=cursor)
            case "GET", ["pins", pin_id, "related"]:
                related = schemas.RelatedResult(**CARD, score=0.7, why="alike")
                return schemas.RelatedAnswer(**COMMON, pin_id=pin_id, results=[related], cursor=cursor)
            case "GET", ["users", user_id, "feed"]:
                return schemas.FeedAnswer(**COMMON, user_id=user_id, kind="newest", interests=[], results=[], cursor=cursor)
            case "POST", ["embeddings"]:
                texts = schemas.EmbeddingsRequest.model_validate(asked.body).texts
                return schemas.EmbeddingsAnswer(**COMMON, dimension=2, vectors=[[0.6, 0.8] for _ in texts])
            case "GET", ["pins", _]:
                features: dict[str, Any] | None = {"pin_content": {}} if asked.params.get("features") == "true" else None
                card = schemas.Card(**CARD)
                return schemas.PinAnswer(
                    **COMMON, pin=card, state="live", text="Herbs", v=card.v, embedded_at=NOW, age_s=1.5, reason="new", reason_meaning="it is new",
                    features_as_of={"pin_content": NOW}, features=features,
                )  # fmt: skip
            case "GET", ["map"]:
                point = schemas.MapPoint(pin_id="p1", title="Herbs", lang="en", category="garden", x=0.1, y=-0.2)
                return schemas.MapAnswer(**COMMON, projection="two directions of most variance", made_at=NOW, points=[point])
            case "PATCH", ["pins", _]:
                schemas.PinEdit.model_validate(asked.body)
                return schemas.Accepted(request_id="r1", accepted=1, event_time_us=CARD["v"])
            case "POST", ["events"]:
                return schemas.Accepted(request_id="r1", accepted=len(schemas.EventsRequest.model_validate(asked.body).events), event_time_us=CARD["v"])
            case "POST", ["users", _, "actions"]:
                return schemas.Accepted(request_id="r1", accepted=len(schemas.ActionsRequest.model_validate(asked.body).actions), event_time_us=CARD["v"])
        raise AssertionError(f"the API has no route {asked.method} {asked.path}")


def problem(status: int) -> schemas.Problem:
    return schemas.Problem(type="/problems/played", title="Played", status=status, detail="a test asked for it", instance="r1")


async def play(act: Any, answer: BaseModel, send: Any) -> None:
    whole = answer.model_dump_json().encode()
    match act:
        case Refuse(status, headers, body):
            own = problem(status).model_dump_json().encode() if body is None else body
            await say(send, status, own, {"content-type": "application/problem+json", **headers})
        case Slow(seconds):
            await asyncio.sleep(seconds)
            await say(send, 200, whole)
        case Drop():
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(whole)).encode())]})
            await send({"type": "http.response.body", "body": whole[: len(whole) // 2], "more_body": True})
        case Trickle(every_s):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(int(5 / every_s)):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(every_s)
        case Say(body):
            await say(send, 200, body)
        case None:
            await say(send, 200, whole)


async def say(send: Any, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running() -> Iterator[Stage]:
    """A stage with a server before it."""
    stage = Stage()
    with serving(stage) as stage.url:
        yield stage


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """An ASGI application behind uvicorn, on a free port of loopback: its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none", http="h11", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def wait_for(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.005)
