"""The contract of the live alias: one suite for the embedded file, the client's local mode and a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from index.edge import EdgePinIndex
from index.points import collection_name
from index.qdrant import QdrantPinIndex, connect
from index.rollout import ALIAS, FILE, EdgeAlias, QdrantAlias
from pins.errors import ArtifactError, Unavailable
from tests.contract.records import DIMENSION


@dataclass
class Store:
    """An alias, a second view of it as another process has it, and a way to make a model's collection."""

    alias: EdgeAlias | QdrantAlias
    other: EdgeAlias | QdrantAlias
    make: Callable[[str], None]


@pytest.fixture(params=["edge", "memory", "rest"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "edge":
        yield Store(EdgeAlias(tmp_path), EdgeAlias(tmp_path), lambda model_id: EdgePinIndex(tmp_path, model_id, DIMENSION).close())
    elif request.param == "memory":
        client = QdrantClient(":memory:")
        yield Store(QdrantAlias(client), QdrantAlias(client), lambda model_id: _made(client, model_id))
    else:
        url = request.getfixturevalue("empty_qdrant")
        client, other = connect(url), connect(url)
        yield Store(QdrantAlias(client), QdrantAlias(other), lambda model_id: _made(client, model_id))
        client.close()
        other.close()


def _made(client: QdrantClient, model_id: str) -> None:
    QdrantPinIndex(client, model_id, DIMENSION)


def test_the_alias_names_nobody_then_one_model_then_another_and_back(store: Store) -> None:
    assert store.alias.live() is None
    store.make("student-fp32")
    store.make("student-int8")
    for model_id in ("student-fp32", "student-int8", "student-int8", "student-fp32"):
        store.alias.point(model_id)
        assert (store.alias.live(), store.other.live()) == (model_id, model_id)


def test_a_model_without_a_collection_is_refused_and_nothing_moves(store: Store) -> None:
    store.make("student-v1")
    store.alias.point("student-v1")
    with pytest.raises(ArtifactError, match="no collection pins__student-v2; start a worker of student-v2"):
        store.alias.point("student-v2")
    assert store.alias.live() == "student-v1"


def test_a_reader_sees_one_of_the_two_models_while_the_alias_moves(store: Store) -> None:
    store.make("a")
    store.make("b")
    store.alias.point("a")
    done = threading.Event()

    def read() -> set[str | None]:
        seen = set()
        while not done.is_set():
            seen.add(store.other.live())
        return seen

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for turn in range(40):
            store.alias.point("ab"[turn % 2])
        done.set()
        assert reading.result(30) <= {"a", "b"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pins": 3}', b'{"other": "pins__m"}', b"\xff\xfe", b'{"pins": "m"}', b'{"pins": "pins__"}'])
def test_a_damaged_file_is_named_and_can_be_replaced(content: bytes, tmp_path: Path) -> None:
    alias = EdgeAlias(tmp_path)
    EdgePinIndex(tmp_path, "m", DIMENSION).close()
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"aliases\.json is damaged; delete it|must be pins__MODEL_ID"):
        alias.live()
    alias.point("m")
    assert alias.live() == "m"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, collection_name("m")]


def test_a_file_that_cannot_be_read_or_written_is_a_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EdgePinIndex(tmp_path, "m", DIMENSION).close()
    alias = EdgeAlias(tmp_path)
    alias.point("m")

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(Unavailable, match="no space left; the alias is where it was"):
            alias.point("m")
    assert alias.live() == "m"
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, collection_name("m")]
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    with pytest.raises(Unavailable, match="cannot be read"):
        alias.live()


def test_a_server_that_is_down_does_not_answer() -> None:
    alias = QdrantAlias(connect("http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="QDRANT_URL"):
        alias.live()
    with pytest.raises(Unavailable, match="QDRANT_URL"):
        alias.point("m")


def test_an_alias_of_a_foreign_collection_is_named() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("theirs", vectors_config=models.VectorParams(size=2, distance=models.Distance.DOT))
    alias = models.CreateAliasOperation(create_alias=models.CreateAlias(alias_name=ALIAS, collection_name="theirs"))
    client.update_collection_aliases([alias])
    with pytest.raises(ArtifactError, match="names 'theirs'"):
        QdrantAlias(client).live()
