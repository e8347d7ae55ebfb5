"""The composition root: the only module that knows every adapter. Settings in, working parts out."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from embedder.artifact import Artifact, open_artifact
from embedder.onnx import OnnxEncoder
from everpin import __version__
from everpin.owner import live_owner, ownership
from everpin.settings import Settings
from everpin.telemetry import Telemetry
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from pins.errors import Unavailable
from pins.indexer import PinIndexer
from pins.ports import PinIndex
from streams.broker import Broker

if TYPE_CHECKING:
    from streams.features import FeastFeatures


def now_us() -> int:
    """The clock: epoch microseconds."""
    return time.time_ns() // 1000


def worker_group(settings: Settings, model_id: str) -> str:
    """The consumer group: each student has its own workers and its own progress."""
    return f"everpin-{model_id}"


def build_artifact(settings: Settings) -> Artifact:
    """The verified model folder. Raises ArtifactError."""
    return open_artifact(settings.model)


def build_encoder(settings: Settings, artifact: Artifact | None = None) -> OnnxEncoder:
    """The student. Raises ArtifactError."""
    return OnnxEncoder(artifact or build_artifact(settings), settings.threads, settings.cosmetic)


def build_features(settings: Settings) -> FeastFeatures:
    """The feature store; creates it the first time. Raises Unavailable."""
    from streams.features import FeastFeatures  # noqa: PLC0415  Feast is slow to import; a search does not need it

    return FeastFeatures(settings.feast_home, settings.feast_yaml)


@contextmanager
def open_index(settings: Settings, model_id: str, dimension: int, *, purpose: str, own: bool = False) -> Iterator[PinIndex]:
    """The index, for reading, or with `own` for writing.

    With QDRANT_URL the server; else, when another process owns the embedded index, that process; else the embedded index
    itself, owned for the time of the block. Raises Unavailable, also when `own` is asked for and there is an owner.
    """
    with ExitStack() as stack:
        index = _index(settings, model_id, dimension, stack, purpose, own)
        stack.callback(index.close)
        yield index


def _index(settings: Settings, model_id: str, dimension: int, stack: ExitStack, purpose: str, own: bool) -> PinIndex:
    if settings.qdrant_url:
        from index.qdrant import QdrantPinIndex, connect  # noqa: PLC0415  slow to import; the embedded index does not need it

        return QdrantPinIndex(connect(settings.qdrant_url, settings.qdrant_timeout_s), model_id, dimension)
    owner = None if own else live_owner(settings.home)
    if owner and owner.url:
        return LoopbackPinIndex(httpx.Client(base_url=owner.url, timeout=30), model_id)
    stack.enter_context(ownership(settings.home, purpose))
    return EdgePinIndex(settings.index_home, model_id, dimension)


def find_broker(settings: Settings) -> Broker | None:
    """Kafka by address, or the embedded broker of the process that owns the stores; None when there is neither."""
    if settings.kafka:
        return Broker.parse(settings.kafka)
    owner = live_owner(settings.home)
    return Broker.parse(owner.kafka) if owner and owner.kafka else None


def require_broker(settings: Settings) -> Broker:
    """Like `find_broker`. Raises Unavailable."""
    broker = find_broker(settings)
    if broker is None:
        raise Unavailable("no broker: start `everpin up` in another terminal, or set EVERPIN_KAFKA to a Kafka address")
    return broker


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """Everything a worker process holds."""

    settings: Settings
    encoder: OnnxEncoder
    features: FeastFeatures
    index: PinIndex
    indexer: PinIndexer
    telemetry: Telemetry


@contextmanager
def worker_parts(settings: Settings) -> Iterator[WorkerParts]:
    """Open everything a worker needs, in the order in which failures are cheapest. Raises ArtifactError, Unavailable."""
    encoder = build_encoder(settings)
    with open_index(settings, encoder.model_id, encoder.dimension, purpose="worker", own=True) as index:
        features = build_features(settings)
        try:
            telemetry = Telemetry(__version__, encoder.model_id)
            yield WorkerParts(settings, encoder, features, index, PinIndexer(features, encoder, index, now_us, settings.vanished_limit), telemetry)
        finally:
            features.close()


def configure_logging(level: str) -> None:
    """One line per record on standard error: time, level, name, message."""
    logging.basicConfig(
        stream=sys.stderr, level={"warn": "WARNING"}.get(level, level.upper()), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    for noisy in ("kafka", "aiokafka", "faust", "mode", "streams.transport", "httpx", "feast", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
