"""What answers of the embedded index showed lately: payload and vector of points, kept in memory until they are written again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from pins.ports import Vector

HELD = 8192
"""Points that are held, some 3 KB each at 384 dimensions; the ones shown longest ago go first."""

Body = tuple[Mapping[str, Any], Vector | None]
"""What a hit shows of a payload, and the vector."""


class Bodies:
    """The bodies of points, read once and then held. Not thread-safe: its owner has a lock, and forgets under it whatever it writes."""

    def __init__(self, held: int = HELD) -> None:
        self._limit = held
        self._held: OrderedDict[UUID, Body] = OrderedDict()

    def of(self, ids: Iterable[UUID], read: Callable[[list[UUID]], Mapping[UUID, Body]]) -> dict[UUID, Body]:
        """The bodies of these points; `read` is asked for those that are not held."""
        found: dict[UUID, Body] = {}
        missing = []
        for point in ids:
            body = self._held.get(point)
            if body is None:
                missing.append(point)
            else:
                self._held.move_to_end(point)
                found[point] = body
        if missing:
            fresh = read(missing)
            found |= fresh
            self._held |= fresh
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
        return found

    def forget(self, ids: Iterable[UUID]) -> None:
        """These points are being written: read them anew."""
        for point in ids:
            self._held.pop(point, None)
