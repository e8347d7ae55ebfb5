"""The load generator measures what it says: latency from the scheduled time, shedding apart from failures, recovery, the mix."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any

import pytest

from bench.load.drive import Seen, ask_all, closed_loop, open_loop, percentiles, recovery_s
from bench.load.mix import SHARES, Asked, Mix
from bench.load.wire import Wires

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GET = Asked("pin", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def server(answer: Callable[[int], tuple[float, bytes]]) -> Handler:
    """Answers request `n` (over all connections) after so many seconds with these bytes."""
    asked = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                seconds, raw = answer(asked)
                asked += 1
                if seconds:
                    await asyncio.sleep(seconds)
                writer.write(raw)
        except asyncio.IncompleteReadError:
            return

    return handle


def run(handler: Handler, load: Callable[[Wires], Awaitable[Any]], most: int = 400) -> Any:
    handling: list[asyncio.Task[None] | None] = []

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        await handler(reader, writer)
        writer.close()
        await writer.wait_closed()

    async def whole() -> Any:
        started = await asyncio.start_server(handled, "127.0.0.1", 0)
        host, port = started.sockets[0].getsockname()
        async with started, Wires(host, port, most) as wires:
            made = await load(wires)
        await asyncio.gather(*filter(None, handling))
        return made

    return asyncio.run(whole())


def answered(status: int = 200, more: str = "") -> bytes:
    return f"HTTP/1.1 {status} A\r\nContent-Length: 2\r\n{more}\r\n{{}}".encode()


def forever() -> Any:
    while True:
        yield GET


def test_a_stall_counts_for_every_request_that_was_due_meanwhile() -> None:
    """No coordinated omission: one answer of 0.5 s on the only connection delays all that were due, and each says so."""
    seen = run(server(lambda number: (0.5 if number == 5 else 0, answered())), lambda wires: open_loop(wires, forever(), 100, 1.0, poisson=False), most=1)
    times = [ms for _, ms in seen.answered["pin"]]
    assert len(times) == 100
    assert 40 <= sum(ms > 50 for ms in times) <= 70
    assert percentiles(times)["p99"] > 400


def test_the_rate_is_kept_whatever_the_server_does() -> None:
    seen = run(server(lambda number: (0.3, answered())), lambda wires: open_loop(wires, forever(), 200, 0.5))
    assert 60 <= len(seen.answered["pin"]) <= 150
    assert percentiles(seen.late_ms)["p50"] < 50


def test_what_is_shed_is_no_failure_and_what_only_looks_so_is() -> None:
    kinds = [answered(), answered(503, "Retry-After: 1\r\n"), answered(503), answered(500), answered(404)]
    seen = run(server(lambda number: (0, kinds[number % 5])), lambda wires: ask_all(wires, [GET] * 50))
    assert len(seen.answered["pin"]) == 10
    assert len(seen.shed) == 10
    assert seen.failed == {"pin: 503": 10, "pin: 500": 10, "pin: 404": 10}
    summary = seen.summary(2.0)
    assert (summary["requests"], summary["shed_503"], summary["answered_per_second"]) == (50, 10, 5.0)
    json.dumps(summary)


def test_a_closed_connection_is_made_anew() -> None:
    seen = run(server(lambda number: (0, answered(200, "Connection: close\r\n"))), lambda wires: ask_all(wires, [GET] * 20))
    assert len(seen.answered["pin"]) == 20


def test_a_server_that_hangs_up_is_a_failure() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    seen = run(rude, lambda wires: ask_all(wires, [GET] * 3))
    assert seen.failed == {"pin: ConnectionError": 3}


def test_closed_loops_ask_again_when_they_are_answered() -> None:
    seen = run(server(lambda number: (0.05, answered())), lambda wires: closed_loop(wires, forever(), 4, 0.5))
    assert 8 <= len(seen.answered["pin"]) <= 44


def spell(good: float, from_s: float, to_s: float, ms: float) -> list[tuple[float, float]]:
    return [(good + from_s + step * 0.05, ms) for step in range(int((to_s - from_s) / 0.05))]


def test_recovery_is_when_the_last_bad_window_ends() -> None:
    before, after = Seen(), Seen()
    before.answered["search"] = spell(0, 0, 2, 10.0)
    over_at = time.perf_counter()
    after.answered["search"] = [*spell(over_at, 0, 1.0, 300.0), *spell(over_at, 1.0, 5.0, 12.0)]
    assert recovery_s(before, after, over_at) == 1.0
    after.shed = [(over_at + 1.7, 1.0)]
    assert recovery_s(before, after, over_at) == 2.0
    after.shed = [(over_at + 4.99, 1.0)]
    assert recovery_s(before, after, over_at) is None
    after.shed, after.answered["search"] = [], spell(over_at, 0, 5, 12.0)
    assert recovery_s(before, after, over_at) == 0.0


@pytest.fixture
def mix() -> Mix:
    return Mix([f"query {number}" for number in range(50)], [f"a/b {number}" for number in range(100)], ["u1", "u2"], "127.0.0.1:1", hits=0.85)


def test_the_mix_is_the_same_again_and_keeps_its_shares(mix: Mix) -> None:
    some = list(islice(mix, 4000))
    assert some == list(islice(mix, 4000))
    counts = Counter(asked.endpoint for asked in some)
    for endpoint, share in SHARES.items():
        assert counts[endpoint] / 4000 == pytest.approx(share, abs=0.03)


def test_queries_repeat_by_zipf_and_the_rest_were_never_asked(mix: Mix) -> None:
    bodies = [json.loads(asked.request.partition(b"\r\n\r\n")[2])["query"] for asked in islice(mix, 6000) if asked.endpoint == "search"]
    repeated = Counter(body for body in bodies if body in mix.queries)
    assert repeated.total() / len(bodies) == pytest.approx(0.85, abs=0.03)
    (_, first), (_, second) = repeated.most_common(2)
    assert first / second == pytest.approx(2.0, abs=0.5)
    new = [body for body in bodies if body not in mix.queries]
    assert len(set(new)) == len(new)


def test_requests_are_http(mix: Mix) -> None:
    for asked in [*islice(mix, 200), *mix.warming()]:
        head, _, body = asked.request.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        assert line.endswith(" HTTP/1.1")
        assert line.count(" ") == 2
        assert dict(header.split(": ") for header in headers).get("Content-Length", "0") == str(len(body))
    assert any(b"/v1/pins/a%2Fb%20" in asked.request for asked in islice(mix, 200))
