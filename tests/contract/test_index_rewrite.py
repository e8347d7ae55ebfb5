"""A sweep rewrites the embedded index: crashes, failures and neighbours in the middle of it lose nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from index.edge import EdgePinIndex
from index.points import collection_name
from index.shard import FreshCopy
from pins.errors import Unavailable
from pins.ports import PointWrite
from tests.contract.records import DIMENSION, MODEL, put, record, vector
from tests.faults.processes import script
from tests.files import holding

CRASHER = """
import os, sys
from pathlib import Path
import index.shard, shutil
from index import points
from index.edge import EdgePinIndex
step, count = sys.argv[2], 0
def dying(name, act):
    def acting(*arguments, **named):
        global count
        count += name == step.split(":")[0]
        if f"{name}:{count}" == step:
            os._exit(9)
        return act(*arguments, **named)
    return acting
made = EdgePinIndex(Path(sys.argv[1]), "fake-v1", 8)
index.shard.edge.UpdateOperation = dying_operations = type("Operations", (), {
    "upsert_points": staticmethod(dying("upsert", index.shard.edge.UpdateOperation.upsert_points)),
    "create_sparse_vector": staticmethod(index.shard.edge.UpdateOperation.create_sparse_vector),
    "create_field_index": staticmethod(index.shard.edge.UpdateOperation.create_field_index)})
index.shard._sync_tree = dying("sync", index.shard._sync_tree)
index.shard._sync_folder = dying("folder", index.shard._sync_folder)
Path.rename = dying("rename", Path.rename)
shutil.rmtree = dying("remove", shutil.rmtree)
index.shard.open_shard = index.edge.open_shard = dying("reopen", index.shard.open_shard)
made.sweep(100)
os._exit(0)
"""
STEPS = ["upsert:1", "upsert:9", "sync:1", "sync:2", "rename:1", "rename:2", "remove:1", "reopen:1", "none:0"]


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_in_the_middle_of_a_sweep_loses_nothing(step: str, tmp_path: Path) -> None:
    index = _many_and_a_secret(tmp_path / "index")
    index.close()
    code = script(CRASHER, [tmp_path / "index", step], tmp_path / "log").wait(60)
    assert code == (0 if step == "none:0" else 9), (tmp_path / "log").read_text()
    reopened = EdgePinIndex(tmp_path / "index", MODEL, DIMENSION)
    _assert_many(reopened, tmp_path / "index")
    assert put(reopened, "later", 7) == {"later"}
    reopened.close()


@pytest.mark.parametrize("broken", ["FreshCopy.add", "FreshCopy.finish", "_sync_tree", "_sync_folder", "swap"])
def test_a_failing_sweep_leaves_the_index_in_use_and_whole(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = _many_and_a_secret(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(f"index.{'edge' if broken == 'swap' else 'shard'}.{broken}", fail)
        with pytest.raises(Unavailable, match="the disk is gone"):
            index.sweep(100)
    assert index._written is None
    assert put(index, "later", 7) == {"later"}
    _assert_many(index, tmp_path)
    index.close()


def test_others_go_on_while_a_sweep_rewrites(tmp_path: Path) -> None:
    index = _many_and_a_secret(tmp_path)
    stop, done = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            done[0] += 1
            assert put(index, "busy", done[0] + 1, expected=done[0] if done[0] > 1 else None) == {"busy"}
            assert index.search(vector(1), 1)[0].pin_id == "p1"

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        while done[0] < 3:
            assert not worker.done(), worker.exception()
        _assert_many(index, tmp_path)
        before = done[0]
        while done[0] < before + 3:
            assert not worker.done(), worker.exception()
        stop.set()
        worker.result(20)
    assert index.known(["busy"])["busy"].v == done[0] + 1
    index.close()


def test_what_is_written_while_a_sweep_copies_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = _many_and_a_secret(tmp_path)
    add, steps = FreshCopy.add, 0

    def and_meanwhile(self: FreshCopy, found: list[object], *, late: bool = False) -> None:
        nonlocal steps
        add(self, found, late=late)
        steps += 1
        if steps == 6:
            for n in range(0, 1200, 7):
                assert put(index, f"p{n}", 6, expected=5, seed=n + 5000, text="newer") == {f"p{n}"}
            assert put(index, "fresh", 6, seed=1) == {"fresh"}
            assert put(index, "p1", 6, expected=5, dead=True, embedded=False, text="") == {"p1"}

    monkeypatch.setattr(FreshCopy, "add", and_meanwhile)
    assert index.sweep(7) == {"dead": 1, "nameless": 0}
    known = index.known([*(f"p{n}" for n in range(1200)), "fresh", "secret"])
    assert {pin_id for pin_id, pin in known.items() if pin.text == "newer"} == {f"p{n}" for n in range(0, 1200, 7)}
    assert known["p1"].dead
    assert len(known) == 1201
    np.testing.assert_allclose(index.vectors(["p7"])["p7"], vector(5007), atol=1e-6)
    index.close()


def _many_and_a_secret(folder: Path) -> EdgePinIndex:
    index = EdgePinIndex(folder, MODEL, DIMENSION)
    index.write([PointWrite(record(f"p{n}", 5), None, vector(n)) for n in range(1200)])
    put(index, "secret", 5, seed=9999, text="quetzalcoatl")
    index.write([PointWrite(record("secret", 6, dead=True, embedded=False, text=""), 5)])
    index.flush()
    assert holding(folder, b"quetzalcoatl")
    assert holding(folder, vector(9999).tobytes())
    return index


def _assert_many(index: EdgePinIndex, folder: Path) -> None:
    """Every live pin is whole, and a sweep (again, or for the first time) leaves nothing of the secret."""
    known = index.known([f"p{n}" for n in range(1200)])
    assert known == {f"p{n}": record(f"p{n}", 5) for n in range(1200)}
    stored = index.vectors([f"p{n}" for n in range(1200)])
    np.testing.assert_allclose([stored[f"p{n}"] for n in range(1200)], [vector(n) for n in range(1200)], atol=1e-6)
    index.sweep(100)
    assert index.known(["secret"]) == {}
    assert not holding(folder, b"quetzalcoatl")
    assert not holding(folder, vector(9999).tobytes())
    assert [path.name for path in folder.iterdir()] == [collection_name(MODEL)]
