"""Reading an embedded index that another process owns: that process's routes, and the client that uses them.

The embedded engine has one owner. Everybody else on this machine reads through it over loopback HTTP; writes go through
events, as everywhere. The sweep of old tombstones is the one order it takes: only an owner can rewrite its folder. What is asked often
travels as `index.wire` has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import httpx
import orjson
from fastapi import APIRouter, Body, Request, Response

from index.connections import Connections
from index.held import Held
from index.points import pages
from index.wire import (
    pack_answers,
    pack_asks,
    pack_briefs,
    pack_records,
    pack_vectors,
    unpack_answers,
    unpack_asks,
    unpack_briefs,
    unpack_records,
    unpack_vectors,
)
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.ports import Ask, Hit, PinIndex, PointWrite, Vector, Where

T = TypeVar("T")
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

    @router.get("/scan")
    def scan(cursor: str, limit: int) -> dict[str, Any]:
        records, following = index.page(cursor, limit)
        return {"records": [asdict(pin) for pin in records], "cursor": following}

    @router.post("/sweep")
    def sweep(before_v: int = Body(embed=True)) -> dict[str, int]:
        return dict(index.sweep(before_v))

    for path, act in (
        ("/index/ask", lambda body: pack_briefs(index.ask(unpack_asks(body)))),
        ("/index/bodies", lambda body: pack_answers([_bodies(index, _ids(body))])),
        ("/index/known", lambda body: pack_records(index.known(_ids(body)))),
        ("/index/vectors", lambda body: pack_vectors(index.vectors(_ids(body)))),
    ):
        router.add_route(path, _raw(act), methods=["POST"])
    return router


def _bodies(index: PinIndex, pin_ids: Sequence[str]) -> list[Hit]:
    """Records before vectors: of a pin that is written in between, the vector is then newer than its version says, and is soon read again."""
    records, vectors = index.known(pin_ids), index.vectors(pin_ids)
    return [Hit(pin_id, 0.0, pin.fields, int(pin.v), vectors[pin_id], pin.refused) for pin_id, pin in records.items() if pin_id in vectors]


def _ids(body: bytes) -> list[str]:
    wanted = orjson.loads(body)["pin_ids"]
    if not (isinstance(wanted, list) and all(isinstance(pin_id, str) for pin_id in wanted)):
        raise TypeError("pin_ids is a list of strings")
    return wanted


def _raw(act: Callable[[bytes], bytes]) -> Callable[[Request], Awaitable[Response]]:
    """A route of bytes in, bytes out, without the framework's models, because it is asked hundreds of times a second."""

    async def answered(request: Request) -> Response:
        try:
            return Response(act(await request.body()), media_type="application/octet-stream")  # the engine lets no other thread run anyway
        except Unavailable as error:
            return Response(str(error), status_code=503)
        except (ValueError, TypeError, KeyError) as error:
            return Response(f"this cannot be read: {error}", status_code=400)

    return answered


class LoopbackPinIndex:
    """The reader's side: a PinIndex that reads through the owner, asks it to sweep, and refuses to write."""

    def __init__(self, client: httpx.Client, model_id: str) -> None:
        self._client, self.model_id = client, model_id
        self._connections = Connections(client.base_url, client.timeout.read or SEARCH_TIMEOUT_S)
        self._held = Held(self._bodies)
        owned = self._get("/index/counts")["model_id"]
        if owned != model_id:
            raise ArtifactError(f"the process that owns the index runs model {owned}, this command {model_id}; set EVERPIN_MODEL alike for both")

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return self._exchanged("/index/known", orjson.dumps({"pin_ids": list(pin_ids)}), unpack_records)

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        raise Unavailable(f"only the owner of the index writes to it ({len(points)} points refused); send an event instead")

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        return self.ask([Ask(limit, vector, where=where)])[0]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        return self._held.hits(self._exchanged("/index/ask", pack_asks(asks), unpack_briefs))

    def _bodies(self, pin_ids: Sequence[str]) -> Sequence[Hit]:
        return self._exchanged("/index/bodies", orjson.dumps({"pin_ids": list(pin_ids)}), unpack_answers)[0]

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        return self._exchanged("/index/vectors", orjson.dumps({"pin_ids": list(pin_ids)}), unpack_vectors)

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

    def _exchanged(self, path: str, body: bytes, unpack: Callable[[bytes], T]) -> T:
        try:
            return unpack(self._connections.post(path, body))
        except (Unavailable, ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"the process that owns the index does not answer {path}: {error}; see `everpin status`") from error

    def _answer(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            return self._client.request(method, path, **arguments).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(f"the process that owns the index does not answer: {error}; see `everpin status`") from error
