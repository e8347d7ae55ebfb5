"""One index per engine, for the suites of PinIndex: the fake, the embedded engine and its reader, the client's local mode and a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from qdrant_client import QdrantClient

from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.qdrant import QdrantPinIndex, connect
from pins.ports import PinIndex, PointWrite
from tests.contract.records import DIMENSION, MODEL
from tests.fakes import FakeIndex
from tests.services.qdrant import empty, qdrant_double
from tests.serving import serving

SERVER = os.environ.get("EVERPIN_TEST_QDRANT")
"""Address of a real Qdrant server. None can be had from pip or Debian, so the suite runs on one only where it is named."""


class ReadThrough(LoopbackPinIndex):
    """The reader of an owner in this process, to which a suite may write all the same."""

    def __init__(self, client: httpx.Client, owner: EdgePinIndex) -> None:
        super().__init__(client, MODEL)
        self.owner = owner

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        return self.owner.write(points)


@pytest.fixture(params=["fake", "edge", "loopback", "memory", "rest", *(["server"] if SERVER else [])])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PinIndex]:
    if request.param == "loopback":
        yield from _read_through(tmp_path)
        return
    made: PinIndex
    if request.param == "fake":
        made = FakeIndex()
    elif request.param == "edge":
        made = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    elif request.param == "memory":
        made = QdrantPinIndex(QdrantClient(":memory:"), MODEL, DIMENSION)
    elif request.param == "rest":
        made = QdrantPinIndex(connect(request.getfixturevalue("qdrant_url")), f"{MODEL}-{uuid.uuid4().hex}", DIMENSION)
    else:
        assert SERVER
        made = QdrantPinIndex(connect(SERVER), f"{MODEL}-{uuid.uuid4().hex}", DIMENSION)
    yield made
    made.close()


@pytest.fixture(scope="session")
def qdrant_url() -> Iterator[str]:
    """One stand-in for the whole run: a test keeps to a collection of its own."""
    with qdrant_double() as (url, _):
        yield url


@pytest.fixture
def empty_qdrant(qdrant_url: str) -> str:
    """The same for a test that takes it without collections and aliases."""
    empty(qdrant_url)
    return qdrant_url


def _read_through(folder: Path) -> Iterator[PinIndex]:
    owner = EdgePinIndex(folder, MODEL, DIMENSION)
    with serving(owner) as url:
        made = ReadThrough(httpx.Client(base_url=url, timeout=30), owner)
        yield made
        made.close()
    owner.close()
