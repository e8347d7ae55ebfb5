"""Bounds below HTTP, where no application can set them: the time and size of a request's head, answers that nobody reads, and how many
connections there are. uvicorn has a bound on idle connections only: a head may drip in for ever, and its `limit_concurrency` counts nothing
until the head is there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from surfaces.arrival import TITLES, Limits, problem

TOLD_WITHIN_S = 1.0
"""How long a connection past the limit may take to ask, so that it can be told that it is full."""
READ_AT_LEAST = 16 << 10
"""Bytes of an answer that a client must read in `write_s`."""


class Bounded(asyncio.Protocol):
    """Put before uvicorn's protocol class, whose attributes it reads: `cycle` is the request in hand, `connections` all that are open."""

    limits: ClassVar[Limits] = Limits()
    cycle: Any
    connections: set[Any]
    transport: asyncio.Transport
    app_state: dict[str, Any]
    loop: asyncio.AbstractEventLoop
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _bytes = 0
    _full = False
    _begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.connections) > 2 * self.limits.connections:
            self.transport.abort()
            return
        self._full = len(self.connections) > self.limits.connections
        self._head = self.loop.call_later(TOLD_WITHIN_S if self._full else self.limits.head_s, self._head_too_slow)

    def data_received(self, data: bytes) -> None:
        if self._full:
            self._tell(503, "overload", "too many connections are open; try again", f"retry-after: {self.limits.retry_after_s}\r\n")
            return
        if self._between():
            self._bytes += len(data)
        self.app_state["arrived"] = time.monotonic()  # uvicorn copies the state into the scope of each request it finds in the data
        super().data_received(data)
        if not self._between():
            self._bytes, self._begun = 0, False
            self._head = _cancel(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self.limits.head_s, self._head_too_slow)
        if self._between() and self._bytes > self.limits.head_bytes + self.limits.target_bytes and not self._answered_early():
            self._tell(431, "headers-too-large", f"the headers may have {self.limits.head_bytes} bytes together")

    def _between(self) -> bool:
        """Whether no request is in hand: a head is arriving, or nothing."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _answered_early(self) -> bool:
        """Whether what arrives is the rest of a body that was refused; it is read and dropped until the time for a head is over."""
        return self.cycle is not None and bool(self.cycle.more_body) and not self._begun

    def on_message_begin(self) -> None:
        """What httptools calls when a head begins, also after a body that was dropped. h11 bounds a head's size by itself."""
        super().on_message_begin()  # type: ignore[misc]  # of HttpToolsProtocol
        if self._answered_early():
            self._bytes = 0
        self._begun = True

    def _head_too_slow(self) -> None:
        self._head = None
        if not self.transport.is_closing():
            if self._bytes and not self._answered_early():
                self._tell(408, "head-too-slow", f"the request's head did not arrive within {self.limits.head_s:g} s")
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(None)

    def _watch_reader(self, unread: int | None) -> None:
        """Look again after `write_s`, and end a connection of whose answer no more was read since: `unread` bytes of it were left."""
        left = self.transport.get_write_buffer_size()
        if unread is not None and left > unread - READ_AT_LEAST:
            self.transport.abort()
        else:
            self._unread = self.loop.call_later(self.limits.write_s, self._watch_reader, left)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = _cancel(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._unread = _cancel(self._head), _cancel(self._unread)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for bytes that are no HTTP."""
        self._tell(400, "no-http", "the bytes sent are no HTTP/1.1 request")

    def _tell(self, status: int, kind: str, detail: str, headers: str = "") -> None:
        """Answer without the application, and close."""
        request_id = secrets.token_hex(8)
        body = problem(status, kind, detail, request_id)
        head = (
            f"HTTP/1.1 {status} {TITLES[status]}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\nx-content-type-options: nosniff\r\n{headers}connection: close\r\n\r\n"
        )
        if not self.transport.is_closing():
            self.transport.write(head.encode() + body)
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer; None is what is left of it."""
    if timer is not None:
        timer.cancel()
    return None


def bounded(limits: Limits) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol with these limits, for `uvicorn.Config(http=...)`."""
    return type("BoundedHttp", (Bounded, AutoHTTPProtocol), {"limits": limits})


def server_options(limits: Limits) -> dict[str, Any]:
    """What `uvicorn.Config` needs for these limits. No client can claim another address, and no header names the server."""
    return {
        "http": bounded(limits), "ws": "none", "server_header": False, "proxy_headers": False, "access_log": False,
        "timeout_keep_alive": limits.idle_s, "h11_max_incomplete_event_size": limits.head_bytes + limits.target_bytes,
    }  # fmt: skip
