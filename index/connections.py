"""Kept-open connections to one loopback address, for requests that are too frequent for a general client's time."""

from __future__ import annotations

from collections import deque
from http.client import HTTPConnection, HTTPException

import httpx

from pins.errors import Unavailable

KEPT = 32
"""Idle connections that are kept open."""


class Connections:
    """Sends bytes, receives bytes. Thread-safe: each request has a connection to itself, and gives it back."""

    def __init__(self, url: httpx.URL, timeout_s: float) -> None:
        self._host, self._port, self._timeout_s = url.host, url.port or 80, timeout_s
        self._idle: deque[HTTPConnection] = deque(maxlen=KEPT)

    def post(self, path: str, body: bytes) -> bytes:
        """The body of the answer. Raises Unavailable. Sent once more when the other side had closed the connection meanwhile: reads may be repeated."""
        while True:
            kept = self._take()
            connection = kept or HTTPConnection(self._host, self._port, timeout=self._timeout_s)
            try:
                return self._exchange(connection, path, body)
            except ConnectionError as error:
                connection.close()
                if kept is None:
                    raise Unavailable(f"{self._host}:{self._port}{path} does not answer: {error}") from error
            except (OSError, HTTPException) as error:
                connection.close()
                raise Unavailable(f"{self._host}:{self._port}{path} does not answer: {error}") from error

    def close(self) -> None:
        """Close what is idle."""
        while connection := self._take():
            connection.close()

    def _exchange(self, connection: HTTPConnection, path: str, body: bytes) -> bytes:
        connection.request("POST", path, body, {"Content-Type": "application/octet-stream"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != httpx.codes.OK:
            connection.close()
            raise Unavailable(f"{path} answered {response.status}: {answer[:500].decode(errors='replace')}")
        self._idle.append(connection)
        return answer

    def _take(self) -> HTTPConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None
