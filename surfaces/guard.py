"""What stands before the application, from the outside in, as `guarded` stacks it: `Envelope` (request id, security headers, host and head limits,
a defect's last words), `Origins` (CORS), then the layers of `arrival`. Every refusal is a problem document (RFC 9457). Plain ASGI throughout: this
is on every request's way. What must be bounded below HTTP is in `connections`.
"""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from surfaces.arrival import Bodies, Headers, Limits, Shedding, StrictBodies, refuse

__all__ = ["LOOPBACK_HOSTS", "Limits", "guarded", "security_headers"]

log = logging.getLogger("everpin.surfaces")
SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


def guarded(
    app: ASGIApp,
    limits: Limits = Limits(),
    origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    images: Iterable[str] = (),
    shed: Callable[[str], None] = lambda reason: None,
) -> ASGIApp:
    """The application behind every layer.

    `origins`: web origins that may call from a browser (none: closed). `hosts`: the names it answers to, without port (None: any; with keys off
    give LOOPBACK_HOSTS, or a page elsewhere could reach it by a name of its own). `images`: further origins that the page may show images of.
    `shed`: called with `in_flight` or `queue_time` for each request that is shed. Raises ValueError for an origin that is none.
    """
    inner = Bodies(Shedding(StrictBodies(app, limits), limits, shed), limits)
    return Envelope(Origins(inner, origins) if origins else inner, limits, security_headers(images), hosts)


def security_headers(images: Iterable[str] = ()) -> Headers:
    """What every answer says to a browser: load from here alone, guess no types, tell nobody, be framed by nobody."""
    sources = ["'self'", "data:", *images]
    policy = [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "font-src 'self'", "manifest-src 'self'",
        f"img-src {' '.join(sources)}", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]  # fmt: skip
    return (
        (b"content-security-policy", "; ".join(policy).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-embedder-policy", b"require-corp" if len(sources) == 2 else b"credentialless"),
    )


class Envelope:
    """Gives a request its id (`scope["request_id"]`, X-Request-Id), an answer its security headers, and a defect its 500."""

    def __init__(self, app: ASGIApp, limits: Limits, headers: Headers, hosts: Collection[str] | None) -> None:
        self._app, self._limits, self._headers = app, limits, headers
        self._hosts = None if hosts is None else frozenset(host.lower().encode() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = dict(scope["headers"])
        given = named.get(b"x-request-id", b"")
        scope["request_id"] = given.decode() if SANE_ID.match(given) else secrets.token_hex(8)
        more = [(b"x-request-id", scope["request_id"].encode()), *self._headers]
        if scope["path"].startswith("/v1/"):
            more.append((b"cache-control", b"no-store"))
        started = False

        async def enveloped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        try:
            if refusal := self._refusal(scope, named):
                await refuse(scope, enveloped, *refusal)
            else:
                await self._app(scope, receive, enveloped)
        except Exception as error:
            log.error("request %s: %s", scope["request_id"], _where(error))
            if not started:
                await refuse(scope, enveloped, 500, "defect", "a defect of Everpin's own; report it with the request id")

    def _refusal(self, scope: Scope, named: Mapping[bytes, bytes]) -> tuple[int, str, str] | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > self._limits.target_bytes:
            return 414, "address-too-long", f"path and query may have {self._limits.target_bytes} bytes together"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > self._limits.head_bytes:
            return 431, "headers-too-large", f"the headers may have {self._limits.head_bytes} bytes together"
        if self._hosts is not None and _host(named.get(b"host", b"")) not in self._hosts:
            return 421, "another-host", "this server does not answer to the name in the Host header; use the address that it printed when it started"
        return None


def _host(header: bytes) -> bytes:
    """The host of a Host header without its port, in lower case; an IPv6 address keeps its brackets."""
    return re.sub(rb":\d*\Z", b"", header.strip().lower())


def _where(error: BaseException) -> str:
    """An exception's class and places, without its message: that may repeat what the client sent."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.name} ({frame.filename}:{frame.lineno})" for frame in reversed(frames))


class Origins:
    """CORS for the origins named, and for no others; never with cookies."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        wrong = [origin for origin in origins if not re.fullmatch(r"https?://[A-Za-z0-9.\-\[\]:]+", origin)]
        if wrong:
            raise ValueError(f"{wrong} are no web origins; write each as https://host or https://host:port, without a path and without *")
        self._app, self._origins = app, frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        named = dict(scope["headers"])
        origin = named.get(b"origin", b"")
        granted: Headers = ((b"vary", b"Origin"),)
        if origin in self._origins:
            granted += ((b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"X-Request-Id, Retry-After"))
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in named:
                await self._allow(send, granted)
                return

        async def granting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *granted]
            await send(message)

        await self._app(scope, receive, granting)

    async def _allow(self, send: Send, granted: Headers) -> None:
        """Answer the question that a browser asks before the request."""
        methods = (b"access-control-allow-methods", b"GET, POST, PATCH")
        headers = (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-Id")
        await send({"type": "http.response.start", "status": 204, "headers": [*granted, methods, headers, (b"access-control-max-age", b"600")]})
        await send({"type": "http.response.body", "body": b""})
