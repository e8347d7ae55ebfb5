"""Reading an embedded index that another process owns: that process's routes, and the client that uses them.

The embedded engine has one owner. Everybody else on this machine reads through it over loopback HTTP; writes go through
events, as everywhere. The sweep of old tombstones is the one order it takes: only an owner can rewrite its folder. Searches travel as
`index.wire` has it; elsewhere a vector is base64 of little-endian float32.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import httpx
import numpy as np
from fastapi import APIRouter, Body, Request, Response
from fastapi.concurrency import run_in_threadpool

from index.connections import Connections
from index.points import pages
from index.wire import pack_answers, pack_asks, unpack_answers, unpack_asks
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.ports import Ask, Hit, PinIndex, PointWrite, Vector, Where

SWEEP_TIMEOUT_S = 1800.0
"""A sweep rewrites the owner's whole folder, some 4,000 points a second, before it answers."""
SEARCH_TIMEOUT_S = 30.0
"""For a client that has no limit of its own."""


def routes(index: PinIndex) -> APIRouter:
    """The owner's side: reads of its index, and the sweep that only the owner can make, under `/index`."""
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

    @router.get("/scan")
    def scan(cursor: str, limit: int) -> dict[str, Any]:
        records, following = index.page(cursor, limit)
        return {"records": [asdict(pin) for pin in records], "cursor": following}

    @router.post("/sweep")
    def sweep(before_v: int = Body(embed=True)) -> dict[str, int]:
        return dict(index.sweep(before_v))

    router.add_route("/index/ask", _asked(index), methods=["POST"])
    return router


def _asked(index: PinIndex) -> Callable[[Request], Awaitable[Response]]:
    """The route of searches: bytes in, bytes out, without the framework's models, because it is asked hundreds of times a second."""

    def answer(body: bytes) -> bytes:
        return pack_answers(index.ask(unpack_asks(body)))

    async def ask(request: Request) -> Response:
        try:
            return Response(await run_in_threadpool(answer, await request.body()), media_type="application/octet-stream")
        except Unavailable as error:
            return Response(str(error), status_code=503)
        except (ValueError, TypeError, KeyError) as error:
            return Response(f"these are no searches: {error}", status_code=400)

    return ask


class LoopbackPinIndex:
    """The reader's side: a PinIndex that reads through the owner, asks it to sweep, and refuses to write."""

    def __init__(self, client: httpx.Client, model_id: str) -> None:
        self._client, self.model_id = client, model_id
        self._connections = Connections(client.base_url, client.timeout.read or SEARCH_TIMEOUT_S)
        owned = self._get("/index/counts")["model_id"]
        if owned != model_id:
            raise ArtifactError(f"the process that owns the index runs model {owned}, this command {model_id}; set EVERPIN_MODEL alike for both")

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: IndexedPin(**body) for pin_id, body in self._post("/index/known", pin_ids=list(pin_ids)).items()}

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        raise Unavailable(f"only the owner of the index writes to it ({len(points)} points refused); send an event instead")

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        return self.ask([Ask(limit, vector, where=where)])[0]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        packed = pack_asks(asks)
        try:
            return unpack_answers(self._connections.post("/index/ask", packed))
        except (Unavailable, ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"the process that owns the index does not answer a search: {error}; see `everpin status`") from error

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        return {pin_id: _unpack(packed) for pin_id, packed in self._post("/index/vectors", pin_ids=list(pin_ids)).items()}

    def page(self, cursor: str = "", limit: int = 1000) -> tuple[Sequence[IndexedPin], str]:
        body = self._get("/index/scan", cursor=cursor, limit=limit)
        return [IndexedPin(**pin) for pin in body["records"]], body["cursor"]

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        return pages(self.page, batch)

    def sweep(self, before_v: int) -> Mapping[str, int]:
        gone: dict[str, int] = self._answer("POST", "/index/sweep", json={"before_v": before_v}, timeout=SWEEP_TIMEOUT_S)
        return gone

    def counts(self) -> Mapping[str, int]:
        counts: dict[str, int] = self._get("/index/counts")["counts"]
        return counts

    def flush(self) -> None:
        """The owner flushes."""

    def close(self) -> None:
        self._connections.close()
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
