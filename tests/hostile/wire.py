"""Raw bytes to a server over keep-alive connections, and its answers, read as strictly as a client may."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; names of headers in lower case, in order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for known, value in self.headers if known == name), "")


class Line:
    """A connection that is made anew where the server ended it."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._sock: socket.socket | None = None

    def ask(self, raw: bytes) -> Answer | None:
        """The first answer to these bytes; None where the server closed without any, or had read too little of it to answer.

        Nothing more is sent after an answer came: what was left of the request goes with the connection.
        """
        sock = self._connected()
        head = raw[:5] == b"HEAD "
        try:
            with suppress(ConnectionError):  # the server may answer and close before it has read all
                sock.sendall(raw)
            answer, open_still = _answer(sock, head)
        except ConnectionError:
            answer, open_still = None, False
        except TimeoutError:
            raise AssertionError(f"no answer within {PATIENCE_S:g} s") from None
        if not open_still or b"100-continue" in raw.lower():
            self.close()
        return answer

    def close(self) -> None:
        if self._sock:
            self._sock.close()
        self._sock = None

    def _connected(self) -> socket.socket:
        if self._sock is None:
            self._sock = socket.create_connection(self._address, timeout=PATIENCE_S)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._sock


def _answer(sock: socket.socket, head_only: bool) -> tuple[Answer | None, bool]:
    """An answer, and whether the connection can be used again. Interim answers (1xx) are passed over."""
    received = bytearray()
    while True:
        head = _until(sock, received, b"\r\n\r\n")
        if not head:
            assert not received, f"closed within a head: {bytes(received[:200])!r}"
            return None, False
        status = int(head[9:12])
        if status >= 200:
            break
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    assert all(": " in line for line in lines), f"a header that is none: {lines}"
    headers = tuple((name.lower(), value) for name, _, value in (line.partition(": ") for line in lines))
    named = dict(headers)
    if head_only or status in (204, 304):
        body = b""
    elif named.get("transfer-encoding") == "chunked":
        body = _chunks(sock, received)
    else:
        body = _exactly(sock, received, int(named["content-length"]))
    return Answer(status, headers, body), named.get("connection") != "close" and not received


def _until(sock: socket.socket, received: bytearray, mark: bytes) -> bytes:
    while (at := received.find(mark)) < 0:
        chunk = sock.recv(65536)
        if not chunk:
            return b""
        received += chunk
    taken = bytes(received[: at + len(mark)])
    del received[: at + len(mark)]
    return taken


def _exactly(sock: socket.socket, received: bytearray, length: int) -> bytes:
    while len(received) < length:
        chunk = sock.recv(65536)
        assert chunk, "closed within a body"
        received += chunk
    taken = bytes(received[:length])
    del received[:length]
    return taken


def _chunks(sock: socket.socket, received: bytearray) -> bytes:
    body = b""
    while length := int(_until(sock, received, b"\r\n"), 16):
        body += _exactly(sock, received, length)
        _until(sock, received, b"\r\n")
    _until(sock, received, b"\r\n")
    return body
