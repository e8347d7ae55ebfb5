"""EdgePinIndex: Qdrant's engine inside this process, the embedded default.

One process owns a shard. Search is exact (no HNSW is built: building one would hold Python's global lock for seconds), so its
time grows with the number of pins; beyond some 100,000 use a server. The write-ahead log survives a kill; `flush` also a power failure.
The folder on disk, and how a sweep rewrites it: `index.shard`.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import qdrant_edge as edge

from index import points
from index.bodies import Bodies, Body
from index.edge_requests import bare, has, point, unchanged_since_read, vector_of
from index.shard import COPIED_AT_ONCE, FreshCopy, open_shard, swap
from pins.changes import IndexedPin
from pins.errors import EverpinError, Unavailable
from pins.ports import Ask, Hit, PointWrite, Vector, Where

T = TypeVar("T")
FLUSH_EVERY = 16
"""Writes between flushes: the log grows in 32 MiB steps until one."""
MIN_FREE_BYTES = 256 << 20
"""Free disk below which nothing is written: the engine maps its files, and a full disk would kill the process."""


class EdgePinIndex:
    """One model's collection in a folder of its own. Thread-safe: one call into the engine at a time."""

    def __init__(self, root: Path, model_id: str, dimension: int, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.model_id, self.dimension = model_id, dimension
        self._path = root / points.collection_name(model_id)
        self._min_free = min_free_bytes
        self._unflushed = 0
        self._lock, self._sweeping = threading.RLock(), threading.Lock()
        self._written: set[UUID] | None = None  # while a sweep copies: the points it must copy again
        self._bodies = Bodies()
        self._require_space()
        self._shard = open_shard(self._path, dimension)

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: points.record(pin_id, stored) for pin_id, stored in self._payloads(pin_ids).items()}

    def write(self, writes: Sequence[PointWrite]) -> set[str]:
        points.check(writes, self.dimension)
        if not writes:
            return set()
        self._require_space()
        mark = points.nonce()
        kept = self.vectors([write.record.pin_id for write in writes if write.keep_vector])
        batch = [point(write, kept.get(write.record.pin_id), mark) for write in writes]
        self._call(lambda: self._update(batch, writes))
        self._unflushed += 1
        if self._unflushed >= FLUSH_EVERY:
            self.flush()
        stored = self._payloads([write.record.pin_id for write in writes])
        return {pin_id for pin_id, body in stored.items() if body.get("mark") == mark}

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        return self.ask([Ask(limit, vector, where=where)])[0]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        return points.answers(asks, lambda worth: self._call(lambda: self._found(worth)))

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        vectors = {pin_id: vector_of(p.vector) for pin_id, p in self._retrieve(pin_ids, False, [points.VECTOR]).items()}
        return {pin_id: vector for pin_id, vector in vectors.items() if vector is not None}

    def page(self, cursor: str = "", limit: int = 1000) -> tuple[Sequence[IndexedPin], str]:
        request = edge.ScrollRequest(offset=UUID(cursor) if cursor else None, limit=limit, with_payload=True, with_vector=False)
        found, following = self._call(lambda: self._shard.scroll(request))
        return [points.scanned(str(p.id), p.payload or {}) for p in found], str(following or "")

    def page_of_points(
        self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False
    ) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
        newer = edge.Filter(must=[edge.FieldCondition(key="v", range=edge.RangeFloat(gt=newer_than))]) if newer_than else None
        what: dict[str, Any] = {"with_payload": list(points.BARE), "with_vector": False} if bare else {"with_payload": True, "with_vector": [points.VECTOR]}
        request = edge.ScrollRequest(offset=UUID(cursor) if cursor else None, limit=limit, filter=newer, **what)
        found, following = self._call(lambda: self._shard.scroll(request))
        return [(points.scanned(str(p.id), p.payload or {}), vector_of(p.vector)) for p in found], str(following or "")

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        return points.pages(self.page, batch)

    def sweep(self, before_v: int) -> Mapping[str, int]:
        """Rewrites the folder. Searches and writes go on; only while what they wrote meanwhile is copied too and the folders change places, they wait."""
        with self._sweeping, self._translated():
            if not any(points.doomed(str(p.id), p.payload or {}, before_v) for found in self._records(vectors=False) for p in found):
                return points.swept({})
            with self._lock:
                self._require_space(sum(file.stat().st_blocks * 512 for file in self._path.rglob("*")))
                self._written = set()
            try:
                copy = FreshCopy(self._path, self.dimension, lambda point, stored: points.doomed(point, stored, before_v))
                self._rewrite(copy)
            finally:
                self._written = None
            return points.swept(copy.gone)

    def _rewrite(self, copy: FreshCopy) -> None:
        try:
            for found in self._records(vectors=True):
                copy.add(found)
            copy.settle()
            with self._lock:
                late = list(self._written or ())
                for start in range(0, len(late), COPIED_AT_ONCE):
                    copy.add(self._shard.retrieve(late[start : start + COPIED_AT_ONCE], True, True), late=True)
                copy.finish()
                self.flush()
                self._shard.close()
                self._shard = None
                try:
                    swap(self._path)
                finally:
                    self._shard = open_shard(self._path, self.dimension)
        except BaseException:
            copy.discard()
            raise

    def counts(self) -> Mapping[str, int]:
        def count(**fields: int) -> int:
            must = [has(key, value) for key, value in fields.items()]
            return int(self._call(lambda: self._shard.count(edge.CountRequest(exact=True, filter=edge.Filter(must=must)))))

        return {
            "live": count(dead=0, embedded=1),
            "textless": count(dead=0, embedded=0),
            "dead": count(dead=1),
            "refused": count(dead=0, outdated=1),
        }

    def flush(self) -> None:
        self._call(lambda: self._shard.flush())  # noqa: PLW0108  the shard is looked up under the lock: a sweep replaces it
        self._unflushed = 0

    def close(self) -> None:
        """Flush and release the shard's lock; closing twice is harmless."""
        with self._lock:
            if self._shard is not None:
                self.flush()
                self._shard.close()
                self._shard = None

    def _found(self, asks: Sequence[Ask]) -> list[list[points.Found]]:
        """Ids and scores from the engine, and bodies from memory where an answer showed them already: reading them is most of a search's time."""
        batches = [[(p.id, p.score) for p in found] for found in self._shard.query_batch(edge.QueryBatchRequest([bare(ask) for ask in asks]))]
        bodies = self._bodies.of((point for found in batches for point, _ in found), self._read_bodies)
        return [[(score, bodies[point.int]) for point, score in found] for found in batches]

    def _read_bodies(self, ids: list[UUID]) -> Mapping[int, Body]:
        return {p.id.int: points.shown(p.payload or {}, vector_of(p.vector)) for p in self._shard.retrieve(ids, list(points.SHOWN), [points.VECTOR])}

    def _payloads(self, pin_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {pin_id: dict(p.payload or {}) for pin_id, p in self._retrieve(pin_ids, True, False).items()}

    def _retrieve(self, pin_ids: Sequence[str], *what: Any) -> dict[str, Any]:
        ids = {points.point_uuid(pin_id): pin_id for pin_id in pin_ids}
        return points.by_pin(ids, self._call(lambda: self._shard.retrieve(list(ids), *what)))

    def _records(self, vectors: bool) -> Iterator[Sequence[Any]]:
        offset, limit = None, COPIED_AT_ONCE if vectors else 1000
        while True:
            request = edge.ScrollRequest(offset=offset, limit=limit, with_payload=True, with_vector=vectors)
            found, offset = self._call(lambda request=request: self._shard.scroll(request))  # type: ignore[misc]  # bound now
            yield found
            if offset is None:
                return

    def _update(self, batch: list[Any], writes: Sequence[PointWrite]) -> None:
        self._bodies.forget(point.id for point in batch)
        if self._written is not None:
            self._written |= {point.id for point in batch}
        self._shard.update(edge.UpdateOperation.upsert_points(batch, condition=unchanged_since_read(writes)))

    def _call(self, act: Callable[[], T]) -> T:
        with self._lock, self._translated():
            return act()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except EverpinError:
            raise
        except Exception as error:  # the engine raises bare Exceptions
            raise Unavailable(f"the embedded index at {self._path} failed: {error}") from error

    def _require_space(self, more: int = 0) -> None:
        needed = self._min_free + more
        parent = next(folder for folder in (self._path, *self._path.parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if free < needed:
            raise Unavailable(
                f"the disk under {self._path} has {free >> 20} MiB free, {needed >> 20} MiB are needed to write safely; "
                "free some space (nothing was lost), or move EVERPIN_HOME"
            )
