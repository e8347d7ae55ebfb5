"""Who owns an embedded collection: one process, found by a lock that dies with it. Each model's collection has an owner of its own.

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

OWNERS, LOCK, CARD = "owners", "owner.lock", "owner.json"


@dataclass(frozen=True, slots=True)
class Owner:
    """The live owner: its process id, the URL of its loopback routes (empty: it has none) and its broker."""

    pid: int
    url: str = ""
    kafka: str = ""
    purpose: str = ""


def place(home: Path, model_id: str) -> Path:
    """The folder that holds lock and card of a model's owner."""
    return home / OWNERS / model_id


def owners(home: Path) -> dict[str, Owner]:
    """The live owner of each model's collection under this state folder."""
    found = {folder.name: live_owner(folder) for folder in sorted((home / OWNERS).glob("*"))}
    return {model_id: owner for model_id, owner in found.items() if owner}


@contextmanager
def ownership(folder: Path, purpose: str) -> Iterator[None]:
    """Own the collection of this `place` for the time of the block. Raises Unavailable naming a live owner."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _card(folder)
            who = f"process {owner.pid} ({owner.purpose})" if owner else "another process"
            raise Unavailable(f"{folder} is in use by {who}; stop it, or give this one its own EVERPIN_HOME") from error
        announce(folder, Owner(os.getpid(), purpose=purpose))
        try:
            yield
        finally:
            (folder / CARD).unlink(missing_ok=True)


def announce(folder: Path, owner: Owner) -> None:
    """Tell other processes where the owner listens. The file is replaced whole, never half written."""
    fresh = folder / f"{CARD}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(owner)))
    fresh.replace(folder / CARD)


def live_owner(folder: Path) -> Owner | None:
    """The process that owns the collection of this `place` now; None when there is none, or only the leavings of a dead one."""
    try:
        with (folder / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return _card(folder) or Owner(0, purpose="starting")
    return None


def _card(folder: Path) -> Owner | None:
    try:
        return Owner(**json.loads((folder / CARD).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
