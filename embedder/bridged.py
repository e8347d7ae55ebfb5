"""BridgedEncoder: queries read by a new model, answered from an old model's collection. While a backfill runs, and no longer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedder.query import QueryEncoder
from pins.bridge import Bridge, parse
from pins.errors import ArtifactError
from pins.ports import Vector
from pins.relevance import OrdinalHead


class BridgedEncoder:
    """Query vectors in the space of the old model, made by the new one. Thread-safe.

    `model_id` is the old model's, since that is the space its vectors are in and the one collection that may be asked with them; `query_model_id`
    says who reads the queries. What is kept of a query is the new model's vector, in the cache of `encoder`, which may serve the new model too.
    """

    def __init__(self, encoder: QueryEncoder, bridge: Bridge, old_head: OrdinalHead) -> None:
        """`encoder` is the new model's and `old_head` the old model's head. Raises ArtifactError where the encoder is not the one of the bridge."""
        if encoder.model_id != bridge.new.model_id:
            raise ArtifactError(f"the bridge maps queries of {bridge.new.model_id}, the encoder is {encoder.model_id}; give it the encoder it was fitted for")
        self._encoder, self.bridge, self._head = encoder, bridge, bridge.head(old_head)

    @property
    def model_id(self) -> str:
        return self.bridge.old.model_id

    @property
    def query_model_id(self) -> str:
        return self.bridge.new.model_id

    @property
    def hits(self) -> int:
        """Queries that the cache of the new model's encoder knew."""
        return self._encoder.hits

    @property
    def misses(self) -> int:
        """Queries that the new model encoded."""
        return self._encoder.misses

    @property
    def ordinal_head(self) -> OrdinalHead:
        """The old model's head, for cosines of mapped queries."""
        return self._head

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors of texts in the old space, float32 of shape (len(texts), old dimension), past the cache. Raises Unembeddable."""
        return self.bridge.apply(np.asarray(self._encoder.encode(texts), np.float32))

    def query(self, text: str) -> Vector:
        """The unit vector of a query in the old space, float32 of shape (old dimension,). Raises Unembeddable."""
        return self.bridge.apply(np.asarray(self._encoder.query(text), np.float32))


def read_bridge(path: Path) -> Bridge:
    """The bridge of a file. Raises ArtifactError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"the bridge {path} cannot be read: {error}; make one with `everpin bridge fit NEW OLD --out {path}`") from error
    try:
        return parse(content)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
