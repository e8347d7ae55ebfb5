"""Reading an embedded index that another process owns: that process's routes, and the client that uses them.

The embedded engine has one owner. Everybody else on this machine reads through it over loopback HTTP; writes go through
events, as everywhere. A vector travels as base64 of little-endian float32.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import httpx
import numpy as np
from fastapi import APIRouter, Body

from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.ports import Hit, PinIndex, PointWrite, Vector, Where


def routes(index: PinIndex) -> APIRouter:
    """The owner's side: read operations on its index, under `/index`."""
    router = APIRouter(prefix="/index")

    @router.get("/counts")
    def counts() -> dict[str, Any]:
        return {"model_id": index.model_id, "counts": dict(index.counts())}

    @router.post("/known")
    def known(pin_ids: list[str] = Body(embed=True)) -> dict[str, Any]:
        return {pin_id: asdict(pin) for pin_id, pin in index.known(pin_ids).items()}

    @router.post("/vectors")
    def vectors(pin_ids: list[str] = Body(embed=True)) -> dict[str, str]:
        return {pin_id: _pack(vector) for pin_id, vector in index.vectors(pin_ids).items()}

    @router.post("/search")
    def search(vector: str = Body(), limit: int = Body(), where: dict[str, Any] = Body()) -> list[dict[str, Any]]:
        found = index.search(_unpack(vector), limit, Where(**{**where, "without": frozenset(where["without"])}))
        return [asdict(hit) | {"vector": None if hit.vector is None else _pack(hit.vector)} for hit in found]

    @router.get("/scan")
    def scan(offset: int, limit: int) -> list[dict[str, Any]]:
        records = (pin for batch in index.scan() for pin in batch)
        return [asdict(pin) for pin in islice(records, offset, offset + limit)]

    return router


class LoopbackPinIndex:
    """The reader's side: a PinIndex that reads through the owner and refuses to write."""

    def __init__(self, client: httpx.Client, model_id: str) -> None:
        self._client, self.model_id = client, model_id
        owned = self._get("/index/counts")["model_id"]
        if owned != model_id:
            raise ArtifactError(f"the process that owns the index runs model {owned}, this command {model_id}; set EVERPIN_MODEL alike for both")

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: IndexedPin(**body) for pin_id, body in self._post("/index/known", pin_ids=list(pin_ids)).items()}

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        raise Unavailable(f"only the owner of the index writes to it ({len(points)} points refused); send an event instead")

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        wanted = asdict(where) | {"without": sorted(where.without)}
        found = self._post("/index/search", vector=_pack(vector), limit=limit, where=wanted)
        return [Hit(**{**hit, "vector": None if hit["vector"] is None else _unpack(hit["vector"])}) for hit in found]

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        return {pin_id: _unpack(packed) for pin_id, packed in self._post("/index/vectors", pin_ids=list(pin_ids)).items()}

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        offset = 0
        while found := self._get("/index/scan", offset=offset, limit=batch):
            yield [IndexedPin(**body) for body in found]
            offset += len(found)

    def counts(self) -> Mapping[str, int]:
        counts: dict[str, int] = self._get("/index/counts")["counts"]
        return counts

    def flush(self) -> None:
        """The owner flushes."""

    def close(self) -> None:
        self._client.close()

    def _get(self, path: str, **params: Any) -> Any:
        return self._answer("GET", path, params=params)

    def _post(self, path: str, **body: Any) -> Any:
        return self._answer("POST", path, json=body)

    def _answer(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            return self._client.request(method, path, **arguments).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"the process that owns the index does not answer: {error}; see `everpin status`") from error


def _pack(vector: Vector) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def _unpack(packed: str) -> Vector:
    return np.frombuffer(base64.b64decode(packed), "<f4").astype(np.float32)
