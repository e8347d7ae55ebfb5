"""What a request may bring and how long it may take, as plain ASGI layers: the size and time of its body, JSON that every reader understands
alike, and shedding: past the limit a request is answered 503 at once, so that those taken are answered in time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from surfaces.schemas import Problem
from surfaces.strict_json import NotStrict, check

Headers = tuple[tuple[bytes, bytes], ...]
Refusal = tuple[int, str, str, Headers]
EXEMPT = frozenset({"/livez", "/readyz", "/metrics", "/version"})
"""Never shed: whoever asks these has to know that the process is alive when it is busiest."""
CLOSE: Headers = ((b"connection", b"close"),)
TITLES = {
    400: "The request cannot be read",
    408: "The request took too long to arrive",
    413: "The body is too large",
    414: "The address is too long",
    415: "The body is of another kind than JSON",
    421: "Not the host that was asked for",
    431: "The headers are too large",
    500: "A defect of Everpin's own",
    503: "Not now",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes. Sizes are bytes, times seconds unless the name says otherwise.

    `queue_ms`: a request that waited longer than this before any work on it began is shed. `held_bytes`: of all bodies that are arriving or being
    worked on. `write_s`: how long a client may leave its answer unread. `connections`: open at once; as many again are told that it is full.
    """

    in_flight: int = 32
    queue_ms: float = 500.0
    retry_after_s: int = 1
    body_bytes: int = 2 << 20
    held_bytes: int = 64 << 20
    json_depth: int = 16
    target_bytes: int = 16 << 10
    head_bytes: int = 32 << 10
    head_s: float = 10.0
    body_s: float = 10.0
    write_s: float = 30.0
    idle_s: int = 15
    connections: int = 1000


def problem(status: int, kind: str, detail: str, request_id: str) -> bytes:
    """A problem document (RFC 9457). `detail` must not repeat what the client sent."""
    return Problem(type=f"/problems/{kind}", title=TITLES[status], status=status, detail=detail, instance=request_id).model_dump_json().encode()


async def refuse(scope: Scope, send: Send, status: int, kind: str, detail: str, headers: Headers = ()) -> None:
    """Answer with a problem document."""
    body = problem(status, kind, detail, str(scope.get("request_id", "")))
    usual = ((b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": [*usual, *headers]})
    await send({"type": "http.response.body", "body": body})


class Bodies:
    """Takes a body whole before the application starts: so many bytes in so much time. Nobody holds a place while still sending."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits, self._held = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope["headers"]) if scope["type"] == "http" else {}
        length = named.get(b"content-length", b"0")
        if length == b"0" and b"transfer-encoding" not in named:
            await self._app(scope, receive, send)
        elif not length.isdigit() or len(length) > 18 or int(length) > self._limits.body_bytes:
            await refuse(scope, send, *self._too_large())
        else:
            await self._arriving(scope, receive, send)

    async def _arriving(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        began = time.monotonic()
        try:
            try:
                async with asyncio.timeout(self._limits.body_s):
                    refusal = await self._take(receive, body)
            except TimeoutError:
                refusal = 408, "body-too-slow", f"the body did not arrive within {self._limits.body_s:g} s; send it again", CLOSE
            if refusal:
                await refuse(scope, send, *refusal)
                return
            _begins_later(scope, time.monotonic() - began)
            await self._app(scope, _replay(bytes(body), receive), send)
        except ClientDisconnect:
            return
        finally:
            self._held -= len(body)

    async def _take(self, receive: Receive, body: bytearray) -> Refusal | None:
        """Add what arrives to `body`; returns why it is not taken. Raises ClientDisconnect."""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            body += chunk
            self._held += len(chunk)
            if len(body) > self._limits.body_bytes:
                return self._too_large()
            if self._held > self._limits.held_bytes:
                return 503, "overload", "too many bodies are arriving at once; try again", _retry_after(self._limits)
            if not message.get("more_body", False):
                return None

    def _too_large(self) -> Refusal:
        return 413, "body-too-large", f"a body may have {self._limits.body_bytes} bytes; send it in parts", ()


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that has the body whole, and after it whatever comes."""
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replayed() -> Message:
        nonlocal whole
        if whole is None:
            return await receive()
        message, whole = whole, None
        return message

    return replayed


def _retry_after(limits: Limits) -> Headers:
    return ((b"retry-after", b"%d" % limits.retry_after_s),)


def _begins_later(scope: Scope, seconds: float) -> None:
    """Waiting for the client is not waiting in line."""
    state = scope.get("state", {})
    if "arrived" in state:
        state["arrived"] += seconds


class Shedding:
    """Answers 503 with Retry-After when `in_flight` requests are being worked on, or when this one has already waited too long.

    How long it waited counts from `scope["state"]["arrived"]` (time.monotonic), which `connections` sets when the request's first bytes are read;
    without it only the number counts. `shed` is called with `in_flight` or `queue_time`.
    """

    def __init__(self, app: ASGIApp, limits: Limits, shed: Callable[[str], None]) -> None:
        self._app, self._limits, self._shed = app, limits, shed
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in EXEMPT:
            await self._app(scope, receive, send)
            return
        if reason := self._overload(scope):
            self._shed(reason)
            detail = f"this process has as much to do as it can; try again after {self._limits.retry_after_s} s"
            await refuse(scope, send, 503, "overload", detail, _retry_after(self._limits))
            return
        self.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.in_flight -= 1

    def _overload(self, scope: Scope) -> str:
        if self.in_flight >= self._limits.in_flight:
            return "in_flight"
        arrived = scope.get("state", {}).get("arrived")
        waited = 0.0 if arrived is None else time.monotonic() - arrived
        return "queue_time" if waited * 1000 > self._limits.queue_ms else ""


class StrictBodies:
    """Lets through bodies of strict JSON only. A form or plain text is refused: a page elsewhere may send those without asking first."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = dict(scope["headers"]) if scope["type"] == "http" else {}
        if named.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in named:
            await self._app(scope, receive, send)
            return
        body = (await receive()).get("body", b"")
        if body and not _is_json(named.get(b"content-type", b"")):
            await refuse(scope, send, 415, "not-json", "send the body as Content-Type: application/json, in UTF-8 and uncompressed")
            return
        try:
            if body:
                check(body, self._limits.json_depth)
        except NotStrict as error:
            await refuse(scope, send, 400, "unreadable", str(error))
            return
        await self._app(scope, _replay(body, receive), send)


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
