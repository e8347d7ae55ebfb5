"""Events per second of a group of workers: one and three, skip path and embed path, on Apache Kafka.

The services are those of the fault harness: Kafka of Apache, Feast on Redis, and Qdrant's engine behind the REST routes of a
server (a stand-in in Python, one process: a real server is faster). Producer, services and workers share this machine's
cores, so three workers are no three times as fast where there are two cores; the figure says what the group's overhead costs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tqdm import tqdm

from bench.machine import machine, write
from bench.sample import changed_captions, hints, new_pins
from bench.worker import OUTCOME, POLL_S, ROUND_TIMEOUT_S
from pins.events import PinEvent
from streams.broker import EventProducer, ensure_topics
from tests.faults.setting import PARTITIONS, Choice, Setting, setting
from tests.services.process import free_port

GROUPS = (1, 3)
READY_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Group:
    """Running workers of one consumer group, and their routes."""

    processes: Sequence[subprocess.Popen[bytes]]
    urls: Sequence[str]

    def outcomes(self) -> Counter[str]:
        """Pins brought up to date by all of them so far, by outcome."""
        total: Counter[str] = Counter()
        for url in self.urls:
            text = httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text
            total.update({name: int(float(value)) for name, value in OUTCOME.findall(text)})
        return total


@contextmanager
def group(services: Setting, workers: int) -> Iterator[Group]:
    """Start plain workers and wait until each has partitions. Raises SystemExit when one does not start."""
    processes, urls = [], []
    for number in range(workers):
        port = free_port()
        told = services.environment(f"bench-{workers}-{number}") | {"EVERPIN_HTTP_PORT": str(port)}
        with (services.folder / f"worker-{workers}-{number}.log").open("ab") as log:
            processes.append(subprocess.Popen([sys.executable, "-m", "streams.app"], env=told, stdout=log, stderr=log, stdin=subprocess.DEVNULL))
        urls.append(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while not all(map(_ready, urls)):
            if time.monotonic() > deadline:
                raise SystemExit(f"{workers} workers were not ready within {READY_WITHIN_S} s; see {services.folder}")
            time.sleep(0.2)
        yield Group(processes, urls)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.HTTPError:
        return False


def timed_round(running: Group, producer: EventProducer, events: Sequence[PinEvent], expected: str) -> float:
    """Events per second from the first send to the last outcome. Raises SystemExit when the outcomes are not the expected ones."""
    before, started = running.outcomes(), time.perf_counter()
    for event in events:
        producer.send(event)
    producer.flush(120)
    while (now := running.outcomes()).total() - before.total() < len(events):
        if time.perf_counter() - started > ROUND_TIMEOUT_S:
            raise SystemExit(f"after {ROUND_TIMEOUT_S:.0f} s only {now - before} of {len(events)} events had an outcome")
        time.sleep(POLL_S)
    seconds = time.perf_counter() - started
    if (now - before)[expected] < 0.98 * len(events):  # a rebalance may repeat a few, which are then unchanged
        raise SystemExit(f"{len(events)} events were to be {expected}, they were {now - before}")
    return len(events) / seconds


def main() -> None:
    """Measure, write bench/scaling.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=2000, help="pins in the index, and events of a skip round")
    parser.add_argument("--embeds", type=int, default=600, help="events of an embed round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each path and group; medians are reported")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    asked = parser.parse_args()
    skips, embeds, rounds = (200, 100, 1) if asked.quick else (asked.pins, asked.embeds, asked.rounds)
    speeds: dict[str, dict[str, list[float]]] = {path: {str(workers): [] for workers in GROUPS} for path in ("skip", "embed")}
    with tempfile.TemporaryDirectory() as scratch, setting(Choice.of(3), Path(scratch)) as services:
        ensure_topics(services.broker, PARTITIONS, 1)
        producer = EventProducer(services.broker, services.group)
        with group(services, 1) as running:
            timed_round(running, producer, new_pins(max(skips, embeds)), "new")
        number = 0
        for _ in tqdm(range(rounds), desc="rounds"):
            for workers in GROUPS:
                number += 1
                with group(services, workers) as running:
                    speeds["skip"][str(workers)].append(timed_round(running, producer, hints(skips), "unchanged"))
                    speeds["embed"][str(workers)].append(timed_round(running, producer, changed_captions(embeds, number), "text_changed"))
        producer.close()
    medians = {path: {workers: round(statistics.median(values), 1) for workers, values in some.items()} for path, some in speeds.items()}
    document = {
        "command": "python -m bench.scaling",
        "machine": machine("faust-streaming", "feast", "qdrant-client", "qdrant-edge-py", "onnxruntime"),
        "threads_per_worker": 1,
        "events_per_round": {"skip": skips, "embed": embeds},
        "rounds": rounds,
        "events_per_second": {path: {workers: [round(value, 1) for value in values] for workers, values in some.items()} for path, some in speeds.items()},
        "median_events_per_second": medians,
        "three_to_one": {path: round(some["3"] / some["1"], 2) for path, some in medians.items()},
    }
    write("scaling", document, quick=asked.quick)


if __name__ == "__main__":
    main()
