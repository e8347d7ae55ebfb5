"""Kept-open connections to one loopback address, for requests that are too frequent for a general client's time."""

from __future__ import annotations

import socket
from collections import deque

import httptools
import httpx

from pins.errors import Unavailable

KEPT = 32
"""Idle connections that are kept open."""
READ_BYTES = 1 << 18


class Connections:
    """Sends bytes, receives bytes. Thread-safe: each request has a connection to itself, and gives it back."""

    def __init__(self, url: httpx.URL, timeout_s: float) -> None:
        self._host, self._port, self._timeout_s = url.host, url.port or 80, timeout_s
        self._idle: deque[_Connection] = deque()

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer. Raises Unavailable. Sent once more when the other side had closed the connection meanwhile: reads may be repeated."""
        while True:
            kept = self._take()
            try:
                return self._exchange(kept or _Connection(self._host, self._port, self._timeout_s), path, body)
            except ConnectionError as error:
                if kept is None:
                    raise Unavailable(f"{self._host}:{self._port}{path} does not answer: {error}") from error
            except (OSError, httptools.HttpParserError) as error:
                raise Unavailable(f"{self._host}:{self._port}{path} does not answer: {error}") from error

    def close(self) -> None:
        """Close what is idle."""
        while connection := self._take():
            connection.close()

    def _exchange(self, connection: _Connection, path: str, body: bytes) -> bytes:
        try:
            status, answer = connection.exchange(path, body)
        except BaseException:
            connection.close()
            raise
        if connection.kept_open and len(self._idle) < KEPT:
            self._idle.append(connection)
        else:
            connection.close()
        if status != httpx.codes.OK:
            raise Unavailable(f"{path} answered {status}: {answer[:500].decode(errors='replace')}")
        return answer

    def _take(self) -> _Connection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None


class _Connection:
    """One connection and the parser of what comes over it, which calls the methods that begin with `on_`. Raises OSError, HttpParserError."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.socket = socket.create_connection((host, port), timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.kept_open = True
        self._host = f"{host}:{port}"
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._status = 0

    def exchange(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a POST."""
        lines = f"POST {path} HTTP/1.1", f"Host: {self._host}", "Content-Type: application/octet-stream", f"Content-Length: {len(body)}"
        self._parts, self._status = [], 0
        self.socket.sendall(b"%b\r\n\r\n%b" % ("\r\n".join(lines).encode(), body))
        while not self._status:
            if not (data := self.socket.recv(READ_BYTES)):
                raise ConnectionResetError("the connection was closed before the whole answer was there")
            self._parser.feed_data(data)
        return self._status, b"".join(self._parts)

    def close(self) -> None:
        """Close it for good."""
        self.socket.close()

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self._status, self.kept_open = self._parser.get_status_code(), self._parser.should_keep_alive()
