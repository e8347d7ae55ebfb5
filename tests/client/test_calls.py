"""Every method asks for what the API understands, and reads what the API answers."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest

from everpin_client import AsyncEverpin, BadRequest, CursorGone, Everpin, Filters, UnexpectedAnswer, UserActionIn, models
from tests.client.conftest import Driver
from tests.client.stage import Refuse, Say, Stage


def test_a_search_sends_what_was_given_and_nothing_else(client: Driver, stage: Stage) -> None:
    filters = Filters(lang="en", created_since=datetime(2026, 1, 2, tzinfo=UTC))
    answer = client.one(lambda c: c.search("balcony herbs", limit=3, filters=filters, min_level=2, below="mark", fold=False))
    assert isinstance(answer, models.SearchAnswer)
    assert (answer.query, answer.results[0].pin_id, answer.results[0].level, answer.request_id) == ("balcony herbs", "garden-012", 4, "r1")
    assert stage.asked[0].body == {
        "query": "balcony herbs",
        "limit": 3,
        "filters": {"lang": "en", "created_since": "2026-01-02T00:00:00Z"},
        "min_level": 2,
        "below": "mark",
        "fold": False,
    }


def test_reads_send_what_was_given_and_nothing_else(client: Driver, stage: Stage) -> None:
    related, feed, pin, with_features, plane, vectors = client.ask(
        lambda c: c.related("garden-012", limit=2, diversity=0.5, cosaves=True),
        lambda c: c.feed("user-01"),
        lambda c: c.pin("garden-012"),
        lambda c: c.pin("garden-012", features=True),
        lambda c: c.map(limit=10),
        lambda c: c.embed(["a", "b"]),
    )
    assert related.results[0].why == "alike"
    assert feed.kind == "newest"
    assert (pin.reason, pin.features, with_features.features) == ("new", None, {"pin_content": {}})
    assert plane.points[0].x == 0.1
    assert vectors.vectors == [[0.6, 0.8]] * 2
    assert [(asked.method, asked.path, asked.params, asked.body) for asked in stage.asked] == [
        ("GET", "/v1/pins/garden-012/related", {"limit": "2", "diversity": "0.5", "cosaves": "true"}, None),
        ("GET", "/v1/users/user-01/feed", {}, None),
        ("GET", "/v1/pins/garden-012", {}, None),
        ("GET", "/v1/pins/garden-012", {"features": "true"}, None),
        ("GET", "/v1/map", {"limit": "10"}, None),
        ("POST", "/v1/embeddings", {}, {"texts": ["a", "b"]}),
    ]


def test_writes_send_what_was_given_and_nothing_else(client: Driver, stage: Stage) -> None:
    event = {"type": "pin_updated", "pin_id": "p1"}
    edited, sent, acted = client.ask(
        lambda c: c.edit_pin("p1", title="Herbs, north-facing"),
        lambda c: c.send_events(iter([event, event])),
        lambda c: c.send_actions("user-01", [UserActionIn(pin_id="p1"), UserActionIn(pin_id="p2", action="click", time=datetime(2026, 1, 2, tzinfo=UTC))]),
    )
    assert (edited.accepted, sent.accepted, acted.accepted) == (1, 2, 2)
    assert [(asked.method, asked.path, asked.body) for asked in stage.asked] == [
        ("PATCH", "/v1/pins/p1", {"title": "Herbs, north-facing"}),
        ("POST", "/v1/events", {"events": [event, event]}),
        ("POST", "/v1/users/user-01/actions", {"actions": [{"pin_id": "p1"}, {"pin_id": "p2", "action": "click", "time": "2026-01-02T00:00:00Z"}]}),
    ]


@pytest.mark.parametrize("pin_id", ["a/b", "..", ".", "a b", "a?x=1#y", "%2F", "Kräuter", "日本", "a;b"])
def test_an_id_stays_one_segment_of_the_path(client: Driver, stage: Stage, pin_id: str) -> None:
    assert isinstance(client.one(lambda c: c.related(pin_id)), models.RelatedAnswer)
    segments = stage.asked[0].path.split("/")
    assert (len(segments), unquote(segments[3]), segments[4]) == (5, pin_id, "related")


def test_pages_are_asked_for_until_the_last(client: Driver, stage: Stage) -> None:
    stage.pages = 3
    found, related, feed = client.ask(
        lambda c: c.search_pages("herbs", limit=1), lambda c: c.related_pages("p1", limit=1), lambda c: c.feed_pages("u1", limit=1)
    )
    assert [page.cursor for page in found] == [page.cursor for page in related] == [page.cursor for page in feed] == ["2", "3", None]
    assert [asked.body for asked in stage.asked[:3]] == [
        {"query": "herbs", "limit": 1},
        {"query": "herbs", "limit": 1, "cursor": "2"},
        {"query": "herbs", "limit": 1, "cursor": "3"},
    ]
    assert [asked.params.get("cursor") for asked in stage.asked[3:]] == [None, "2", "3"] * 2


def test_a_cursor_that_comes_again_ends_the_pages(client: Driver, stage: Stage) -> None:
    client.one(lambda c: c.feed("u1"))
    page = Say(stage.answer(stage.asked[0]).model_copy(update={"cursor": "7"}).model_dump_json().encode())
    stage.plays += [page, page, page]
    error = client.one(lambda c: c.feed_pages("u1"))
    assert isinstance(error, UnexpectedAnswer)
    assert "same cursor twice" in str(error)
    assert len(stage.asked) == 3


def test_a_cursor_of_a_model_that_is_gone_is_said(client: Driver, stage: Stage) -> None:
    stage.plays.append(Refuse(410))
    assert isinstance(client.one(lambda c: c.search("herbs", cursor="1")), CursorGone)


REFUSED: list[tuple[Any, str]] = [
    (lambda c: c.search(""), "query: String should have at least 1 character"),
    (lambda c: c.search("herbs", limit=101), "limit: Input should be less than or equal to 100, got '101'"),
    (lambda c: c.search("herbs", diversity=float("nan")), "diversity"),
    (lambda c: c.search("\ud800"), "query"),
    (lambda c: c.embed([]), "texts: List should have at least 1 item"),
    (lambda c: c.embed("one text"), "give a list of texts"),
    (lambda c: c.pin(""), "pin_id is empty"),
    (lambda c: c.pin("\ud800"), "not Unicode text"),
    (lambda c: c.related("p1", lang="\ud800"), "these parameters"),
    (lambda c: c.related("p1", cursor="x" * 100_000), "these parameters"),
    (lambda c: c.send_events([]), "events: List should have at least 1 item"),
    (lambda c: c.send_events([{"pin_id": "p1", "x": float("nan")}]), "not JSON"),
    (lambda c: c.send_events([{"pin_id": "p1", "x": object()}]), "not JSON"),
]


@pytest.mark.parametrize(("act", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_the_api_would_refuse_is_not_sent(client: Driver, stage: Stage, act: Any, said: str) -> None:
    error = client.one(act)
    assert isinstance(error, BadRequest)
    assert said in str(error)
    assert (error.status, error.problem, error.attempts) == (None, None, 0)
    assert stage.asked == []


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    blocking, awaiting = ({name: value for name, value in vars(kind).items() if not name.startswith("_")} for kind in (Everpin, AsyncEverpin))
    assert set(blocking) - {"close"} == set(awaiting) - {"aclose"}
    for name in set(blocking) - {"close", "send", "send_pages"}:
        assert inspect.signature(blocking[name]).parameters == inspect.signature(awaiting[name]).parameters, name
        if name not in ("with_options",):
            assert blocking[name].__doc__ == awaiting[name].__doc__
    assert inspect.iscoroutinefunction(AsyncEverpin.search)
    assert str(inspect.signature(Everpin.search)).endswith("-> 'SearchAnswer'")
    assert str(inspect.signature(Everpin.feed_pages)).endswith("-> 'Iterator[FeedAnswer]'")
