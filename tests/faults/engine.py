"""Qdrant's own engine behind the REST routes of a server: a stand-in that survives kill -9, as a server does.

`tests.services.qdrant` has the routes; its engine is the client's local one, in memory. Here the routes stand on
`qdrant_edge`, whose write-ahead log keeps what was acknowledged. PUT /faults/delay?seconds=2 makes every answer slow.
Run by hand: python -m tests.faults.engine PORT FOLDER
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import qdrant_edge as edge
import uvicorn
from fastapi import FastAPI, Request
from qdrant_client import QdrantClient, models

from tests.services.process import end, free_port, spawn, wait_ready
from tests.services.qdrant import front

SHAPE = "collection.json"


class EdgeEngine:
    """The methods of QdrantClient that the routes call, on shards under `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shards: dict[str, Any] = {}
        self._shapes = QdrantClient(":memory:")  # answers questions about a collection's settings, and holds no points
        for shape in sorted(folder.glob(f"*/{SHAPE}")):
            stored = models.CreateCollection.model_validate_json(shape.read_text())
            self._open(shape.parent.name, stored.vectors, stored.sparse_vectors)

    def collection_exists(self, name: str) -> bool:
        return name in self._shards

    def get_collection(self, name: str) -> models.CollectionInfo:
        self._shard(name)
        return self._shapes.get_collection(name)

    def create_collection(self, name: str, vectors_config: Any, sparse_vectors_config: Any = None) -> bool:
        if name in self._shards:
            raise ValueError(f"Collection {name} already exists")
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._open(name, vectors_config, sparse_vectors_config)
        (self.folder / name / SHAPE).write_text(models.CreateCollection(vectors=vectors_config, sparse_vectors=sparse_vectors_config).model_dump_json())
        return True

    def upsert(self, name: str, points: Sequence[Any], update_filter: Any = None) -> None:
        batch = [edge.Point(id=UUID(str(point.id)), vector=_vectors(point.vector), payload=point.payload or {}) for point in points]
        self._shard(name).update(edge.UpdateOperation.upsert_points(batch, condition=_filter(update_filter)))

    def update_vectors(self, name: str, points: Sequence[Any], update_filter: Any = None) -> None:
        batch = [edge.PointVectors(UUID(str(point.id)), _vectors(point.vector)) for point in points]
        self._shard(name).update(edge.UpdateOperation.update_vectors(batch, condition=_filter(update_filter)))

    def retrieve(self, name: str, ids: Sequence[Any], with_payload: Any = True, with_vectors: Any = False) -> list[models.Record]:
        found = self._shard(name).retrieve([UUID(str(one)) for one in ids], bool(with_payload), with_vectors)
        return [_record(point) for point in found]

    def scroll(self, name: str, limit: int, offset: Any = None, scroll_filter: Any = None, **_: Any) -> tuple[list[models.Record], Any]:
        start = UUID(str(offset)) if offset else None
        request = edge.ScrollRequest(offset=start, limit=limit, filter=_filter(scroll_filter), with_payload=True, with_vector=False)
        found, after = self._shard(name).scroll(request)
        return [_record(point) for point in found], None if after is None else str(after)

    def count(self, name: str, count_filter: Any = None) -> models.CountResult:
        return models.CountResult(count=int(self._shard(name).count(edge.CountRequest(exact=True, filter=_filter(count_filter)))))

    def _shard(self, name: str) -> Any:
        if name not in self._shards:
            raise ValueError(f"Collection {name} not found")
        return self._shards[name]

    def _open(self, name: str, vectors_config: Any, sparse_vectors_config: Any) -> None:
        path = self.folder / name / "shard"
        if (path / "segments").exists():
            shard = edge.EdgeShard.load(str(path))
        else:
            path.mkdir(parents=True, exist_ok=True)
            wanted = {key: edge.EdgeVectorParams(size=params.size, distance=edge.Distance.Cosine) for key, params in vectors_config.items()}
            sparse = {key: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf) for key in sparse_vectors_config or {}}
            shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=wanted, sparse_vectors=sparse))
        self._shapes.create_collection(name, vectors_config=vectors_config, sparse_vectors_config=sparse_vectors_config)
        self._shards[name] = shard


def _vectors(named: Any) -> dict[str, Any]:
    return {name: edge.SparseVector(one.indices, one.values) if isinstance(one, models.SparseVector) else one for name, one in named.items()}


def _record(point: Any) -> models.Record:
    return models.Record(id=str(point.id), payload=dict(point.payload or {}), vector=point.vector)


def _filter(wanted: Any) -> Any:
    """The engine's form of a REST filter, of the conditions that Everpin's guards and counts are made of."""
    if wanted is None:
        return None
    if isinstance(wanted, models.HasIdCondition):
        return edge.HasIdCondition({UUID(str(one)) for one in wanted.has_id})
    if isinstance(wanted, models.HasVectorCondition):
        return edge.HasVectorCondition(wanted.has_vector)
    if isinstance(wanted, models.FieldCondition) and wanted.range is not None:
        bounds = {name: getattr(wanted.range, name) for name in ("lt", "lte", "gt", "gte") if getattr(wanted.range, name) is not None}
        return edge.FieldCondition(key=wanted.key, range=edge.RangeFloat(**bounds))
    if isinstance(wanted, models.FieldCondition) and isinstance(wanted.match, models.MatchValue):
        return edge.FieldCondition(key=wanted.key, match=edge.MatchValue(wanted.match.value))
    if isinstance(wanted, models.Filter):
        return edge.Filter(must=_clauses(wanted.must), should=_clauses(wanted.should), must_not=_clauses(wanted.must_not))
    raise ValueError(f"this stand-in has no {wanted!r}; add it to tests/faults/engine.py")


def _clauses(wanted: Any) -> list[Any] | None:
    if wanted is None:
        return None
    return [_filter(one) for one in (wanted if isinstance(wanted, list) else [wanted])]


def slow(app: FastAPI) -> FastAPI:
    """Add the delay switch."""
    app.state.delay_s = 0.0

    @app.middleware("http")
    async def delayed(request: Request, call_next: Any) -> Any:
        if not request.url.path.startswith("/faults"):
            await asyncio.sleep(app.state.delay_s)
        return await call_next(request)

    @app.put("/faults/delay")
    async def delay(seconds: float) -> dict[str, float]:
        app.state.delay_s = seconds
        return {"delay_s": seconds}

    return app


@dataclass
class QdrantServer:
    """The stand-in as a process that may be killed, hung, slowed and started again on its folder."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        self.process = spawn([sys.executable, "-W", "ignore", "-m", "tests.faults.engine", str(self.port), str(self.folder)], log)
        wait_ready(self.process, self._answers, 60, log)

    def kill(self) -> None:
        if self.process is not None:
            end(self.process, kill=True)
            self.process = None

    def send_signal(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def delay(self, seconds: float) -> None:
        httpx.put(f"{self.url}/faults/delay", params={"seconds": seconds}, timeout=30).raise_for_status()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/collections/none/exists", timeout=2).is_success
        except httpx.HTTPError:
            return False


if __name__ == "__main__":
    started = time.monotonic()
    uvicorn.run(slow(front(EdgeEngine(Path(sys.argv[2])))), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
