"""Labelling end to end with a fake teacher: what the shards hold, and what the command prints."""

import json
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)

from pins.text import render  # noqa: E402  # after the skip
from tests.training.label_toys import CHUNK, THROUGH, CountingTeacher, contents, job, write_data, write_log, write_sources  # noqa: E402
from training import label as command  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.label import label, read_labels  # noqa: E402
from training.labels.plan import Settings  # noqa: E402
from training.labels.queries import normalised  # noqa: E402
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
