"""Real sockets on loopback: heads and bodies that drip, oversized heads, answers nobody reads, too many connections. On both of uvicorn's parsers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from surfaces.arrival import Limits
from surfaces.connections import Bounded, server_options
from surfaces.guard import guarded

QUICK = Limits(head_s=0.3, body_s=0.3, write_s=0.6, idle_s=1, head_bytes=4000, target_bytes=4000, connections=4, body_bytes=100_000)
GET = b"GET /v1/map HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
PATIENCE_S = 10.0


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/v1/vast` answers with 64 MiB; everything else with how long the request waited before the application had it."""
    message = await receive()
    waited = time.monotonic() - scope["state"]["arrived"]
    body = bytes(64 << 20) if scope["path"] == "/v1/vast" else json.dumps({"waited": waited, "bytes": len(message["body"])}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@dataclass(frozen=True)
class Served:
    """A server under test: where it is, and the connections it has."""

    port: int
    connections: set[Any]

    def connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def asked(self, request: bytes) -> bytes:
        with self.connect() as sock:
            sock.sendall(request)
            return until_closed(sock) if b"connection: close" in request.lower() else answer(sock)


@contextmanager
def running(application: ASGIApp, limits: Limits, parser: type) -> Iterator[Served]:
    http = type("BoundedHttp", (Bounded, parser), {"limits": limits})
    options = server_options(limits) | {"http": http, "lifespan": "off", "log_level": "error", "host": "127.0.0.1", "port": 0}
    server = uvicorn.Server(uvicorn.Config(application, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield Served(server.servers[0].sockets[0].getsockname()[1], server.server_state.connections)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@pytest.fixture(params=[HttpToolsProtocol, H11Protocol], ids=["httptools", "h11"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with running(guarded(app, QUICK), QUICK, request.param) as made:
        yield made


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)


def until_closed(sock: socket.socket) -> bytes:
    received = bytearray()
    with suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            received += chunk
    return bytes(received)


def answer(sock: socket.socket) -> bytes:
    """One whole answer with a content-length."""
    received = bytearray()
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536) or pytest.fail(f"closed after {received!r}")
    head = bytes(received.partition(b"\r\n\r\n")[0]).lower()
    length = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
    while len(received) < len(head) + 4 + length:
        received += sock.recv(65536) or pytest.fail("closed within a body")
    return bytes(received)


def problem(received: bytes, status: int) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received[:300]
    assert b"content-type: application/problem+json" in head.lower()
    found: dict[str, Any] = json.loads(body)
    assert found["status"] == status
    return found


def drip(sock: socket.socket, piece: bytes) -> bytes:
    """Send a piece every 20 ms until the other side ends it; returns what it said."""
    sock.settimeout(0.02)
    received, deadline = b"", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            sock.sendall(piece)
            chunk = sock.recv(65536)
            if not chunk:
                return received
            received += chunk
        except TimeoutError:
            continue
        except (ConnectionResetError, BrokenPipeError):
            return received
    pytest.fail("the server let it drip")


def test_requests_go_through_on_one_connection(served: Served) -> None:
    with served.connect() as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert answer(sock).startswith(b"HTTP/1.1 200")
            body = b'{"query": "' + b"x" * 90_000 + b'"}'
            sock.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert json.loads(answer(sock).partition(b"\r\n\r\n")[2])["bytes"] == len(body)


def test_a_head_that_drips_is_ended(served: Served) -> None:
    began = time.monotonic()
    with served.connect() as sock:
        sock.sendall(b"GET /v1/map HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        problem(drip(sock, b"a"), 408)
    assert QUICK.head_s <= time.monotonic() - began < PATIENCE_S
    eventually(lambda: not served.connections)


def test_a_second_head_that_drips_is_ended_too(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET)
        answer(sock)
        sock.sendall(b"GET /v1/map HTTP/1.1\r\nX-A: ")
        problem(drip(sock, b"a"), 408)


def test_a_connection_that_says_nothing_is_closed(served: Served) -> None:
    with served.connect() as sock:
        assert until_closed(sock) == b""


def test_a_body_that_drips_is_ended(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(POST + b"Content-Length: 5000\r\n\r\n{")
        problem(drip(sock, b" "), 408)


def test_a_chunked_body_that_drips_is_ended(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        problem(drip(sock, b"1\r\n \r\n"), 408)


@pytest.mark.parametrize("framing", [b"Content-Length: 99999999", b"Transfer-Encoding: chunked"])
def test_the_rest_of_a_refused_body_is_read_for_a_while_and_dropped(served: Served, framing: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(POST + framing + b"\r\n\r\n")
        piece = b"1000\r\n" + b" " * 4096 + b"\r\n" if b"chunked" in framing else b" " * 4096
        for _ in range(30):
            sock.sendall(piece)
        problem(answer(sock), 413)
        began = time.monotonic()
        drip(sock, piece)
        assert time.monotonic() - began < PATIENCE_S / 2


def test_a_connection_is_used_again_after_a_refused_body(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(POST + b"Content-Length: 100001\r\n\r\n" + b" " * 50_000)
        problem(answer(sock), 413)
        sock.sendall(b" " * 50_001 + GET)
        assert answer(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("head", [b"GET /v1/map HTTP/1.1\r\nX-A: ", b"GET /", b"GET /v1/map HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"X-A: "])
def test_a_head_without_end_is_refused_by_its_size(served: Served, head: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(head)
        for _ in range(4):
            with suppress(ConnectionError):
                sock.sendall(b"a" * 4000)
        received = until_closed(sock)
    assert received.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400")) or not received  # nothing: the reset overtook it


def test_a_whole_head_too_large_is_refused(served: Served) -> None:
    problem(served.asked(b"GET /v1/map HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 5000 + b"\r\n\r\n"), 431)
    problem(served.asked(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"), 414)


@pytest.mark.parametrize("request_line", [b"\x16\x03\x01\x02\x00\x01\x00", b"nonsense\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"\r\n\r\n\x00\r\n\r\n"])
def test_bytes_that_are_no_http_are_refused(served: Served, request_line: bytes) -> None:
    with served.connect() as sock:
        sock.sendall(request_line)
        problem(until_closed(sock), 400)


@pytest.mark.parametrize("framing", [
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 2\r\nContent-Length: 3\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", b"Content-Length : 2\r\n",
])  # fmt: skip
def test_one_request_is_never_taken_for_two(served: Served, framing: bytes) -> None:
    """Request smuggling: whatever is answered, the bytes after the ambiguous request are not taken for a request of their own."""
    with served.connect() as sock:
        sock.sendall(POST + framing + b"\r\n{}" + b"\r\n0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = until_closed(sock)
    assert received.startswith(b"HTTP/1.1 4") or not received
    assert received.count(b"HTTP/1.1 200") == 0


def test_an_answer_that_nobody_reads_is_ended(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b"/map", b"/vast"))
        eventually(lambda: bool(served.connections))
        eventually(lambda: not served.connections)


def test_an_answer_that_is_read_slowly_is_not_ended(served: Served) -> None:
    with served.connect() as sock:
        sock.sendall(GET.replace(b"/map", b"/vast"))
        began, received = time.monotonic(), 0
        while time.monotonic() - began < 3 * QUICK.write_s:
            received += len(sock.recv(65536))
            time.sleep(0.01)
        while received < 64 << 20:
            chunk = sock.recv(1 << 20)
            assert chunk, f"ended after {received} bytes"
            received += len(chunk)


def test_connections_are_bounded_and_free_again(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(QUICK.connections):
            sock = stack.enter_context(served.connect())
            sock.sendall(GET)
            answer(sock)
        received = served.asked(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"retry-after: 1" in received
        problem(received, 503)
        silent = [stack.enter_context(served.connect()) for _ in range(QUICK.connections + 3)]
        assert until_closed(silent[-1]) == b""
        eventually(lambda: len(served.connections) <= 2 * QUICK.connections)
    eventually(lambda: not served.connections)
    assert served.asked(GET).startswith(b"HTTP/1.1 200")


def test_good_requests_are_answered_among_slow_ones(served: Served) -> None:
    with ExitStack() as stack:
        for _ in range(QUICK.connections - 1):
            stack.enter_context(served.connect()).sendall(POST + b"Content-Length: 5000\r\n\r\n{")
        assert served.asked(GET).startswith(b"HTTP/1.1 200")


def test_nothing_names_the_server(served: Served) -> None:
    for received in (served.asked(GET), served.asked(b"nonsense\r\nconnection: close\r\n\r\n")):
        assert b"\r\nserver:" not in received.lower()


def test_time_in_line_is_counted_from_the_first_bytes(served: Served) -> None:
    """An application that blocks the loop makes the next request wait; that wait is what shedding sees."""
    with served.connect() as sock:
        sock.sendall(GET)
        assert 0 <= json.loads(answer(sock).partition(b"\r\n\r\n")[2])["waited"] < 1


@pytest.mark.parametrize("parser", [HttpToolsProtocol, H11Protocol])
def test_requests_that_wait_behind_a_busy_loop_are_shed(parser: type) -> None:
    shed = list[str]()

    async def busy(scope: Scope, receive: Receive, send: Send) -> None:
        time.sleep(0.15 if scope["path"] == "/v1/map" else 0)  # what a defect, or too many requests at once, does to the loop
        await app(scope, receive, send)

    limits = Limits(queue_ms=100)
    with running(guarded(busy, limits, shed=shed.append), limits, parser) as made, ExitStack() as stack:
        socks = [stack.enter_context(made.connect()) for _ in range(12)]
        for sock in socks:
            sock.sendall(GET.replace(b"/map", b"/quick"))
            assert answer(sock).startswith(b"HTTP/1.1 200")
        for sock in socks:
            sock.sendall(GET)
        answers = [answer(sock) for sock in socks]
        assert made.asked(GET).startswith(b"HTTP/1.1 200"), "it does not recover"
    assert sum(one.startswith(b"HTTP/1.1 200") for one in answers) == 12 - len(shed)
    assert 0 < len(shed) < 12
    assert set(shed) == {"queue_time"}
