"""QueryEncoder: normalise, cache, single-flight. One instance belongs to one model, so its cache does too."""

from __future__ import annotations

import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future

from embedder.onnx import OnnxEncoder
from pins.ports import Vector
from pins.relevance import OrdinalHead


class QueryEncoder:
    """Vectors of queries: equal queries are encoded once, even when they arrive at the same time. Thread-safe."""

    def __init__(self, encoder: OnnxEncoder, capacity: int = 20_000) -> None:
        self._encoder, self._capacity = encoder, capacity
        self._lock = threading.Lock()
        self._vectors: OrderedDict[str, Future[Vector]] = OrderedDict()
        self.hits = self.misses = 0

    @property
    def model_id(self) -> str:
        return self._encoder.model_id

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    @property
    def ordinal_head(self) -> OrdinalHead:
        return self._encoder.ordinal_head

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors of texts that are no queries, float32 of shape (len(texts), dimension), past the cache. Raises Unembeddable."""
        return self._encoder.encode(texts)

    def query(self, text: str) -> Vector:
        """The unit vector of a query, float32 of shape (dimension,). Raises Unembeddable; a failure is not cached."""
        key = normalise(text)
        with self._lock:
            future, mine = self._vectors.get(key), False
            if future is None:
                future, mine = Future(), True
                self._vectors[key] = future
                if len(self._vectors) > self._capacity:
                    self._vectors.popitem(last=False)
            else:
                self._vectors.move_to_end(key)
            self.hits, self.misses = self.hits + (not mine), self.misses + mine
        if mine:
            self._fill(key, future)
        return future.result()

    def _fill(self, key: str, future: Future[Vector]) -> None:
        try:
            future.set_result(self._encoder.query(key))
        except BaseException as error:  # whatever ended this call, others may be waiting for its future
            with self._lock:
                self._vectors.pop(key, None)
            future.set_exception(error)


def normalise(text: str) -> str:
    """NFKC, white space collapsed: what may differ between two writings of one query."""
    return " ".join(unicodedata.normalize("NFKC", text).split())
