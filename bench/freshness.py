"""Freshness at a steady rate: event produced to vector searchable, p50, p90 and p99.

A running system holds 2,000 pins; events arrive at the given rate: 70 % change nothing, 25 % change the meaning, 5 % are new
pins. Freshness is the worker's own figure of each embedded event (message time to after the index write), and for a sample
also what a stranger sees who asks the index until the new version is there.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.machine import machine, write
from bench.worker import embed_events, timed_round
from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import now_us
from pins.events import PinEvent, PinUpdated
from streams.broker import EMBEDDED, EventProducer, read_topic

TARGET_P99_MS = 1000
SAMPLED_EVERY = 10
PRELOAD = 500


def event(chance: random.Random, number: int, pins: int) -> tuple[PinEvent, bool]:
    """One event of the mix, and whether it changes a vector."""
    kind, at = chance.random(), now_us()
    if kind < 0.70:
        return PinUpdated(f"p{chance.randrange(pins)}", at), False
    pin_id = f"p{chance.randrange(pins)}" if kind < 0.95 else f"new-{number}"
    thing = chance.choice(("lamp", "river", "recipe", "dress", "garden", "train", "bowl", "quilt"))
    caption = f"{thing} with {chance.choice(('red', 'old', 'tiny', 'wooden', 'bright'))} details, story {number}"
    return PinUpdated(pin_id, at, {"pin_caption": {"caption": caption}}), True


class Stranger(threading.Thread):
    """Asks the index until a caption is there, and notes how long after its event that was."""

    def __init__(self, system: System, pin_id: str, caption: str, seen: list[float]) -> None:
        super().__init__(daemon=True)
        self.system, self.pin_id, self.caption, self.seen, self.since = system, pin_id, caption, seen, time.perf_counter()

    def run(self) -> None:
        while time.perf_counter() - self.since < 30:
            found = self.system.http.post("/index/known", json={"pin_ids": [self.pin_id]}).json().get(self.pin_id)
            if found and self.caption in found["text"]:
                self.seen.append((time.perf_counter() - self.since) * 1000)
                return
            time.sleep(0.02)


def run(system: System, rate: float, seconds: float, pins: int) -> tuple[list[float], list[float]]:
    """(freshness of every embedded event, freshness a stranger saw of a sample), in milliseconds."""
    producer = EventProducer(system.broker, f"everpin-{system.status()['model_id']}")
    producer._offsets = None  # the rate is far below what the broker holds
    for start in range(0, pins, PRELOAD):
        timed_round(system, producer, [PinUpdated(f"p{n}", now_us(), e.features) for n, e in enumerate(embed_events(pins, 0)) if start <= n < start + PRELOAD])  # type: ignore[union-attr]
    chance, seen, strangers = random.Random(0), [], []
    since_ms, started = time.time() * 1000, time.perf_counter()
    for number in tqdm(range(int(rate * seconds)), desc=f"{rate:g} events/s"):
        time.sleep(max(0.0, started + number / rate - time.perf_counter()))
        made, changes = event(chance, number, pins)
        producer.send(made)
        if changes and number % SAMPLED_EVERY == 0 and isinstance(made, PinUpdated):
            strangers.append(Stranger(system, made.pin_id, made.features["pin_caption"]["caption"], seen))
            strangers[-1].start()
    producer.close()
    for stranger in strangers:
        stranger.join(30)
    return [json.loads(record.value)["freshness_ms"] for record in read_topic(system.broker, EMBEDDED) if record.timestamp >= since_ms], seen


def percentiles(values: list[float]) -> dict[str, Any]:
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
        inside, outside = run(system, arguments.rate, seconds, pins)
    document = {
        "command": "python -m bench.freshness",
        "machine": machine("faust-streaming", "feast", "qdrant-edge-py", "onnxruntime", "confluent-kafka"),
        "rate_per_second": arguments.rate,
        "seconds": seconds,
        "pins": pins,
        "freshness_ms": percentiles(inside),
        "freshness_seen_from_outside_ms": percentiles(outside),
        "target_p99_ms": TARGET_P99_MS,
    }
    write("freshness", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
