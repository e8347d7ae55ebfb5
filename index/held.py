"""What a reader beside the owner holds of pins it was shown: their bodies by version, so that an answer need only name pins, versions and scores.

A write of a record always gives it another version, so a body is good for as long as answers name its version, and read anew when they do not. No
answer shows an older version than the owner named.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pins.ports import Hit

HELD = 20_000
"""Pins that are held, some 3 KB each at 384 dimensions; the ones shown longest ago go first."""

Brief = tuple[str, int, float]
"""Pin id, version and score of a hit."""


class Held:
    """Turns answers in brief into hits. Thread-safe. `read` gives the bodies of pins as hits of any score, without those that are gone."""

    def __init__(self, read: Callable[[Sequence[str]], Iterable[Hit]], limit: int = HELD) -> None:
        self._read, self._limit = read, limit
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Hit] = OrderedDict()

    def hits(self, answers: Sequence[Sequence[Brief]]) -> list[list[Hit]]:
        """The hits of several answers; a pin that was removed meanwhile is left out. Raises what `read` raises."""
        named = {pin_id: v for answer in answers for pin_id, v, _ in answer}
        bodies = self._known(named)
        if missing := [pin_id for pin_id in named if pin_id not in bodies]:
            fresh = {hit.pin_id: replace(hit, vector=None if hit.vector is None else hit.vector.copy()) for hit in self._read(missing)}
            bodies |= fresh
            self._keep(fresh)
        return [[bodies[pin_id].scored(score) for pin_id, _, score in answer if pin_id in bodies] for answer in answers]

    def _known(self, named: dict[str, int]) -> dict[str, Hit]:
        found = {}
        with self._lock:
            for pin_id, v in named.items():
                hit = self._held.get(pin_id)
                if hit is not None and hit.v == v:
                    self._held.move_to_end(pin_id)
                    found[pin_id] = hit
        return found

    def _keep(self, fresh: dict[str, Hit]) -> None:
        with self._lock:
            for pin_id, hit in fresh.items():
                self._held[pin_id] = hit
                self._held.move_to_end(pin_id)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
