"""What serving reads from the feature store: users' histories, and a pin's features for an edit. One thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict

from everpin.settings import Settings
from everpin.wiring import build_features
from pins.features import VIEWS, FeatureRow, PinFeatures, UserAction
from pins.ports import FeatureSource


class People:
    """The feature store behind a lock: Feast's client is not thread-safe. Opened when it is first asked, which takes seconds, or by `open`."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._features: FeatureSource | None = None

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

    def close(self) -> None:
        """Release the store."""
        with self._lock:
            if self._features is not None and hasattr(self._features, "close"):
                self._features.close()
            self._features = None

    def _store(self) -> FeatureSource:
        if self._features is None:
            self._features = build_features(self._config)
        return self._features


def edited(pin: PinFeatures, changes: dict[str, str], at_us: int) -> FeatureRow:
    """The whole row of the view `pin_content` with some values changed: a row replaces the row before it."""
    now = asdict(pin)
    return FeatureRow("pin_content", pin.pin_id, at_us, {column: changes.get(column, now[column]) for column in VIEWS["pin_content"]})
