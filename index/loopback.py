"""Reading an embedded index that another process owns: that process's routes, and the client that uses them.

The embedded engine has one owner. Everybody else on this machine reads through it over loopback HTTP; writes go through
events, as everywhere, but for a backfill's: those arrive here decided, each guarded by the version it was decided on, so it does not
matter in which order they and the owner's own are written (docs/adr/0002). The sweep of old tombstones is the one order the owner
takes: only it can rewrite its folder. What is asked often travels as `index.wire` has it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import httpx
import orjson
from fastapi import APIRouter, Body, Request, Response
from starlette.concurrency import run_in_threadpool

from index.connections import Connections
from index.held import Held
from index.points import check_distinct, pages
from index.wire import (
    pack_answers,
    pack_asks,
    pack_briefs,
    pack_points,
    pack_records,
    pack_refusal,
    pack_vectors,
    pack_writes,
    unpack_answers,
    unpack_asks,
    unpack_briefs,
    unpack_points,
    unpack_records,
    unpack_refusal,
    unpack_vectors,
    unpack_writes,
)
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable, Unembeddable
from pins.ports import Ask, Hit, PinIndex, PointWrite, Vector, Where

T = TypeVar("T")
SWEEP_TIMEOUT_S = 1800.0
"""A sweep rewrites the owner's whole folder, some 4,000 points a second, before it answers."""
SEARCH_TIMEOUT_S = 30.0
"""For a client that has no limit of its own."""
WRITTEN_AT_ONCE = 64
"""Points in one request, some 20 ms of the owner's: nobody who searches waits longer than that for a backfill."""
MOST_WRITES = 256
"""Points that an owner takes in one request."""
MOST_POINTS = 4096
"""Points with their vectors that an owner reads in one request, some 200 ms of its time."""
PACKED = "application/octet-stream"
"""What a write must say it is: a page in a browser cannot, so none can write to an owner behind its reader's back."""


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
        ("/index/points", lambda body: pack_points(*_page_of_points(index, **orjson.loads(body)))),
    ):
        router.add_route(path, _raw(act), methods=["POST"])
    router.add_route("/index/write", _written(index), methods=["POST"])
    router.add_route("/index/flush", _flushed(index), methods=["POST"])
    return router


def _written(index: PinIndex) -> Callable[[Request], Awaitable[Response]]:
    """Guarded writes in, the ids of those that landed out; 422 says why one of them was refused. In a thread, so that searches go on meanwhile."""

    def write(body: bytes) -> Response:
        writes = unpack_writes(body)
        if len(writes) > MOST_WRITES:
            raise ValueError(f"{len(writes)} writes; send at most {MOST_WRITES} at once")
        try:
            return Response(orjson.dumps(sorted(index.write(writes))), media_type="application/json")
        except Unembeddable as error:
            return Response(pack_refusal(error), status_code=422, media_type="application/json")

    async def answered(request: Request) -> Response:
        if request.headers.get("content-type") != PACKED:
            return Response(f"writes are {PACKED}", status_code=415)
        body = await request.body()
        return await _answering(lambda: run_in_threadpool(write, body))

    return answered


def _flushed(index: PinIndex) -> Callable[[Request], Awaitable[Response]]:
    async def flush() -> Response:
        await run_in_threadpool(index.flush)
        return Response("{}", media_type="application/json")

    async def answered(request: Request) -> Response:
        return await _answering(flush)

    return answered


def _bodies(index: PinIndex, pin_ids: Sequence[str]) -> list[Hit]:
    """Records before vectors: of a pin that is written in between, the vector is then newer than its version says, and is soon read again."""
    records, vectors = index.known(pin_ids), index.vectors(pin_ids)
    return [Hit(pin_id, 0.0, pin.fields, int(pin.v), vectors[pin_id], pin.refused) for pin_id, pin in records.items() if pin_id in vectors]


def _page_of_points(index: PinIndex, cursor: str, limit: int, newer_than: int, bare: bool) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
    if not (isinstance(cursor, str) and isinstance(bare, bool) and type(limit) is type(newer_than) is int and 0 < limit <= MOST_POINTS):
        raise TypeError(f"a page is a cursor, a limit of 1 to {MOST_POINTS}, a version that is a whole number, and whether it is bare")
    return index.page_of_points(cursor, limit, newer_than, bare=bare)


def _ids(body: bytes) -> list[str]:
    wanted = orjson.loads(body)["pin_ids"]
    if not (isinstance(wanted, list) and all(isinstance(pin_id, str) for pin_id in wanted)):
        raise TypeError("pin_ids is a list of strings")
    return wanted


def _raw(act: Callable[[bytes], bytes]) -> Callable[[Request], Awaitable[Response]]:
    """A route of bytes in, bytes out, without the framework's models, because it is asked hundreds of times a second."""

    async def answered(request: Request) -> Response:
        body = await request.body()

        async def done() -> Response:
            return Response(act(body), media_type=PACKED)  # the engine lets no other thread run anyway

        return await _answering(done)

    return answered


async def _answering(act: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await act()
    except Unavailable as error:
        return Response(str(error), status_code=503)
    except (ValueError, TypeError, KeyError) as error:
        return Response(f"this cannot be read: {error}", status_code=400)


class LoopbackPinIndex:
    """The other side: a PinIndex that reads and writes through the owner, and asks it to sweep."""

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
        """In parts of WRITTEN_AT_ONCE. A part that arrived twice, because its answer was lost, counts as a lost race, as it then is."""
        check_distinct(points)
        landed: set[str] = set()
        for start in range(0, len(points), WRITTEN_AT_ONCE):
            landed |= self._write(points[start : start + WRITTEN_AT_ONCE])
        return landed

    def _write(self, points: Sequence[PointWrite]) -> set[str]:
        body = pack_writes(points)
        try:
            answer = self._client.post("/index/write", content=body, headers={"Content-Type": PACKED})
            if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
                raise unpack_refusal(answer.content)
            if not answer.is_success:
                raise Unavailable(f"the process that owns the index wrote nothing: {answer.status_code}, {answer.text[:500]}; see `everpin status`")
            return set(orjson.loads(answer.content))
        except (httpx.HTTPError, ValueError, TypeError, KeyError) as error:
            raise Unavailable(f"the process that owns the index does not take writes: {error!r}; see `everpin status`") from error

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

    def page_of_points(
        self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False
    ) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
        body = orjson.dumps({"cursor": cursor, "limit": min(limit, MOST_POINTS), "newer_than": newer_than, "bare": bare})
        return self._exchanged("/index/points", body, unpack_points)

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        return pages(self.page, batch)

    def sweep(self, before_v: int) -> Mapping[str, int]:
        gone: dict[str, int] = self._answer("POST", "/index/sweep", json={"before_v": before_v}, timeout=SWEEP_TIMEOUT_S)
        return gone

    def counts(self) -> Mapping[str, int]:
        counts: dict[str, int] = self._get("/index/counts")["counts"]
        return counts

    def flush(self) -> None:
        """Has the owner flush."""
        self._answer("POST", "/index/flush")

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
