"""HTTP/1.1 over keep-alive connections, as cheap as Python allows: the generator shares the machine with what it measures."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `retry_after`: whether it says when to come back."""

    status: int
    retry_after: bool
    body: bytes


class Wire(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.gone.set()
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed before it was answered"))

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request whole; the answer comes in the future. Raises ConnectionError there."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._answer.set_exception(ConnectionError("closed"))
        else:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end])
        found = LENGTH.search(head)
        whole = end + 4 + int(found[1] if found else 0)
        if len(self._received) < whole:
            return
        body, self._received = bytes(self._received[end + 4 : whole]), self._received[whole:]
        if CLOSES.search(head) and self._transport:
            self._transport.close()
        if self._answer and not self._answer.done():
            self._answer.set_result(Answer(int(head[9:12]), bool(RETRY_AFTER.search(head)), body))

    def close(self) -> None:
        if self._transport:
            self._transport.close()


class Wires:
    """Connections to one server, opened as they are needed, `most` of them at most. `async with` closes them."""

    def __init__(self, host: str, port: int, most: int = 400) -> None:
        self._host, self._port, self._most = host, port, most
        self._idle: list[Wire] = []
        self._free = asyncio.Semaphore(most)

    async def ask(self, request: bytes) -> Answer:
        """One request on whichever connection is free. Raises OSError."""
        async with self._free:
            wire = await self._taken()
            try:
                return await wire.ask(request)
            finally:
                if wire.open:
                    self._idle.append(wire)

    async def _taken(self) -> Wire:
        while self._idle:
            wire = self._idle.pop()
            if wire.open:
                return wire
        _, made = await asyncio.get_running_loop().create_connection(Wire, self._host, self._port)
        return made

    async def __aenter__(self) -> Wires:
        return self

    async def __aexit__(self, *error: object) -> None:
        for wire in self._idle:
            wire.close()
            await wire.gone.wait()
