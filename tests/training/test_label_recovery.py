"""Labelling on a bad day: kills, full disks, other settings, damaged folders."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)

from tests.training.label_toys import CHUNK, THROUGH, CountingTeacher, catalogue, contents, job, write_data, write_log  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.label import label, read_labels  # noqa: E402
from training.labels.candidates import Mix  # noqa: E402
from training.labels.queries import Wanted  # noqa: E402
from training.labels.shards import SCHEMA  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished folder of labels: 144 queries in 9 shards."""
    out = tmp_path_factory.mktemp("labels") / "labels"
    label(job(folder, CHUNK), CountingTeacher(), out)
    return out


KILLED = """
import sys
from pathlib import Path
import pyarrow.parquet as pq
from tests.training.label_toys import CountingTeacher, job
from training.labels import shards as label_shards
from training.label import label
from training.labels.plan import Settings

where, data, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
write, calls = pq.write_table, []

def wait():
    print("now", flush=True)
    sys.stdin.read()

class Slow(CountingTeacher):
    def predict(self, queries, texts, progress=True):
        calls.append(1)
        if where == "scoring" and len(calls) == 4:
            wait()
        return super().predict(queries, texts, progress)

def half(table, path, **how):
    write(table, path, **how)
    if where == "writing" and len(calls) == 4:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        wait()

label_shards.pq.write_table = half
label(job(data, Settings(per_query=8, shard_queries=16)), Slow(), out)
"""


@pytest.mark.parametrize("where", ["scoring", "writing"])
def test_a_killed_run_continues_to_the_same_labels(folder, finished, tmp_path, where):
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", KILLED, where, str(folder), str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "now\n" in iter(process.stdout.readline, "")  # ends with the process, should it fail before
        process.kill()
    assert process.returncode == -9
    assert len(list(out.glob("labels-*.parquet"))) == 3
    with pytest.raises(DataError, match="3 of 9 shards"):
        read_labels(out)
    assert len(read_labels(out, unfinished=True)) == 3 * 16 * 8
    teacher = CountingTeacher()
    assert label(job(folder, CHUNK), teacher, out).rows == 6 * 16 * 8
    assert len(teacher.asked) == 6 * 16 * 8, "a finished shard was scored again"
    assert contents(out) == contents(finished)


def test_a_finished_folder_is_not_scored_again(folder, finished, capsys):
    teacher = CountingTeacher()
    before = contents(finished)
    assert label(job(folder, CHUNK), teacher, finished).rows == 0
    assert not teacher.asked
    assert contents(finished) == before
    assert "9 shards with 1152 rows are there" in capsys.readouterr().out


def test_a_shard_that_was_written_but_not_counted_is_kept(folder, finished, tmp_path):
    """A kill between the two renames: labels.json counts one shard less than there is."""
    out = tmp_path / "out"
    out.mkdir()
    for name, body in contents(finished).items():
        if name <= "labels-00004.parquet" or name == "labels.json":
            (out / name).write_bytes(body)
    about = json.loads((out / "labels.json").read_text())
    (out / "labels.json").write_text(json.dumps(about | {"shards": 4, "rows": 512, "queries": 64}))
    assert len(read_labels(out, unfinished=True)) == 512
    teacher = CountingTeacher()
    label(job(folder, CHUNK), teacher, out)
    assert len(teacher.asked) == 4 * 16 * 8
    assert contents(out) == contents(finished)


def test_another_teacher_is_refused_by_name(folder, finished):
    teacher = CountingTeacher()
    teacher.teacher_id = "counting-2"
    before = contents(finished)
    with pytest.raises(DataError, match="teacher_id: 'counting-1' there, 'counting-2' now"):
        label(job(folder, CHUNK), teacher, finished)
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (replace(CHUNK, per_query=9), "config.per_query: 8 there, 9 now"),
        (replace(CHUNK, seed=8), "seed: 7 there, 8 now"),
        (replace(CHUNK, limit=100), "config.limit: None there, 100 now"),
        (replace(CHUNK, wanted=Wanted(languages=("en",))), r"config.languages: None there, \['en'\] now"),
        (THROUGH, "config.through_english: False there, True now"),
    ],
)
def test_other_settings_are_refused_by_name(folder, finished, settings, told):
    with pytest.raises(DataError, match=told):
        label(job(folder, settings), CountingTeacher(), finished)


def test_another_mix_log_or_index_is_refused_by_name(folder, finished, tmp_path):
    log = write_log(tmp_path / "log.parquet", [{"text": "a day", "lang": "en", "source": "weblog"}])
    data = read(folder)
    same = job(folder, CHUNK)
    for other, told in (
        (replace(same, catalogue=catalogue(data, Mix(judged=1))), "config.mix.judged: 12 there, 1 now"),
        (replace(same, logs=[log], classes={"weblog": "open"}), "config.logs.log.parquet: None there"),
        (replace(same, index="other words"), "config.index: 'words' there, 'other words' now"),
    ):
        with pytest.raises(DataError, match=told):
            label(other, CountingTeacher(), finished)


