"""Runs in MLflow on a SQLite file: what is logged can be read back, runs end as they ended, nothing leaves the machine."""

import os

import pytest

pytest.importorskip("mlflow", reason="needs the training extra: make training")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of MLflow's own modules

from training.data import DataError  # noqa: E402  after the skip
from training.exports.tracking import connect, flattened, local, spelt, tracked  # noqa: E402


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Making the tables takes seconds: one file for all tests."""
    return connect(f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'home' / 'mlflow.db'}")


def test_parameters_metrics_and_files_are_kept(client, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "page.html").write_text("<p>")
    (tmp_path / "note.txt").write_text("note")
    with tracked(client, "one", {"teacher": "t1"}) as run:
        run.params({"lr": 1e-4, "corpus": {"classes": ["open", "sa"]}, "long": "x" * 9000})
        run.metrics({"ndcg@20": 0.9, "dev": {"auroc@2+": 0.8}, "kind": "student", "on": True}, step=3)
        run.files(tmp_path / "note.txt")
        run.files(tmp_path / "report", "report")
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"lr": "0.0001", "corpus.classes": "['open', 'sa']", "long": "x" * 500}
    assert found.data.metrics == {"ndcg_at_20": 0.9, "dev.auroc_at_2_or_more": 0.8}
    assert found.data.tags["teacher"] == "t1"
    assert {entry.path for entry in client.list_artifacts(run.run_id)} == {"note.txt", "report"}


def test_files_lie_beside_the_sqlite_file(client):
    with tracked(client, "where") as run:
        pass
    home = local(client.tracking_uri).removeprefix("sqlite:///").rsplit("/", 1)[0]
    assert client.get_run(run.run_id).info.artifact_uri.startswith(f"file://{home}/artifacts/")


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")])
def test_a_run_that_breaks_off_says_so(client, error, status):
    with pytest.raises(error), tracked(client, "broken") as run:
        raise error
    assert client.get_run(run.run_id).info.status == status


def test_no_use_is_reported_over_the_network(client):
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_default_is_a_file_of_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert local(None) == f"sqlite:///{tmp_path}/.everpin/mlflow/mlflow.db"
    assert local("http://mlflow:5000") == "http://mlflow:5000"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="does not answer"):
        connect(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")


SPELT = [("ndcg@20", "ndcg_at_20"), ("auroc@2+", "auroc_at_2_or_more"), ("a.b/c-d e:f", "a.b/c-d e:f"), ("größe", "gr__e")]


@pytest.mark.parametrize(("name", "expected"), SPELT)
def test_names_are_spelt_as_mlflow_takes_them(name, expected):
    assert spelt(name) == expected


def test_nested_values_are_named_by_their_path():
    assert flattened({"a": {"b": {"c": 1}, "d": [1, 2]}, "e": {}}) == {"a.b.c": 1, "a.d": [1, 2]}
