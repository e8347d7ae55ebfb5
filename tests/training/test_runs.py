"""Comparing the figures of two runs."""

import json
import sys

import pytest

from training.runs import compare

BODY = {"languages": {"en": {"ndcg": 0.91, "pairs": 12}}, "matrix": [[1, 2], [3, 4]], "model_id": "a", "none": None, "sure": True}


def run(monkeypatch, tmp_path, one, other):
    paths = [tmp_path / "one.json", tmp_path / "other.json"]
    for path, body in zip(paths, (one, other), strict=True):
        path.write_text(json.dumps(body))
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, paths)])
    compare.main()


def test_runs_with_the_same_figures_pass_whatever_they_are_called(monkeypatch, tmp_path, capsys):
    other = json.loads(json.dumps(BODY)) | {"model_id": "b"}
    other["languages"]["en"]["ndcg"] += 9e-5
    run(monkeypatch, tmp_path, BODY, other)
    assert capsys.readouterr().out == "6 numbers are the same to 0.0001\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": {"en": {"ndcg": 0.9102, "pairs": 12}}}, "/languages/en/ndcg: 0.91 and 0.9102"),
        ({"languages": {"en": {"ndcg": 0.91}}}, "/languages/en/pairs is only in the first"),
        ({"matrix": [[1, 2]]}, "/matrix has 2 and 1 rows"),
        ({"matrix": [[1, 2], [3, 9]]}, "/matrix/1/1: 4 and 9"),
        ({"none": 1.0}, "/none: None and 1.0"),
    ],
)
def test_a_figure_that_differs_is_named(monkeypatch, tmp_path, change, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, tmp_path, BODY, BODY | change)


def test_documents_without_a_number_are_no_evidence(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="holds no number"):
        run(monkeypatch, tmp_path, {}, {})
