"""Runs in MLflow: parameters, metrics, files. In SQLite and a folder below `.everpin/mlflow` unless another server is named."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.data import DataError

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOME = Path(".everpin") / "mlflow"
EXPERIMENT = "everpin"
SQLITE = "sqlite:///"
LONGEST = 500
"""Characters of a parameter or tag that every MLflow server keeps."""


def local(uri: str | None) -> str:
    """The tracking URI that is meant: the SQLite file of this folder where none is given."""
    return uri or f"{SQLITE}{(HOME / 'mlflow.db').resolve()}"


def connect(uri: str | None = None) -> MlflowClient:
    """A client of an MLflow server, a `sqlite:///FILE` or, without a URI, the SQLite file of this folder. Raises DataError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reports its use over the network unless told not to
    from mlflow import MlflowClient  # noqa: PLC0415  slow to import, and only now told to keep quiet
    from mlflow.exceptions import MlflowException  # noqa: PLC0415

    where = local(uri)
    try:
        if where.startswith(SQLITE):
            Path(where.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(where, where)
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise DataError(f"--mlflow {where} does not answer: {error}; give sqlite:///FILE or the address of an MLflow server") from error
    return client


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run that is being written. Names that MLflow does not take are spelt out: `ndcg@20` becomes `ndcg_at_20`."""

    client: MlflowClient
    run_id: str

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested ones by path (`corpus.classes`)."""
        for name, value in flattened(values).items():
            self.client.log_param(self.run_id, spelt(name), str(value)[:LONGEST])

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Log every number, nested ones by path; what is no number is left out."""
        now = int(time.time() * 1000)
        for name, value in flattened(values).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self.client.log_metric(self.run_id, spelt(name), float(value), timestamp=now, step=step)

    def files(self, path: Path, inside: str | None = None) -> None:
        """Keep a file, or all files of a folder, with the run."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), inside)
        else:
            self.client.log_artifact(self.run_id, str(path), inside)


@contextmanager
def tracked(client: MlflowClient, name: str, tags: Mapping[str, Any] | None = None, experiment: str = EXPERIMENT) -> Iterator[TrackedRun]:
    """A run for the time of a block: finished when the block ends, failed or killed when it is left by an error."""
    run = client.create_run(_experiment(client, experiment), run_name=name, tags={spelt(key): str(value)[:LONGEST] for key, value in (tags or {}).items()})
    try:
        yield TrackedRun(client, run.info.run_id)
    except KeyboardInterrupt:
        client.set_terminated(run.info.run_id, "KILLED")
        raise
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id, "FINISHED")


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    where = str(client.tracking_uri)
    files = Path(where.removeprefix(SQLITE)).parent.resolve() / "artifacts" if where.startswith(SQLITE) else None
    return str(client.create_experiment(name, artifact_location=None if files is None else files.as_uri()))


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by points; lists and everything else are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{before}{name}"
        flat |= flattened(value, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def spelt(name: str) -> str:
    """A name as MLflow takes it: letters, digits, and `_ - . : / space`."""
    return re.sub(r"[^\w\-.:/ ]", "_", name.replace("@", "_at_").replace("+", "_or_more"), flags=re.ASCII)
