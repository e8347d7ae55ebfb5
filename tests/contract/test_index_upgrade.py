"""Indexes of the release before word search: what they lack is added when they are opened, and a crash in the middle costs nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from index import points
from index.edge import EdgePinIndex
from index.points import collection_name, point_id
from index.qdrant import INDEXED as SERVER_INDEXED
from index.qdrant import QdrantPinIndex, connect
from index.shard import INDEXED
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable
from pins.lexical import terms_of_query
from pins.ports import Ask, Hit, PinIndex, PointWrite
from tests.contract.records import DIMENSION, MODEL, put, record, vector
from tests.faults.processes import script

MANY = 450
"""More than two steps of an upgrade of the embedded index."""
OLD = [record(f"p{n}", 5, text=f"pin number{n} of the old release") for n in range(MANY)]
OLD += [record("dead", 5, dead=True, embedded=False, text=""), record("textless", 5, embedded=False, text=""), record("emoji", 5, text="🪴")]
CRASHER = """
import os, sys
from pathlib import Path
from index import shard
from index.edge import EdgePinIndex
filled, update = 0, shard.edge.UpdateOperation.update_vectors
def dying(vectors):
    global filled
    filled += 1
    if filled == 2:
        os._exit(9)
    return update(vectors)
operations = shard.edge.UpdateOperation
shard.edge.UpdateOperation = type("Operations", (), {
    "create_field_index": operations.create_field_index, "create_sparse_vector": operations.create_sparse_vector, "update_vectors": staticmethod(dying)})
