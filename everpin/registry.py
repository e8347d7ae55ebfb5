"""The model registry: published students as versions of one registered model in MLflow, with what each was made from.

In SQLite below EVERPIN_HOME, where a version's source is the published folder itself, or on any MLflow server (EVERPIN_REGISTRY), which gets the
files too. Nothing that serves or embeds reads it: those find folders by `everpin.model_folders`. MLflow comes with the extra `registry`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedder.artifact import MODEL
from everpin.figures import Figures
from everpin.gate import Line
from everpin.settings import Settings
from pins.errors import ArtifactError, Unavailable
from pins.manifest import Manifest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = "everpin-published"
"""The registered model whose versions are the published students."""
EXPERIMENT = "everpin-publish"
SQLITE = "sqlite:"
LONGEST = 500
"""Characters of a tag or parameter that every MLflow server keeps."""
PUBLISHING, PUBLISHED = "publishing", "published"
"""The tag `status` of a version: made, but its folder is not in place yet; and published."""


@dataclass(frozen=True, slots=True)
class Registered:
    """One version. `tags` hold its lineage, its digest and what the gate said, each by name."""

    version: str
    source: str
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the folder's content."""
        return self.tags.get("digest", "")

    @property
    def published(self) -> bool:
        """Whether its publication came to its end."""
        return self.tags.get("status") == PUBLISHED


@dataclass(frozen=True, slots=True)
class Entry:
    """What a version is made of. `folder` holds the files now, `place` is where they will be; `forced` is the reason given against the gate."""

    manifest: Manifest
    digest: str
    folder: Path
    place: Path
    gate: Sequence[Line]
    forced: str
    figures: Figures | None


class Registry:
    """The versions in one MLflow registry."""

    def __init__(self, client: MlflowClient, uri: str, home: Path) -> None:
        self._client, self._home, self.uri = client, home, uri

    def versions(self, model_id: str) -> list[Registered]:
        """The versions of a model id, oldest first: at most one is published, others are what a killed publication left. Raises Unavailable."""
        with self._answering():
            found = self._client.search_model_versions(f"name = '{NAME}' and tags.model_id = '{model_id}'")
            return [_registered(version) for version in sorted(found, key=lambda version: int(version.version))]

    def register(self, entry: Entry) -> Registered:
        """Make a version, not published yet. Raises Unavailable."""
        tags = lineage_tags(entry.manifest) | _gate_tags(entry) | {"digest": entry.digest, "status": PUBLISHING}
        with self._answering():
            if not self._client.search_registered_models(f"name = '{NAME}'"):
                self._client.create_registered_model(NAME, description="Students that everpin model publish verified and let through its gate.")
            run = self._client.create_run(self._experiment(), run_name=f"publish {entry.manifest.model_id}", tags=tags)
            self._log(run.info.run_id, entry)
            source = entry.place.as_uri()
            if not self._local:
                self._client.log_artifacts(run.info.run_id, str(entry.folder), "model")
                source = f"{run.info.artifact_uri}/model"
            self._client.set_terminated(run.info.run_id)
            return _registered(self._client.create_model_version(NAME, source, run.info.run_id, tags=tags, description=_sentence(entry.manifest)))

    def finish(self, version: Registered, gate: Mapping[str, str] | None = None) -> None:
        """Call a version published. Raises Unavailable."""
        with self._answering():
            for name, value in ({**(gate or {}), "status": PUBLISHED}).items():
                self._client.set_model_version_tag(NAME, version.version, name, value)

    @property
    def _local(self) -> bool:
        return self.uri.startswith(SQLITE)

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=(self._home / "artifacts").as_uri() if self._local else None))

    def _log(self, run_id: str, entry: Entry) -> None:
        now, manifest = int(time.time() * 1000), entry.manifest
        for name in ("precision", "dimension", "max_tokens", "pooling"):
            self._client.log_param(run_id, name, getattr(manifest, name))
        gate = {f"gate.{line.name}": line.value for line in entry.gate if isinstance(line.value, float)}
        for name, value in (dict(manifest.metrics) | gate).items():
            self._client.log_metric(run_id, spelt(name), float(value), timestamp=now)
        self._client.log_text(run_id, json.dumps([asdict(line) for line in entry.gate], indent=2), "gate.json")
        if entry.figures is not None:
            self._client.log_text(run_id, json.dumps(entry.figures.as_json(), indent=2), "evaluation.json")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415  slow to import; loaded when this object was made

        try:
            yield
        except (MlflowException, OSError) as error:
            raise Unavailable(f"the model registry {self.uri} does not answer: {error}; check EVERPIN_REGISTRY, then run it again") from error


