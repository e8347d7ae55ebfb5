"""EdgePinIndex: Qdrant's engine inside this process, the embedded default.

One process owns a shard. Search is exact (no HNSW is built: building one would hold Python's global lock for seconds), so its
time grows with the number of pins; beyond some 100,000 use a server. The write-ahead log survives a kill; `flush` also a power failure.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from index import points
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.ports import Hit, PointWrite, Vector, Where

T = TypeVar("T")
COUNTED = ("dead", "embedded")
"""Fields with an index of their own: without one, counting reads the payload of every pin."""
FLUSH_EVERY = 16
"""Writes between flushes: the log grows in 32 MiB steps until one."""
MIN_FREE_BYTES = 256 << 20
"""Free disk below which nothing is written: the engine maps its files, and a full disk would kill the process."""


class EdgePinIndex:
    """One model's collection in a folder of its own. Thread-safe: every call into the engine holds the global lock."""

    def __init__(self, root: Path, model_id: str, dimension: int, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.model_id, self.dimension = model_id, dimension
        self._path = root / points.collection_name(model_id)
        self._min_free = min_free_bytes
        self._unflushed = 0
        self._require_space()
        self._shard = _open(self._path, dimension)

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: points.record(pin_id, stored) for pin_id, stored in self._payloads(pin_ids).items()}

    def write(self, writes: Sequence[PointWrite]) -> set[str]:
        points.check(writes, self.dimension)
        if not writes:
            return set()
        self._require_space()
        mark = points.nonce()
        kept = self.vectors([write.record.pin_id for write in writes if write.keep_vector])
        batch = [_point(write, kept.get(write.record.pin_id), mark) for write in writes]
        self._call(lambda: self._shard.update(edge.UpdateOperation.upsert_points(batch, condition=_unchanged_since_read(writes))))
        self._unflushed += 1
        if self._unflushed >= FLUSH_EVERY:
            self.flush()
        stored = self._payloads([write.record.pin_id for write in writes])
        return {pin_id for pin_id, body in stored.items() if body.get("mark") == mark}

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        request = edge.QueryRequest(
            query=edge.Query.Nearest(vector.tolist(), using=points.VECTOR), limit=limit, filter=_filter(where), with_payload=True, with_vector=True
        )
        found = self._call(lambda: self._shard.query(request))
        return points.hits([(p.score, p.payload or {}, _vector(p.vector)) for p in found])

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        found = self._call(lambda: self._shard.retrieve([_uuid(pin_id) for pin_id in pin_ids], True, True))
        vectors = {pin_id: _vector(p.vector) for pin_id, p in points.by_pin(pin_ids, found).items()}
        return {pin_id: vector for pin_id, vector in vectors.items() if vector is not None}

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        offset = None
        while True:
            request = edge.ScrollRequest(offset=offset, limit=batch, with_payload=True, with_vector=False)
            found, offset = self._call(lambda request=request: self._shard.scroll(request))  # type: ignore[misc]  # bound now
            yield [points.record(str((p.payload or {}).get("pin_id", "")), p.payload or {}) for p in found]
            if offset is None:
                return

    def counts(self) -> Mapping[str, int]:
        def count(**fields: int) -> int:
            must: list[Any] = [edge.FieldCondition(key=key, match=edge.MatchValue(value)) for key, value in fields.items()]
            return int(self._call(lambda: self._shard.count(edge.CountRequest(exact=True, filter=edge.Filter(must=must)))))

        return {"live": count(dead=0, embedded=1), "textless": count(dead=0, embedded=0), "dead": count(dead=1)}

    def flush(self) -> None:
        self._call(self._shard.flush)
        self._unflushed = 0

    def close(self) -> None:
        """Flush and release the shard's lock; closing twice is harmless."""
        if self._shard is not None:
            self.flush()
            self._shard.close()
            self._shard = None

    def _payloads(self, pin_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        found = self._call(lambda: self._shard.retrieve([_uuid(pin_id) for pin_id in pin_ids], True, False))
        return {pin_id: dict(p.payload or {}) for pin_id, p in points.by_pin(pin_ids, found).items()}

    def _call(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as error:  # the engine raises bare Exceptions
            raise Unavailable(f"the embedded index at {self._path} failed: {error}") from error

    def _require_space(self) -> None:
        parent = next(folder for folder in (self._path, *self._path.parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        if free < self._min_free:
            raise Unavailable(
                f"the disk under {self._path} has {free >> 20} MiB free, {self._min_free >> 20} MiB are needed to write safely; "
                "free some space (nothing was lost), or move EVERPIN_HOME"
            )


def _open(path: Path, dimension: int) -> Any:
    wanted = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)
    try:
        if (path / "segments").exists():
            shard = edge.EdgeShard.load(str(path))
        else:
            path.mkdir(parents=True, exist_ok=True)
            shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors={points.VECTOR: wanted}))
            for field in COUNTED:
                shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Integer))
            return shard
    except Exception as error:  # the engine raises bare Exceptions
        raise Unavailable(f"cannot open the embedded index at {path}: {error}; is another process using it? See `everpin status`") from error
    _require_dimension(shard, path, dimension)
    return shard


