"""`python -m training.evaluate`: what it prints, compares, judges and writes, and what it refuses."""

import json
import sys
from types import SimpleNamespace

import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)
matplotlib = pytest.importorskip("matplotlib", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib's own imports

from pins.errors import Unembeddable  # noqa: E402
from pins.text import render  # noqa: E402
from tests.training.evaluate_toys import run, student  # noqa: E402
from tests.training.label_toys import CountingTeacher, encode, write_data  # noqa: E402
from training import evaluate  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.evaluate import main  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def teacher(tmp_path, monkeypatch):
    made = tmp_path / "teacher"
    made.mkdir()
    (made / "teacher.json").write_text(json.dumps({"teacher_id": "counting-1"}))
    monkeypatch.setitem(sys.modules, "training.teachers.teacher", SimpleNamespace(open_teacher=lambda folder: CountingTeacher()))
    return made


def test_the_command_measures_compares_and_judges(folder, teacher, capsys):
    found = run(capsys, teacher, "--data", folder, "--baseline", "bm25", "--teacher", teacher, "--samples", 100)
    assert found["model_id"] == "counting-1"
    assert found["data"]["split"] == "dev"
    assert found["bootstrap"] == {"samples": 100, "seed": 7, "unit": "group"}
    assert found["baseline"]["model_id"] == "bm25"
    assert found["baseline"]["difference"]["languages"]["en"].keys() >= {"ndcg@20", "spearman"}
    assert set(found["judge"]["languages"]) == {"en", "de", "ja"}
    assert found["judge"]["teacher_id"] == "counting-1"
    assert found["judge"]["languages"]["en"]["kendall_tau"]["sdcg@25"]["mean"] > -1
    assert (found["judge"]["languages"]["ja"]["queries"], found["judge"]["languages"]["ja"]["kendall_tau"]) == (0, {}), "it labels every Japanese pair 0"
    assert found["judge"]["languages"]["ja"]["exact"]["mean"] < 0.5


def test_two_runs_print_the_same_and_another_seed_other_intervals(folder, capsys):
    first, again, other = (run(capsys, "bm25", "--data", folder, "--seed", seed) for seed in (7, 7, 8))
    assert first == again
    assert first["languages"]["en"]["ndcg@20"]["mean"] == other["languages"]["en"]["ndcg@20"]["mean"]
    assert first["languages"]["en"]["ndcg@20"] != other["languages"]["en"]["ndcg@20"]


def test_languages_and_splits_are_chosen(folder, capsys):
    found = run(capsys, "bm25", "--data", folder, "--languages", "de,ja", "--split", "all", "--no-search")
    assert set(found["languages"]) == {"de", "ja"}
    assert found["data"]["pairs"] == 2 * 60 * 6
    assert "recall@100" not in found["languages"]["de"]


def test_people_get_tables(folder, teacher, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main([str(teacher), "--data", str(folder), "--baseline", "bm25", "--teacher", str(teacher)])
    said = capsys.readouterr().out
    for part in (
        "counting-1, ranking, own pin included",
        "counting-1, levels, own pin left out",
        "counting-1 minus bm25",
        "mean_other",
        "Kendall tau",
        " p 0.",
    ):
        assert part in said


def test_people_are_told_why_there_are_no_levels(folder, capsys):
    main(["bm25", "--data", str(folder)])
    assert "No level metrics: bm25 gives scores and no levels." in capsys.readouterr().out


def test_an_index_that_lacks_judged_pins_is_measured_and_ends_with_an_error(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "open_scorer", lambda *model, **how: student())
    pins = read(folder).pins[:10]
    rows = [{"pin_id": pin.pin_id, "model_id": "words-v1", "vector": encode([render(pin).text])[0].tolist()} for pin in pins]
    (tmp_path / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(SystemExit) as stopped:
        main(["words", "--data", str(folder), "--vectors", str(tmp_path / "index.jsonl"), "--json"])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["missing_pins"] > 0
    assert "judged pins have no vector and ranked last" in said.err


def test_a_report_is_written_on_demand(folder, tmp_path, capsys):
    main(["bm25", "--data", str(folder), "--json", "--report", str(tmp_path / "out")])
    assert json.loads(capsys.readouterr().out)["model_id"] == "bm25"
    assert (tmp_path / "out/report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "test"], "has no split 'test'; it has dev, train and all"),
        (["--languages", "fr"], "no judgement in"),
        (["--samples", "10"], "at least 100 bootstrap samples"),
        (["--scaling", "curve.json"], "say where with --report"),
        (["--levels", "3"], "off the scale"),
        (["--vectors", "index.jsonl"], "bm25 makes no vectors"),
        (["--baseline", "nowhere"], "nowhere is no model"),
    ],
)
def test_a_wrong_command_is_refused_with_a_reason(folder, arguments, said):
    with pytest.raises(DataError, match=said):
        main(["bm25", "--data", str(folder), *arguments])


def test_a_text_that_the_student_refuses_ends_without_a_traceback(folder, monkeypatch):
    def refuse(texts):
        raise Unembeddable("encoder_error", "words-v1 refused 3 texts")

    monkeypatch.setattr(evaluate, "open_scorer", lambda *model, **how: student(refuse))
    with pytest.raises(DataError, match="words-v1 refused 3 texts"):
        main(["words", "--data", str(folder)])


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"items\.parquet does not exist"):
        main(["bm25", "--data", str(tmp_path)])
