from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from everpin.owner import CARD, LOCK, Owner, announce, live_owner, ownership
from pins.errors import Unavailable

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from everpin.owner import ownership
with ownership(Path(sys.argv[1]), "worker"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(home: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that owns the stores until it is told to end, or is killed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(home)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_the_owner_is_announced_while_it_owns_and_gone_after(tmp_path: Path) -> None:
    home = tmp_path / "not yet" / "there"
    assert live_owner(home) is None
    with ownership(home, "demo"):
        assert live_owner(home) == Owner(os.getpid(), purpose="demo")
    assert live_owner(home) is None
    assert not (home / CARD).exists()
    with ownership(home, "again"):
        assert live_owner(home) == Owner(os.getpid(), purpose="again")


def test_the_stores_are_released_when_the_owner_fails(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="gone wrong"), ownership(tmp_path, "demo"):
        raise RuntimeError("gone wrong")
    assert live_owner(tmp_path) is None
    with ownership(tmp_path, "again"):
        pass


def test_a_second_owner_is_told_who_the_first_is(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(Unavailable) as caught, ownership(tmp_path, "demo"):
            raise AssertionError
        assert str(caught.value) == f"{tmp_path} is in use by process {process.pid} (worker); stop it, or give this one its own EVERPIN_HOME"
        assert live_owner(tmp_path) == Owner(process.pid, purpose="worker")


def test_what_a_killed_owner_leaves_behind_holds_nobody_up(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait(10)
        assert (tmp_path / CARD).exists()
        assert (tmp_path / LOCK).exists()
        assert live_owner(tmp_path) is None
        with ownership(tmp_path, "demo"):
            assert live_owner(tmp_path) == Owner(os.getpid(), purpose="demo")


def test_a_refused_owner_takes_nothing_from_the_live_one(tmp_path: Path) -> None:
    with ownership(tmp_path, "demo"):
        with pytest.raises(Unavailable, match=f"process {os.getpid()} \\(demo\\)"), ownership(tmp_path, "second"):
            raise AssertionError
        assert live_owner(tmp_path) == Owner(os.getpid(), purpose="demo")


CARDS = ["", '{"pid": 12, "ur', "[]", "7", '{"pid": 12, "colour": "red"}', "{}"]


@pytest.mark.parametrize("card", CARDS, ids=["empty", "half written", "a list", "a number", "of another release", "without a process"])
def test_an_unreadable_card_of_a_live_owner_is_no_reason_to_fail(tmp_path: Path, card: str) -> None:
    with ownership(tmp_path, "demo"):
        (tmp_path / CARD).write_text(card)
        assert live_owner(tmp_path) == Owner(0, purpose="starting")
        with pytest.raises(Unavailable, match="in use by another process"), ownership(tmp_path, "second"):
            raise AssertionError


def test_an_owner_without_a_card_is_still_an_owner(tmp_path: Path) -> None:
    with ownership(tmp_path, "demo"):
        (tmp_path / CARD).unlink()
        assert live_owner(tmp_path) == Owner(0, purpose="starting")


def test_an_announcement_replaces_the_card_whole(tmp_path: Path) -> None:
    announce(tmp_path, Owner(1, purpose="starting"))
    announce(tmp_path, Owner(2, "http://127.0.0.1:8000", "embedded://127.0.0.1:9092", "worker"))
    assert json.loads((tmp_path / CARD).read_text()) == {"pid": 2, "url": "http://127.0.0.1:8000", "kafka": "embedded://127.0.0.1:9092", "purpose": "worker"}
    assert [path.name for path in tmp_path.iterdir()] == [CARD]