def open_registry(config: Settings) -> Registry:
    """The registry that the settings name; made where it is SQLite and not there yet. Raises ArtifactError without MLflow, and Unavailable."""
    for name, value in (("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_LOGGING_LEVEL", "WARNING"), ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")):
        os.environ.setdefault(name, value)  # MLflow reports its use over the network, and waits minutes for a dead server, unless told otherwise
    try:
        from mlflow import MlflowClient  # noqa: PLC0415  an optional extra, and slow to import
    except ImportError as error:
        raise ArtifactError(f"the model registry needs MLflow ({error}): pip install 'everpin[registry]'") from error
    logging.getLogger("alembic").setLevel(logging.WARNING)
    home = config.registry_home.resolve()
    uri = config.registry or f"{SQLITE}///{home / 'mlflow.db'}"
    if not config.registry:
        home.mkdir(parents=True, exist_ok=True)
    with _opening(uri):
        registry = Registry(MlflowClient(uri, uri), uri, home)
        registry.versions("none")
    return registry


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  as above

    try:
        yield
    except (MlflowException, OSError, ImportError) as error:
        raise Unavailable(f"the model registry {uri} cannot be opened: {error}; EVERPIN_REGISTRY must be an MLflow server or sqlite:///FILE") from error


def lineage(manifest: Manifest) -> dict[str, Any]:
    """What a student was made from: teacher, labels and data behind it, by name."""
    known = manifest.lineage
    body: dict[str, Any] = {"teacher": manifest.teacher or "none", "weights_digest": manifest.data_digest, "source": manifest.source}
    if known is not None:
        body |= {"labels": known.labels if known.labels is not None else "none", "data": dict(known.data_digests)}
        body |= {"licence_classes": ",".join(known.licence_classes), "seed": dict(known.seeds), "code_version": known.code_version}
    return body


def lineage_tags(manifest: Manifest) -> dict[str, str]:
    """The lineage and what the version is, as flat tags of at most LONGEST characters: `labels.teacher_id`, `data.cxc_pins`."""
    said = {"model_id": manifest.model_id, "sha256": manifest.files[MODEL], "languages": ",".join(manifest.languages)}
    said |= {"template_version": str(manifest.template_version)}
    return said | {spelt(name): str(value)[:LONGEST] for name, value in _flat(lineage(manifest)).items()}


def gate_tags(gate: Sequence[Line], forced: str) -> dict[str, str]:
    """What the gate said, as tags."""
    failed = [line.name for line in gate if not line.passed]
    said = {"gate": "passed" if not failed else "forced", "gate_failed": ", ".join(failed)[:LONGEST]}
    return said | ({"forced": forced[:LONGEST]} if failed else {})


def _gate_tags(entry: Entry) -> dict[str, str]:
    return gate_tags(entry.gate, entry.forced)


def _registered(version: ModelVersion) -> Registered:
    return Registered(str(version.version), str(version.source), dict(version.tags))


def _sentence(manifest: Manifest) -> str:
    return f"{manifest.model_id}: {manifest.precision}, {manifest.dimension} dimensions, {', '.join(manifest.languages)}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def spelt(name: str) -> str:
    """A name as MLflow takes it: letters, digits, and `_ - . : / space`."""
    return re.sub(r"[^\w\-.:/ ]", "_", name.replace("@", "_at_").replace("+", "_or_more"), flags=re.ASCII)
