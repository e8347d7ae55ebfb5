"""The layers before the application, called as ASGI: what each lets through, what it refuses, and in which words."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from surfaces.arrival import EXEMPT, Limits
from surfaces.guard import LOOPBACK_HOSTS, guarded
from surfaces.strict_json import NotStrict, check

SMALL = Limits(body_bytes=1000, json_depth=4, target_bytes=200, head_bytes=500, body_s=0.2, held_bytes=1500)
JSON = {"content-type": "application/json"}


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the body it got."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError("what the client sent: hunter2")


async def called(app: ASGIApp, method: str = "POST", path: str = "/v1/search", **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8600") as client:
        return await client.request(method, path, **options)


def call(app: ASGIApp, method: str = "POST", path: str = "/v1/search", **options: Any) -> httpx.Response:
    return asyncio.run(called(app, method, path, **options))


def assert_problem(answer: httpx.Response, status: int, kind: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["type"], body["instance"]) == (status, f"/problems/{kind}", answer.headers["x-request-id"])
    assert body["detail"]


def test_a_body_within_the_limits_arrives_as_it_was_sent() -> None:
    body = json.dumps({"query": "balcón [[[{{{ \\\" ]"}).encode()
    assert call(guarded(echo, SMALL), content=body, headers=JSON).content == body
    assert call(guarded(echo, SMALL), "GET").content == b""


def test_a_body_in_chunks_arrives_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in (b'{"a"', b": [1,", b" 2]}"):
            yield part

    assert call(guarded(echo, SMALL), content=chunks(), headers=JSON).content == b'{"a": [1, 2]}'


@pytest.mark.parametrize("declared", [True, False], ids=["content-length", "chunked"])
def test_a_body_too_large_is_refused(declared: bool) -> None:
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 100
            yield b" " * 100

    assert_problem(call(guarded(echo, SMALL), content=b" " * 1001 if declared else chunks(), headers=JSON), 413, "body-too-large")
    assert taken <= 1200, "it went on reading past the limit"


@pytest.mark.parametrize("length", ["-1", "1e3", "9" * 40, "٣"])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    assert_problem(call(guarded(echo, SMALL), content=b"{}", headers=JSON | {"content-length": length.encode()}), 413, "body-too-large")


def test_a_body_that_drips_in_is_refused_in_time_and_leaves_nothing_behind() -> None:
    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    app = guarded(echo, SMALL)
    began = time.monotonic()
    answer = call(app, content=drip(), headers=JSON)
    assert_problem(answer, 408, "body-too-slow")
    assert answer.headers["connection"] == "close"
    assert SMALL.body_s <= time.monotonic() - began < 5
    assert app._app._held == 0


def test_bodies_that_arrive_together_are_bounded_together() -> None:
    waiting = asyncio.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        await waiting.wait()
        await echo(scope, receive, send)

    async def run() -> list[httpx.Response]:
        app = guarded(patient, SMALL)
        calls = [asyncio.create_task(called(app, content=b" " * 998 + b"{}", headers=JSON)) for _ in range(3)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        waiting.set()
        done = list(await asyncio.gather(*calls))
        return [*done, await called(app, content=b"{}", headers=JSON)]

    answers = asyncio.run(run())
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503]
    assert answers[-1].status_code == 200, "the bytes held were not given back"
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}


def test_a_client_that_leaves_while_sending_is_nobodys_defect(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        scope = {"type": "http", "method": "POST", "path": "/v1/search", "query_string": b"", "headers": [(b"content-length", b"9")]}
        arriving = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(arriving)

        async def send(message: Any) -> None:
            raise AssertionError(f"answered nobody: {message}")

        await guarded(echo, SMALL)(scope, receive, send)

    asyncio.run(run())
    assert not caplog.records


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", "", "json"])
def test_what_a_page_elsewhere_may_send_unasked_is_refused(kind: str) -> None:
    assert_problem(call(guarded(echo, SMALL), content=b"{}", headers={"content-type": kind}), 415, "not-json")


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"])
def test_json_by_any_of_its_names_is_let_through(kind: str) -> None:
    assert call(guarded(echo, SMALL), content=b"{}", headers={"content-type": kind}).status_code == 200


STRICT = {
    "nan": b'{"a": NaN}', "infinity": b"[-Infinity]", "overflow": b'{"a": 1e999}', "hidden overflow": b"[1E+00400]", "digits": b"[" + b"9" * 5000 + b"]",
    "lone surrogate": b'"\\ud800"', "the other half": b'"\\udc00 "', "utf-8": b'"\xff"', "surrogate in utf-8": b'"\xed\xa0\x80"',
    "utf-16": '{"a": 1}'.encode("utf-16"), "byte order mark": b"\xef\xbb\xbf{}", "two values": b"{} {}", "control": b'"\x00"',
    "single quotes": b"{'a': 1}", "comma": b"[1,]", "unclosed": b'{"a": "',
    "depth": b"[[[[[]]]]]", "depth of objects": b'{"a":{"a":{"a":{"a":{"a":1}}}}}', "open": b"[" * 900, "closed first": b"]" * 900, "spaces": b" ",
}  # fmt: skip


@pytest.mark.parametrize("body", STRICT.values(), ids=STRICT)
def test_json_that_readers_differ_on_is_refused(body: bytes) -> None:
    limits = replace(SMALL, body_bytes=10_000, held_bytes=10_000)
    answer = call(guarded(echo, limits), content=body, headers=JSON)
    assert_problem(answer, 400, "unreadable")


FINE = [b'"\\ud83d\\ude00"', b'"\\u0000"', b"[[[[]]]]", b"[1.5e-99, 1e99, 1e-300, -0]", b'{"e999": "1e999 NaN [[[[[[[["}', b'{"a": 1, "a": 2}', b"null"]


@pytest.mark.parametrize("body", FINE, ids=range(len(FINE)))
def test_json_is_let_through(body: bytes) -> None:
    check(body, 4)


SLOW = [b'"' + b'\\"' * 500_000, b'"\\' * 500_000, b"[" * 1_000_000, b"[]" * 500_000, b'"[' * 500_000, b'"' + b"[" * 1_000_000 + b'"' + b"x"]


@pytest.mark.parametrize("body", SLOW, ids=range(len(SLOW)))
def test_a_body_made_to_be_slow_to_check_is_not(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(NotStrict):
        check(body, 16)
    assert time.perf_counter() - began < 2, "checking is not linear"


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    assert call(guarded(echo), headers={"x-request-id": "Trace_1.2-3"}).headers["x-request-id"] == "Trace_1.2-3"
    for given in ("", "a b", "x" * 65, "id\twith", "<script>", "é"):
        made = call(guarded(echo), headers={"x-request-id": given.encode()}).headers["x-request-id"]
        assert len(made) == 16
        assert made != given
    assert len({call(guarded(echo)).headers["x-request-id"] for _ in range(20)}) == 20


def test_the_application_knows_the_request_id() -> None:
    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["request_id"].encode()})

    answer = call(guarded(named))
    assert answer.text == answer.headers["x-request-id"]


def test_every_answer_has_the_security_headers_once() -> None:
    app = guarded(echo, SMALL)
    for answer in (call(app), call(app, content=b"{", headers=JSON), call(app, "GET", "/"), call(guarded(broken))):
        names = [name for name, _ in answer.headers.multi_items()]
        for name in ("content-security-policy", "x-content-type-options", "referrer-policy", "permissions-policy", "x-request-id",
                     "cross-origin-opener-policy", "cross-origin-resource-policy", "cross-origin-embedder-policy"):  # fmt: skip
            assert names.count(name) == 1, name
        assert "server" not in names
    assert call(app).headers["cache-control"] == "no-store"
    assert "cache-control" not in call(app, "GET", "/web/page.css").headers


def test_the_policy_lets_the_page_load_from_here_alone() -> None:
    policy = dict(part.split(" ", 1) for part in call(guarded(echo)).headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' data:"
    wider = call(guarded(echo, images=["https://images.example"])).headers
    assert "img-src 'self' data: https://images.example;" in wider["content-security-policy"]
    assert wider["cross-origin-embedder-policy"] == "credentialless"


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "LOCALHOST", "[::1]:80"])
def test_its_own_names_are_answered(host: str) -> None:
    assert call(guarded(echo, hosts=LOOPBACK_HOSTS), headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:80:80", ""])
def test_a_name_of_somebody_elses_is_not(host: str) -> None:
    assert_problem(call(guarded(echo, hosts=LOOPBACK_HOSTS), headers={"host": host}), 421, "another-host")


def test_heads_are_bounded() -> None:
    assert_problem(call(guarded(echo, SMALL), "GET", "/v1/pins/" + "x" * 200), 414, "address-too-long")
    assert_problem(call(guarded(echo, SMALL), "GET", "/v1/map", params={"a": "x" * 200}), 414, "address-too-long")
    assert_problem(call(guarded(echo, SMALL), headers={"x-a": "y" * 500}), 431, "headers-too-large")


def test_a_defect_is_answered_and_logged_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    answer = call(guarded(broken))
    assert_problem(answer, 500, "defect")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert answer.headers["x-request-id"] in record.getMessage()
    assert "ValueError at broken" in record.getMessage()
    assert "hunter2" not in record.getMessage() + answer.text
    assert record.exc_info is None


ELSEWHERE = {"origin": "https://app.example", "access-control-request-method": "POST"}


def test_cors_is_closed_by_default() -> None:
    for app in (guarded(echo), guarded(echo, origins=["https://other.example"]), guarded(echo, origins=["http://app.example"])):
        for method in ("OPTIONS", "POST"):
            assert not [name for name in call(app, method, headers=ELSEWHERE).headers if name.startswith("access-control")]


def test_cors_opens_to_the_origins_named() -> None:
    app = guarded(echo, origins=["https://app.example"])
    asked, answer = call(app, "OPTIONS", headers=ELSEWHERE), call(app, headers={"origin": "https://app.example"})
    assert asked.status_code == 204
    assert "Authorization" in asked.headers["access-control-allow-headers"]
    for one in (asked, answer):
        assert one.headers["access-control-allow-origin"] == "https://app.example"
        assert one.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in one.headers
    assert call(app).headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", ["*", "null", "app.example", "https://app.example/", "https://*.example"])
def test_an_origin_that_is_none_is_refused_at_start(origin: str) -> None:
    with pytest.raises(ValueError, match="web origins"):
        guarded(echo, origins=[origin])


class Gate:
    """An application whose answers wait until it is opened."""

    def __init__(self) -> None:
        self.opened, self.inside = asyncio.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside += 1
        await self.opened.wait()
        await echo(scope, receive, send)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


def test_past_the_limit_requests_are_shed_at_once_and_health_is_not() -> None:
    async def run() -> None:
        gate, shed = Gate(), list[str]()
        app = guarded(gate, replace(SMALL, in_flight=2, retry_after_s=3), shed=shed.append)
        taken = [asyncio.create_task(called(app)) for _ in range(2)]
        await until(lambda: gate.inside == 2)
        refused = await called(app)
        assert_problem(refused, 503, "overload")
        assert refused.headers["retry-after"] == "3"
        health = [asyncio.create_task(called(app, "GET", path)) for path in sorted(EXEMPT)]
        await until(lambda: gate.inside == 2 + len(EXEMPT))
        gate.opened.set()
        assert [answer.status_code for answer in await asyncio.gather(*taken, *health)] == [200] * (2 + len(EXEMPT))
        assert (await called(app)).status_code == 200, "it does not recover"
        assert shed == ["in_flight"]

    asyncio.run(run())


def test_a_request_that_waited_too_long_is_shed() -> None:
    shed = list[str]()
    inner = guarded(echo, replace(SMALL, queue_ms=100), shed=shed.append)

    async def after(app_waited_s: float) -> httpx.Response:
        async def late(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope | {"state": {"arrived": time.monotonic() - app_waited_s}}, receive, send)

        return await called(late)

    assert asyncio.run(after(0.0)).status_code == 200
    assert_problem(asyncio.run(after(0.5)), 503, "overload")
    assert shed == ["queue_time"]


def test_the_clients_own_slowness_is_no_time_in_line() -> None:
    inner = guarded(echo, replace(SMALL, queue_ms=50, body_s=5))

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.1)
        yield b"}"

    async def run() -> httpx.Response:
        async def stamped(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope | {"state": {"arrived": time.monotonic()}}, receive, send)

        return await called(stamped, content=slow(), headers=JSON)

    assert asyncio.run(run()).status_code == 200


def test_a_failure_gives_its_place_back() -> None:
    app = guarded(broken, replace(SMALL, in_flight=1))
    assert [call(app).status_code for _ in range(3)] == [500, 500, 500]


def test_every_limit_is_told_with_its_value() -> None:
    section = (Path(__file__).parents[2] / "docs/surfaces.md").read_text().partition("\n## Limits\n")[2].partition("\n## ")[0]
    told = re.findall(r"^\| (`\w+`.*?) \| (.*?) \|", section, re.MULTILINE)
    named = {name: value for names, values in told for name, value in zip_longest(re.findall(r"`([a-z_]+)`", names), values.split(", "), fillvalue=values)}
    scales = {"KiB": 1 << 10, "MiB": 1 << 20, "ms": 1, "s": 1}
    said = {name: float(number) * scales.get(unit, 1) for name, value in named.items() for number, _, unit in [value.partition(" ")]}
    assert said == {name: value for name, value in asdict(Limits()).items() if name != "retry_after_s"}
