"""What Faust and Kafka know of a running worker, brought into its telemetry: Faust's own sensor, lag, rebalances, dead-letter depth.

Traps of Faust 0.15.3, all in this one place:

- `setup_prometheus_sensors` also mounts a web page; we have no Faust web server, so the sensor is built from its parts.
- It names its metrics after the app, and ours is named after the model: without a prefix of our own every model would need
  dashboards of its own. The prefix is `faust`.
- Its registry must not be Everpin's: Everpin's holds the closed list and nothing else. It is shown after ours in `/metrics`.
- Its `topic_partition_end_offset` counts one low, stands still while a partition is not fetched (which is when lag grows), and
  forgets all at a rebalance; `tp_committed_offsets` is empty until the first commit. So lag is read from the broker, by a
  client of its own, and not through the consumer's thread, whose commits must never wait behind a question of ours.
- Its `rebalance_done_latency` measures from the END of the rebalance, so it is about 0; its `total_rebalances` is a gauge of
  those under way. Count `everpin_rebalances_total` instead.
- Messages taken with `noack_take` never count as out: `faust_active_messages`, `faust_total_active_events` only grow, and
  `faust_events_runtime_ms` stays empty. Lag says what is in hand.
- A timer of a Faust app that raises crashes the app: `Watch` raises nothing that a store or the broker causes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faust
from faust.sensors.prometheus import FaustMetrics, PrometheusMonitor
from prometheus_client import CollectorRegistry

from everpin.http import Vitals
from everpin.instruments import probe
from everpin.telemetry import Telemetry
from everpin.wiring import WorkerParts, require_same_model
from pins.errors import ArtifactError, Unavailable, Unembeddable
from pins.indexer import BatchReport
from streams.broker import DEAD, PARKED, TAKEN, UPDATES, Broker, Lag, Offsets
from streams.deadletters import depth
from streams.worker import Message, header_int

BEAT_S, LOOK_S, PROBE_S, DEAD_S, PROVE_S = 1.0, 5.0, 10.0, 60.0, 300.0
PATIENCE_S = 5.0
"""How long the broker may take to answer before it counts as away."""
FAUST_PREFIX = "faust"
log = logging.getLogger("everpin.watch")

Place = tuple[str, str]
"""A topic and a partition, as labels."""
InIndexerThread = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs a function in the thread that the indexer runs in: the feature store must not be used from two."""


class _Sensor(PrometheusMonitor):
    """Faust's Prometheus sensor, which also counts rebalances for us."""

    def __init__(self, metrics: FaustMetrics, telemetry: Telemetry) -> None:
        super().__init__(metrics=metrics)
        self._telemetry = telemetry

    def on_rebalance_start(self, app: Any) -> dict[str, Any]:
        self._telemetry.rebalances.inc()
        state: dict[str, Any] = super().on_rebalance_start(app)
        return state


def faust_sensor(app: faust.App, telemetry: Telemetry) -> None:
    """Give an app Faust's Prometheus sensor and show its metrics with ours. Call it once, before the app starts."""
    registry = CollectorRegistry()
    app.monitor = _Sensor(FaustMetrics.create(registry, FAUST_PREFIX), telemetry)
    telemetry.include(registry)


class Figures:
    """Keeps the worker's figures where metrics and status read them."""

    def __init__(self, parts: WorkerParts, vitals: Vitals) -> None:
        self.telemetry, self.vitals = parts.telemetry, vitals

    def batch(self, messages: Sequence[Message], report: BatchReport, freshness_s: Sequence[float], seconds: float) -> None:
        for message in messages:
            self.telemetry.events.labels(message.topic).inc()
        for outcome in report.outcomes:
            self.telemetry.pins.labels(outcome.reason).inc()
        for error in report.refused.values():
            self.telemetry.refused.labels(error.reason).inc()
        self.telemetry.encoded.inc(report.encoded)
        self.telemetry.observe_freshness(freshness_s)
        self.telemetry.batch_seconds.observe(seconds)

    def dead_letter(self, reason: str) -> None:
        self.telemetry.dead_letters.labels(reason).inc()

    def parked(self) -> None:
        self.telemetry.parked.inc()

    def retried(self) -> None:
        self.telemetry.retries.inc()

    def ready(self, ready: bool) -> None:
        self.vitals.answering = ready


class LagClock:
    """How far behind each partition is, in messages and in seconds.

    Seconds are the age of the oldest message in hand. A partition can be behind with none in hand (nothing fetched yet): then
    they are the time since it was first seen behind at this committed offset, which is never too much.
    """

    def __init__(self) -> None:
        self._behind: dict[Place, tuple[int, float]] = {}

    def read(self, lags: Iterable[Lag], oldest_s: Mapping[Place, float], now_s: float) -> dict[Place, tuple[int, float, int]]:
        """(messages behind, seconds behind, committed offset) by place, at the epoch second `now_s`.

        `oldest_s` is the epoch second of the oldest message in hand, where there is one.
        """
        found: dict[Place, tuple[int, float, int]] = {}
        behind: dict[Place, tuple[int, float]] = {}
        for lag in lags:
            place, committed = (lag.topic, str(lag.partition)), lag.committed or 0
            messages, seconds = max(0, lag.messages), 0.0
            if messages:
                offset, since = self._behind.get(place, (committed, now_s))
                behind[place] = (committed, since if offset == committed else now_s)
                seconds = max(0.0, now_s - oldest_s.get(place, behind[place][1]))
            found[place] = (messages, seconds, committed)
        self._behind = behind
        return found


