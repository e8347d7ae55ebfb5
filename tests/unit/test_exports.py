"""The folder of an export: what is in it, that it is whole or not there, and that full and incremental ones add up."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource  # noqa: F401  for the scripts below
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpin.exports import moment as reading
from everpin.exports import spill
from everpin.exports.manifest import METADATA, ExportManifest, Head, Model, damaged, read_export
from everpin.exports.moment import LAG_US, Patience
from everpin.exports.reading import chain, live_pins
from everpin.exports.spill import partition_of
from everpin.exports.writing import Wanted, following, write_export
from pins.changes import IndexedPin
from pins.errors import EverpinError, Unavailable
from pins.ports import PointWrite
from tests.fakes import FakeIndex
from tests.unit.samples import T0
from tests.unit.space import at, bury, put

MODEL = Model(model_id="fake-v1", template_version=1, dimension=8, ordinal_head=Head(scale=8.0, thresholds=(1.0, 2.0, 3.0, 4.0)))
WANTED = Wanted(MODEL, partitions=3)


def clock(start_us: int = T0) -> Callable[[], int]:
    now = iter(range(start_us, start_us + 10**12, 1000))
    return lambda: next(now)


def export(index: FakeIndex, folder: Path, wanted: Wanted = WANTED, now: Callable[[], int] | None = None) -> ExportManifest:
    return write_export(index, folder, wanted, now or clock(), Patience(page_at_one_instant=True))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for file in read_export(folder).files for row in pq.read_table(folder / file.name).to_pylist()]


def live(folders: Sequence[Path]) -> dict[str, tuple[int, tuple[float, ...]]]:
    """What a reader of these exports has: version and vector by pin."""
    found = [row for table in live_pins(folders) for row in table.to_pylist()]
    assert len({row["pin_id"] for row in found}) == len(found)
    return {row["pin_id"]: (row["v"], tuple(row["vector"])) for row in found}


def in_the_index(index: FakeIndex) -> dict[str, tuple[int, tuple[float, ...]]]:
    return {pin_id: (record.v, tuple(vector.tolist())) for pin_id, (record, vector) in index.points.items() if vector is not None and not record.dead}


def sample(count: int = 40) -> FakeIndex:
    index = FakeIndex()
    for number in range(count):
        put(index, f"pin-{number}", at(number % 7, 0.5), category="home", boards=["a", "b"])
    bury(index, "pin-3")
    put(index, "textless", None)
    return index


def test_the_live_vectors_are_written_with_all_that_a_reader_needs(tmp_path: Path) -> None:
    index = sample()
    manifest = export(index, tmp_path / "out")
    assert live([tmp_path / "out"]) == in_the_index(index)
    assert (manifest.kind, manifest.rows, manifest.deleted, manifest.since_us, manifest.model) == ("full", 39, 0, None, MODEL)
    assert read_export(tmp_path / "out") == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*.*")) == ["manifest.json", *(file.name for file in manifest.files)]
    for number, file in enumerate(manifest.files):
        table = pq.read_table(tmp_path / "out" / file.name)
        assert {partition_of(pin_id, 3) for pin_id in table.column("pin_id").to_pylist()} <= {number}
        assert (len(table), (tmp_path / "out" / file.name).stat().st_size) == (file.rows, file.bytes)
        assert {field.name: str(field.type) for field in table.schema} == manifest.columns
        assert json.loads(table.schema.metadata[METADATA]) == MODEL.model_dump(mode="json") | {"as_of_us": manifest.as_of_us, "since_us": None}
    assert manifest.columns == {
        "pin_id": "string",
        "vector": "fixed_size_list<element: float>[8]",
        "model_id": "string",
        "v": "int64",
        "deleted": "bool",
    }
    assert {row["model_id"] for row in rows(tmp_path / "out")} == {"fake-v1"}
    assert MODEL.head.expected(1.0) > 4


def test_texts_and_fields_come_where_they_are_asked_for(tmp_path: Path) -> None:
    index = sample(3)
    assert export(index, tmp_path / "out", replace(WANTED, text=True)).text
    found = {row["pin_id"]: row for row in rows(tmp_path / "out")}
    assert found["pin-1"]["text"] == "pin-1"
    assert found["pin-1"]["fields"] == {
        "title": "title of pin-1",
        "category": "home",
        "lang": "en",
        "boards": ["a", "b"],
        "created_at_us": T0 + 1,
    } | dict.fromkeys(("image_url", "link_url"))


def test_a_pin_keeps_its_partition() -> None:
    assert [partition_of(pin_id, 16) for pin_id in ("sample-0", "sample-1", "弁当", "")] == [13, 5, 12, 4]


def test_vectors_of_another_model_and_points_of_no_pin_stay_out(tmp_path: Path) -> None:
    index = sample(4)
    for pin_id, model_id in (("pin-9", "other"), ("", "fake-v1")):
        index.points[pin_id or "damaged"] = IndexedPin(pin_id, 5, dead=False, embedded=True, model_id=model_id), at(1)
    export(index, tmp_path / "out")
    assert live([tmp_path / "out"]).keys() == {"pin-0", "pin-1", "pin-2"}


def test_rows_are_spilled_before_they_are_many_and_row_groups_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 20)
    monkeypatch.setattr(spill, "ROWS_HELD", 10)
    monkeypatch.setattr(spill, "ROW_GROUP", 30)
    index = sample(300)
    manifest = export(index, tmp_path / "out", replace(WANTED, partitions=2))
    assert live([tmp_path / "out"]) == in_the_index(index)
    for file in manifest.files:
        groups = pq.ParquetFile(tmp_path / "out" / file.name).metadata
        assert groups.num_row_groups > 2
        assert all(30 <= groups.row_group(number).num_rows < 60 for number in range(groups.num_row_groups - 1))


PINS = st.sampled_from([f"p{n}" for n in range(8)])
WRITES = st.lists(st.tuples(PINS, st.sampled_from(["vector", "deleted", "textless"]), st.integers(0, LAG_US - 1_000_000)), max_size=12)


def write(index: FakeIndex, now: Callable[[], int], pin_id: str, what: str, lag_us: int) -> None:
    known = index.known([pin_id]).get(pin_id)
    v = max(now() - lag_us, (known.v if known else 0) + 1)
    record = IndexedPin(pin_id, v, dead=what == "deleted", embedded=what == "vector", model_id="fake-v1", text=pin_id)
    vector = np.full(8, v % 1000, np.float32) if what == "vector" else None
    assert index.write([PointWrite(record, known.v if known else None, vector)])


@given(st.lists(WRITES, min_size=2, max_size=4))
def test_a_full_export_and_the_incremental_ones_after_it_are_the_next_full_one(tmp_path_factory: pytest.TempPathFactory, histories: list[Any]) -> None:
    root, index, now = tmp_path_factory.mktemp("exports"), FakeIndex(), clock()
    folders: list[Path] = []
    for number, history in enumerate(histories):
        for one in history:
            write(index, now, *one)
        folder = root / f"incremental-{number}"
        wanted = following(read_export(folders[-1]), folders[-1], MODEL, None, text=False) if folders else WANTED
        export(index, folder, wanted, now)
        folders.append(folder)
        export(index, root / f"full-{number}", WANTED, now)
        assert live(folders) == live([root / f"full-{number}"]) == in_the_index(index)
        for _ in range(20):
            now()
    shutil.rmtree(root)


def test_an_incremental_export_holds_what_changed_and_who_went(tmp_path: Path) -> None:
    index, now = sample(), clock()
    export(index, tmp_path / "full", now=now)
    later = clock(T0 + 3 * LAG_US)
    write(index, later, "new", "vector", 0)
    write(index, later, "pin-5", "deleted", 0)
    write(index, later, "pin-6", "textless", 0)
    manifest = export(index, tmp_path / "more", following(read_export(tmp_path / "full"), tmp_path / "full", MODEL, None, text=False), later)
    assert {row["pin_id"]: (row["deleted"], row["vector"] is None) for row in rows(tmp_path / "more")} == {
        "new": (False, False),
        "pin-5": (True, True),
        "pin-6": (True, True),
    }
    assert (manifest.kind, manifest.rows, manifest.deleted, len(manifest.files)) == ("incremental", 3, 2, 3)
    assert manifest.since_us == read_export(tmp_path / "full").as_of_us


def test_an_export_goes_on_from_its_own_kind_only(tmp_path: Path) -> None:
    previous = export(sample(), tmp_path / "full")
    assert following(previous, tmp_path, MODEL, 3, text=False) == Wanted(MODEL, 3, False, previous.as_of_us)
    other = MODEL.model_copy(update={"model_id": "fake-v2"})
    with pytest.raises(EverpinError, match=r"is of model fake-v1 with 8 dimensions, the live one is fake-v2.*full export"):
        following(previous, tmp_path, other, None, text=False)
    with pytest.raises(EverpinError, match="has 3 partitions, not 4"):
        following(previous, tmp_path, MODEL, 4, text=False)
    with pytest.raises(EverpinError, match="is without texts"):
        following(previous, tmp_path, MODEL, None, text=True)


def test_a_chain_with_a_missing_link_is_refused(tmp_path: Path) -> None:
    index, now = sample(), clock()
    full = export(index, tmp_path / "full", now=now)
    export(index, tmp_path / "second", replace(WANTED, since_us=full.as_of_us + 5_000), now)
    export(index, tmp_path / "other", replace(WANTED, partitions=4, since_us=0), now)
    with pytest.raises(EverpinError, match="an export between them is missing"):
        chain([tmp_path / "full", tmp_path / "second"])
    with pytest.raises(EverpinError, match="does not go on from"):
        chain([tmp_path / "full", tmp_path / "other"])
    with pytest.raises(EverpinError, match="an export between them is missing"):
        chain([tmp_path / "full", tmp_path / "full"])
    for folders in ([], [tmp_path / "second"]):
        with pytest.raises(EverpinError, match="first folder must be a full export"):
            chain(folders)


def test_a_damaged_export_is_told_by_its_files(tmp_path: Path) -> None:
    manifest = export(sample(), tmp_path / "out")
    assert damaged(tmp_path / "out", manifest) == {}
    (tmp_path / "out" / manifest.files[0].name).unlink()
    with (tmp_path / "out" / manifest.files[1].name).open("r+b") as file:
        file.write(b"x")
    assert damaged(tmp_path / "out", manifest) == {manifest.files[0].name: "missing", manifest.files[1].name: "its content is not what was exported"}
    with pytest.raises(EverpinError, match="is damaged"):
        chain([tmp_path / "out"], check_files=True)
    (tmp_path / "out/manifest.json").write_text("{}")
    with pytest.raises(EverpinError, match="is not an export's"):
        read_export(tmp_path / "out")
    with pytest.raises(EverpinError, match="is not a finished export"):
        read_export(tmp_path)


def test_a_folder_that_is_there_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(sample(), tmp_path / "out")
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    with pytest.raises(EverpinError, match="there already; name a new folder"):
        export(FakeIndex(), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(EverpinError, match="there already"):
        export(FakeIndex(), tmp_path / "file")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")} == before


class Failing(FakeIndex):
    """An index whose second page never comes."""

    def page_of_points(self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False) -> Any:
        if cursor:
            raise self.failure
        points, _ = super().page_of_points(cursor, limit, newer_than, bare=bare)
        return points, "more"

    failure: BaseException = Unavailable("the index is gone")


@pytest.mark.parametrize("failure", [Unavailable("the index is gone"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    index = Failing()
    index.failure = failure
    put(index, "p", at(0))
    with pytest.raises(type(failure)):
        export(index, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def scripted(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run this in a process of its own, with the names of this module."""
    return subprocess.run(
        [sys.executable, "-c", f"from tests.unit.test_exports import *\nfolder = Path({str(folder)!r})\n{script}"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


KILLED = """
class Killed(FakeIndex):
    def page_of_points(self, cursor="", limit=1000, newer_than=0, bare=False):
        os._exit(9)
export(Killed(), folder / "out")
"""
CRAMPED = """
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    export(sample(3000), folder / "out")
except EverpinError as error:
    print(error)
"""
"""A file that cannot grow, as on a full disk."""


def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    assert scripted(KILLED, tmp_path).returncode == 9
    assert (tmp_path / "out.part/spill/00000.arrows").exists()
    (tmp_path / "out.part" / "left").write_text("")
    export(sample(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "pins"]


def test_two_exports_never_write_one_folder(tmp_path: Path) -> None:
    (tmp_path / "out.part").mkdir()
    handle = os.open(tmp_path / "out.part", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(EverpinError, match="another export is writing"):
        export(sample(), tmp_path / "out")
    os.close(handle)
    export(sample(), tmp_path / "out")


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    done = scripted(CRAMPED, tmp_path)
    assert re.search(r"cannot write .*out: .*File too large.*disk that has room", done.stdout), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_hold_the_vectors_is_refused_at_once(tmp_path: Path) -> None:
    class Huge(FakeIndex):
        def counts(self) -> dict[str, int]:
            return {"live": 10**15}

    with pytest.raises(EverpinError, match="MiB free, the vectors alone take"):
        export(Huge(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
