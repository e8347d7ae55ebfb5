"""The owner's side of an embedded index: what its process answers to the others on this machine (`index.loopback`).

Reads that are asked hundreds of times a second are bytes in, bytes out, taken before any routing: `Reads`. The rest are routes like any others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from fastapi import APIRouter, Body, FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from index.wire import pack_answers, pack_briefs, pack_points, pack_records, pack_refusal, pack_vectors, unpack_asks, unpack_writes
from pins.changes import IndexedPin
from pins.errors import Unavailable, Unembeddable
from pins.ports import Hit, PinIndex, Vector

MOST_WRITES = 256
"""Points that an owner takes in one request."""
MOST_POINTS = 4096
"""Points with their vectors that an owner reads in one request, some 200 ms of its time."""
TOLD = (Unavailable, ValueError, TypeError, KeyError)
"""What whoever asks is told of: the index does not answer, or the request cannot be read."""
PACKED = "application/octet-stream"
"""What a write must say it is: a page in a browser cannot, so none can write to an owner behind its reader's back."""


def offer(app: FastAPI, index: PinIndex) -> None:
    """Give an application, before it runs, what it takes to answer for this index: everything under `/index`."""
    app.include_router(_routes(index))
    app.add_middleware(Reads, index=index)


class Reads:
    """Answers the frequent reads before the application sees them. They are made in the event loop: the engine lets no other thread run anyway."""

    def __init__(self, app: ASGIApp, index: PinIndex) -> None:
        self._app = app
        self._acts: dict[str, Callable[[bytes], bytes]] = {
            "/index/ask": lambda body: pack_briefs(index.ask(unpack_asks(body))),
            "/index/bodies": lambda body: pack_answers([_bodies(index, _ids(body))]),
            "/index/known": lambda body: pack_records(index.known(_ids(body))),
            "/index/vectors": lambda body: pack_vectors(index.vectors(_ids(body))),
            "/index/points": lambda body: pack_points(*_page_of_points(index, **orjson.loads(body))),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        act = self._acts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if act is None:
            await self._app(scope, receive, send)
            return
        try:
            body = await _whole(receive)
        except ClientDisconnect:
            return
        status, answer = _read(act, body)
        headers = [(b"content-type", PACKED.encode()), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def _whole(receive: Receive) -> bytes:
    """The body of a request. Raises ClientDisconnect."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _read(act: Callable[[bytes], bytes], body: bytes) -> tuple[int, bytes]:
    """Status and body of a read's answer."""
    try:
        return 200, act(body)
    except TOLD as error:
        return _told(error)


def _routes(index: PinIndex) -> APIRouter:
    router = APIRouter(prefix="/index")

    @router.get("/counts")
    def counts() -> dict[str, Any]:
        return {"model_id": index.model_id, "counts": dict(index.counts())}

    @router.get("/scan")
    def scan(cursor: str, limit: int) -> dict[str, Any]:
        records, following = index.page(cursor, limit)
        return {"records": [asdict(pin) for pin in records], "cursor": following}

    @router.post("/sweep")
    def sweep(before_v: int = Body(embed=True)) -> dict[str, int]:
        return dict(index.sweep(before_v))

    router.add_route("/index/write", _written(index), methods=["POST"])
    router.add_route("/index/flush", _flushed(index), methods=["POST"])
    return router


def _written(index: PinIndex) -> Callable[[Request], Awaitable[Response]]:
    """Guarded writes in, the ids of those that landed out; 422 says why one of them was refused. In a thread, so that searches go on meanwhile."""

    def write(body: bytes) -> Response:
        writes = unpack_writes(body)
        if len(writes) > MOST_WRITES:
            raise ValueError(f"{len(writes)} writes; send at most {MOST_WRITES} at once")
        try:
            return Response(orjson.dumps(sorted(index.write(writes))), media_type="application/json")
        except Unembeddable as error:
            return Response(pack_refusal(error), status_code=422, media_type="application/json")

    async def answered(request: Request) -> Response:
        if request.headers.get("content-type") != PACKED:
            return Response(f"writes are {PACKED}", status_code=415)
        body = await request.body()
        return await _answering(lambda: run_in_threadpool(write, body))

    return answered


def _flushed(index: PinIndex) -> Callable[[Request], Awaitable[Response]]:
    async def flush() -> Response:
        await run_in_threadpool(index.flush)
        return Response("{}", media_type="application/json")

    async def answered(request: Request) -> Response:
        return await _answering(flush)

    return answered


def _bodies(index: PinIndex, pin_ids: Sequence[str]) -> list[Hit]:
    """Records before vectors: of a pin that is written in between, the vector is then newer than its version says, and is soon read again."""
    records, vectors = index.known(pin_ids), index.vectors(pin_ids)
    return [Hit(pin_id, 0.0, pin.fields, int(pin.v), vectors[pin_id], pin.refused) for pin_id, pin in records.items() if pin_id in vectors]


def _page_of_points(index: PinIndex, cursor: str, limit: int, newer_than: int, bare: bool) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
    if not (isinstance(cursor, str) and isinstance(bare, bool) and type(limit) is type(newer_than) is int and 0 < limit <= MOST_POINTS):
        raise TypeError(f"a page is a cursor, a limit of 1 to {MOST_POINTS}, a version that is a whole number, and whether it is bare")
    return index.page_of_points(cursor, limit, newer_than, bare=bare)


def _ids(body: bytes) -> list[str]:
    wanted = orjson.loads(body)["pin_ids"]
    if not (isinstance(wanted, list) and all(isinstance(pin_id, str) for pin_id in wanted)):
        raise TypeError("pin_ids is a list of strings")
    return wanted


async def _answering(act: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await act()
    except TOLD as error:
        status, words = _told(error)
        return Response(words, status_code=status)


def _told(error: Exception) -> tuple[int, bytes]:
    """Status and body of an answer to a request that failed."""
    return (503, str(error).encode()) if isinstance(error, Unavailable) else (400, f"this cannot be read: {error}".encode())
