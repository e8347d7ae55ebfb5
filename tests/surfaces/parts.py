"""A serving process in this one: the real application over real collections of small sample, with a feature store and a broker of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx
import numpy as np

from embedder.artifact import Artifact, open_artifact
from embedder.onnx import OnnxEncoder
from everpin.importers import PinRow, read_jsonl
from everpin.keys import KeyRing, RateLimiter
from everpin.owner import ownership, place
from everpin.serving import LiveModels
from everpin.settings import SHIPPED_MODEL, Settings
from index.edge import EdgePinIndex
from index.rollout import EdgeAlias
from index.rollout_state import EdgeRolloutState
from pins.actions import UserActed
from pins.events import PinEvent, PinUpdated
from pins.features import FeatureRow
from pins.indexer import PinIndexer
from pins.ports import PinIndex, Vector
from pins.rollout import Rollout
from surfaces.access import Access
from surfaces.app import build_app
from surfaces.asked import Surface
from surfaces.connections import server_options
from surfaces.cosaves import CoSaves
from surfaces.exposures import ExposureLog
from surfaces.guard import Limits, guarded
from surfaces.metrics import Metrics, Timed
from surfaces.newest import Newest
from surfaces.people import People
from surfaces.projection import Maps
from tests.fakes import FakeFeatures
from tests.serving import hosted

BASE_MODEL = SHIPPED_MODEL.with_name("minilm-l6-v1")
SAMPLE = SHIPPED_MODEL.parent.parent / "sample" / "pins.jsonl"
T0 = 1_764_000_000_000_000


class TestStores:
    """Collections of this process, and an alias and a rollout that a test moves."""

    __test__ = False

    def __init__(self, home: Path) -> None:
        self.home, self.moved, self.state = home, EdgeAlias(home), EdgeRolloutState(home)
        self.opened: dict[str, PinIndex] = {}

    def alias(self) -> str | None:
        return self.moved.live()

    def rollout(self) -> Rollout | None:
        return self.state.read()

    def place(self, model_id: str) -> str:
        return str(self.home)

    def index(self, model_id: str, dimension: int) -> PinIndex:
        if model_id not in self.opened:
            self.opened[model_id] = EdgePinIndex(self.home, model_id, dimension, min_free_bytes=0)
        return self.opened[model_id]


@dataclass
class SentOnly:
    """Where the API's writes end up in a test."""

    events: list[PinEvent] = field(default_factory=list)
    actions: list[UserActed] = field(default_factory=list)

    def send(self, events: Sequence[PinEvent]) -> None:
        self.events += events

    def act(self, actions: Sequence[UserActed]) -> None:
        self.actions += actions

    def close(self) -> None: ...


class ClosingFeatures(FakeFeatures):
    """A feature store that is closed at the end."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Running:
    """The application, what is behind it, and a client of it."""

    client: httpx.Client
    surface: Surface
    stores: TestStores
    features: ClosingFeatures
    sent: SentOnly
    indexers: Mapping[str, PinIndexer]


class Remembering(OnnxEncoder):
    """A real encoder, one of each model for the whole run, that encodes no text twice: every application indexes the same pins."""

    def __init__(self, artifact: Artifact) -> None:
        self._known: dict[str, Vector] = {}
        super().__init__(artifact)

    @classmethod
    @cache
    def of(cls, model: Path) -> Remembering:
        return cls(open_artifact(model))

    def encode(self, texts: Sequence[str]) -> Vector:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= zip(new, super().encode(new), strict=True)
        return np.stack([self._known[text] for text in texts]) if texts else super().encode([])


@contextmanager
def running(home: Path, models: Sequence[Path] = (SHIPPED_MODEL,), pins: int = 120, limits: Limits = Limits()) -> Iterator[Running]:
    """Everything but the network: `pins` sample pins in a collection of each model, the first of them live."""
    with ExitStack() as stack:
        stack.enter_context(ownership(place(home, "everpin-l6-v1"), "test"))
        features, stores, indexers = ClosingFeatures(), TestStores(home / "index"), {}
        rows = [row for row in read_jsonl(SAMPLE) if isinstance(row, PinRow)][:pins]
        features.write([feature for row in rows for feature in row.rows(T0)])
        for model in models:
            encoder = Remembering.of(model)
            indexer = indexers[encoder.model_id] = PinIndexer(features, encoder, stores.index(encoder.model_id, encoder.dimension), lambda: T0 + 1)
            indexer.apply([PinUpdated(row.pin_id, T0) for row in rows])
        liked = [row.pin_id for row in rows[:12]]
        times = [T0 - number * 86_400_000_000 for number in range(len(liked), 0, -1)]
        features.write([FeatureRow("user_history", "fan", T0, {"pin_ids": liked, "actions": ["save"] * len(liked), "action_times_us": times})])
        metrics, sent = Metrics("test"), SentOnly()
        live = LiveModels(Settings(home=home, model=models[0]), stores, metrics.live)
        stack.callback(live.close)
        metrics.watch(lambda: bool(live.problem), lambda: (live.now.encoder.hits, live.now.encoder.misses))
        people = People(lambda: features)
        config = Settings(home=home, model=models[0])
        surface = Surface(config, live, people, sent, CoSaves(people), Newest(), Maps(), metrics, ExposureLog(config, metrics))
        app = guarded(Timed(build_app(surface, Access(KeyRing(home), RateLimiter(), metrics)), metrics), limits)
        url = stack.enter_context(hosted(app, lifespan="off", **server_options(limits)))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        yield Running(client, surface, stores, features, sent, indexers)