EdgePinIndex(Path(sys.argv[1]), "fake-v1", 8)
"""


def payload(pin: IndexedPin) -> dict[str, object]:
    return points.payload(pin, "mark")


def vectors(number: int, pin: IndexedPin) -> dict[str, list[float]]:
    return {points.VECTOR: vector(number).tolist()} if pin.embedded else {}


def old_folder(root: Path) -> None:
    """A folder as the release before made it: no terms, and indexes for counting only."""
    path = root / collection_name(MODEL)
    path.mkdir(parents=True)
    shard = edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors={points.VECTOR: edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine)}))
    for field in ("dead", "embedded", "outdated"):
        shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Integer))
    batch = [edge.Point(id=uuid.UUID(point_id(pin.pin_id)), vector=vectors(n, pin), payload=payload(pin)) for n, pin in enumerate(OLD)]
    shard.update(edge.UpdateOperation.upsert_points(batch))
    shard.close()


def old_collection(client: QdrantClient) -> None:
    params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    client.create_collection(collection_name(MODEL), vectors_config={points.VECTOR: params})
    batch = [models.PointStruct(id=point_id(pin.pin_id), vector=vectors(n, pin), payload=payload(pin)) for n, pin in enumerate(OLD)]
    client.upsert(collection_name(MODEL), points=batch)


@pytest.fixture(params=["edge", "memory", "rest"])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PinIndex]:
    if request.param == "edge":
        old_folder(tmp_path)
        index: PinIndex = EdgePinIndex(tmp_path, MODEL, DIMENSION)
        yield index
        index.close()
    elif request.param == "memory":
        client = QdrantClient(":memory:")
        old_collection(client)
        yield QdrantPinIndex(client, MODEL, DIMENSION)
    else:
        url = request.getfixturevalue("empty_qdrant")
        old_collection(connect(url))
        index = QdrantPinIndex(connect(url), MODEL, DIMENSION)
        yield index
        index.close()


def found(index: PinIndex, text: str) -> list[Hit]:
    return list(index.ask([Ask(MANY + 10, terms=terms_of_query(text))])[0])


def test_an_index_without_terms_gets_them_when_it_is_opened(upgraded: PinIndex) -> None:
    for n in (0, 199, 200, MANY - 1):
        (hit,) = found(upgraded, f"number{n}")
        assert (hit.pin_id, hit.v) == (f"p{n}", 5)
        np.testing.assert_allclose(hit.vector, vector(n), atol=1e-6)
    assert {hit.pin_id for hit in found(upgraded, "release")} == {f"p{n}" for n in range(MANY)}
    assert upgraded.known([pin.pin_id for pin in OLD]) == {pin.pin_id: pin for pin in OLD}
    assert upgraded.counts() == {"live": MANY + 1, "textless": 1, "dead": 1, "refused": 0}
    assert upgraded.write([PointWrite(record("p7", 6, text="new words"), 5, vector(7))]) == {"p7"}
    assert found(upgraded, "number7") == []
    assert [hit.pin_id for hit in found(upgraded, "new")] == ["p7"]


def test_an_upgrade_that_was_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    old_folder(tmp_path)
    assert script(CRASHER, [tmp_path], tmp_path / "log").wait(60) == 9
    half = edge.EdgeShard.load(str(tmp_path / collection_name(MODEL)))
    having = half.count(edge.CountRequest(exact=True, filter=edge.Filter(must=[edge.HasVectorCondition(points.TERMS)])))
    half.close()
    assert 0 < having < MANY
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    assert {hit.pin_id for hit in found(index, "release")} == {f"p{n}" for n in range(MANY)}
    index.close()


def test_every_field_that_searches_filter_on_is_indexed_in_old_new_and_swept_folders(tmp_path: Path) -> None:
    old_folder(tmp_path)
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    assert set(index._shard.info().payload_schema) == set(INDEXED) >= {"fields.lang", "fields.category", "fields.boards", "fields.created_at_us"}
    assert index.sweep(100) == {"dead": 1, "nameless": 0}
    assert set(index._shard.info().payload_schema) == set(INDEXED)
    assert {hit.pin_id for hit in found(index, "release")} == {f"p{n}" for n in range(MANY)}
    assert found(index, "number3")[0].score == pytest.approx(found(index, "number4")[0].score)
    index.close()
    fresh = EdgePinIndex(tmp_path / "fresh", MODEL, DIMENSION)
    assert set(fresh._shard.info().payload_schema) == set(INDEXED)
    fresh.close()


def test_a_point_without_a_text_of_its_own_does_not_stop_an_upgrade(tmp_path: Path) -> None:
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    put(index, "p")
    put(index, "q", seed=2, text="kept")
    damage = {"pin_id": "p", "v": 1, "embedded": 1, "dead": 0, "text": ["no", "text"]}
    one = uuid.UUID(point_id("p"))
    index._shard.update(edge.UpdateOperation.overwrite_payload([one], damage))
    index._shard.update(edge.UpdateOperation.delete_vectors([one, uuid.UUID(point_id("q"))], [points.TERMS]))
    index.close()
    reopened = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    assert [hit.pin_id for hit in found(reopened, "kept")] == ["q"]
    assert found(reopened, "text") == []
    reopened.close()


def test_an_upgrade_that_fails_lets_the_folder_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old_folder(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr("index.shard.named_terms", fail)
        with pytest.raises(Unavailable, match="the disk is gone; start again"):
            EdgePinIndex(tmp_path, MODEL, DIMENSION)
    EdgePinIndex(tmp_path, MODEL, DIMENSION).close()


def test_a_server_that_cannot_add_terms_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    old_collection(client)

    def refuse(*_: object, **__: object) -> None:
        raise UnexpectedResponse(404, "Not Found", b"", None)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "create_vector_name", refuse)
    with pytest.raises(ArtifactError, match=r"1\.18 or later, or delete the collection"):
        QdrantPinIndex(client, MODEL, DIMENSION)


def test_a_pin_that_changes_during_an_upgrade_keeps_its_new_words(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    old_collection(client)
    scroll = client.scroll

    def and_meanwhile(*arguments: object, **named: object) -> object:
        read = scroll(*arguments, **named)  # type: ignore[arg-type]
        batch = [models.PointStruct(id=point_id("p3"), vector={points.VECTOR: vector(3).tolist()}, payload=payload(record("p3", 9, text="newer")))]
        client.upsert(collection_name(MODEL), points=batch)
        return read

    monkeypatch.setattr(client, "scroll", and_meanwhile)
    index = QdrantPinIndex(client, MODEL, DIMENSION)
    assert found(index, "number3") == []
    assert [hit.pin_id for hit in found(index, "number4")] == ["p4"]


def test_a_server_that_indexes_versions_as_integers_is_told_to_index_them_as_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    client, made = QdrantClient(":memory:"), []
    QdrantPinIndex(client, MODEL, DIMENSION)
    there = client.get_collection(collection_name(MODEL))
    right = {field: models.PayloadIndexInfo(data_type=models.PayloadSchemaType(kind), points=0) for field, kind in SERVER_INDEXED.items()}
    before = right | {"v": models.PayloadIndexInfo(data_type=models.PayloadSchemaType.INTEGER, points=0)}
    monkeypatch.setitem(client.init_options, "location", None)  # the embedded client has no such indexes
    monkeypatch.setattr(client, "create_payload_index", lambda *what: made.append(what))
    for schema in (before, right):
        monkeypatch.setattr(client, "get_collection", lambda name, schema=schema: there.model_copy(update={"payload_schema": schema}))
        QdrantPinIndex(client, MODEL, DIMENSION)
    assert made == [(collection_name(MODEL), "v", models.PayloadSchemaType.FLOAT)]
