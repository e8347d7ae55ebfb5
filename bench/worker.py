"""Events per second of one real worker on the skip path and on the embed path, and where the time of a batch goes.

Events per second: a worker process on the embedded broker; whole sample pins already indexed; a round sends its events at
once and ends at the last outcome, read from /metrics (/status counts the index, which at every poll costs the worker 26 ms).
A round whose outcomes are not the ones it is about is refused. Shares: the same indexer in this process with a clock around
each step, batches of 128. What then remains of the worker process's time per event is called Kafka and Faust; it also holds
the wait for batches to fill and this producer, which shares the cores.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

import pins.indexer
from bench.machine import machine, write
from bench.sample import changed_captions, hints, new_pins
from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import build_encoder, build_features, now_us
from index.edge import EdgePinIndex
from pins.events import PinEvent
from streams.broker import EventProducer

BATCH = 128
PRELOAD = 500
POLL_S = 0.02
ROUND_TIMEOUT_S = 300.0
OUTCOME = re.compile(r'^everpin_pins_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


def outcomes(system: System) -> Counter[str]:
    """Pins brought up to date so far, by outcome."""
    text = system.http.get("/metrics").raise_for_status().text
    return Counter({name: int(float(value)) for name, value in OUTCOME.findall(text)})


def timed_round(system: System, producer: EventProducer, events: Sequence[PinEvent], expected: str) -> float:
    """Events per second from the first send to the last outcome. Small enough for the embedded broker to hold at once.

    Raises SystemExit when the outcomes do not come, or are not the expected ones: the figure would be of something else.
    """
    before, started = outcomes(system), time.perf_counter()
    for event in events:
        producer.send(event)
    producer.flush()
    while (now := outcomes(system)).total() - before.total() < len(events):
        if time.perf_counter() - started > ROUND_TIMEOUT_S:
            raise SystemExit(f"after {ROUND_TIMEOUT_S:.0f} s only {now - before} of {len(events)} events had an outcome")
        time.sleep(POLL_S)
    seconds = time.perf_counter() - started
    if now - before != Counter({expected: len(events)}):
        raise SystemExit(f"{len(events)} events were to be {expected}, they were {now - before}")
    return len(events) / seconds


def unpaced(system: System) -> EventProducer:
    """A producer that sends at once: each round fits into the embedded broker, so nothing needs to be held back."""
    producer = EventProducer(system.broker, f"everpin-{system.status()['model_id']}")
    producer._offsets = None
    return producer


def preload(system: System, producer: EventProducer, count: int) -> None:
    """Index whole pins, in parts that the embedded broker can hold."""
    pending = new_pins(count)
    for start in tqdm(range(0, count, PRELOAD), desc="first embedding", unit=f"x{PRELOAD} pins"):
        timed_round(system, producer, pending[start : start + PRELOAD], "new")


def throughput(skips: int, embeds: int, rounds: int, home: Path) -> dict[str, list[float]]:
    """Events per second by path, in interleaved rounds."""
    speeds: dict[str, list[float]] = {"skip": [], "embed": []}
    with running_system(Settings(home=home), home / "worker.log") as system:
        producer = unpaced(system)
        preload(system, producer, max(skips, embeds))
        for number in tqdm(range(1, rounds + 1), desc="rounds"):
            speeds["skip"].append(timed_round(system, producer, hints(skips), "unchanged"))
            speeds["embed"].append(timed_round(system, producer, changed_captions(embeds, number), "text_changed"))
        producer.close()
    return speeds


class Clock:
    """Adds up the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def around(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return act(*arguments, **named)
            finally:
                self.seconds[name] += time.perf_counter() - started

        return timed


@contextmanager
def clocked(clock: Clock) -> Iterator[None]:
    """Time render and decide where the indexer calls them."""
    render, decide = pins.indexer.render, pins.indexer.decide
    pins.indexer.render, pins.indexer.decide = clock.around("render", render), clock.around("decide", decide)  # type: ignore[assignment]
    try:
        yield
    finally:
        pins.indexer.render, pins.indexer.decide = render, decide


def shares(skips: int, embeds: int, rounds: int, home: Path) -> dict[str, dict[str, float]]:
    """Microseconds per event of each step, by path."""
    config = Settings(home=home)
    encoder, features = build_encoder(config), build_features(config)
    index = EdgePinIndex(config.index_home, encoder.model_id, encoder.dimension)
    indexer = pins.indexer.PinIndexer(features, encoder, index, now_us)
    apply_all(indexer, new_pins(max(skips, embeds)))
    found = {}
    paths: dict[str, tuple[int, Callable[[int], list[PinEvent]]]] = {
        "skip": (skips, lambda number: hints(skips)),
        "embed": (embeds, lambda number: changed_captions(embeds, number)),
    }
    for path, (count, make) in paths.items():
        clock = Clock()
        for port, names in ((features, ("write", "of")), (encoder, ("encode",)), (index, ("known", "write"))):
            for name in names:
                label = {"features write": "feast write", "features of": "feast read"}.get(f"{'features' if port is features else ''} {name}".strip(), "")
                step = label or {"encode": "encode", "known": "index read", "write": "index write"}[name]
                setattr(port, name, clock.around(step, getattr(type(port), name).__get__(port)))
        started = time.perf_counter()
        with clocked(clock):
            for number in tqdm(range(1, rounds + 1), desc=f"steps of the {path} path"):
                apply_all(indexer, make(number))
        total = time.perf_counter() - started
        steps = dict(clock.seconds.items()) | {"other": total - sum(clock.seconds.values())}
        found[path] = {name: round(seconds / (count * rounds) * 1e6, 1) for name, seconds in steps.items()}
    index.close()
    features.close()
    return found


def apply_all(indexer: pins.indexer.PinIndexer, events: Sequence[PinEvent]) -> None:
    for start in range(0, len(events), BATCH):
        indexer.apply(events[start : start + BATCH])


def main() -> None:
    """Measure both, write bench/worker.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=2000, help="pins in the index, and events of a skip round")
    parser.add_argument("--embeds", type=int, default=600, help="events of an embed round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each path; medians are reported")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    arguments = parser.parse_args()
    skips, embeds, rounds = (200, 100, 1) if arguments.quick else (arguments.pins, arguments.embeds, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        steps = shares(skips, embeds, rounds, Path(scratch) / "shares")
        speeds = throughput(skips, embeds, rounds, Path(scratch) / "throughput")
    medians = {path: statistics.median(values) for path, values in speeds.items()}
    for path, parts in steps.items():
        parts["kafka and faust"] = round(max(0.0, 1e6 / medians[path] - sum(parts.values())), 1)
    document = {
        "command": "python -m bench.worker",
        "machine": machine("faust-streaming", "feast", "qdrant-edge-py", "onnxruntime", "confluent-kafka"),
        "events_per_round": {"skip": skips, "embed": embeds},
        "rounds": rounds,
        "events_per_second": {path: [round(value, 1) for value in values] for path, values in speeds.items()},
        "median_events_per_second": {path: round(value, 1) for path, value in medians.items()},
        "microseconds_per_event": steps,
        "share": {path: {name: round(value / sum(parts.values()), 3) for name, value in parts.items()} for path, parts in steps.items()},
    }
    write("worker", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
