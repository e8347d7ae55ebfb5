"""Whatever somebody did to a payload, the record is read, and the next write replaces it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import qdrant_edge as edge
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from index import points
from index.edge import EdgePinIndex
from index.points import collection_name, point_id
from index.qdrant import QdrantPinIndex
from pins.ports import PointWrite
from tests.contract.records import DIMENSION, MODEL, put, record, vector

DAMAGES: list[tuple[dict[str, object], float]] = [
    ({"v": "x"}, 0), ({"v": None, "fields": None}, 0), ({}, 0), ({"v": True}, 0), ({"v": -3}, 0), ({"v": 0.5}, 0), ({"v": 7.25}, 7.25), ({"v": ["x", 5, 6]}, 5),
]  # fmt: skip


@pytest.mark.parametrize("engine", ["edge", "memory"])
@pytest.mark.parametrize(("damage", "v"), DAMAGES)
def test_a_damaged_payload_is_replaced_by_the_next_write(engine: str, damage: dict[str, object], v: float, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION) if engine == "edge" else QdrantPinIndex(client, MODEL, DIMENSION)
    put(index, "p", 5)
    if isinstance(index, EdgePinIndex):
        index._shard.update(edge.UpdateOperation.overwrite_payload([uuid.UUID(point_id("p"))], damage))
    else:
        client.overwrite_payload(collection_name(MODEL), damage, [point_id("p")])
    found = index.known(["p"])["p"]
    assert (found.v, found.model_id) == (v, "")
    assert index.write([PointWrite(record("p", 9), found.v, vector(1))]) == {"p"}
    assert index.known(["p"])["p"].v == 9
    index.close()


ODD = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
ODD |= st.dictionaries(st.text(max_size=3), ODD, max_size=2)


@given(st.dictionaries(st.sampled_from(sorted(points.payload(record("p"), "mark"))), ODD))
def test_no_payload_whatever_is_in_it_keeps_a_record_from_being_read(damage: dict[str, object]) -> None:
    found = points.record("p", points.payload(record("p"), "mark") | damage)
    assert found.v >= 0
    assert isinstance(found.fields, dict)
    shown = points.hits([(0.5, points.shown({"pin_id": "p"} | damage, None))])
    named = damage.get("pin_id", "p")
    assert [hit.pin_id for hit in shown] == ([named] if isinstance(named, str) and named else [])


@pytest.mark.parametrize("engine", ["edge", "memory"])
def test_a_point_that_names_another_pin_is_of_no_model_has_no_name_and_is_swept(engine: str, tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION) if engine == "edge" else QdrantPinIndex(client, MODEL, DIMENSION)
    put(index, "p", 5)
    put(index, "q", 6)
    if isinstance(index, EdgePinIndex):
        index._shard.update(edge.UpdateOperation.set_payload([uuid.UUID(point_id("p"))], {"pin_id": "q"}))
    else:
        client.set_payload(collection_name(MODEL), {"pin_id": "q"}, [point_id("p")])
    found = index.known(["p"])["p"]
    assert (found.v, found.model_id) == (5, "")
    assert sorted(pin.pin_id for pin in index.page()[0]) == ["", "q"]
    assert index.sweep(1) == {"dead": 0, "nameless": 1}
    assert list(index.known(["p", "q"])) == ["q"]
    index.close()
