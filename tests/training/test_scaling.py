"""The scaling curve: nested whole-query subsets, intervals, the report and the plot; training is a fake."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)
pytest.importorskip("matplotlib", reason=REASON)

from tests.training.label_toys import CountingTeacher, job, write_data  # noqa: E402  # after the skip
from training import scaling  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.label import label, read_labels  # noqa: E402
from training.labels.plan import Settings  # noqa: E402
from training.measures.quality import Figure  # noqa: E402
from training.measures.scorers import Scored  # noqa: E402
from training.scaling import curve, first_labels, measure_name, on_dev  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # matplotlib's own imports


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def labelled(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("labels") / "labels"
    label(job(folder, Settings(per_query=8, shard_queries=16)), CountingTeacher(), out)
    return out


@pytest.fixture(scope="module")
def labels(labelled):
    return read_labels(labelled)


@pytest.mark.parametrize(("most", "rows"), [(1, 8), (8, 8), (15, 8), (80, 80), (87, 80), (1152, 1152), (9999, 1152)])
def test_a_point_holds_whole_queries(labels, most, rows):
    assert len(first_labels(labels, most)) == rows


def test_points_are_nested_and_hold_a_mixture_of_languages(labels):
    small, large = first_labels(labels, 160), first_labels(labels, 320)
    assert small.query.tolist() == large.query[:160].tolist()
    assert {labels.queries[query].lang for query in small.query} == {"en", "de", "ja"}


def figure(value):
    """A figure whose bootstrap samples wander by 0.1 together with those of every other."""
    return Figure(value, value + np.random.default_rng(0).normal(0, 0.1, 1000) + np.random.default_rng(1).normal(0, 0.001, 1000) * value)


def test_a_curve_rises_with_intervals_and_paired_gains(labels, tmp_path):
    quality = {104: 0.5, 200: 0.6, 400: 0.65, 800: 0.65}
    heard, fitted = [], []

    def fit(some):
        fitted.append(len(some))
        return tmp_path / str(len(some))

    points = curve(labels, list(quality), fit, lambda student: {"english": figure(quality[int(student.name)])}, lambda done: heard.append(len(done)))
    assert fitted == list(quality)
    assert heard == [1, 2, 3, 4]
    assert [(point["labels"], point["queries"]) for point in points] == [(104, 13), (200, 25), (400, 50), (800, 100)]
    for point in points:
        value = point["measures"]["english"]
        assert value["low"] < value["mean"] < value["high"]
    first, *later = (point["gain"] for point in points)
    assert first == {}
    assert [gain["english"]["mean"] for gain in later] == pytest.approx([0.1, 0.05, 0.0])
    width = points[1]["measures"]["english"]["high"] - points[1]["measures"]["english"]["low"]
    assert later[0]["english"]["high"] - later[0]["english"]["low"] < 0.01 * width, "what both share must cancel in a paired difference"
    assert later[0]["english"]["p"] < 0.01


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([8, 16, 24], "at least 4"),
        ([8, 16, 16, 24], "at least 4"),
        ([32, 16, 8, 64], "smallest first"),
        ([0, 8, 16, 24], "at least 4"),
        ([8, 16, 24, 2000], "holds 1152"),
    ],
)
def test_points_that_make_no_curve_are_refused(labels, points, told):
    with pytest.raises(DataError, match=told):
        curve(labels, points, lambda some: pytest.fail("trained"), lambda student: {}, lambda done: None)


def test_the_dev_split_is_measured(folder):
    figures = on_dev(read(folder), seed=7)("bm25")
    assert {"english", "others", "de", "english recall@100", "english spearman"} <= set(figures)
    assert figures["english"].value > figures["others"].value
    low, high = figures["english"].interval().low, figures["english"].interval().high
    assert low < figures["english"].value < high


@pytest.fixture
def trained(monkeypatch):
    """A stand-in for training.train_student and for its scorer: students that score better the more labels they saw."""
    pytest.importorskip("sentence_transformers", reason=REASON)
    monkeypatch.setattr(scaling, "SAMPLES", 50)
    calls = []

    def train(config, data_home, folder, out, work, labels, seed):
        assert (data_home / folder.name, out.name, seed) == (folder, config.model_id, 7)
        calls.append((len(labels), work))
        out.mkdir(parents=True)
        (out / "student.json").write_text(json.dumps({"labels": len(labels)}))

    module = ModuleType("training.train_student")
    module.train = train
    monkeypatch.setitem(sys.modules, "training.train_student", module)

    class Scorer:
        def __init__(self, student, langs):
            self.model_id, self.lineage = student.name, {}
            self.noise = 1 if student.name == "base" else 100 / json.loads((student / "student.json").read_text())["labels"]

        def score(self, queries, texts, pairs):
            values = pairs.grade + 4 * self.noise * np.random.default_rng(0).normal(size=len(pairs))
            return Scored(values, None)

    monkeypatch.setattr(scaling, "open_scorer", Scorer)
    return calls


def test_the_command_writes_a_report_and_a_plot_and_keeps_students(folder, labelled, tmp_path, monkeypatch, capsys, trained):
    config, out = tmp_path / "six-layers.toml", tmp_path / "reports" / "scaling.json"
    config.write_text('model_id = "six"\nlayers = 6\n')
    words = ["scaling", "--labels", str(labelled), "--data", str(folder), "--config", str(config), "--out", str(out), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", [*words, "--points", "100,200,400,1100", "--beside", str(tmp_path / "base")])
    scaling.main()
    body = json.loads(out.read_text())
    assert [point["labels"] for point in body["points"]] == [96, 200, 400, 1096]
    means = [point["measures"]["english"]["mean"] for point in body["points"]]
    assert means == sorted(means)
    assert (body["student"], body["teacher_id"], body["data_digest"], body["seed"]) == ("six-layers", "counting-1", read(folder).digest, 7)
    assert set(body["beside"]) == {"base"}
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "1096 labels: english 0.9" in capsys.readouterr().out
    monkeypatch.setattr(scaling, "draw", lambda path, body: None)
    scaling.main()
    assert len(trained) == 4, "a student that was there was trained again"
    config.write_text('model_id = "six"\nlayers = 3\n')
    scaling.main()
    assert len(trained) == 8, "students of another configuration were taken"
    assert {work for _, work in trained} == {tmp_path / "work" / "shared"}
    assert len(list((tmp_path / "work").iterdir())) == 8


def test_the_page_of_an_evaluation_can_draw_the_report():
    def value(mean):
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}

    points = [{"labels": 10**place, "measures": {name: value(0.8 + place / 100) for name in ("english", "others")}} for place in range(2, 6)]
    from training.measures.report import _scaling

    assert {measure_name("en", "ndcg@20"), measure_name("mean_other", "ndcg@20")} == {"english", "others"}
    drawn = _scaling({"points": points, "beside": {"base": {"english": value(0.92)}}})
    assert all(label in drawn for label in ("English", "mean other", "base"))


def test_a_student_that_learns_nothing_from_labels_is_refused(folder, labelled, tmp_path, monkeypatch, trained):
    config = tmp_path / "static.toml"
    config.write_text('model_id = "table"\nkind = "static"\nrelevance = "none"\n')
    words = ["scaling", "--labels", str(labelled), "--data", str(folder), "--config", str(config), "--out", "o.json", "--work", "w"]
    monkeypatch.setattr(sys, "argv", [*words, "--points", "100,200,400,1100"])
    with pytest.raises(DataError, match=r"relevance 'none' learns nothing from labels"):
        scaling.main()


def test_labels_of_other_data_are_refused(labelled, tmp_path, monkeypatch):
    other = write_data(tmp_path / "toy", dev_every=6)
    monkeypatch.setattr(sys, "argv", ["scaling", "--labels", str(labelled), "--data", str(other), "--config", "c", "--out", "o.json", "--work", "w"])
    with pytest.raises(DataError, match="label that folder anew"):
        scaling.main()
