"""Every metric of a serving process as one closed list, and the Metrics that keep them."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everpin.serving import Served

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5)
STAGES = ("encode", "retrieve", "rerank", "fold", "history", "cluster", "merge", "read")

SHED = ("in_flight", "queue_time")
EXPERIMENT_EVENTS, FATES = ("exposure", "outcome"), ("sent", "dropped", "refused")

METRICS = {
    "everpin_http_requests_total": "Requests answered, by route and status",
    "everpin_http_seconds": "Seconds from a request's arrival to its answer, by route",
    "everpin_http_in_flight": "Requests being worked on; near EVERPIN_MAX_IN_FLIGHT the rest is shed",
    "everpin_http_shed_total": "Requests answered 503 because too many were in flight or one had waited too long, by reason: add processes",
    "everpin_http_refused_total": "Requests refused by key, scope or rate, by status (401, 403, 429)",
    "everpin_stage_seconds": "Seconds of one stage of a request, by stage",
    "everpin_query_cache_total": "Query encodings, by outcome: hit, or miss that ran the student",
    "everpin_cutovers_total": "Times that another model became the live one while this process ran",
    "everpin_serving_info": "1 for the model that answers now, by model id and collection",
    "everpin_experiment_events_total": "Exposures and outcomes of experiments, by kind and fate; dropped: Kafka was away and too many waited",
    "everpin_alias_behind": "1 while the alias cannot be followed, and the model that was live before answers; see /readyz",
}
"""Each metric with its meaning."""


class Metrics:
    """The figures of one process."""

    def __init__(self, build: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # as everpin.telemetry does
        self.registry = CollectorRegistry()
        self.requests = self._counter("everpin_http_requests_total", "route", "status")
        self.seconds = self._histogram("everpin_http_seconds", "route")
        self.in_flight = self._gauge("everpin_http_in_flight")
        self.shed = self._counter("everpin_http_shed_total", "reason")
        self.refused = self._counter("everpin_http_refused_total", "status")
        self.stages = self._histogram("everpin_stage_seconds", "stage")
        self.query_cache = self._counter("everpin_query_cache_total", "outcome")
        self.cutovers = self._counter("everpin_cutovers_total")
        self.serving = self._gauge("everpin_serving_info", "model_id", "collection", "version")
        self.experiment_events = self._counter("everpin_experiment_events_total", "kind", "fate")
        self.alias_behind = self._gauge("everpin_alias_behind")
        self._build = build
        for stage in STAGES:
            self.stages.labels(stage)
        for status in ("401", "403", "429"):
            self.refused.labels(status)
        for reason in SHED:
            self.shed.labels(reason)
        for kind, fate in product(EXPERIMENT_EVENTS, FATES):
            self.experiment_events.labels(kind, fate)

    def live(self, served: Served) -> None:
        """Another model answers from now on."""
        if self._value_exists():
            self.cutovers.inc()
        self.serving.clear()
        self.serving.labels(served.model_id, served.collection, self._build).set(1)

    def watch(self, behind: Callable[[], bool], cached: Callable[[], tuple[int, int]]) -> None:
        """Take two figures when they are scraped: whether the alias is behind, and the hits and misses of the live model's query cache."""
        self.alias_behind.set_function(lambda: float(behind()))
        self._cached, self._seen = cached, (0, 0)

    def exposition(self) -> bytes:
        """All figures in Prometheus' text format."""
        hits, misses = self._cached()
        before = self._seen if hits >= self._seen[0] and misses >= self._seen[1] else (0, 0)  # another model's cache began at 0
        self.query_cache.labels("hit").inc(hits - before[0])
        self.query_cache.labels("miss").inc(misses - before[1])
        self._seen = hits, misses
        return generate_latest(self.registry)

    def _value_exists(self) -> bool:
        return any(family.samples for family in self.serving.collect())

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, METRICS[name], labels, registry=self.registry)

    def _gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, METRICS[name], labels, registry=self.registry)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        return Histogram(name, METRICS[name], labels, buckets=SECONDS, registry=self.registry)


class Timed:
    """Counts and times the application's answers, by route. A path that is no route counts as `none`: a label must be bounded."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), "500"

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, counted)
            finally:
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(route, status).inc()
                self._metrics.seconds.labels(route).observe(time.perf_counter() - started)