def _require_dimension(shard: Any, path: Path, dimension: int) -> None:
    found, _ = shard.scroll(edge.ScrollRequest(limit=1, with_payload=False, with_vector=True, filter=edge.Filter(must=[_is("embedded", 1)])))
    vector = _vector(found[0].vector) if found else None
    if vector is not None and len(vector) != dimension:
        shard.close()
        raise ArtifactError(f"the index at {path} holds vectors of {len(vector)} dimensions, the model makes {dimension}; publish it under a new model_id")


def _point(write: PointWrite, kept: Vector | None, mark: str) -> Any:
    vector = kept if write.keep_vector else write.vector
    stored = points.payload(write.record, mark) | {"embedded": int(vector is not None)}
    return edge.Point(id=_uuid(write.record.pin_id), vector={} if vector is None else {points.VECTOR: vector.tolist()}, payload=stored)


def _unchanged_since_read(writes: Sequence[PointWrite]) -> Any:
    """Matches exactly the stored points that are still the ones each write was decided on; new ids are always inserted."""
    clauses: list[Any] = [edge.FieldCondition(key="v", range=edge.RangeFloat(lt=0))]  # matches nothing, so the filter is never empty
    for write in writes:
        mine = edge.HasIdCondition({_uuid(write.record.pin_id)})
        if write.expected_v:
            still = edge.RangeFloat(gte=write.expected_v, lte=write.expected_v)
            clauses.append(edge.Filter(must=[mine, edge.FieldCondition(key="v", range=still)]))
        elif write.expected_v == 0:  # a damaged record without a version
            clauses.append(edge.Filter(must=[mine], must_not=[edge.FieldCondition(key="v", range=edge.RangeFloat(gte=1))]))
    return edge.Filter(should=clauses)


def _is(key: str, value: str | int) -> Any:
    return edge.FieldCondition(key=key, match=edge.MatchValue(value))


def _filter(where: Where) -> Any:
    must = [_is(f"fields.{key}", value) for key, value in points.equalities(where)]
    if where.created_since_us is not None:
        must.append(edge.FieldCondition(key="fields.created_at_us", range=edge.RangeFloat(gte=where.created_since_us)))
    without = [edge.HasIdCondition({_uuid(pin_id) for pin_id in where.without})] if where.without else []
    return edge.Filter(must=must, must_not=[_is("dead", 1), *without])


def _uuid(pin_id: str) -> Any:
    return UUID(points.point_id(pin_id))


def _vector(stored: Any) -> Vector | None:
    values = stored.get(points.VECTOR) if isinstance(stored, dict) else None
    return None if values is None else np.asarray(values, np.float32)
