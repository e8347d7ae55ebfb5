"""Metric names as one closed list, each with its meaning. Labels are bounded: outcomes and reasons come from closed lists."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

RECENT = 10_000
"""Events whose freshness is kept exactly, for percentiles in `everpin status`."""
SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300)


class Telemetry:
    """The metrics of one process."""

    def __init__(self, version: str, model_id: str) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.pins = Counter("everpin_pins", "Pins brought up to date, by outcome (the reasons of pins.changes)", ["outcome"], registry=registry)
        self.events = Counter("everpin_events", "Messages taken from pin-updates and pin-updates.parked, by topic", ["topic"], registry=registry)
        self.encoded = Counter("everpin_encoded_texts", "Texts the worker sent to the encoder", registry=registry)
        self.dead_letters = Counter("everpin_dead_letters", "Messages sent to pin-updates.dead, by reason", ["reason"], registry=registry)
        self.parked = Counter("everpin_parked", "Messages parked because their features had not arrived", registry=registry)
        self.retries = Counter("everpin_retries", "Batches tried again because a store did not answer", registry=registry)
        self.freshness = Histogram("everpin_freshness_seconds", "Event produced to vector searchable", buckets=SECONDS, registry=registry)
        self.batch_seconds = Histogram("everpin_batch_seconds", "Time to bring one batch up to date", buckets=SECONDS, registry=registry)
        self.ready = Gauge("everpin_ready", "1 while the stores answer and partitions are assigned", registry=registry)
        Gauge("everpin_build_info", "Always 1; the labels say what runs", ["version", "model_id"], registry=registry).labels(version, model_id).set(1)
        self._recent: deque[float] = deque(maxlen=RECENT)

    def observe_freshness(self, seconds: Iterable[float]) -> None:
        """Seconds from the event's message time to its vector being searchable."""
        for value in seconds:
            self.freshness.observe(value)
            self._recent.append(value)

    def freshness_ms(self) -> dict[str, float | None]:
        """Percentiles of the last 10,000 embedded events, in milliseconds; None before the first."""
        if not self._recent:
            return {"p50": None, "p99": None}
        p50, p99 = np.percentile(list(self._recent), [50, 99]) * 1000
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}

    def labelled(self, counter: Counter) -> dict[str, int]:
        """A counter's values by its one label."""
        return {
            next(iter(sample.labels.values())): int(sample.value)
            for metric in counter.collect()
            for sample in metric.samples
            if sample.name.endswith("_total") and sample.value
        }

    def total(self, counter: Counter) -> int:
        """A label-free counter's value."""
        return int(sum(sample.value for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")))

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        text: bytes = generate_latest(self.registry)
        return text
