"""Memory of a worker: at rest, and while a million events wait for it on Apache Kafka.

The events are hints about indexed pins, so the worker takes them as fast as it can; its resident memory is sampled while they
wait. A worker that read ahead without bounds would hold them all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from tqdm import tqdm

from bench.machine import machine, write
from bench.sample import new_pins
from bench.scaling import Group, group
from everpin.wiring import now_us
from pins.events import PinUpdated, encode
from streams.broker import UPDATES, EventProducer, Offsets, ensure_topics, wait_for_lag
from tests.faults.setting import PARTITIONS, Choice, setting

PINS = 1000
SAMPLE_S = 0.5


def rss_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def watched(running: Group, seconds: float, label: str) -> list[float]:
    """Resident memory of the first worker, every half second."""
    found = []
    for _ in tqdm(range(int(seconds / SAMPLE_S)), desc=label):
        found.append(rss_mib(running.processes[0].pid))
        time.sleep(SAMPLE_S)
    return found


def fill(address: str, count: int) -> None:
    """Put this many hints on Kafka."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 20, "queue.buffering.max.messages": 200_000})
    for number in tqdm(range(count), desc="filling Kafka", unit_scale=True):
        pin_id = f"p{number % PINS}"
        while True:
            try:
                producer.produce(UPDATES, encode(PinUpdated(pin_id, now_us())), pin_id.encode())
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise SystemExit("Kafka did not take all events within 120 s")


def main() -> None:
    """Measure, write bench/memory.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="events that wait")
    parser.add_argument("--seconds", type=float, default=90, help="how long the worker is watched among them")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    asked = parser.parse_args()
    events, seconds = (20_000, 5.0) if asked.quick else (asked.events, asked.seconds)
    with tempfile.TemporaryDirectory() as scratch, setting(Choice.of(1, broker="kafka", index="server"), Path(scratch)) as services:
        ensure_topics(services.broker, PARTITIONS, 1)
        offsets = Offsets(services.broker, services.group)
        with group(services, 1) as running:
            rest = watched(running, min(seconds, 20), "at rest, empty")
            producer = EventProducer(services.broker, services.group)
            for event in new_pins(PINS):
                producer.send(event)
            producer.close()
            wait_for_lag(offsets, 0)
            warm = watched(running, min(seconds, 20), f"at rest, {PINS} pins embedded")
        fill(services.broker.address, events)
        waiting_before = sum(lag.messages for lag in offsets.lag())
        with group(services, 1) as running:
            busy = watched(running, seconds, "among waiting events")
        waiting_after = sum(lag.messages for lag in offsets.lag())
        offsets.close()
    document: dict[str, Any] = {
        "command": "python -m bench.memory",
        "machine": machine("faust-streaming", "feast", "qdrant-client", "onnxruntime"),
        "resident_mib": {
            "at rest": round(max(rest), 1),
            f"at rest after {PINS} embeds": round(max(warm), 1),
            "among waiting events, largest": round(max(busy), 1),
            "among waiting events, last": round(busy[-1], 1),
        },
        "events_waiting": {"at the start": waiting_before, "at the end": waiting_after},
        "samples_mib": [round(value, 1) for value in busy[:: max(1, len(busy) // 30)]],
    }
    write("memory", document, quick=asked.quick)


if __name__ == "__main__":
    main()
