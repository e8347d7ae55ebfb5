"""Reading an embedded index that another process owns, through its loopback routes (`index.owner_routes`).

The embedded engine has one owner. Everybody else on this machine reads through it over loopback HTTP; writes go through
events, as everywhere, but for a backfill's: those arrive there decided, each guarded by the version it was decided on, so it does not
matter in which order they and the owner's own are written (docs/adr/0002). The sweep of old tombstones is the one order the owner
takes: only it can rewrite its folder. What is asked often travels as `index.wire` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import orjson

from index.connections import Connections
from index.held import Held
from index.owner_routes import MOST_POINTS, PACKED
from index.points import check_distinct, pages
from index.wire import pack_asks, pack_writes, unpack_answers, unpack_briefs, unpack_points, unpack_records, unpack_refusal, unpack_vectors
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.ports import Ask, Hit, PointWrite, Vector, Where

T = TypeVar("T")
SWEEP_TIMEOUT_S = 1800.0
"""A sweep rewrites the owner's whole folder, some 4,000 points a second, before it answers."""
SEARCH_TIMEOUT_S = 30.0
"""For a client that has no limit of its own."""
WRITTEN_AT_ONCE = 64
"""Points in one request, some 20 ms of the owner's: nobody who searches waits longer than that for a backfill."""


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
