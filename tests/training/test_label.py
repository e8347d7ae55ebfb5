"""Labelling end to end with a fake teacher: the shards, what a kill costs, what is refused, what the command prints."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)

from pins.text import render  # noqa: E402  # after the skip
from tests.training.label_toys import CountingTeacher, catalogue, job, write_data, write_log, write_sources  # noqa: E402
from training import label as command  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.label import label, read_labels  # noqa: E402
from training.labels.candidates import Mix  # noqa: E402
from training.labels.plan import Settings  # noqa: E402
from training.labels.queries import Wanted, normalised  # noqa: E402
from training.labels.shards import SCHEMA  # noqa: E402

CHUNK = Settings(per_query=8, shard_queries=16)
THROUGH = Settings(per_query=8, shard_queries=16, wanted=Wanted(through_english=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished folder of labels: 144 queries in 9 shards."""
    out = tmp_path_factory.mktemp("labels") / "labels"
    label(job(folder, CHUNK), CountingTeacher(), out)
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}


def test_shards_follow_the_contract(folder, finished):
    assert sorted(contents(finished)) == [f"labels-0000{number}.parquet" for number in range(9)] + ["labels.json"]
    table = pq.read_table(finished / "labels-00000.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.schema.field("levels").type == pa.list_(pa.float32(), 5)
    assert len(table) == 16 * 8
    about = json.loads((finished / "labels.json").read_text())
    assert {"teacher_id", "data_digest", "seed", "rows", "queries", "licence_classes", "config"} <= set(about)
    assert (about["teacher_id"], about["data_digest"], about["rows"], about["queries"]) == ("counting-1", read(folder).digest, 144 * 8, 144)


def test_labels_are_what_the_teacher_says(folder, finished):
    data, labels, teacher = read(folder), read_labels(finished), CountingTeacher()
    assert len(labels) == 144 * 8
    assert set(labels.source) == {"judged", "bm25", "index", "random"}
    assert {query.band for query in labels.queries} == {"head", "torso", "tail"}
    texts = [render(pin).text for pin in data.pins]
    pins = labels.pins(data)
    said = teacher.predict([labels.queries[place].text for place in labels.query], [texts[pin] for pin in pins])
    assert np.allclose(labels.levels, said, atol=1e-6)
    assert np.allclose(labels.grades, said @ np.arange(5), atol=1e-5)
    known = {query.query_id: query for query in data.queries}
    assert all((known[query.query_id].text, known[query.query_id].lang) == (query.text, query.lang) for query in labels.queries)
    assert [data.pins[pin].pin_id for pin in pins] == [labels.items[item] for item in labels.item]


def test_no_pair_twice_and_no_held_out_query(folder, finished):
    labels = read_labels(finished)
    assert len(set(zip(labels.query.tolist(), labels.item.tolist(), strict=True))) == len(labels)
    held_out = {normalised(query.text) for query in read(folder).queries if query.split != "train"}
    assert not held_out & {normalised(query.text) for query in labels.queries}


def test_judged_rows_are_ratings_of_train(folder, finished):
    data, labels = read(folder), read_labels(finished)
    train = data.pairs("train")
    allowed = {(data.queries[query].query_id, data.pins[pin].pin_id) for query, pin in zip(train.query, train.pin, strict=True)}
    judged = labels.where(labels.source == "judged")
    assert len(judged)
    assert {(judged.queries[query].query_id, judged.items[item]) for query, item in zip(judged.query, judged.item, strict=True)} <= allowed


def test_a_held_out_query_in_a_log_is_left_out_and_counted(folder, tmp_path, capsys):
    log = write_log(tmp_path / "log.parquet", [{"text": text, "lang": "en", "source": "weblog"} for text in ("One red CHAIR alone", "a blue day")])
    label(job(folder, CHUNK, logs=[log], classes={"weblog": "open"}), CountingTeacher(), tmp_path / "out")
    assert "1 left out because they equal a query outside the train split" in capsys.readouterr().out
    labels = read_labels(tmp_path / "out")
    assert {query.text for query in labels.queries if query.query_id is None} == {"a blue day"}
    assert labels.about["licence_classes"] == ["open"]
    assert labels.about["left_out"] == {"equal to a held-out query": 1}


def test_two_runs_give_the_same_bytes_and_another_seed_does_not(folder, finished, tmp_path):
    label(job(folder, CHUNK), CountingTeacher(), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(finished)
    label(job(folder, replace(CHUNK, seed=8)), CountingTeacher(), tmp_path / "other")
    assert read_labels(tmp_path / "other").item.tolist() != read_labels(finished).item.tolist()


def test_through_english_scores_a_text_once_for_all_its_languages(folder, tmp_path, capsys):
    teacher = CountingTeacher()
    done = label(job(folder, THROUGH), teacher, tmp_path / "out")
    labels = read_labels(tmp_path / "out")
    assert {text for text, _ in teacher.asked} <= {query.text for query in read(folder).queries if query.lang == "en"}
    assert {query.lang for query in labels.queries} == {"en", "de", "ja"}
    assert done.rows == len(labels)
    assert done.pairs == len(teacher.asked) < 0.5 * done.rows
    stated = labels.about["through_english"]
    assert (stated["queries"], stated["by_group"], stated["by_aligned_text"]) == (96, 96, 0)
    assert "another person's English query of the same group" in stated["meaning"]
    by = {}
    for row in range(len(labels)):
        query = labels.queries[labels.query[row]]
        by.setdefault((query.query_id.rstrip("adejn"), labels.items[labels.item[row]]), []).append(labels.levels[row].tolist())
    assert all(levels == [levels[0]] * len(levels) for levels in by.values())
    assert max(map(len, by.values())) == 3


def test_the_throughput_is_told(folder, tmp_path):
    done = label(job(folder, replace(CHUNK, limit=20)), CountingTeacher(), tmp_path / "out")
    assert done.rows == done.pairs == 160
    assert "160 rows written: 160 pairs scored in" in str(done)
    assert str(done).count("pairs/s") == 2


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # onnxruntime's import
def test_the_command(folder, tmp_path, monkeypatch, capsys):
    """With the student that ships as the index; the teacher's module is a stand-in."""
    module = ModuleType("training.teachers.teacher")
    module.open_teacher = lambda place: CountingTeacher()
    monkeypatch.setitem(sys.modules, "training.teachers.teacher", module)
    log = write_log(tmp_path / "log.parquet", [{"text": "a red day", "lang": "en", "source": "wiki"}, {"text": "closed", "lang": "en", "source": "papers"}])
    sources = write_sources(tmp_path / "sources.json")
    words = ["label", "--teacher", "t", "--data", str(folder), "--log", str(log), "--out", str(tmp_path / "out"), "--per-query", "8", "--limit", "200"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(DataError, match="--log needs --sources"):
        command.main()
    monkeypatch.setattr(sys, "argv", [*words, "--sources", str(sources), "--languages", "en"])
    command.main()
    said = capsys.readouterr().out
    assert "49 of 49 queries to label" in said
    assert "left out, licence class research: 1" in said
    assert "392 rows written: 392 pairs scored" in said
    assert "pairs/s" in said.splitlines()[-1]
    labels = read_labels(tmp_path / "out")
    assert labels.about["config"]["index"].startswith("everpin-l6-v1 ")
    assert labels.about["sources"] == {"toy": 48, "wiki": 1}
    monkeypatch.setattr(sys, "argv", [*words, "--sources", str(sources), "--index", str(tmp_path)])
    with pytest.raises(DataError, match="--index"):
        command.main()


@pytest.mark.parametrize("bad", [{"per_query": 0}, {"limit": 0}, {"shard_queries": -1}])
def test_settings_that_make_no_sense_are_refused(bad):
    with pytest.raises(DataError, match="give at least 1"):
        Settings(**bad)
