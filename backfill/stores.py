"""What a worker of a backfill holds: the student, the feature store, and the way to the model's collection."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import httpx

from embedder.onnx import OnnxEncoder
from everpin.owner import live_owner, place
from everpin.settings import Settings
from everpin.wiring import build_encoder, build_features, open_index, require_same_model
from index.loopback import LoopbackPinIndex
from pins.errors import Unavailable
from pins.ports import FeatureSource, PinIndex

PURPOSE = "backfill"
OWNER_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Settings of the model to fill for, the cores of one worker, and whether pins come with features of an export.

    `url`: where the driver serves the embedded collection that it owns; empty where a server has it, or another process owns it.
    """

    config: Settings
    threads: int
    url: str = ""


class Stores:
    """Opens each part when it is first needed. An index that did not answer is opened anew: its owner may be another process by then."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._stack = ExitStack()
        self._index: PinIndex | None = None
        self._proved = False

    @cached_property
    def encoder(self) -> OnnxEncoder:
        return build_encoder(self._setting.config.model_copy(update={"threads": self._setting.threads}))

    @cached_property
    def features(self) -> FeatureSource:
        return build_features(self._setting.config)

    def index(self) -> PinIndex:
        """The model's collection, for guarded writes; never owned by a worker. Raises Unavailable, ArtifactError."""
        if self._index is None:
            index = self._opened()
            if not self._proved:
                require_same_model(self.encoder, index)
                self._proved = True
            self._index = index
        return self._index

    def lost(self) -> None:
        """The index did not answer."""
        self._index = None
        self._stack.close()

    def _opened(self) -> PinIndex:
        config, model_id = self._setting.config, self.encoder.model_id
        if config.qdrant_url:
            return self._stack.enter_context(open_index(config, model_id, self.encoder.dimension, purpose=PURPOSE))
        url = self._setting.url or owner_url(config, model_id)
        index = LoopbackPinIndex(httpx.Client(base_url=url, timeout=OWNER_TIMEOUT_S), model_id)
        self._stack.callback(index.close)
        return index


def owner_url(config: Settings, model_id: str) -> str:
    """Where the process that owns a model's embedded collection listens. Raises Unavailable."""
    owner = live_owner(place(config.home, model_id))
    if owner is None or not owner.url:
        raise Unavailable(f"no process owns the collection of {model_id} in {config.home} now; is its worker restarting? See `everpin status`")
    return owner.url
