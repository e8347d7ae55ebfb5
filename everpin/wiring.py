"""The composition root: the only module that knows every adapter. Settings in, working parts out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import httpx

from embedder.artifact import Artifact, open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin import __version__
from everpin.instruments import timed_encoder, timed_features, timed_index
from everpin.owner import live_owner, owners, ownership, place
from everpin.priority import behind, made_behind
from everpin.settings import Settings
from everpin.telemetry import Telemetry
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from pins.errors import ArtifactError, Unavailable
from pins.indexer import PinIndexer
from pins.ports import PinIndex
from streams.broker import Broker

if TYPE_CHECKING:
    from streams.features import FeastFeatures


PROVED = 16
"""Records whose text is embedded again when a worker starts."""
SAME_VECTOR = 0.999
"""Cosine below which a stored vector is not this model's: batching and threads move it by less than 1e-4."""


def now_us() -> int:
    """The clock: epoch microseconds."""
    return time.time_ns() // 1000


def worker_group(settings: Settings, model_id: str) -> str:
    """The consumer group: each student has its own workers and its own progress."""
    return f"everpin-{model_id}"


def worker_groups(settings: Settings) -> list[str]:
    """The consumer groups at work on this state folder now; the model's own where none is seen, as with workers on other machines."""
    return [worker_group(settings, model_id) for model_id in owners(settings.home)] or [worker_group(settings, read_manifest(settings.model).model_id)]


def build_artifact(settings: Settings) -> Artifact:
    """The verified model folder. Raises ArtifactError."""
    return open_artifact(settings.model)


def build_encoder(settings: Settings, artifact: Artifact | None = None) -> OnnxEncoder:
    """The student. Raises ArtifactError."""
    return OnnxEncoder(artifact or build_artifact(settings), settings.threads, settings.cosmetic)


class LazyEncoder:
    """The student under its name; loaded when it is first asked for anything else. For long scans that may never need it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.model_id = read_manifest(settings.model).model_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._student, name)

    @cached_property
    def _student(self) -> OnnxEncoder:
        return build_encoder(self._settings)


def lazy_encoder(settings: Settings) -> OnnxEncoder:
    """A `LazyEncoder`, which can do all that an OnnxEncoder can. Raises ArtifactError, now or when it is loaded."""
    return cast(OnnxEncoder, LazyEncoder(settings))


def build_features(settings: Settings) -> FeastFeatures:
    """The feature store; creates it the first time. Raises Unavailable."""
    from streams.features import FeastFeatures  # noqa: PLC0415  Feast is slow to import; a search does not need it

    return FeastFeatures(settings.feast_home, settings.feast_yaml)


@contextmanager
def open_index(settings: Settings, model_id: str, dimension: int, *, purpose: str, own: bool = False) -> Iterator[PinIndex]:
    """The index, for reading, or with `own` for writing.

    With QDRANT_URL the server; else, when another process owns the embedded collection of this model, that process; else the
    collection itself, owned for the time of the block. Raises Unavailable, also when `own` is asked for and there is an owner.
    """
    with ExitStack() as stack:
        index = _index(settings, model_id, dimension, stack, purpose, own)
        stack.callback(index.close)
        yield index


def _index(settings: Settings, model_id: str, dimension: int, stack: ExitStack, purpose: str, own: bool) -> PinIndex:
    if settings.qdrant_url:
        from index.qdrant import QdrantPinIndex, connect  # noqa: PLC0415  slow to import; the embedded index does not need it

        return QdrantPinIndex(connect(settings.qdrant_url, settings.qdrant_timeout_s), model_id, dimension)
    folder = place(settings.home, model_id)
    owner = None if own else live_owner(folder)
    if owner and owner.url:
        return LoopbackPinIndex(httpx.Client(base_url=owner.url, timeout=30), model_id)
    stack.enter_context(ownership(folder, purpose))
    return EdgePinIndex(settings.index_home, model_id, dimension)


def find_broker(settings: Settings) -> Broker | None:
    """Kafka by address, or the embedded broker of the workers of this state folder; None when there is neither."""
    if settings.kafka:
        return Broker.parse(settings.kafka)
    return next((Broker.parse(owner.kafka) for owner in owners(settings.home).values() if owner.kafka), None)


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
    prepare: Callable[[], None]
    """To be called in the thread that indexes, before it does."""


@contextmanager
def worker_parts(settings: Settings) -> Iterator[WorkerParts]:
    """Open everything a worker needs, in the order in which failures are cheapest. Raises ArtifactError, Unavailable."""
    nice = 0 if settings.qdrant_url else settings.encoder_nice  # whoever searches an embedded index does so through this process and beside it
    encoder = made_behind(lambda: build_encoder(settings), nice)
    with open_index(settings, encoder.model_id, encoder.dimension, purpose="worker", own=True) as index:
        require_same_model(encoder, index)
        features = build_features(settings)
        try:
            telemetry = Telemetry(__version__, encoder.model_id)
            timed = timed_features(features, telemetry), timed_encoder(encoder, telemetry), timed_index(index, telemetry)
            indexer = PinIndexer(*timed, now_us, settings.vanished_limit)
            yield WorkerParts(settings, timed[1], timed[0], timed[2], indexer, telemetry, partial(behind, nice))
        finally:
            features.close()


def require_same_model(encoder: OnnxEncoder, index: PinIndex) -> None:
    """Embed a few recorded texts again and compare: a label cannot prove a vector, its text can.

    Raises ArtifactError when most of them differ, as they do when another model wrote the collection under the same id.
    """
    live = [pin for pin in next(iter(index.scan(batch=PROVED)), []) if pin.embedded and not pin.dead and pin.text]
    stored = index.vectors([pin.pin_id for pin in live])
    proved = [pin for pin in live if pin.pin_id in stored]
    if not proved:
        return
    cosines = [float(vector @ stored[pin.pin_id]) for pin, vector in zip(proved, encoder.encode([pin.text for pin in proved]), strict=True)]
    strangers = sum(cosine < SAME_VECTOR for cosine in cosines)
    if 2 * strangers > len(cosines):
        raise ArtifactError(
            f"the index of {encoder.model_id} holds vectors of another model: of {len(cosines)} texts embedded again, {strangers} come out elsewhere "
            f"(least cosine {min(cosines):.3f}). Give this model an id of its own, or EVERPIN_MODEL the folder that wrote the index"
        )
