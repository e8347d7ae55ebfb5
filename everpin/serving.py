"""What the read side serves from: the live alias, and for each model its collection and the encoder of its queries.

With QDRANT_URL the server's alias and collections. Else the embedded index: read through the process that owns it (`everpin up`), or owned
by this process where there is none. A model is opened once and stays open, so that a roll-back is as quick as a cut-over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import httpx

from embedder.artifact import open_artifact, read_manifest
from embedder.bridged import BridgedEncoder
from embedder.onnx import OnnxEncoder
from embedder.query import QueryEncoder
from everpin.bridges import open_bridge
from everpin.model_folders import model_folder
from everpin.owner import live_owner, owners, ownership, place
from everpin.settings import Settings
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.points import collection_name
from index.rollout import EdgeAlias, QdrantAlias
from index.rollout_state import EdgeRolloutState, QdrantRolloutState
from pins.assignment import in_canary
from pins.errors import EverpinError, Unavailable
from pins.ports import PinIndex
from pins.retrieval.late import SentenceVectors
from pins.rollout import Rollout

QUERY_THREADS = 1
"""Cores of one query's encoding: a query has a dozen tokens, and requests run side by side."""
REFRESH_S = 0.5
"""How often the alias is read. A cut-over is served within this time and the opening of the model's folder."""
OWNER_TIMEOUT_S = 10.0
Arm = Literal["", "control", "candidate", "interleaved"]
"""Which side of a canary an answer is of, or that it is drafted from both; empty where it is part of no experiment."""


@dataclass(frozen=True, slots=True)
class Served:
    """One model as requests see it: its encoder, its collection, and vectors of sentences for late interaction.

    `place` tells two openings of one model apart. `bridged`: where a bridge leads to this collection, the encoder that reads queries in this
    one's place.
    """

    model_id: str
    encoder: QueryEncoder
    index: PinIndex
    sentences: SentenceVectors
    place: str
    bridged: BridgedEncoder | None = None

    @property
    def collection(self) -> str:
        return collection_name(self.model_id)

    @property
    def reader(self) -> QueryEncoder | BridgedEncoder:
        """Reads queries for the collection."""
        return self.bridged or self.encoder

    @property
    def query_model_id(self) -> str | None:
        """The model that reads queries over a bridge; None where this one reads them."""
        return self.bridged.query_model_id if self.bridged else None


