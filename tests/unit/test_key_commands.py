"""API keys from the command line, and that no part of one is logged."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from everpin.cli import app
from everpin.keys import FILE, KeyRing, read_keys
from everpin.settings import settings
from pins.errors import EverpinError
from tests.unit.keys import Clock, add


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["keys", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_keys_are_made_listed_and_revoked(home: Path) -> None:
    new = json.loads(command("add", "search-page", "--scope", "write,read", "--rate", "5", "--json"))
    assert {name: new[name] for name in ("name", "scopes", "rate", "burst", "revoked_at")} == {
        "name": "search-page", "scopes": ["read", "write"], "rate": 5.0, "burst": 5.0, "revoked_at": None,
    }  # fmt: skip
    assert KeyRing(home).authenticate(f"Bearer {new['key']}")
    listed = json.loads(command("list", "--json"))
    assert listed == {"keys": [{name: value for name, value in new.items() if name != "key"}]}
    gone = json.loads(command("revoke", new["id"], "--json"))
    assert gone["revoked_at"]
    assert KeyRing(home).authenticate(f"Bearer {new['key']}") is None
    assert json.loads(command("list", "--json")) == {"keys": [gone]}


def test_keys_are_shown_for_people(home: Path) -> None:
    text = command("add", "[red]page", "--rate", "0")
    assert "no rate limit. Keep it now" in text
    secret = text.splitlines()[0].split("_", 2)[2]
    assert KeyRing(home).authenticate(f"Bearer {text.splitlines()[0]}")
    command("add", "other", "--scope", "read,write,admin", "--burst", "90")
    listed = command("list")
    assert "[red]page" in listed
    assert "no limit" in listed
    assert secret not in listed
    [first, _] = read_keys(home)
    assert "is revoked since" in command("revoke", first)


@pytest.mark.parametrize("scope", ["", "root", "read,", "read write"])
def test_an_unknown_scope_is_refused(home: Path, scope: str) -> None:
    with pytest.raises(EverpinError, match="give some of read,write,admin"):
        command("add", "x", "--scope", scope)
    assert not (home / FILE).exists()


def test_no_part_of_a_key_is_logged(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    ring = KeyRing(home, clock)
    _, text = add(home)
    clock.now += 2
    ring.authenticate(f"Bearer {text}")
    ring.authenticate(f"Bearer {text}x")
    assert "1 in use" in caplog.text
    assert text[-4:] not in caplog.text
    assert text[:15] not in caplog.text
