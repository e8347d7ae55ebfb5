"""API keys: `ep_<id>_<secret>`, kept as SHA-256 of the secret in keys.json of the state folder, each with scopes and a rate of its own.

The secret is 256 random bits, so a plain hash of it cannot be guessed back. Who asks for a key, and answers 401, 403 or 429, is `surfaces.access`.
A revoked key stays in the file: its id is never used again, and an installation that had keys never falls open for want of one.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from pins.errors import ArtifactError, EverpinError

log = logging.getLogger("everpin.keys")
FILE, LOCK = "keys.json", "keys.lock"
KEY = re.compile(r"ep_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
MAX_HEADER_CHARS = 200
NOBODY = sha256(b"").hexdigest()
"""Compared with when an id is unknown, so that an unknown id takes as long as a wrong secret. No secret is empty."""
RECHECK_S = 1.0
ROUNDING = 1e-6
"""Tokens that may lack: who waits exactly as long as it was told must not be refused for an error of floating point."""
WRITABLE_BY_ANYONE = 0o002

Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")


class Key(BaseModel):
    """One key, without its secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{12}$")]
    name: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    scopes: Annotated[frozenset[Scope], Field(min_length=1)]
    rate: float = Field(ge=0, allow_inf_nan=False, description="Requests per second; 0: no limit.")
    burst: float = Field(ge=1, allow_inf_nan=False, description="Requests that may come at once after a pause.")
    created_at: datetime
    revoked_at: datetime | None = None
    digest: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = Field(repr=False, description="SHA-256 of the secret.")


class KeyFile(BaseModel):
    """What keys.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _ids_differ(self) -> KeyFile:
        ids = [key.id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError(f"two keys have the id {next(one for one in ids if ids.count(one) > 1)}")
        return self


def add_key(home: Path, name: str, scopes: frozenset[Scope], rate: float, burst: float | None, now: datetime) -> tuple[Key, str]:
    """Make a key; returns it with its text, which is kept nowhere. `burst` None: the requests of one second.

    Raises EverpinError for a value that does not fit, ArtifactError where the file cannot be used.
    """
    identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    try:
        key = Key(
            id=identity, name=name, scopes=scopes, rate=rate, burst=max(1.0, rate) if burst is None else burst, created_at=now, digest=_digest(secret)
        )  # fmt: skip
    except ValidationError as error:
        raise EverpinError("; ".join(f"{item['loc'][0]} {item['input']!r}: {item['msg']}" for item in error.errors())) from error
    with _changing(home) as keys:
        keys[key.id] = key
    return key, f"ep_{identity}_{secret}"


def revoke_key(home: Path, identity: str, now: datetime) -> Key:
    """Make a key useless for good. Revoking it again changes nothing. Raises EverpinError for an unknown id, ArtifactError as `add_key`."""
    if not re.fullmatch("[0-9a-f]{12}", identity):
        raise EverpinError("a key's id is the 12 characters between the underscores, 0-9 and a-f; `everpin keys list` shows it")
    with _changing(home) as keys:
        if identity not in keys:
            raise EverpinError(f"no key has the id {identity}; `everpin keys list` shows the ids")
        if keys[identity].revoked_at is None:
            keys[identity] = keys[identity].model_copy(update={"revoked_at": now})
        return keys[identity]


def read_keys(home: Path) -> dict[str, Key]:
    """The keys by id, oldest first, revoked ones too; none where there is no file. Raises ArtifactError where it cannot be used."""
    path = home / FILE
    try:
        if path.stat().st_mode & WRITABLE_BY_ANYONE:
            raise ArtifactError(f"{path} can be written by anyone on this machine; check what it holds, then `chmod 600 {path}`")
        return {key.id: key for key in KeyFile.model_validate_json(path.read_bytes()).keys}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; let the user that runs Everpin own it") from error
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'file'}: {item['msg']}" for item in error.errors(include_input=False)[:3])
        raise ArtifactError(
            f"{path} is damaged or of another version of Everpin ({where}); restore it from a backup, or move it away and make new keys with `everpin keys add`"
        ) from error


class KeyRing:
    """The keys of an installation, for a server: read at the start, and again within two seconds of a change. Threads may share one."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ArtifactError where the file cannot be used."""
        self._home, self._clock = home, clock
        self._lock = threading.Lock()
        self._stamp, self._keys = _stamp(home), read_keys(home)
        self._had_keys = bool(self._keys)
        self._looked = clock()

    def any(self) -> bool:
        """Whether keys are asked for: this installation has keys, or had some while this process ran, revoked ones too."""
        self._look()
        return self._had_keys

    def authenticate(self, header: str | None) -> Key | None:
        """The key that an Authorization header holds (`Bearer ep_...`); None for none, a wrong, an unknown or a revoked one."""
        self._look()
        scheme, _, text = (header or "")[: MAX_HEADER_CHARS + 1].partition(" ")
        found = KEY.fullmatch(text.strip(" "))
        if scheme.lower() != "bearer" or not found or len(header or "") > MAX_HEADER_CHARS:
            return None
        key = self._keys.get(found[1])
        right = hmac.compare_digest(_digest(found[2]), key.digest if key else NOBODY)
        return key if right and key and key.revoked_at is None else None

    def _look(self) -> None:
        """Read the file again where it changed. One that cannot be used leaves the keys as they are, and is said in the log."""
        if self._clock() - self._looked < RECHECK_S:
            return
        with self._lock:
            self._looked = self._clock()
            stamp = _stamp(self._home)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._keys = read_keys(self._home)
            except ArtifactError as error:
                log.error("API keys stay as they were: %s", error)
                return
            self._had_keys = self._had_keys or bool(self._keys)
            log.info("API keys read again: %d in use", sum(key.revoked_at is None for key in self._keys.values()))


class RateLimiter:
    """A token bucket per key: `burst` tokens at most, `rate` new ones a second, one for each request. Threads may share one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: Key) -> float:
        """Take a token: 0.0 where there was one; else the seconds until there is one, and nothing is taken."""
        if key.rate == 0:
            return 0.0
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.get(key.id, (key.burst, now))
            tokens = min(key.burst, tokens + max(0.0, now - then) * key.rate)
            enough = tokens >= 1.0 - ROUNDING
            self._buckets[key.id] = (max(0.0, tokens - 1.0) if enough else tokens, max(now, then))
        return 0.0 if enough else (1.0 - tokens) / key.rate


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _stamp(home: Path) -> tuple[int, int, int, int] | None:
    """What differs after any change of the file; None where there is none."""
    try:
        found = (home / FILE).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode


@contextmanager
def _changing(home: Path) -> Iterator[dict[str, Key]]:
    """The keys, to be changed, and written when the block ends well. One change at a time, by whichever process."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (home / LOCK).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = read_keys(home)
            before = dict(keys)
            yield keys
            if keys != before:
                _replace(home / FILE, keys)
    except OSError as error:
        raise ArtifactError(f"{home / FILE} cannot be written: {error.strerror}; let the user that runs this command own {home}") from error


def _replace(path: Path, keys: Mapping[str, Key]) -> None:
    """Write the file whole, for its owner's eyes only, and durably, before it takes the old one's place."""
    document = KeyFile(keys=tuple(keys.values())).model_dump(mode="json")
    for key in document["keys"]:
        key["scopes"] = sorted(key["scopes"], key=SCOPES.index)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def utc_now() -> datetime:
    """The time to second precision, for `add_key` and `revoke_key`."""
    return datetime.now(UTC).replace(microsecond=0)
