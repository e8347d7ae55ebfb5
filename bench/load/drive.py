"""How it is asked. Open loop: arrivals are scheduled at a rate, whatever the server does, and latency counts from the SCHEDULED time, so that a
request which had to wait for the one before it counts its wait (no coordinated omission). Closed loop: so many clients, each asking again as soon
as it is answered: what the server can do at most.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from bench.load.mix import Asked
from bench.load.wire import Wires

PATIENCE_S = 30.0
SHED, FAILED = "shed", "failed"


@dataclass(slots=True)
class Seen:
    """What came of requests: per endpoint (when it was due, ms until answered) of those answered 200; the rest by what became of it.

    `late_ms`: how long after its time each request was sent: the generator's own part in every figure.
    """

    answered: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    shed: list[tuple[float, float]] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    late_ms: list[float] = field(default_factory=list)

    async def ask(self, wires: Wires, asked: Asked, due: float) -> None:
        """One request, due at `due` (time.perf_counter)."""
        self.late_ms.append((time.perf_counter() - due) * 1000)
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await wires.ask(asked.request)
        except (OSError, TimeoutError) as error:
            self.failed[f"{asked.endpoint}: {type(error).__name__}"] += 1
            return
        ms = (time.perf_counter() - due) * 1000
        if answer.status == 200:
            self.answered[asked.endpoint].append((due, ms))
        elif answer.status == 503 and answer.retry_after:
            self.shed.append((due, ms))
        else:
            self.failed[f"{asked.endpoint}: {answer.status}"] += 1

    def summary(self, seconds: float) -> dict[str, Any]:
        """Percentiles in milliseconds by endpoint, and counts."""
        good = sum(map(len, self.answered.values()))
        return {
            "requests": good + len(self.shed) + self.failed.total(),
            "answered_per_second": round(good / seconds, 1),
            "ms": {endpoint: percentiles([ms for _, ms in times]) for endpoint, times in sorted(self.answered.items())},
            "shed_503": len(self.shed),
            "shed_ms": percentiles([ms for _, ms in self.shed]),
            "failed": dict(self.failed),
            "generator_late_ms": percentiles(self.late_ms),
        }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Count, p50, p90, p99 and maximum; empty for nothing."""
    if not values:
        return {}
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"count": len(values), "p50": round(float(p50), 2), "p90": round(float(p90), 2), "p99": round(float(p99), 2), "max": round(max(values), 2)}


async def open_loop(wires: Wires, mix: Iterator[Asked], rate: float, seconds: float, poisson: bool = True, seen: Seen | None = None) -> Seen:
    """Ask `rate` times a second for so long, at random (exponential gaps) or even times, and wait for the answers."""
    seen = seen or Seen()
    gaps = Random(11)
    tasks: set[asyncio.Task[None]] = set()
    started, offset, asked = time.perf_counter(), 0.0, 0
    while offset < seconds:
        due = started + offset
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(seen.ask(wires, next(mix), due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        asked += 1
        offset = offset + gaps.expovariate(rate) if poisson else asked / rate  # even times are not added up: their rounding would add a request
    await asyncio.gather(*tasks)
    return seen


async def closed_loop(wires: Wires, mix: Iterator[Asked], clients: int, seconds: float) -> Seen:
    """`clients` that each ask again as soon as they are answered."""
    seen = Seen()
    until = time.perf_counter() + seconds

    async def client() -> None:
        while (now := time.perf_counter()) < until:
            await seen.ask(wires, next(mix), now)

    await asyncio.gather(*(client() for _ in range(clients)))
    return seen


async def ask_all(wires: Wires, asked: Iterable[Asked], at_once: int = 4) -> Seen:
    """Each of these once, some at a time."""
    seen, left = Seen(), iter(asked)

    async def client() -> None:
        for one in left:
            await seen.ask(wires, one, time.perf_counter())

    await asyncio.gather(*(client() for _ in range(at_once)))
    return seen


def recovery_s(before: Seen, after: Seen, over_at: float, window_s: float = 0.5) -> float | None:
    """Seconds from the end of an overload (`over_at`) until windows are good for good: nothing shed, and a median at most twice that of
    before plus 5 ms. None: it did not recover while it was watched."""
    usual = float(np.median([ms for times in before.answered.values() for _, ms in times]))
    times = [(due, ms, False) for answered in after.answered.values() for due, ms in answered] + [(due, ms, True) for due, ms in after.shed]
    windows: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for due, ms, shed in times:
        windows[int((due - over_at) / window_s)].append((ms, shed))
    good = {number: not any(shed for _, shed in seen) and np.median([ms for ms, _ in seen]) <= 2 * usual + 5 for number, seen in windows.items()}
    bad = [number for number, fine in good.items() if not fine]
    if not good or (bad and max(bad) == max(good)):
        return None
    return round((max(bad) + 1) * window_s, 1) if bad else 0.0
