"""A key to make, and a clock to set, for the tests of API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from everpin.keys import Key, Scope, add_key

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
READ: frozenset[Scope] = frozenset({"read"})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def add(home: Path, name: str = "search-page", **more: Any) -> tuple[Key, str]:
    given_: dict[str, Any] = {"scopes": READ, "rate": 10.0, "burst": None, "now": NOW} | more
    return add_key(home, name, **given_)
