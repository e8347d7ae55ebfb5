"""What serving reads from the feature store: users' histories, and a pin's features for an edit. One thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from pins.actions import StoredHistory, usable
from pins.features import VIEWS, FeatureRow, PinFeatures, UserAction
from pins.ports import FeatureSource

BATCH = 200
"""Users read at once, with everybody else waiting."""


class UserFeatures(FeatureSource, Protocol):
    """A feature store that can also list its users."""

    def user_ids(self, batch: int = 1000) -> Iterator[Sequence[str]]:
        """Every user with a history, in batches."""

    def histories(self, user_ids: Sequence[str]) -> Mapping[str, StoredHistory]:
        """The stored histories of these users."""

    def close(self) -> None:
        """Release the store."""


class People:
    """The feature store behind a lock: Feast's client is not thread-safe. Opened when it is first asked, which takes seconds, or by `open`."""

    def __init__(self, opener: Callable[[], UserFeatures]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._features: UserFeatures | None = None

    def open(self) -> None:
        """Open the store now. Raises Unavailable."""
        with self._lock:
            self._store()

    def history(self, user_id: str) -> Sequence[UserAction]:
        """A user's actions, oldest first; empty for an unknown user. Raises Unavailable."""
        with self._lock:
            return self._store().history(user_id)

    def pin(self, pin_id: str) -> PinFeatures | None:
        """A pin's features now; None where there are none. Raises Unavailable."""
        with self._lock:
            return self._store().of([pin_id]).get(pin_id)

    def saved(self, most: int) -> dict[str, frozenset[str]]:
        """The pins that each of up to `most` users acted on. Lets others in between batches of users. Raises Unavailable."""
        found: dict[str, frozenset[str]] = {}
        with self._lock:
            batches = self._store().user_ids(BATCH)
        while len(found) < most:
            with self._lock:
                users = next(batches, None)
                if users is None:
                    break
                stored = self._store().histories(users[: most - len(found)])
            found |= {user: frozenset(action.pin_id for action in usable(history.actions)) for user, history in stored.items()}
        return found

    def close(self) -> None:
        """Release the store."""
        with self._lock:
            if self._features is not None:
                self._features.close()
            self._features = None

    def _store(self) -> UserFeatures:
        if self._features is None:
            self._features = self._opener()
        return self._features


def edited(pin: PinFeatures, changes: dict[str, str], at_us: int) -> FeatureRow:
    """The whole row of the view `pin_content` with some values changed: a row replaces the row before it."""
    now = asdict(pin)
    return FeatureRow("pin_content", pin.pin_id, at_us, {column: changes.get(column, now[column]) for column in VIEWS["pin_content"]})
