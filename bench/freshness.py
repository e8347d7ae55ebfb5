"""Freshness at a steady rate: event produced to vector searchable, p50, p90 and p99.

A running system holds 2,000 pins; events arrive at the given rate: 68 % change nothing, 25 % change the meaning, 5 % are new
pins, 2 % delete one. Freshness is the worker's own figure of each embedded event (message time to after the index write), and for a sample
also what a stranger sees who asks the index until its record is as new as the event (a later event of the pin may have come
along in the same batch), or, for every deletion, until the pin is out of the answers; one that is not seen within 30 s is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.machine import machine, write
from bench.sample import caption, new_pin
from bench.worker import outcomes, preload, timed_round, unpaced
from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import now_us
from pins.events import PinDeleted, PinEvent, PinUpdated
from streams.broker import EMBEDDED, EventProducer, read_topic

TARGET_P99_MS = 1000
SAMPLED_EVERY = 10
SEEN_WITHIN_S = 30


def event(chance: random.Random, number: int, pins: int) -> tuple[PinEvent, bool]:
    """One event of the mix, and whether it changes a vector. Each pin that is deleted (d0, d1, ...) is deleted once."""
    kind, at = chance.random(), now_us()
    if kind < 0.68:
        return PinUpdated(f"p{chance.randrange(pins)}", at), False
    if kind < 0.70:
        return PinDeleted(f"d{number}", at), True
    if kind < 0.95:
        pin = chance.randrange(pins)
        return PinUpdated(f"p{pin}", at, {"pin_caption": {"caption": f"{caption(pin, number + 1)}, story {number}"}}), True
    whole = new_pin(f"new-{number}", number)
    return replace(whole, features=whole.features | {"pin_caption": {"caption": f"{caption(number, 0)}, story {number}"}}), True


class Stranger(threading.Thread):
    """Asks the index until a record is as new as an event, and notes how long after the event that was."""

    def __init__(self, system: System, made: PinEvent, seen: list[float]) -> None:
        super().__init__(daemon=True)
        self.system, self.made, self.seen, self.since = system, made, seen, time.perf_counter()

    def run(self) -> None:
        while time.perf_counter() - self.since < SEEN_WITHIN_S:
            found = self.system.http.post("/index/known", json={"pin_ids": [self.made.pin_id]}).json().get(self.made.pin_id)
            if self._done(found):
                self.seen.append((time.perf_counter() - self.since) * 1000)
                return
            time.sleep(0.02)

    def _done(self, found: dict[str, Any] | None) -> bool:
        if isinstance(self.made, PinDeleted):
            return found is not None and found["dead"]
        return found is not None and found["as_of"].get("pin_caption", 0) >= self.made.event_time_us


@dataclass(frozen=True, slots=True)
class Measured:
    """One run, in milliseconds: by the worker for every embedded event, from outside for a sample, and what became of it."""

    inside: Sequence[float]
    outside: Sequence[float]
    deleted: Sequence[float]
    unseen: int
    outcomes: dict[str, int]
    achieved_rate: float


def run(system: System, rate: float, seconds: float, pins: int) -> Measured:
    """Preload, then send at the rate for the time, and wait until the sample was seen."""
    producer = unpaced(system)
    preload(system, producer, pins)
    strangers: list[Stranger] = []
    seen: list[float] = []
    deleted: list[float] = []
    preload_doomed(system, producer, int(rate * seconds), pins)
    chance = random.Random(0)
    before, since_ms, started = outcomes(system), time.time() * 1000, time.perf_counter()
    count = int(rate * seconds)
    for number in tqdm(range(count), desc=f"{rate:g} events/s"):
        time.sleep(max(0.0, started + number / rate - time.perf_counter()))
        made, changes = event(chance, number, pins)
        producer.send(made)
        gone = isinstance(made, PinDeleted)
        if gone or (changes and number % SAMPLED_EVERY == 0):
            strangers.append(Stranger(system, made, deleted if gone else seen))
            strangers[-1].start()
    sending_s = time.perf_counter() - started
    producer.close()
    for stranger in strangers:
        stranger.join(SEEN_WITHIN_S + 1)
    inside = [json.loads(record.value)["freshness_ms"] for record in read_topic(system.broker, EMBEDDED) if record.timestamp >= since_ms]
    return Measured(inside, seen, deleted, len(strangers) - len(seen) - len(deleted), dict(outcomes(system) - before), count / sending_s)


def preload_doomed(system: System, producer: EventProducer, count: int, pins: int) -> None:
    """Index the pins that the run will delete: the same draws, made once in advance."""
    chance = random.Random(0)
    doomed = [made.pin_id for number in range(count) if isinstance(made := event(chance, number, pins)[0], PinDeleted)]
    timed_round(system, producer, [new_pin(pin_id, number) for number, pin_id in enumerate(doomed)], "new")


def percentiles(values: Sequence[float]) -> dict[str, Any]:
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return {"events": len(values), "p50": round(float(p50), 1), "p90": round(float(p90), 1), "p99": round(float(p99), 1), "max": round(max(values), 1)}


def main() -> None:
    """Measure, write bench/freshness.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=50, help="events per second")
    parser.add_argument("--seconds", type=float, default=60, help="how long")
    parser.add_argument("--pins", type=int, default=2000, help="pins in the index before it starts")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds that writes nothing")
    arguments = parser.parse_args()
    seconds, pins = (5.0, 100) if arguments.quick else (arguments.seconds, arguments.pins)
    with tempfile.TemporaryDirectory() as scratch, running_system(Settings(home=Path(scratch)), Path(scratch) / "worker.log") as system:
        measured = run(system, arguments.rate, seconds, pins)
    document = {
        "command": "python -m bench.freshness",
        "machine": machine("faust-streaming", "feast", "qdrant-edge-py", "onnxruntime", "confluent-kafka"),
        "rate_per_second": arguments.rate,
        "seconds": seconds,
        "pins": pins,
        "achieved_rate_per_second": round(measured.achieved_rate, 1),
        "outcomes": measured.outcomes,
        "freshness_ms": percentiles(measured.inside),
        "freshness_seen_from_outside_ms": percentiles(measured.outside) | {"unseen_within_30_s": measured.unseen},
        "deleted_seen_from_outside_ms": percentiles(measured.deleted),
        "target_p99_ms": TARGET_P99_MS,
    }
    write("freshness", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
