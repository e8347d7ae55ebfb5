"""The client against the real application: every call is understood there, keys and all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from everpin.keys import add_key, revoke_key
from everpin_client import BadRequest, Everpin, Filters, NotFound, RateLimited, Unauthorized, UserActionIn
from tests.client.stage import wait_for
from tests.surfaces.parts import Running, running

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Api:
    """The application with its keys, and its address."""

    parts: Running
    home: Path
    url: str
    key: str


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    home = tmp_path_factory.mktemp("api")
    _, key = add_key(home, "tests", frozenset({"read", "write"}), 0, None, NOW)
    with running(home, pins=60) as parts:
        yield Api(parts, home, str(parts.client.base_url), key)


@pytest.fixture
def client(api: Api) -> Iterator[Everpin]:
    with Everpin(api.url, api_key=api.key) as made:
        yield made


def test_reads_are_answered(client: Everpin) -> None:
    found = client.search("bread", limit=3, filters=Filters(lang="en"), rerank="relevance", explain=True)
    assert (len(found.results), found.model_id) == (3, "everpin-l6-v1")
    assert found.results[0].explain is not None
    first = found.results[0].pin_id
    assert first not in [pin.pin_id for pin in client.related(first, limit=5, diversity=0.2, cosaves=False).results]
    assert client.feed("fan", limit=5).kind == "interests"
    assert client.feed("somebody", limit=5).kind == "newest"
    assert client.pin(first, features=True).features
    assert len(client.embed(["a", "b"]).vectors) == 2
    assert len(client.map(limit=7).points) == 7


def test_pages_follow_one_another_without_repeating(client: Everpin) -> None:
    for pages in (client.search_pages("bread", limit=7, min_level=1), client.related_pages("food-001", limit=7), client.feed_pages("fan", limit=7)):
        seen = [pin.pin_id for page in pages for pin in page.results]
        assert len(seen) > 7
        assert len(set(seen)) == len(seen)


def test_writes_arrive(api: Api, client: Everpin) -> None:
    assert client.edit_pin("food-001", title="Rye").accepted == 1
    client.send_events([{"type": "pin_updated", "pin_id": "food-002", "event_time_us": 1_764_000_000_000_000}])
    client.send_actions("fan", [UserActionIn(pin_id="food-003", time=NOW), UserActionIn(pin_id="food-004", action="click")])
    assert [event.pin_id for event in api.parts.sent.events] == ["food-001", "food-002"]
    assert [(action.pin_id, action.action) for action in api.parts.sent.actions] == [("food-003", "save"), ("food-004", "click")]


@pytest.mark.parametrize("pin_id", ["a/b", "..", "a b", "a?x=1#y", "%2F", "日本", "a;b", "."])
def test_an_id_arrives_as_it_is(client: Everpin, pin_id: str) -> None:
    with pytest.raises(NotFound) as caught:
        client.pin(pin_id)
    assert repr(pin_id) in str(caught.value)


def test_refusals_are_told_apart(api: Api, client: Everpin) -> None:
    with pytest.raises(NotFound) as missing:
        client.related("no-such-pin")
    assert missing.value.problem is not None
    assert missing.value.problem.type == "/problems/pin-not-found"
    with pytest.raises(BadRequest) as misfit:
        client.related("food-001", limit=1000)
    assert misfit.value.problem is not None
    assert misfit.value.problem.errors
    with pytest.raises(BadRequest, match="cursor"):
        client.search("bread", cursor="nonsense")
    with pytest.raises(BadRequest, match="events"):
        client.send_events([{"type": "pin_updated"}])
    with Everpin(api.url) as nobody, pytest.raises(Unauthorized) as unknown:
        nobody.map()
    assert unknown.value.status == 401


def test_a_key_has_its_scope_its_rate_and_its_end(api: Api) -> None:
    key, text = add_key(api.home, "slow reader", frozenset({"read"}), 0.01, 2, NOW)
    with Everpin(api.url, api_key=text) as client:
        patient = client.with_options(attempts=1)
        wait_for(lambda: known(patient))
        with pytest.raises(Unauthorized) as caught:
            patient.edit_pin("food-001", title="Rye")
        assert caught.value.status == 403
        patient.pin("food-001")
        with pytest.raises(RateLimited) as limited:
            patient.pin("food-001")
        assert limited.value.retry_after_s is not None
        assert 0 < limited.value.retry_after_s <= 101
        revoke_key(api.home, key.id, NOW)
        wait_for(lambda: not known(patient))


def known(client: Everpin) -> bool:
    """Whether the server lets the client's key in: a wrong id costs no more of its rate than a right one."""
    try:
        client.pin("food-001")
    except Unauthorized:
        return False
    except RateLimited:
        return True
    return True
