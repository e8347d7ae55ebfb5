"""The key and the address: from arguments or the environment, sent as a bearer, and shown nowhere."""

from __future__ import annotations

import logging
import traceback
from typing import Any

import pytest

from everpin_client import AsyncEverpin, Everpin, Options, Unavailable
from tests.client.conftest import QUICK, Driver
from tests.client.stage import Drop, Refuse, Stage

KEY = "ep_0123456789ab_S3CRETS3CRETS3CRETS3CRETS3CRET"


def test_the_key_comes_from_the_argument_or_the_environment(client: Driver, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    client.one(lambda c: c.map())
    monkeypatch.setenv("EVERPIN_API_KEY", f"{KEY}\n")
    client.one(lambda c: c.map())
    client.one(lambda c: c.map(), api_key="ep_other")
    client.one(lambda c: c.map(), api_key="")
    assert [asked.headers.get("authorization") for asked in stage.asked] == [None, f"Bearer {KEY}", "Bearer ep_other", None]
    assert stage.asked[0].headers["user-agent"].startswith("everpin-client/0.")


@pytest.mark.parametrize("kind", [Everpin, AsyncEverpin])
@pytest.mark.parametrize("key", ["ep_a b", "ep_a\nX: y", "ep_ä", "ep_\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(kind: Any, key: str) -> None:
    with pytest.raises(ValueError, match="the API key holds characters that no key has") as caught:
        kind("http://127.0.0.1:1", api_key=key)
    assert key not in str(caught.value)


def test_the_key_is_in_no_repr_no_error_and_no_log(client: Driver, stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stage.plays += [Refuse(503), Drop(), Refuse(401)]
    error = client.one(lambda c: c.search("herbs"), api_key=KEY)
    stage.plays += [Drop()] * 4
    broken = client.one(lambda c: c.search("herbs"), api_key=KEY)
    assert [asked.headers["authorization"] for asked in stage.asked] == [f"Bearer {KEY}"] * 7
    assert isinstance(broken, Unavailable)
    shown = "".join([*traceback.format_exception(error), *traceback.format_exception(broken), caplog.text, repr(vars(error)), repr(vars(broken))])
    assert "attempt 1 failed" in caplog.text
    assert "S3CRET" not in shown


def test_a_client_shows_its_address_and_no_key(stage: Stage) -> None:
    with Everpin(stage.url, api_key=KEY) as client:
        assert repr(client) == f"Everpin({stage.url!r})"
        assert "S3CRET" not in repr(vars(client)) + repr(vars(client._http))
    assert repr(AsyncEverpin("http://pins.example:8600/api", api_key=KEY)) == "AsyncEverpin('http://pins.example:8600/api/')"


def test_the_address_comes_from_the_argument_or_the_environment(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERPIN_URL", stage.url)
    with Everpin() as client:
        client.map()
    assert len(stage.asked) == 1


@pytest.mark.parametrize("url", ["", "localhost:8600", "ftp://pins.example", "http://", "http://[::1", "http://pins.example:port"])
def test_an_address_that_cannot_be_one_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERPIN_URL", raising=False)
    with pytest.raises(ValueError, match="the API's address"):
        Everpin(url)


def test_a_password_in_the_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="leave it out") as caught:
        Everpin("http://someone:S3CRET@pins.example")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"deadline_s": 0}, {"attempt_s": -1}, {"connect_s": 0}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be above 0 seconds"):
        Options(**({"retries": QUICK} | wrong))