@dataclass(frozen=True, slots=True)
class Canary:
    """The candidate of a rollout that answers a `share` (0 to 1) of the traffic; with `interleave` that share of searches is drafted from both models."""

    served: Served
    share: float
    interleave: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model answers a request, and for a request during a canary the side it fell on, the experiment (the candidate's id) and its share.

    `beside`: the candidate, where the answer is to be drafted from its ranking too.
    """

    served: Served
    arm: Arm = ""
    experiment: str = ""
    share: float | None = None
    beside: Served | None = None


class Stores(Protocol):
    """The alias, the state of the rollout and the collections of one installation."""

    def alias(self) -> str | None:
        """The model id that the alias names; None when nobody set it. Raises Unavailable."""

    def rollout(self) -> Rollout | None:
        """The rollout that is going on. Raises Unavailable, ArtifactError."""

    def place(self, model_id: str) -> str:
        """Where a model's collection is read; another value means that it must be opened again. Raises Unavailable."""

    def index(self, model_id: str, dimension: int) -> PinIndex:
        """A model's collection. Raises Unavailable, ArtifactError."""


class ServerStores:
    """A Qdrant server."""

    def __init__(self, config: Settings) -> None:
        from index.qdrant import connect  # noqa: PLC0415  slow to import; the embedded index does not need it

        self._url, self._client = config.qdrant_url, connect(config.qdrant_url, config.qdrant_timeout_s)
        self.alias, self.rollout = QdrantAlias(self._client).live, QdrantRolloutState(self._client).read

    def place(self, model_id: str) -> str:
        return self._url

    def index(self, model_id: str, dimension: int) -> PinIndex:
        from index.qdrant import QdrantPinIndex  # noqa: PLC0415  as above

        return QdrantPinIndex(self._client, model_id, dimension)


class EmbeddedStores:
    """The embedded index: each collection through its owner, or where nobody owns any, owned by this process until `stack` is closed."""

    def __init__(self, config: Settings, stack: ExitStack) -> None:
        self._config, self._stack = config, stack
        self.alias, self.rollout = EdgeAlias(config.index_home).live, EdgeRolloutState(config.index_home).read
        self._alone = not owners(config.home)

    def place(self, model_id: str) -> str:
        if self._alone:
            return str(self._config.index_home)
        owner = live_owner(place(self._config.home, model_id))
        if owner is None or not owner.url:
            raise Unavailable(f"no process owns the collection of {model_id} in {self._config.home} now; is its worker restarting? See `everpin status`")
        return owner.url

    def index(self, model_id: str, dimension: int) -> PinIndex:
        if self._alone:
            self._stack.enter_context(ownership(place(self._config.home, model_id), "serve"))
            return EdgePinIndex(self._config.index_home, model_id, dimension)
        return LoopbackPinIndex(httpx.Client(base_url=self.place(model_id), timeout=OWNER_TIMEOUT_S), model_id)


class LiveModels:
    """The model that is live now and the canary beside it, each read once per request, and others that were live. Thread-safe.

    `problem` says why alias or rollout could not be followed, empty when they are; what was served before is served meanwhile. The candidate of
    a rollout is opened as soon as it can be, so that a cut-over waits for nothing.
    """

    def __init__(self, config: Settings, stores: Stores, opened: Callable[[Served], None] = lambda served: None) -> None:
        """Open the live model. Raises Unavailable, ArtifactError. `opened` hears of each model that becomes the live one."""
        self._config, self._stores, self._opened = config, stores, opened
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], Served] = {}
        self._encoders: dict[str, QueryEncoder] = {}
        self._default = read_manifest(config.model).model_id
        self._stop = threading.Event()
        self.problem = ""
        self.now = self._opening(self._live())
        self.canary: Canary | None = None
        self._opened(self.now)

    def start(self) -> None:
        """Follow alias and rollout from a thread of its own until `close`."""
        threading.Thread(target=self._watch, name="everpin-alias", daemon=True).start()

    def of(self, model_id: str) -> Served | None:
        """A model that is or was live, or is the canary, at the place where its collection is now; None for any other."""
        now, canary = self.now, self.canary
        for served in (now, canary.served if canary else now):
            if model_id == served.model_id:
                return served
        try:
            return self._open.get((model_id, self._stores.place(model_id)))
        except Unavailable:
            return None

    def answering(self, unit: str, *, drafts: bool = False) -> Choice:
        """Who answers this unit (a user, or a query or pin where no user is known): the live model, or the canary for its share of the units.

        `drafts`: this surface can draft an answer from two rankings. While the canary is an interleaved one, every other is the live model's alone.
        """
        now, canary = self.now, self.canary
        if canary is None or canary.served is now:
            return Choice(now)
        experiment = canary.served.model_id
        in_share = in_canary(unit, experiment, canary.share)
        if canary.interleave:
            return Choice(now, "interleaved", experiment, canary.share, canary.served) if drafts and in_share else Choice(now)
        if in_share:
            return Choice(canary.served, "candidate", experiment, canary.share)
        return Choice(now, "control", experiment, canary.share)

    def forget(self, model_id: str) -> None:
        """Open no page of a model any more that is not live: its collection is about to go."""
        with self._lock:
            for key in [key for key in self._open if key[0] == model_id and self._open[key].index is not self.now.index]:
                del self._open[key]
            if model_id != self.now.model_id:
                self._encoders.pop(model_id, None)

    def refresh(self) -> None:
        """Follow alias and rollout once."""
        try:
            live = self._opening(self._live())
            rollout = self._stores.rollout()
        except EverpinError as error:
            self.problem = str(error)
            return
        try:
            live, problem = self._over_bridge(live, rollout), ""
        except EverpinError as error:
            problem = f"{live.model_id} reads its queries itself: {error}"
        if live is not self.now:
            another, self.now = live.index is not self.now.index, live
            if another:
                self._opened(live)
        self.problem = self._follow(rollout) or problem

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

    def _follow(self, rollout: Rollout | None) -> str:
        """Bring the canary to the rollout's state; why it cannot be, empty when it is. Before its share is asked for, a candidate may not be there yet."""
        if rollout is None or rollout.retiring:
            self.canary = None
            if rollout and rollout.retiring != self.now.model_id:
                self.forget(rollout.retiring)
            return ""
        try:
            candidate = self._opening(rollout.candidate)
        except EverpinError as error:
            self.canary = None
            return str(error) if rollout.share else ""
        self.canary = Canary(candidate, rollout.share, rollout.interleave) if rollout.share and candidate is not self.now else None
        return ""

    def _over_bridge(self, live: Served, rollout: Rollout | None) -> Served:
        """The live model as it answers now: over the bridge that the rollout names, if it names one. Raises ArtifactError."""
        digest, now = rollout.crossing(live.model_id) if rollout else "", self.now
        if rollout is None or not digest:
            return live
        if now.bridged and now.bridged.bridge.digest == digest and now.index is live.index:
            return now
        bridge = open_bridge(self._config, digest, rollout.candidate, live.model_id)
        return replace(live, bridged=BridgedEncoder(self._encoder(rollout.candidate), bridge, live.encoder.ordinal_head))

    def _live(self) -> str:
        return self._stores.alias() or self._default

    def _opening(self, model_id: str) -> Served:
        where = self._stores.place(model_id)
        with self._lock:
            if (model_id, where) not in self._open:
                self._open[model_id, where] = self._serve(model_id, where)
            return self._open[model_id, where]

    def _serve(self, model_id: str, where: str) -> Served:
        encoder = self._encoder(model_id)
        return Served(model_id, encoder, self._stores.index(model_id, encoder.dimension), SentenceVectors(encoder.encode), where)

    def _encoder(self, model_id: str) -> QueryEncoder:
        if model_id not in self._encoders:
            artifact = open_artifact(model_folder(self._config, model_id))
            self._encoders[model_id] = QueryEncoder(OnnxEncoder(artifact, QUERY_THREADS, cosmetic=False))
        return self._encoders[model_id]


def open_stores(config: Settings, stack: ExitStack) -> Stores:
    """The stores that the settings name. Raises Unavailable."""
    return ServerStores(config) if config.qdrant_url else EmbeddedStores(config, stack)
