"""Records with their vectors, all of them or those written since a version: what exports read, on every engine."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest

from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.owner_routes import MOST_POINTS
from index.wire import pack_points, unpack_points
from pins.changes import IndexedPin
from pins.errors import Unavailable
from pins.ports import PinIndex, PointWrite, Vector
from tests.contract.records import DIMENSION, MODEL, put, record, vector
from tests.serving import serving

NOW = 1_764_000_000_000_000


def read(index: PinIndex, limit: int = 1000, newer_than: int = 0) -> dict[str, tuple[IndexedPin, Vector | None]]:
    found, cursor = {}, ""
    while True:
        points, cursor = index.page_of_points(cursor, limit, newer_than)
        assert len(points) <= limit
        found |= {point[0].pin_id: point for point in points}
        if not cursor:
            return found


def test_every_record_comes_once_with_its_vector(index: PinIndex) -> None:
    for number in range(7):
        put(index, f"p{number}", NOW + number, seed=number, text=f"text {number}")
    index.write([PointWrite(record("dead", NOW, dead=True, embedded=False, text=""), None), PointWrite(record("bare", NOW, embedded=False, text=""), None)])
    found = read(index, limit=4)
    assert found.keys() == {*(f"p{number}" for number in range(7)), "dead", "bare"}
    assert {pin_id: point[0] for pin_id, point in found.items()} == index.known(list(found))
    assert found["dead"][1] is None
    assert found["bare"][1] is None
    for number in range(7):
        np.testing.assert_allclose(found[f"p{number}"][1], vector(number), atol=1e-6)


def test_newer_than_a_version_is_told_to_the_microsecond(index: PinIndex) -> None:
    for number in range(7):
        put(index, f"p{number}", NOW + number, seed=number)
    index.write([PointWrite(record("p1", NOW + 7, dead=True, embedded=False, text=""), NOW + 1)])
    assert read(index, newer_than=NOW + 4).keys() == {"p5", "p6", "p1"}
    assert read(index, limit=1, newer_than=NOW + 4).keys() == {"p5", "p6", "p1"}
    assert read(index, newer_than=NOW + 7) == {}


def test_a_bare_page_tells_versions_only(index: PinIndex) -> None:
    for number in range(5):
        put(index, f"p{number}", NOW + number, seed=number)
    found, _ = index.page_of_points(newer_than=NOW + 1, bare=True)
    assert {pin.pin_id: (pin.v, pin.text, vector) for pin, vector in found} == {f"p{number}": (NOW + number, "", None) for number in (2, 3, 4)}


def test_points_travel_whole() -> None:
    sent = [(record("p", 5, fields={"boards": ["弁当"]}), vector(1)), (record("q", 6, dead=True, embedded=False), None), (record("r"), vector(2))]
    arrived, cursor = unpack_points(pack_points(sent, "next"))
    assert cursor == "next"
    assert [pin for pin, _ in arrived] == [pin for pin, _ in sent]
    for (_, one), (_, other) in zip(arrived, sent, strict=True):
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


def test_an_owner_refuses_a_page_that_would_hold_it_up_and_a_reader_does_not_ask_for_one(tmp_path: Path) -> None:
    owner = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    put(owner, "p")
    with serving(owner) as url, httpx.Client(base_url=url, timeout=30) as client:
        for asked in ({"limit": MOST_POINTS + 1}, {"limit": 0}, {"limit": "5"}, {"newer_than": 1.5}, {"cursor": 3}, {"bare": 1}, {"colour": "red"}):
            body = {"cursor": "", "limit": 5, "newer_than": 0, "bare": False} | asked
            assert client.post("/index/points", json=body).status_code == 400, asked
        remote = LoopbackPinIndex(client, MODEL)
        assert read(remote, limit=10 * MOST_POINTS).keys() == {"p"}
    with pytest.raises(Unavailable, match="everpin status"):
        remote.page_of_points()
    remote.close()
    owner.close()
