"""How long each stage of one request took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Milliseconds by stage of one request, told in its answer; `stage` is what the core is given to time with."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._ms[name] = self._ms.get(name, 0.0) + (time.perf_counter() - started) * 1000

    def ms(self) -> dict[str, float]:
        """Every stage so far, and `total` since the request was taken up."""
        return {name: round(ms, 3) for name, ms in self._ms.items()} | {"total": round((time.perf_counter() - self._started) * 1000, 3)}
