"""Events per second of one real worker on the skip path and on the embed path, and where the time of a batch goes.

Events per second: a worker process on the embedded broker; pins already indexed; a round sends its events at once and ends
when the worker has committed them, so commits (once a second) are in the figure. Shares: the same indexer in this process
with a clock around each step, batches of 128; what remains of the worker's time per event is Kafka and Faust.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

import pins.indexer
from bench.machine import machine, write
from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import build_encoder, build_features, now_us
from index.edge import EdgePinIndex
from pins.events import PinEvent, PinUpdated
from streams.broker import EventProducer

BATCH = 128


def embed_events(count: int, round_number: int) -> list[PinEvent]:
    """Each event carries a new caption of its pin."""
    at = now_us()
    words = ("a linen sofa beside a large window", "a steel bridge over a quiet river", "a plate of noodles with herbs", "a knitted blue scarf on a chair")
    return [PinUpdated(f"p{n}", at, {"pin_caption": {"caption": f"{words[round_number % 4]} number {n}, seen in round {round_number}"}}) for n in range(count)]


def skip_events(count: int) -> list[PinEvent]:
    """Hints about pins whose features did not change."""
    at = now_us()
    return [PinUpdated(f"p{n}", at) for n in range(count)]


def done(system: System) -> int:
    return sum(system.status()["outcomes"].values())


def timed_round(system: System, producer: EventProducer, events: Sequence[PinEvent]) -> float:
    """Events per second from the first send to the last outcome. Small enough for the embedded broker to hold at once."""
    before, started = done(system), time.perf_counter()
    for event in events:
        producer.send(event)
    producer.flush()
    while done(system) - before < len(events):
        time.sleep(0.01)
    return len(events) / (time.perf_counter() - started)


def throughput(count: int, rounds: int, home: Path) -> dict[str, list[float]]:
    """Events per second by path, in interleaved rounds."""
    speeds: dict[str, list[float]] = {"skip": [], "embed": []}
    with running_system(Settings(home=home), home / "worker.log") as system:
        producer = EventProducer(system.broker, f"everpin-{system.status()['model_id']}")
        producer._offsets = None  # one round fits into the broker, so nothing needs to be paced
        timed_round(system, producer, embed_events(count, -1))
        for number in tqdm(range(rounds), desc="rounds"):
            speeds["skip"].append(timed_round(system, producer, skip_events(count)))
            speeds["embed"].append(timed_round(system, producer, embed_events(count, number)))
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


def shares(count: int, rounds: int, home: Path) -> dict[str, dict[str, float]]:
    """Microseconds per event of each step, by path."""
    config = Settings(home=home)
    encoder, features = build_encoder(config), build_features(config)
    index = EdgePinIndex(config.index_home, encoder.model_id, encoder.dimension)
    indexer = pins.indexer.PinIndexer(features, encoder, index, now_us)
    apply_all(indexer, embed_events(count, -1))
    found = {}
    for path, make in {"skip": lambda _: skip_events(count), "embed": lambda number: embed_events(count, number)}.items():
        clock = Clock()
        for port, names in ((features, ("write", "of")), (encoder, ("encode",)), (index, ("known", "write"))):
            for name in names:
                label = {"features write": "feast write", "features of": "feast read"}.get(f"{'features' if port is features else ''} {name}".strip(), "")
                step = label or {"encode": "encode", "known": "index read", "write": "index write"}[name]
                setattr(port, name, clock.around(step, getattr(type(port), name).__get__(port)))
        started = time.perf_counter()
        with clocked(clock):
            for number in range(rounds):
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
    parser.add_argument("--pins", type=int, default=2000, help="pins, and events of a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each path; medians are reported")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    arguments = parser.parse_args()
    count, rounds = (200, 1) if arguments.quick else (arguments.pins, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        steps = shares(count, rounds, Path(scratch) / "shares")
        speeds = throughput(count, rounds, Path(scratch) / "throughput")
    medians = {path: statistics.median(values) for path, values in speeds.items()}
    for path, parts in steps.items():
        parts["kafka and faust"] = round(max(0.0, 1e6 / medians[path] - sum(parts.values())), 1)
    document = {
        "command": "python -m bench.worker",
        "machine": machine("faust-streaming", "feast", "qdrant-edge-py", "onnxruntime", "confluent-kafka"),
        "pins": count,
        "events_per_second": {path: [round(value, 1) for value in values] for path, values in speeds.items()},
        "median_events_per_second": {path: round(value, 1) for path, value in medians.items()},
        "microseconds_per_event": steps,
        "share": {path: {name: round(value / sum(parts.values()), 3) for name, value in parts.items()} for path, parts in steps.items()},
    }
    write("worker", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
