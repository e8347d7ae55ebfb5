"""Who owns the embedded stores of a state folder: one process, found by a lock that dies with it.

The lock is the kernel's (`flock`), so a killed owner leaves nothing to clean up; the file beside it only tells others where
the owner listens.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pins.errors import Unavailable

LOCK, CARD = "owner.lock", "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The live owner: its process id, the URL of its loopback routes (empty: it has none) and its broker."""

    pid: int
    url: str = ""
    kafka: str = ""
    purpose: str = ""


@contextmanager
def ownership(home: Path, purpose: str) -> Iterator[None]:
    """Own the stores under `home` for the time of the block. Raises Unavailable naming a live owner."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _card(home)
            who = f"process {owner.pid} ({owner.purpose})" if owner else "another process"
            raise Unavailable(f"{home} is in use by {who}; stop it, or give this one its own EVERPIN_HOME") from error
        announce(home, Owner(os.getpid(), purpose=purpose))
        try:
            yield
        finally:
            (home / CARD).unlink(missing_ok=True)


def announce(home: Path, owner: Owner) -> None:
    """Tell other processes where the owner listens. The file is replaced whole, never half written."""
    fresh = home / f"{CARD}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(owner)))
    fresh.replace(home / CARD)


def live_owner(home: Path) -> Owner | None:
    """The process that owns the stores now; None when there is none, or only the leavings of a dead one."""
    try:
        with (home / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _card(home) or Owner(0, purpose="starting")
    return None


def _card(home: Path) -> Owner | None:
    try:
        return Owner(**json.loads((home / CARD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
