"""Every metric of a worker as one closed list, and the Telemetry that makes them. How things are timed is in `instruments`.

A label takes its values from a closed list, written beside it, or from something bounded: a partition, the model that runs.
Values of a closed list exist at 0 from the start, because Prometheus cannot see an increase from nothing to 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.metrics import MetricWrapperBase

from pins import actions, changes, events

RECENT = 10_000
"""Events whose freshness is kept exactly, for percentiles in `everpin status`."""
SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30, 60, 300)
CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
AGE_SECONDS = (1, 5, 30, 60, 300, 900, 3600, 21_600, 86_400, 604_800, 2_592_000)
TOKENS = (32, 64, 128, 192, 256, 320, 384, 448, 512, 1024)

STORES = ("features", "index", "kafka")
STATES = ("live", "textless", "dead", "refused")
TAKEN_TOPICS = ("pin-updates", "pin-updates.parked")
REFUSALS = ("encoder_error", "bad_vector", "bad_version", "point_refused", "defect")
"""Why a pin's text or point is refused: the pin is marked and its message goes to dead letters."""
DEAD_REASONS = (*events.REASONS, *actions.REASONS, *REFUSALS, "features_behind")
OPEN: tuple[str, ...] = ()
"""A label without a list of values: what bounds it is said in the metric's meaning."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name as Prometheus shows it, what it means, and what to do when it looks wrong.

    `labels` maps each label to its closed list of values, or to OPEN. `buckets` are a histogram's upper bounds, in `unit`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    do: str
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


_PARTITION = {"topic": OPEN, "partition": OPEN}

METRICS = (
    Metric("everpin_pins_total", "counter", "pins", "Pins brought up to date, by outcome (the reasons of pins.changes)",
           "compare the outcomes with a usual day: all embedded or all skipped is a producer or a deploy", {"outcome": tuple(changes.REASONS)}),
    Metric("everpin_events_total", "counter", "messages", "Messages taken from pin-updates and pin-updates.parked, by topic",
           "0 while lag grows: the worker is stalled; see its log", {"topic": TAKEN_TOPICS}),
    Metric("everpin_user_actions_total", "counter", "actions", "User actions taken from user-actions, by outcome",
           "0 while its lag grows: see the worker's log; nearly all unchanged: a producer sends everything twice", {"outcome": tuple(actions.OUTCOMES)}),
    Metric("everpin_encoded_texts_total", "counter", "texts", "Texts the worker sent to the encoder",
           "far above the usual: something changes every text, such as a new template or producer"),
    Metric("everpin_dead_letters_total", "counter", "messages", "Messages sent to pin-updates.dead, by reason",
           "read them with `everpin dlq list`", {"reason": DEAD_REASONS}),
    Metric("everpin_parked_total", "counter", "messages", "Messages parked because their features had not arrived",
           "rising: the feature pipeline is later than its events"),
    Metric("everpin_retries_total", "counter", "batches", "Batches tried again because a store did not answer",
           "see everpin_store_up for which store"),
    Metric("everpin_freshness_seconds", "histogram", "seconds", "Event produced to vector searchable",
           "above target: look at lag first, then at the parts of everpin_batch_seconds", buckets=SECONDS),
    Metric("everpin_batch_seconds", "histogram", "seconds", "Time to bring one batch up to date",
           "which part grew? feature read, index read, encode, index write", buckets=SECONDS),
    Metric("everpin_ready", "gauge", "1 or 0", "1 while the stores answer and partitions are assigned",
           "ask `/readyz` for the reasons"),
    Metric("everpin_build_info", "gauge", "1", "Always 1; the labels say what runs", "more than one version beyond a deploy: finish it",
           {"version": OPEN, "model_id": OPEN}),
    Metric("everpin_model_info", "gauge", "1", "Always 1; the model that runs: id, sha256 of model.onnx and template version",
           "two sha256 of one model_id write vectors that must not be compared: stop the wrong worker",
           {"model_id": OPEN, "sha256": OPEN, "template_version": OPEN}),
    Metric("everpin_lag_messages", "gauge", "messages", "Messages after the committed offset, of each partition this worker has",
           "growing: more workers, or see what the worker waits for", _PARTITION),
    Metric("everpin_lag_seconds", "gauge", "seconds", "Age of the oldest message not yet handled, of each partition this worker has; 0 when none",
           "above the freshness target for minutes: as for lag in messages", _PARTITION),
    Metric("everpin_committed_offset", "gauge", "offset", "Committed offset of each partition this worker has",
           "standing still while messages are taken: nothing would survive a restart; restart the worker", _PARTITION),
    Metric("everpin_partitions_assigned", "gauge", "partitions", "Partitions this worker has, over all topics",
           "0: more workers than partitions, or the worker cannot join its group"),
    Metric("everpin_rebalances_total", "counter", "rebalances", "Rebalances of the group that this worker saw",
           "several in ten minutes without a deploy: a worker joins and leaves; find the one that restarts"),
    Metric("everpin_parked_held", "gauge", "messages", "Parked messages waiting now, in this worker's partitions",
           "growing: a feature view has stopped"),
    Metric("everpin_parked_oldest_seconds", "gauge", "seconds", "How long the oldest of the parked messages read so far has waited; 0 when none",
           "near EVERPIN_PARK_DEADLINE_S: they become dead letters next; mend the feature pipeline"),
    Metric("everpin_feature_age_seconds", "histogram", "seconds", "Age of the newest feature row of a pin at the time of embedding",
           "high without an import or backfill: features reach Feast late", buckets=AGE_SECONDS),
    Metric("everpin_feature_read_seconds", "histogram", "seconds", "One read of a batch's features", "slow: look at Feast's online store",
           buckets=CALL_SECONDS),
    Metric("everpin_feature_write_seconds", "histogram", "seconds", "One write of the features that events carried",
           "slow: look at Feast's online store", buckets=CALL_SECONDS),
    Metric("everpin_encode_seconds", "histogram", "seconds", "One call of the encoder, for all new texts of a batch",
           "slow: too few cores, or EVERPIN_THREADS of all workers is more than there are", buckets=CALL_SECONDS),
    Metric("everpin_encoder_queue", "gauge", "texts", "Texts handed to the encoder and not back yet", "never back to 0: encoding is the limit; add workers"),
    Metric("everpin_encoder_batch_tokens", "histogram", "tokens", "Padded tokens of one run of the encoder",
           "mostly tiny: batches do not fill; raise EVERPIN_BATCH_MS if freshness allows", buckets=TOKENS),
    Metric("everpin_index_read_seconds", "histogram", "seconds", "One read of a batch's records", "slow: look at Qdrant", buckets=CALL_SECONDS),
    Metric("everpin_index_write_seconds", "histogram", "seconds", "One guarded write to the index", "slow: look at Qdrant's disk and memory",
           buckets=CALL_SECONDS),
    Metric("everpin_index_write_retries_total", "counter", "writes", "Index writes that failed and are tried again", "see the worker's log and Qdrant's"),
    Metric("everpin_index_races_lost_total", "counter", "points", "Guarded writes that found another worker's newer record; they are decided anew",
           "more than a trickle: two workers hold the same pins; look for a zombie or a second backfill"),
    Metric("everpin_points", "gauge", "pins", "Pins in this worker's collection, by state", "live falls: deletes, or a damaged index; `everpin status`",
           {"model_id": OPEN, "state": STATES}),
    Metric("everpin_refused_pins_total", "counter", "pins", "Pins whose newer text or point was refused, by reason; their previous vector stays served",
           "the same reason for many pins is a deploy, for a few it is the pins", {"reason": REFUSALS}),
    Metric("everpin_dead_letter_depth", "gauge", "messages", "Messages in pin-updates.dead now; every worker sees the same",
           "`everpin dlq list`, mend the cause, `everpin dlq replay`"),
    Metric("everpin_dead_letter_oldest_seconds", "gauge", "seconds", "Age of the oldest message in pin-updates.dead; 0 when there is none",
           "near the topic's retention: what is not replayed is lost"),
    Metric("everpin_dead_letter_write_failures_total", "counter", "writes", "Failed writes to pin-updates.dead; the message stays un-acknowledged",
           "page: no message may be passed over; bring Kafka back"),
    Metric("everpin_store_up", "gauge", "1 or 0", "Whether the last call to a store answered", "0: the store is away or slow beyond its time-out",
           {"store": STORES}),
    Metric("everpin_disk_free_bytes", "gauge", "bytes", "Free space under EVERPIN_HOME", "below 512 MiB: free some; at 256 MiB the embedded index stops"),
)  # fmt: skip
"""All of them, in the order of docs/operations.md."""

Made = TypeVar("Made", Counter, Gauge, Histogram)


class Telemetry:
    """The metrics of one process. One attribute per metric; `stores` is what is known of each store."""

    def __init__(self, version: str, model_id: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a start time beside every series would be metrics that no list names
        self.registry = CollectorRegistry()
        self._known = {metric.name: metric for metric in METRICS}
        self._others: list[CollectorRegistry] = []
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._shown: set[tuple[str, str]] = set()
        self.stores = dict.fromkeys(STORES, True)
        self._stream_metrics()
        self._store_metrics()
        self._make(Gauge, "everpin_build_info").labels(version, model_id).set(1)

    def _stream_metrics(self) -> None:
        self.pins = self._make(Counter, "everpin_pins_total")
        self.events = self._make(Counter, "everpin_events_total")
        self.user_actions = self._make(Counter, "everpin_user_actions_total")
        self.dead_letters = self._make(Counter, "everpin_dead_letters_total")
        self.dead_letter_depth = self._make(Gauge, "everpin_dead_letter_depth")
        self.dead_letter_oldest = self._make(Gauge, "everpin_dead_letter_oldest_seconds")
        self.dead_letter_write_failures = self._make(Counter, "everpin_dead_letter_write_failures_total")
        self.parked = self._make(Counter, "everpin_parked_total")
        self.parked_held = self._make(Gauge, "everpin_parked_held")
        self.parked_oldest = self._make(Gauge, "everpin_parked_oldest_seconds")
        self.retries = self._make(Counter, "everpin_retries_total")
        self.freshness = self._make(Histogram, "everpin_freshness_seconds")
        self.batch_seconds = self._make(Histogram, "everpin_batch_seconds")
        self.ready = self._make(Gauge, "everpin_ready")
        self.lag_messages = self._make(Gauge, "everpin_lag_messages")
        self.lag_seconds = self._make(Gauge, "everpin_lag_seconds")
        self.committed = self._make(Gauge, "everpin_committed_offset")
        self.partitions = self._make(Gauge, "everpin_partitions_assigned")
        self.rebalances = self._make(Counter, "everpin_rebalances_total")

    def _store_metrics(self) -> None:
        self.model = self._make(Gauge, "everpin_model_info")
        self.encoded = self._make(Counter, "everpin_encoded_texts_total")
        self.encode_seconds = self._make(Histogram, "everpin_encode_seconds")
        self.encoder_queue = self._make(Gauge, "everpin_encoder_queue")
        self.batch_tokens = self._make(Histogram, "everpin_encoder_batch_tokens")
        self.feature_age = self._make(Histogram, "everpin_feature_age_seconds")
        self.feature_read = self._make(Histogram, "everpin_feature_read_seconds")
        self.feature_write = self._make(Histogram, "everpin_feature_write_seconds")
        self.index_read = self._make(Histogram, "everpin_index_read_seconds")
        self.index_write = self._make(Histogram, "everpin_index_write_seconds")
        self.index_write_retries = self._make(Counter, "everpin_index_write_retries_total")
        self.races_lost = self._make(Counter, "everpin_index_races_lost_total")
        self.points = self._make(Gauge, "everpin_points")
        self.refused = self._make(Counter, "everpin_refused_pins_total")
        self.disk_free = self._make(Gauge, "everpin_disk_free_bytes")
        self.store_up = self._make(Gauge, "everpin_store_up")
        for store in STORES:
            self.store_up.labels(store).set_function(lambda store=store: float(self.stores[store]))  # type: ignore[misc]  # bound now

    def _make(self, kind: type[Made], name: str) -> Made:
        metric = self._known[name]
        more: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
        made = kind(name.removesuffix("_total"), metric.meaning, list(metric.labels), registry=self.registry, **more)
        if metric.labels and OPEN not in metric.labels.values():
            for values in product(*metric.labels.values()):
                made.labels(*values)
        return made

    def answers(self, store: str, up: bool) -> None:
        """Whether a store answered its last call. Raises KeyError for a store that is not in STORES."""
        if store not in self.stores:
            raise KeyError(store)
        self.stores[store] = up

    def observe_freshness(self, seconds: Iterable[float]) -> None:
        """Seconds from the event's message time to its vector being searchable."""
        for value in seconds:
            self.freshness.observe(value)
            self._recent.append(value)

    def observe_actions(self, outcomes: Mapping[str, int]) -> None:
        """User actions by outcome, of `pins.actions.OUTCOMES`."""
        for outcome, number in outcomes.items():
            self.user_actions.labels(outcome).inc(number)

    def freshness_ms(self) -> dict[str, float | None]:
        """Percentiles of the last 10,000 embedded events, in milliseconds; None before the first."""
        if not self._recent:
            return {"p50": None, "p99": None}
        p50, p99 = np.percentile(list(self._recent), [50, 99]) * 1000
        return {"p50": round(float(p50), 1), "p99": round(float(p99), 1)}

    def show_lag(self, partitions: Mapping[tuple[str, str], tuple[int, float, int]]) -> None:
        """(topic, partition) to (messages behind, seconds behind, committed offset), for what this worker has; others vanish."""
        for place, (messages, seconds, committed) in partitions.items():
            self.lag_messages.labels(*place).set(messages)
            self.lag_seconds.labels(*place).set(seconds)
            self.committed.labels(*place).set(committed)
        for place in self._shown - partitions.keys():
            for gauge in (self.lag_messages, self.lag_seconds, self.committed):
                gauge.remove(*place)
        self._shown = set(partitions)

    def show_points(self, model_id: str, counts: Mapping[str, int]) -> None:
        """Pins in a model's collection by state (`PinIndex.counts`), of STATES. What an index does not count is not shown as 0."""
        for state in STATES:
            if state in counts:
                self.points.labels(model_id, state).set(counts[state])

    def show_model(self, model_id: str, sha256: str, template_version: int) -> None:
        """What runs, for telling two models of one name apart."""
        self.model.labels(model_id, sha256, str(template_version)).set(1)

    def include(self, registry: CollectorRegistry) -> None:
        """Show another library's metrics after our own."""
        self._others.append(registry)

    def labelled(self, counter: Counter) -> dict[str, int]:
        """A counter's values by its one label; those at 0 are left out."""
        return {next(iter(labels.values())): int(value) for labels, value in _samples(counter) if value}

    def total(self, counter: Counter) -> int:
        """A counter's value, over its labels."""
        return int(sum(value for _, value in _samples(counter)))

    def exposition(self) -> bytes:
        """The Prometheus text format, of our metrics and of those included."""
        return b"".join(generate_latest(registry) for registry in (self.registry, *self._others))


def _samples(counter: MetricWrapperBase) -> list[tuple[dict[str, str], float]]:
    return [(sample.labels, sample.value) for metric in counter.collect() for sample in metric.samples if sample.name.endswith("_total")]
