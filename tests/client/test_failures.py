"""What a client does when the server fails: it asks again where that is right, not too often, not too long, and says what happened."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

from everpin_client import (
    AsyncEverpin,
    BadRequest,
    CursorGone,
    DeadlineExceeded,
    EverpinError,
    NotFound,
    Options,
    Retries,
    RetryBudget,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    UserActionIn,
    models,
)
from tests.client.conftest import QUICK, Driver
from tests.client.stage import NOW, Drop, Refuse, Say, Slow, Stage, Trickle

EVENT = {"type": "pin_updated", "pin_id": "p1"}
TIMED = EVENT | {"event_time_us": 1_764_000_000_000_000}
CALLS: dict[str, Any] = {
    "search": lambda c: c.search("herbs"),
    "related": lambda c: c.related("p1"),
    "feed": lambda c: c.feed("u1"),
    "embed": lambda c: c.embed(["herbs"]),
    "pin": lambda c: c.pin("p1"),
    "map": lambda c: c.map(),
    "edit_pin": lambda c: c.edit_pin("p1", title="Herbs"),
    "timed events": lambda c: c.send_events([TIMED]),
    "events": lambda c: c.send_events([TIMED, EVENT]),
    "timed actions": lambda c: c.send_actions("u1", [UserActionIn(pin_id="p1", time=NOW)]),
    "actions": lambda c: c.send_actions("u1", [UserActionIn(pin_id="p1")]),
}


@pytest.fixture
def nobody() -> str:
    """An address of loopback where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [503, 429])
def test_what_the_server_did_not_take_on_is_asked_again(client: Driver, stage: Stage, call: str, status: int) -> None:
    stage.plays += [Refuse(status), Refuse(status)]
    assert not isinstance(client.one(CALLS[call]), Exception)
    assert len(stage.asked) == 3
    assert stage.asked[0].body == stage.asked[2].body


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("failure", [Drop(), Refuse(502), Refuse(504), Slow(0.4)], ids=["drop", "502", "504", "slow"])
def test_what_may_have_been_done_is_asked_again_only_where_twice_is_harmless(client: Driver, stage: Stage, call: str, failure: Any) -> None:
    stage.plays.append(failure)
    outcome = client.one(CALLS[call], attempt_s=0.1)
    if call in ("events", "actions"):
        assert isinstance(outcome, Unavailable)
        assert len(stage.asked) == outcome.attempts == 1
    else:
        assert not isinstance(outcome, Exception)
        assert len(stage.asked) == 2


@pytest.mark.parametrize("call", ["search", "actions"])
def test_a_server_that_is_not_there_is_tried_a_few_times(client: Driver, nobody: str, call: str) -> None:
    budget = RetryBudget()
    error = client.one(CALLS[call], url=nobody, budget=budget)
    assert isinstance(error, Unavailable)
    assert (error.attempts, error.status, error.problem, budget.tokens) == (4, None, None, 7)
    assert "no answer from 127.0.0.1" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest), (401, Unauthorized), (403, Unauthorized), (404, NotFound), (410, CursorGone), (413, BadRequest), (422, BadRequest),
        (500, UnexpectedAnswer), (307, UnexpectedAnswer),
    ],
)  # fmt: skip
def test_a_refusal_for_good_is_raised_at_once_with_its_problem(client: Driver, stage: Stage, status: int, kind: type[EverpinError]) -> None:
    stage.plays.append(Refuse(status))
    error = client.one(CALLS["search"])
    assert type(error) is kind
    assert len(stage.asked) == error.attempts == 1
    assert (error.status, error.problem and error.problem.title, error.request_id) == (status, "Played", "r1")
    assert str(error) == f"HTTP {status}, Played: a test asked for it (request r1)"


def test_a_refusal_without_a_problem_document_is_told_too(client: Driver, stage: Stage) -> None:
    stage.plays += [Refuse(502, body=b"<html>proxy</html>")] * 4
    error = client.one(CALLS["pin"])
    assert isinstance(error, Unavailable)
    assert (error.status, error.problem, error.request_id, error.attempts) == (502, None, None, 4)
    assert "no problem document: b'<html>proxy</html>'" in str(error)


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'{"request_id": 3}', b"\xff"])
def test_an_answer_that_does_not_fit_is_told_and_not_asked_again(client: Driver, stage: Stage, body: bytes) -> None:
    stage.plays.append(Say(body))
    error = client.one(CALLS["feed"])
    assert isinstance(error, UnexpectedAnswer)
    assert "without a FeedAnswer" in str(error)
    assert len(stage.asked) == 1


