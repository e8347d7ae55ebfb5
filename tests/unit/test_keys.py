"""API keys: what is stored, who is let in, and what a damaged file leads to."""

from __future__ import annotations

import hmac
import json
import logging
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import everpin.keys
from everpin.keys import FILE, NOBODY, KeyRing, Scope, read_keys, revoke_key
from pins.errors import ArtifactError, EverpinError
from tests.unit.keys import NOW, Clock, add


def change(home: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((home / FILE).read_text())
    edit(document)
    (home / FILE).write_text(json.dumps(document))


def test_a_key_is_let_in_with_its_scopes_and_rate(tmp_path: Path) -> None:
    _, text = add(tmp_path, scopes=frozenset({"read", "write"}), rate=5, burst=7)
    key = KeyRing(tmp_path).authenticate(f"Bearer {text}")
    assert key is not None
    assert (key.name, key.scopes, key.rate, key.burst, key.created_at, key.revoked_at) == (
        "search-page",
        frozenset[Scope]({"read", "write"}),
        5.0,
        7.0,
        NOW,
        None,
    )


def test_the_file_holds_the_hash_of_the_secret_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "new" / "home"
    key, text = add(home)
    _, identity, secret = text.split("_", 2)
    stored = (home / FILE).read_text()
    assert secret not in stored
    assert json.loads(stored) == {
        "version": 1,
        "keys": [
            {
                "id": identity, "name": "search-page", "scopes": ["read"], "rate": 10.0, "burst": 10.0, "created_at": "2026-05-04T12:00:00Z",
                "revoked_at": None, "digest": sha256(secret.encode()).hexdigest(),
            }
        ],
    }  # fmt: skip
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["keys.json", "keys.lock"]
    assert key.digest not in repr(key)


def test_secrets_and_ids_differ_and_are_long(tmp_path: Path) -> None:
    made = [add(tmp_path)[1] for _ in range(20)]
    assert len({text.split("_", 2)[1] for text in made}) == len({text.split("_", 2)[2] for text in made}) == 20
    assert {len(text) for text in made} == {3 + 12 + 1 + 43}
    ring = KeyRing(tmp_path)
    assert all(ring.authenticate(f"Bearer {text}") for text in made)


WRONG: dict[str, Callable[[str], str | None]] = {
    "none": lambda text: None,
    "empty": lambda text: "",
    "no scheme": lambda text: text,
    "scheme alone": lambda text: "Bearer",
    "other scheme": lambda text: f"Basic {text}",
    "other secret": lambda text: f"Bearer {text[:-1]}{'A' if text[-1] != 'A' else 'B'}",
    "secret of one letter less": lambda text: f"Bearer {text[:-1]}",
    "secret of one letter more": lambda text: f"Bearer {text}A",
    "no secret": lambda text: f"Bearer {text[:16]}",
    "unknown id": lambda text: f"Bearer ep_000000000000{text[15:]}",
    "id in capitals": lambda text: f"Bearer ep_{'A' * 12}{text[15:]}",
    "other prefix": lambda text: f"Bearer xx{text[2:]}",
    "two keys": lambda text: f"Bearer {text} {text}",
    "trailing newline": lambda text: f"Bearer {text}\n",
    "digits of another script": lambda text: f"Bearer ep_{'٣' * 12}{text[15:]}",
    "surrogate": lambda text: f"Bearer ep_\ud800{text[4:]}",
    "zero": lambda text: f"Bearer {text[:-1]}\x00",
    "overlong": lambda text: f"Bearer {text}{'A' * 10_000_000}",
    "overlong by spaces": lambda text: f"Bearer {text}{' ' * 1_000}",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_anything_but_the_key_is_kept_out(tmp_path: Path, wrong: str) -> None:
    _, text = add(tmp_path)
    assert KeyRing(tmp_path).authenticate(WRONG[wrong](text)) is None


@pytest.mark.parametrize("written", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer  {}", "Bearer {} "])
def test_the_scheme_is_written_as_one_likes(tmp_path: Path, written: str) -> None:
    _, text = add(tmp_path)
    assert KeyRing(tmp_path).authenticate(written.format(text))


@given(st.text(max_size=120))
def test_no_text_of_any_kind_is_let_in_or_raises(text: str) -> None:
    ring = KeyRing(Path("/nonexistent"))
    assert ring.authenticate(text) is None
    assert ring.authenticate(f"Bearer {text}") is None
    assert ring.authenticate(f"Bearer ep_0123456789ab_{text}") is None


def test_unknown_and_revoked_ids_take_the_same_way_as_a_wrong_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = add(tmp_path)
    revoked, old = add(tmp_path)
    revoke_key(tmp_path, revoked.id, NOW)
    ring, compared = KeyRing(tmp_path), []
    compare = hmac.compare_digest

    def spy(given_: str, wanted: str) -> bool:
        compared.append((len(given_), wanted))
        return bool(compare(given_, wanted))

    monkeypatch.setattr(hmac, "compare_digest", spy)
    ring.authenticate(f"Bearer {text}")
    ring.authenticate(f"Bearer {text[:-1]}-")
    ring.authenticate(f"Bearer ep_000000000000_{text[16:]}")
    assert ring.authenticate(f"Bearer {old}") is None
    assert compared == [(64, key.digest), (64, key.digest), (64, NOBODY), (64, revoked.digest)]


def test_a_server_takes_up_changes_within_two_seconds(tmp_path: Path) -> None:
    clock = Clock()
    ring = KeyRing(tmp_path, clock)
    assert not ring.any()
    key, text = add(tmp_path)
    clock.now += 1.01
    assert ring.any()
    assert ring.authenticate(f"Bearer {text}")
    revoke_key(tmp_path, key.id, NOW)
    clock.now += 1.01
    assert ring.authenticate(f"Bearer {text}") is None
    assert ring.any(), "an installation whose keys are all revoked must not fall open"


def test_the_file_is_looked_at_once_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path)
    clock, looks = Clock(), []
    ring = KeyRing(tmp_path, clock)
    stamp = everpin.keys._stamp

    def look(home: Path) -> tuple[int, int, int, int] | None:
        looks.append(clock.now)
        return stamp(home)

    monkeypatch.setattr(everpin.keys, "_stamp", look)
    for _ in range(100):
        clock.now += 0.1
        ring.authenticate("Bearer ep_x")
    assert 5 <= len(looks) <= 10


def test_a_file_that_vanishes_does_not_open_the_server(tmp_path: Path) -> None:
    _, text = add(tmp_path)
    clock = Clock()
    ring = KeyRing(tmp_path, clock)
    (tmp_path / FILE).unlink()
    clock.now += 1.01
    assert ring.any()
    assert ring.authenticate(f"Bearer {text}") is None


def test_a_file_that_is_damaged_while_a_server_runs_leaves_its_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, text = add(tmp_path)
    clock = Clock()
    ring = KeyRing(tmp_path, clock)
    (tmp_path / FILE).write_text('{"version": 1, "keys": [')
    caplog.set_level(logging.INFO)
    for _ in range(5):
        clock.now += 1.01
        assert ring.authenticate(f"Bearer {text}")
    assert caplog.text.count("API keys stay as they were") == 1


DAMAGE: dict[str, Callable[[dict[str, Any]], None]] = {
    "version": lambda d: d.update(version=2),
    "two keys have the id": lambda d: d["keys"].append(d["keys"][0]),
    "keys.0.digest": lambda d: d["keys"][0].update(digest="plain secret"),
    "keys.0.id": lambda d: d["keys"][0].update(id="x"),
    "keys.0.scopes": lambda d: d["keys"][0].update(scopes=[]),
    "keys.0.scopes.0": lambda d: d["keys"][0].update(scopes=["root"]),
    "keys.0.rate": lambda d: d["keys"][0].update(rate=-1),
    "keys.0.burst": lambda d: d["keys"][0].update(burst=0),
    "keys.0.surprise": lambda d: d["keys"][0].update(surprise=1),
    "keys.0.name": lambda d: d["keys"][0].pop("name"),
}


@pytest.mark.parametrize("where", DAMAGE)
def test_a_damaged_file_stops_the_start_and_every_change_and_says_what_to_do(tmp_path: Path, where: str) -> None:
    key, _ = add(tmp_path)
    change(tmp_path, DAMAGE[where])
    damaged = (tmp_path / FILE).read_bytes()
    for act in (lambda: KeyRing(tmp_path), lambda: add(tmp_path), lambda: revoke_key(tmp_path, key.id, NOW)):
        with pytest.raises(ArtifactError, match="restore it from a backup, or move it away") as caught:
            act()
        assert where in str(caught.value)
        assert key.digest not in str(caught.value)
    assert (tmp_path / FILE).read_bytes() == damaged


@pytest.mark.parametrize("content", [b"", b"\x00", b"[]", b"null", b'{"keys": ', b"\xff\xfe"])
def test_what_is_no_key_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"keys\.json is damaged"):
        KeyRing(tmp_path)


def test_a_file_that_anyone_can_write_is_refused(tmp_path: Path) -> None:
    add(tmp_path)
    (tmp_path / FILE).chmod(0o666)
    with pytest.raises(ArtifactError, match="chmod 600"):
        KeyRing(tmp_path)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        KeyRing(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot be written"):
        add(tmp_path / "file" / "home")


def test_a_change_that_fails_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, text = add(tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ArtifactError, match="No space left on device"):
            add(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    add(tmp_path)
    assert len(read_keys(tmp_path)) == 2
    assert KeyRing(tmp_path).authenticate(f"Bearer {text}")


def test_changes_at_once_are_all_kept(tmp_path: Path) -> None:
    threads = [threading.Thread(target=add, args=(tmp_path, f"user-{number}")) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {key.name for key in read_keys(tmp_path).values()} == {f"user-{number}" for number in range(12)}


def test_revoking_again_changes_nothing(tmp_path: Path) -> None:
    key, _ = add(tmp_path)
    first = revoke_key(tmp_path, key.id, NOW)
    assert revoke_key(tmp_path, key.id, datetime(2027, 1, 1, tzinfo=UTC)) == first
    assert first.revoked_at == NOW


@pytest.mark.parametrize(("wrong", "said"), [("000000000000", "no key has the id 000000000000"), ("ep_0123_S3CRET", "12 characters"), ("", "12 characters")])
def test_an_unknown_id_is_said_and_a_secret_is_not(tmp_path: Path, wrong: str, said: str) -> None:
    with pytest.raises(EverpinError, match=said) as caught:
        revoke_key(tmp_path, wrong, NOW)
    assert "S3CRET" not in str(caught.value)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "n" * 101}, {"rate": -1.0}, {"rate": float("inf")}, {"rate": float("nan")}, {"burst": 0.5}, {"scopes": frozenset()}]
)
def test_a_key_that_makes_no_sense_is_not_made(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(EverpinError, match=next(iter(wrong))):
        add(tmp_path, **wrong)
    assert not (tmp_path / FILE).exists()