class Watch:
    """Looks at the broker and the stores from beside the stream. `start` once the app is built, `close` when it has ended."""

    def __init__(self, app: faust.App, broker: Broker, group: str, parts: WorkerParts, vitals: Vitals, in_indexer: InIndexerThread) -> None:
        self._app, self._broker, self._group, self._parts, self._vitals = app, broker, group, parts, vitals
        self._telemetry, self._in_indexer = parts.telemetry, in_indexer
        self._clock = LagClock()
        self._thread = ThreadPoolExecutor(1, "everpin-watch")
        self._asking: asyncio.Future[list[Lag]] | None = None
        self._offsets: Offsets | None = None
        self._dead_ends: Mapping[int, int] = {}
        self._dead_due = 0.0

    def start(self) -> None:
        """Put the timers on the app."""
        self._app.timer(BEAT_S, name="everpin-beat")(self._beat)
        self._app.timer(LOOK_S, name="everpin-look")(self.look)
        self._app.timer(PROBE_S, name="everpin-probe")(self.ask_stores)
        self._app.timer(PROVE_S, name="everpin-prove")(self.prove_model)

    async def _beat(self) -> None:
        self._vitals.beat()

    async def look(self) -> None:
        """Read lag, parked messages and dead letters from the broker."""
        assigned = {(tp.topic, str(tp.partition)) for tp in self._app.consumer.assignment() if tp.topic in TAKEN}
        self._telemetry.partitions.set(len(assigned))
        if self._asking is None:
            self._asking = asyncio.get_running_loop().run_in_executor(self._thread, self._ask_broker)
        await asyncio.wait({self._asking}, timeout=PATIENCE_S)
        if not self._asking.done():  # Kafka's client may take a minute to give up; the next look asks after this same question
            self._telemetry.answers("kafka", False)
            return
        asked, self._asking = self._asking, None
        try:
            lags = asked.result()
        except Unavailable:
            self._telemetry.answers("kafka", False)
            return
        self._telemetry.answers("kafka", True)
        oldest, parked_since = in_hand(self._app.consumer.unacked)
        mine = [lag for lag in lags if (lag.topic, str(lag.partition)) in assigned]
        if not any(lag.messages > 0 for lag in mine if lag.topic == UPDATES):
            self._vitals.moved()
        self._telemetry.show_lag(self._clock.read(mine, oldest, time.time()))
        self._telemetry.parked_held.set(sum(max(0, lag.messages) for lag in mine if lag.topic == PARKED))
        self._telemetry.parked_oldest.set(max(0.0, time.time() - parked_since) if parked_since else 0.0)

    async def ask_stores(self) -> None:
        """Ask the stores whether they answer, unless a batch in hand is asking them anyway, and count the pins."""
        if not self._vitals.busy_since:
            await self._in_indexer(self._probe)

    async def prove_model(self) -> None:
        """Embed a few recorded texts again: another worker may have begun to write with another model of the same name."""
        if not self._vitals.busy_since:
            await self._in_indexer(self._prove)

    def _prove(self) -> None:
        try:
            require_same_model(self._parts.encoder, self._parts.index)
        except (Unavailable, Unembeddable):
            return  # a store that is away is `_probe`'s to say, a text that is refused the batch's
        except ArtifactError as error:
            if self._vitals.model_fits:
                log.error("not ready any more: %s", error)
            self._vitals.model_fits = False
        else:
            self._vitals.model_fits = True

    def _probe(self) -> None:
        probe(self._parts.features, self._parts.index)
        try:
            self._telemetry.show_points(self._parts.encoder.model_id, self._parts.index.counts())
        except Unavailable:
            self._telemetry.answers("index", False)

    def _ask_broker(self) -> list[Lag]:
        if self._offsets is None:
            self._offsets = Offsets(self._broker, self._group)
        try:
            lags = self._offsets.lag((*TAKEN, DEAD))
        except Unavailable:
            offsets, self._offsets = self._offsets, None  # a client that saw its broker die may never find it again
            offsets.close()
            raise
        self._count_dead({lag.partition: lag.end for lag in lags if lag.topic == DEAD})
        return lags

    def _count_dead(self, ends: Mapping[int, int]) -> None:
        """How many letters wait, and since when: the whole topic is read for it, so only when it grew, and once a minute at most."""
        if ends == self._dead_ends or time.monotonic() < self._dead_due:
            return
        waiting = depth(self._broker)
        self._telemetry.dead_letter_depth.set(waiting.letters)
        since_s = None if waiting.oldest_s is None else time.time() - waiting.oldest_s
        self._telemetry.dead_letter_oldest.set_function(_age(since_s))
        self._dead_ends, self._dead_due = ends, time.monotonic() + DEAD_S

    def close(self) -> None:
        """Let the question in flight end."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._offsets is not None:
            self._offsets.close()


def in_hand(messages: Iterable[Any]) -> tuple[dict[Place, float], float | None]:
    """Of Faust messages not yet acknowledged: the oldest time per place, and since when the oldest parked one waits. Epoch seconds."""
    oldest: dict[Place, float] = {}
    parked: float | None = None
    for message in list(messages):
        place = (message.topic, str(message.partition))
        oldest[place] = min(message.timestamp, oldest.get(place, message.timestamp))
        if message.topic == PARKED:
            headers = {name: bytes(value or b"") for name, value in dict(message.headers or {}).items()}
            since = header_int(headers, "parked_since_us") / 1e6 or message.timestamp
            parked = since if parked is None else min(parked, since)
    return oldest, parked


def _age(since_s: float | None) -> Callable[[], float]:
    return lambda: max(0.0, time.time() - since_s) if since_s is not None else 0.0
