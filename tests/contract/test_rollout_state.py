"""The contract of the rollout's state: one suite for the embedded file, the client's local mode and a server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from index.edge import EdgePinIndex
from index.qdrant import QdrantPinIndex, connect
from index.rollout import EdgeAlias, QdrantAlias
from index.rollout_state import FILE, EdgeRolloutState, QdrantRolloutState, RolloutState
from pins.errors import ArtifactError, Unavailable
from pins.rollout import Rollout
from tests.contract.records import DIMENSION
from tests.services.qdrant import qdrant_double

NEW = Rollout("new", "old", started_us=1)


@pytest.fixture(params=["edge", "memory", "rest"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RolloutState, RolloutState]]:
    """The state, and a second view of it as another process has it."""
    if request.param == "edge":
        yield EdgeRolloutState(tmp_path / "index"), EdgeRolloutState(tmp_path / "index")
    elif request.param == "memory":
        client = QdrantClient(":memory:")
        yield QdrantRolloutState(client), QdrantRolloutState(client)
    else:
        with qdrant_double() as (url, _):
            client, other = connect(url), connect(url)
            yield QdrantRolloutState(client), QdrantRolloutState(other)
            client.close()
            other.close()


def test_a_rollout_begins_goes_on_and_ends(states: tuple[RolloutState, RolloutState]) -> None:
    mine, theirs = states
    assert mine.read() is None
    assert mine.replace(None, NEW)
    assert theirs.read() == NEW
    later = NEW.changed(share=0.05)
    assert theirs.replace(NEW, later)
    assert mine.read() == later
    assert mine.replace(later, None)
    assert theirs.read() is None
    assert theirs.replace(None, NEW)


def test_who_decided_on_an_older_state_changes_nothing(states: tuple[RolloutState, RolloutState]) -> None:
    mine, theirs = states
    assert mine.replace(None, NEW)
    assert not theirs.replace(None, Rollout("third", "old", started_us=2))
    later = NEW.changed(paused=True)
    assert mine.replace(NEW, later)
    assert not theirs.replace(NEW, NEW.changed(share=1.0))
    assert theirs.read() == later


def test_of_many_who_change_one_state_one_succeeds(tmp_path: Path) -> None:
    EdgeRolloutState(tmp_path).replace(None, NEW)
    with ThreadPoolExecutor(8) as pool:
        landed = list(pool.map(lambda number: EdgeRolloutState(tmp_path).replace(NEW, NEW.changed(filled_us=number)), range(1, 9)))
    assert sum(landed) == 1
    assert EdgeRolloutState(tmp_path).read() == NEW.changed(filled_us=landed.index(True) + 1)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"{}"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged"):
        EdgeRolloutState(tmp_path).read()


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = EdgeRolloutState(tmp_path)
    state.replace(None, NEW)

    def full(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(Unavailable, match="no space left; the rollout is where it was"):
            state.replace(NEW, NEW.changed(share=1.0))
    assert state.read() == NEW
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(f"{FILE}.")] == []


def test_a_collection_is_dropped_unless_it_is_live(tmp_path: Path) -> None:
    alias = EdgeAlias(tmp_path)
    for model_id in ("old", "new"):
        EdgePinIndex(tmp_path, model_id, DIMENSION).close()
    alias.point("new")
    with pytest.raises(ArtifactError, match="new is the live model"):
        alias.drop("new")
    assert alias.drop("old")
    assert not alias.drop("old")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["pins__new"]


def test_a_servers_collection_is_dropped_unless_it_is_live() -> None:
    client = QdrantClient(":memory:")
    alias = QdrantAlias(client)
    for model_id in ("old", "new"):
        QdrantPinIndex(client, model_id, DIMENSION)
    alias.point("new")
    with pytest.raises(ArtifactError, match="new is the live model"):
        alias.drop("new")
    assert alias.drop("old")
    assert not alias.drop("old")
    assert not client.collection_exists("pins__old")