def test_other_data_is_refused_by_name(finished, tmp_path):
    other = write_data(tmp_path / "toy", dev_every=6)
    with pytest.raises(DataError, match="data_digest: "):
        label(job(other, CHUNK), CountingTeacher(), finished)


def test_one_run_at_a_time(folder, tmp_path):
    class Second(CountingTeacher):
        def predict(self, queries, texts, progress=True):
            with pytest.raises(DataError, match="another run is writing"):
                label(job(folder, CHUNK), CountingTeacher(), tmp_path / "out")
            return super().predict(queries, texts, progress)

    label(job(folder, replace(CHUNK, limit=8)), Second(), tmp_path / "out")
    assert len(read_labels(tmp_path / "out")) == 64


def test_a_full_disk_is_told_and_leaves_nothing_half_written(folder, finished, tmp_path, monkeypatch):
    write, out, calls = pq.write_table, tmp_path / "out", []

    def full(table, path, **how):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"PAR1 and then nothing")
            raise OSError(28, "No space left on device")
        write(table, path, **how)

    monkeypatch.setattr("training.labels.shards.pq.write_table", full)
    with pytest.raises(DataError, match=r"no space is left for .*finished shards are whole: free some space"):
        label(job(folder, CHUNK), CountingTeacher(), out)
    assert sorted(contents(out)) == ["labels-00000.parquet", "labels-00001.parquet", "labels.json"]
    assert len(read_labels(out, unfinished=True)) == 2 * 16 * 8
    monkeypatch.setattr("training.labels.shards.pq.write_table", write)
    label(job(folder, CHUNK), CountingTeacher(), out)
    assert contents(out) == contents(finished)


def test_a_full_disk_at_labels_json_is_told(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(path, body):
        path.with_name(f".{path.name}.new").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.labels.shards.write_json", full)
    with pytest.raises(DataError, match="no space is left"):
        label(job(folder, CHUNK), CountingTeacher(), out)
    assert not contents(out)


def test_an_out_folder_that_cannot_be_written_is_told(folder, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        label(job(folder, CHUNK), CountingTeacher(), tmp_path / "out")


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (lambda rows: np.full((rows, 5), np.nan), "no distributions"),
        (lambda rows: np.full((rows, 5), 0.3), "adds up to 1.5"),
        (lambda rows: np.tile([1.2, -0.2, 0, 0, 0], (rows, 1)), "no distributions"),
        (lambda rows: np.full((rows, 4), 0.25), "shape"),
        (lambda rows: np.full((rows - 1, 5), 0.2), "rows for"),
    ],
)
def test_a_teacher_that_gives_no_distributions_is_stopped(folder, tmp_path, levels, told):
    class Broken(CountingTeacher):
        def predict(self, queries, texts, progress=True):
            return levels(len(queries))

    with pytest.raises(DataError, match=told):
        label(job(folder, CHUNK), Broken(), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.parquet"))


def damaged(finished, out, change):
    out.mkdir()
    for name, body in contents(finished).items():
        (out / name).write_bytes(body)
    change(out)
    return out


def rewrite(**changes):
    def change(out):
        about = json.loads((out / "labels.json").read_text())
        (out / "labels.json").write_text(json.dumps({key: value for key, value in (about | changes).items() if value is not ...}))

    return change


def scale_levels(out):
    table = pq.read_table(out / "labels-00003.parquet")
    levels = table["levels"].combine_chunks().flatten().to_numpy() * 1.1
    column = pa.FixedSizeListArray.from_arrays(pa.array(levels.astype(np.float32)), 5)
    pq.write_table(table.set_column(4, SCHEMA.field("levels"), column), out / "labels-00003.parquet")


def cut_shard(out):
    (out / "labels-00003.parquet").write_bytes((out / "labels-00003.parquet").read_bytes()[:100])


def other_columns(out):
    pq.write_table(pa.table({"query": ["one"]}), out / "labels-00003.parquet")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rewrite(teacher_id=None), "labels of teacher None"),
        (rewrite(teacher_id=...), "lacks teacher_id"),
        (rewrite(rows=1), "hold 1152 rows, labels.json says 1"),
        (rewrite(queries=1), "hold 144 queries, labels.json says 1"),
        (scale_levels, "row 384 .* adds up to 1.1"),
        (cut_shard, "labels-00003.parquet cannot be read"),
        (other_columns, "no shard of labels"),
        (lambda out: (out / "labels-00003.parquet").unlink(), "labels-00003.parquet cannot be read"),
        (lambda out: (out / "labels.json").write_text("{"), "is not JSON"),
        (lambda out: (out / "labels.json").unlink(), "made by python -m training.label"),
    ],
)
def test_damaged_labels_are_refused(finished, tmp_path, change, told):
    with pytest.raises(DataError, match=told):
        read_labels(damaged(finished, tmp_path / "out", change))


def test_labels_of_another_teacher_or_for_other_data_are_refused(finished, tmp_path):
    with pytest.raises(DataError, match="'counting-1', wanted are those of 'another'"):
        read_labels(finished, teacher_id="another")
    with pytest.raises(DataError, match="label that folder anew"):
        read_labels(finished, teacher_id="counting-1").pins(read(write_data(tmp_path / "toy", dev_every=6)))