def test_a_newer_server_may_say_more(client: Driver, stage: Stage) -> None:
    client.one(CALLS["feed"])
    stage.plays.append(Say(stage.answer(stage.asked[0]).model_dump_json().replace("{", '{"new_field": 1, ', 1).encode()))
    assert isinstance(client.one(CALLS["feed"]), models.FeedAnswer)


def test_the_server_says_when_to_come_again(client: Driver, stage: Stage) -> None:
    stage.plays.append(Refuse(429, {"Retry-After": "0.2"}))
    begun = time.monotonic()
    assert not isinstance(client.one(CALLS["search"]), Exception)
    assert 0.2 <= time.monotonic() - begun < 2
    assert len(stage.asked) == 2


def test_a_wait_beyond_the_deadline_is_not_begun(client: Driver, stage: Stage) -> None:
    stage.plays.append(Refuse(503, {"Retry-After": "30"}))
    begun = time.monotonic()
    error = client.one(CALLS["search"])
    assert isinstance(error, Unavailable)
    assert (error.retry_after_s, error.attempts) == (30, 1)
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize("play", [Slow(1), Trickle(0.02)], ids=["slow", "trickle"])
def test_a_call_ends_at_its_deadline(client: Driver, stage: Stage, play: Any) -> None:
    stage.plays += [play, play]
    begun = time.monotonic()
    error = client.one(CALLS["search"], deadline_s=0.3)
    assert isinstance(error, DeadlineExceeded)
    assert 0.25 <= time.monotonic() - begun < 0.9
    assert "no answer within 0.3 s" in str(error)


def test_the_deadline_is_over_all_attempts(client: Driver, stage: Stage) -> None:
    stage.plays += [Slow(1)] * 10
    begun = time.monotonic()
    error = client.one(CALLS["search"], deadline_s=0.4, attempt_s=0.15, retries=Retries(attempts=10, base_s=0.001, cap_s=0.005))
    assert isinstance(error, DeadlineExceeded)
    assert error.attempts in (2, 3)
    assert time.monotonic() - begun < 1


def test_a_dead_server_gets_no_retries_once_the_budget_is_spent(client: Driver, stage: Stage) -> None:
    budget = RetryBudget(reserve=5)
    stage.plays += [Refuse(503)] * 25
    errors = client.ask(*[CALLS["search"]] * 20, budget=budget)
    assert {type(error) for error in errors} == {Unavailable}
    assert len(stage.asked) == 20 + 5
    assert budget.tokens == 0
    stage.plays.clear()
    client.ask(*[CALLS["search"]] * 5, budget=budget)
    assert budget.tokens == pytest.approx(1)
    stage.plays.append(Refuse(503))
    assert not isinstance(client.one(CALLS["search"], budget=budget), Exception)


def test_other_options_for_some_calls_share_connections_and_budget(client: Driver, stage: Stage) -> None:
    budget = RetryBudget(reserve=3)
    stage.plays += [Refuse(503)] * 3
    once, twice = client.ask(
        lambda c: c.with_options(attempts=1).search("herbs"), lambda c: c.with_options(attempts=2, deadline_s=1).search("herbs"), budget=budget
    )
    assert (once.attempts, twice.attempts, budget.tokens) == (1, 2, 2)
    ports = {asked.headers["host"] for asked in stage.asked}
    assert len(ports) == 1


def test_a_cancelled_call_stops_at_once(stage: Stage) -> None:
    async def cancelled() -> float:
        async with AsyncEverpin(stage.url, options=Options(retries=QUICK)) as client:
            stage.plays.append(Slow(1))
            call = asyncio.create_task(client.search("herbs"))
            while not stage.asked:
                await asyncio.sleep(0.005)
            begun = time.monotonic()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            return time.monotonic() - begun

    assert asyncio.run(cancelled()) < 0.5
