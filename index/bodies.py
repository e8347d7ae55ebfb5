"""What answers of the embedded index showed lately: points as hits, kept in memory until they are written again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from pins.ports import Hit

HELD = 8192
"""Points that are held, some 3 KB each at 384 dimensions; the ones shown longest ago go first."""

Body = Hit | None
"""A point as a hit of no score; None for one that cannot be shown."""


class Bodies:
    """The bodies of points, read once and then held, under their ids as integers. Not thread-safe: its owner has a lock, and forgets under it whatever
    it writes."""

    def __init__(self, held: int = HELD) -> None:
        self._limit = held
        self._held: OrderedDict[int, Body] = OrderedDict()

    def of(self, ids: Iterable[UUID], read: Callable[[list[UUID]], Mapping[int, Body]]) -> dict[int, Body]:
        """The bodies of these points; `read` is asked for those that are not held."""
        found: dict[int, Body] = {}
        missing: dict[int, UUID] = {}
        for point in ids:
            key = point.int
            if key in found:
                continue
            if key in self._held:
                self._held.move_to_end(key)
                found[key] = self._held[key]
            else:
                missing[key] = point
        if missing:
            fresh = read(list(missing.values()))
            found |= fresh
            self._held |= fresh
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        return found

    def forget(self, ids: Iterable[UUID]) -> None:
        """These points are being written: read them anew."""
        for point in ids:
            self._held.pop(point.int, None)
