"""Time every call to the feature store, the encoder and the index, from outside: none of them knows of metrics.

Each wrapper passes everything else through and lets every exception pass. What it learns on the way, it reports: a store
that raised Unavailable does not answer, a guarded write that did not land lost a race.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from prometheus_client import Histogram

from everpin.telemetry import Telemetry
from pins.actions import HistoryWrite, StoredHistory
from pins.changes import IndexedPin
from pins.errors import Unavailable
from pins.features import FeatureRow, PinFeatures
from pins.ports import Encoder, FeatureSource, PinIndex, PointWrite, Vector

Features = TypeVar("Features", bound=FeatureSource)
Student = TypeVar("Student", bound=Encoder)
Index = TypeVar("Index", bound=PinIndex)
PROBE_PIN = "everpin-probe"
"""A pin that is nobody's: reading it asks a store whether it answers."""


def timed_features(features: Features, telemetry: Telemetry) -> Features:
    """The same feature store, with its calls timed."""
    return cast(Features, _TimedFeatures(features, telemetry))


def timed_encoder(encoder: Student, telemetry: Telemetry) -> Student:
    """The same student, with `encode` timed. A student with the attribute `on_run` also reports the padded tokens of each run."""
    if hasattr(encoder, "on_run"):
        encoder.on_run = telemetry.batch_tokens.observe
    return cast(Student, _TimedEncoder(encoder, telemetry))


def timed_index(index: Index, telemetry: Telemetry) -> Index:
    """The same index, with reads of records and writes timed, and the age of features taken at each new vector."""
    return cast(Index, _TimedIndex(index, telemetry))


def probe(features: FeatureSource, index: PinIndex) -> None:
    """Ask both stores for one pin, so that a worker without events notices too. Raises nothing: the wrappers report."""
    for ask in (features.of, index.known):
        try:
            ask([PROBE_PIN])
        except Unavailable:
            continue


class _Timed:
    """Passes on whatever its subclasses do not time."""

    store = ""

    def __init__(self, inner: Any, telemetry: Telemetry) -> None:
        self._inner, self._telemetry = inner, telemetry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def _call(self, seconds: Histogram) -> Iterator[None]:
        try:
            with seconds.time():
                yield
        except Unavailable:
            self._telemetry.answers(self.store, False)
            raise
        self._telemetry.answers(self.store, True)


class _TimedFeatures(_Timed):
    store = "features"

    def write(self, rows: Sequence[FeatureRow]) -> None:
        if not rows:  # nothing is asked of the store, so nothing is learnt of it
            return
        with self._call(self._telemetry.feature_write):
            self._inner.write(rows)

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        with self._call(self._telemetry.feature_read):
            found: Mapping[str, PinFeatures] = self._inner.of(pin_ids)
        return found

    def histories(self, user_ids: Sequence[str]) -> Mapping[str, StoredHistory]:
        with self._call(self._telemetry.feature_read):
            found: Mapping[str, StoredHistory] = self._inner.histories(user_ids)
        return found

    def replace(self, writes: Sequence[HistoryWrite]) -> set[str]:
        if not writes:
            return set()
        with self._call(self._telemetry.feature_write):
            landed: set[str] = self._inner.replace(writes)
        return landed


class _TimedEncoder(_Timed):
    def encode(self, texts: Sequence[str]) -> Vector:
        queue = self._telemetry.encoder_queue
        queue.inc(len(texts))
        try:
            with self._telemetry.encode_seconds.time():
                vectors: Vector = self._inner.encode(texts)
        finally:
            queue.dec(len(texts))
        return vectors


class _TimedIndex(_Timed):
    store = "index"

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        with self._call(self._telemetry.index_read):
            found: Mapping[str, IndexedPin] = self._inner.known(pin_ids)
        return found

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        try:
            with self._call(self._telemetry.index_write):
                landed: set[str] = self._inner.write(points)
        except Unavailable:
            self._telemetry.index_write_retries.inc()
            raise
        self._telemetry.races_lost.inc(sum(point.record.pin_id not in landed for point in points))
        for point in points:
            age = _feature_age_s(point) if point.record.pin_id in landed else None
            if age is not None:
                self._telemetry.feature_age.observe(age)
        return landed


def _feature_age_s(point: PointWrite) -> float | None:
    """Seconds from the newest feature row to the embedding; None for a write without a new vector. Clocks may differ: at least 0."""
    if point.vector is None or not point.record.as_of:
        return None
    return max(0.0, (point.record.embedded_at_us - max(point.record.as_of.values())) / 1e6)
