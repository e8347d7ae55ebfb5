"""The pins created last, for home feeds of users without a history: found by a scan now and then, never by a request that could wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from everpin.serving import Served
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.retrieval.feed import newest_pins

log = logging.getLogger("everpin.surfaces")
FRESH_S = 30.0
"""Age at which the list is made anew, by a thread of its own, while the old one is shown. A scan of 100,000 pins takes some seconds."""


@dataclass(frozen=True, slots=True)
class _Listed:
    pins: Sequence[IndexedPin]
    at: float


class Newest:
    """The newest pins of each model that asked. Thread-safe; the first request of a model waits for the scan, no other does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listed: dict[tuple[str, str], _Listed] = {}
        self._busy: set[tuple[str, str]] = set()

    def of(self, served: Served) -> Sequence[IndexedPin]:
        """Newest first. Raises Unavailable when there is no list yet and the index does not answer."""
        key = served.model_id, served.place
        with self._lock:
            listed = self._listed.get(key) or self._scan(served)
            if time.monotonic() - listed.at > FRESH_S and key not in self._busy:
                self._busy.add(key)
                threading.Thread(target=self._again, args=(served,), name="everpin-newest", daemon=True).start()
        return listed.pins

    def _again(self, served: Served) -> None:
        try:
            self._scan(served)
        except EverpinError as error:
            log.warning("the list of newest pins stays as it was: %s", error)
        finally:
            self._busy.discard((served.model_id, served.place))

    def _scan(self, served: Served) -> _Listed:
        listed = self._listed[served.model_id, served.place] = _Listed(newest_pins(served.index), time.monotonic())
        return listed
