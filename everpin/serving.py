"""What the read side serves from: the live alias, and for each model its collection and the encoder of its queries.

With QDRANT_URL the server's alias and collections. Else the embedded index: read through the process that owns it (`everpin up`), or owned
by this process where there is none. A model is opened once and stays open, so that a roll-back is as quick as a cut-over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import httpx

from embedder.artifact import open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from embedder.query import QueryEncoder
from everpin.model_folders import model_folder
from everpin.owner import live_owner, ownership
from everpin.settings import Settings
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.points import collection_name
from index.rollout import EdgeAlias, QdrantAlias
from pins.errors import EverpinError, Unavailable
from pins.ports import PinIndex
from pins.retrieval.late import SentenceVectors

QUERY_THREADS = 1
"""Cores of one query's encoding: a query has a dozen tokens, and requests run side by side."""
REFRESH_S = 0.5
"""How often the alias is read. A cut-over is served within this time and the opening of the model's folder."""
OWNER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Served:
    """One model as requests see it: its encoder of queries, its collection, and vectors of sentences for late interaction.

    `place` tells two openings of one model apart.
    """

    model_id: str
    encoder: QueryEncoder
    index: PinIndex
    sentences: SentenceVectors
    place: str

    @property
    def collection(self) -> str:
        return collection_name(self.model_id)


class Stores(Protocol):
    """The alias and the collections of one installation."""

    def alias(self) -> str | None:
        """The model id that the alias names; None when nobody set it. Raises Unavailable."""

    def place(self) -> str:
        """Where collections are read; another value means that what was opened before must be opened again."""

    def index(self, model_id: str, dimension: int) -> PinIndex:
        """A model's collection. Raises Unavailable, ArtifactError."""


class ServerStores:
    """A Qdrant server."""

    def __init__(self, config: Settings) -> None:
        from index.qdrant import connect  # noqa: PLC0415  slow to import; the embedded index does not need it

        self._url, self._client = config.qdrant_url, connect(config.qdrant_url, config.qdrant_timeout_s)
        self._alias = QdrantAlias(self._client)

    def alias(self) -> str | None:
        return self._alias.live()

    def place(self) -> str:
        return self._url

    def index(self, model_id: str, dimension: int) -> PinIndex:
        from index.qdrant import QdrantPinIndex  # noqa: PLC0415  as above

        return QdrantPinIndex(self._client, model_id, dimension)


class EmbeddedStores:
    """The embedded index: through its owner where there is one, else owned by this process until `stack` is closed."""

    def __init__(self, config: Settings, stack: ExitStack) -> None:
        self._config = config
        self._alias = EdgeAlias(config.index_home)
        owner = live_owner(config.home)
        self._mine = owner is None
        if self._mine:
            stack.enter_context(ownership(config.home, "serve"))

    def alias(self) -> str | None:
        return self._alias.live()

    def place(self) -> str:
        if self._mine:
            return str(self._config.index_home)
        owner = live_owner(self._config.home)
        if owner is None or not owner.url:
            raise Unavailable(f"no process owns the index in {self._config.home} now; is the worker restarting? See `everpin status`")
        return owner.url

    def index(self, model_id: str, dimension: int) -> PinIndex:
        if self._mine:
            return EdgePinIndex(self._config.index_home, model_id, dimension)
        return LoopbackPinIndex(httpx.Client(base_url=self.place(), timeout=OWNER_TIMEOUT_S), model_id)


class LiveModels:
    """The model that is live now, read once per request, and others that were. Thread-safe.

    `problem` says why the alias could not be followed, empty when it is; the model that was live before is served meanwhile.
    """

    def __init__(self, config: Settings, stores: Stores, opened: Callable[[Served], None] = lambda served: None) -> None:
        """Open the live model. Raises Unavailable, ArtifactError. `opened` hears of each model that becomes the live one."""
        self._config, self._stores, self._opened = config, stores, opened
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Served] = {}
        self._default = read_manifest(config.model).model_id
        self._stop = threading.Event()
        self.problem = ""
        self.now = self._follow()
        self._opened(self.now)

    def start(self) -> None:
        """Follow the alias from a thread of its own until `close`."""
        threading.Thread(target=self._watch, name="everpin-alias", daemon=True).start()

    def of(self, model_id: str) -> Served | None:
        """A model that is or was live, at the place where collections are now; None for any other."""
        if model_id == self.now.model_id:
            return self.now
        return self._open.get((model_id, self.now.place))

    def forget(self, model_id: str) -> None:
        """Stop serving pages of a model that is not live: its collection is about to go."""
        with self._lock:
            for key in [key for key in self._open if key[0] == model_id and self._open[key] is not self.now]:
                del self._open[key]

    def refresh(self) -> None:
        """Follow the alias once."""
        try:
            live = self._follow()
        except EverpinError as error:
            self.problem = str(error)
            return
        self.problem = ""
        if live is not self.now:
            self.now = live
            self._opened(live)

    def close(self) -> None:
        """Stop following and release every collection."""
        self._stop.set()
        with self._lock:
            for served in self._open.values():
                served.index.close()
            self._open.clear()

    def _watch(self) -> None:
        while not self._stop.wait(REFRESH_S):
            self.refresh()

    def _follow(self) -> Served:
        model_id, place = self._stores.alias() or self._default, self._stores.place()
        with self._lock:
            if (model_id, place) not in self._open:
                self._open[model_id, place] = self._serve(model_id, place)
            return self._open[model_id, place]

    def _serve(self, model_id: str, place: str) -> Served:
        encoders = [served.encoder for (known, _), served in self._open.items() if known == model_id]
        artifact = open_artifact(model_folder(self._config, model_id))
        encoder = encoders[0] if encoders else QueryEncoder(OnnxEncoder(artifact, QUERY_THREADS, cosmetic=False))
        return Served(model_id, encoder, self._stores.index(model_id, artifact.manifest.dimension), SentenceVectors(encoder.encode), place)


def open_stores(config: Settings, stack: ExitStack) -> Stores:
    """The stores that the settings name. Raises Unavailable."""
    return ServerStores(config) if config.qdrant_url else EmbeddedStores(config, stack)
