"""Publish a model folder: a card, an immutable version in MLflow's registry, and the alias `default` if it wins on dev.

A version is never changed: the same folder again is the version that is there, other weights under a known model id are refused.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedder.artifact import MANIFEST, MODEL, open_artifact
from embedder.onnx import OnnxEncoder
from pins.errors import ArtifactError
from pins.manifest import Manifest
from training.data import DataError
from training.exports.model_card import write_card
from training.exports.tracking import LONGEST, TrackedRun, connect, flattened, local, tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REGISTRY = "everpin-student"
"""Name of the registered model whose versions are the published students."""
DEFAULT = "default"
"""Alias of the version that new installations should run."""
MAIN, METRIC = "en", "ndcg@20"
LOSS_ALLOWED = 0.005
"""Most nDCG@20 in English that a student may lose on average, where the loss is no more than chance: half a step of the noise in the grades."""
MEGABYTES = 30.0
"""Largest model.onnx that a default student may have."""
TRAINABLE = {"open", "sa"}
"""Licence classes that a published student may have been trained on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a student should replace the default, and why (not)."""

    wins: bool
    reasons: tuple[str, ...]


def wins(new: Mapping[str, Any], old: Mapping[str, Any]) -> Verdict:
    """Compare two evaluations (`training.evaluate --json`) of the same split of the same data, by nDCG@20.

    English must not be lost: no loss beyond chance, and none above LOSS_ALLOWED on average. And something must be gained beyond chance:
    English, or the mean over the other languages. Differences are those of `new` to its baseline where that is `old` (paired, by
    group); else intervals must not touch.
    """
    for key in ("folder", "digest", "split"):
        if new["data"][key] != old["data"][key]:
            raise DataError(f"the evaluations are of different data ({key}: {new['data'][key]} and {old['data'][key]}); evaluate both on one split")
    reasons, lost, gained = [], False, False
    for name, key in (("English", MAIN), ("the other languages", "mean_other")):
        one, other = (body["mean_other"] if key == "mean_other" else body["languages"].get(key) for body in (new, old))
        if not one or not other:
            reasons.append(f"{name}: not measured")
            lost |= key == MAIN
            continue
        mean, low, high = _difference(new, old, key, one[METRIC], other[METRIC])
        reasons.append(f"{name}: nDCG@20 {other[METRIC]['mean']:.3f} to {one[METRIC]['mean']:.3f}, {mean:+.4f} [{low:+.4f}, {high:+.4f}]")
        gained |= low > 0
        lost |= key == MAIN and (high < 0 or mean < -LOSS_ALLOWED)
    return Verdict(gained and not lost, tuple(reasons))


def _difference(new: Mapping[str, Any], old: Mapping[str, Any], key: str, one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, float, float]:
    """New minus old with its 95 % interval; from unpaired intervals the widest that they allow."""
    baseline = new.get("baseline")
    if baseline and baseline["model_id"] == old["model_id"]:
        found = baseline["difference"]["languages"][key][METRIC]
        return found["mean"], found["low"], found["high"]
    return one["mean"] - other["mean"], one["low"] - other["high"], one["high"] - other["low"]


def check(folder: Path) -> Manifest:
    """The manifest of a folder that is whole and embeds as it promises. Raises DataError that says what is wrong."""
    try:
        artifact = open_artifact(folder)
        cosines = OnnxEncoder(artifact).golden_cosines(artifact)
    except ArtifactError as error:
        raise DataError(f"{folder} cannot be published: {error}") from error
    manifest = artifact.manifest
    if not cosines.min() >= manifest.golden_tolerance:
        raise DataError(f"{folder} cannot be published: golden cosine {cosines.min():.5f}, promised {manifest.golden_tolerance}; export it again")
    if strange := sorted({path.name for path in folder.iterdir()} - manifest.files.keys() - {MANIFEST}):
        raise DataError(f"{folder} cannot be published: {', '.join(strange)} not in its manifest; take it out, or export the folder again")
    used = set(manifest.lineage.licence_classes) if manifest.lineage else set()
    if forbidden := sorted(used - TRAINABLE):
        raise DataError(f"{folder} cannot be published: trained on texts of class {', '.join(forbidden)}; train it on {' and '.join(sorted(TRAINABLE))} only")
    return manifest


def register(client: MlflowClient, folder: Path, manifest: Manifest, evaluation: Mapping[str, Any] | None, name: str = REGISTRY) -> tuple[ModelVersion, bool]:
    """The registry's version of a folder, and whether it is new. Raises DataError for other weights under a known model id."""
    _registered(client, name)
    sha256 = manifest.files[MODEL]
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.tags.get("model_id") == manifest.model_id:
            if version.tags.get("sha256") != sha256:
                raise DataError(f"{manifest.model_id} is version {version.version} already, with other weights; export these under a --model-id of their own")
            return version, False
    tags = lineage_tags(manifest)
    with tracked(client, f"publish {manifest.model_id}", tags) as run:
        _log(run, folder, manifest, evaluation)
        source = f"runs:/{run.run_id}/model"
        version = client.create_model_version(name, client.get_run(run.run_id).info.artifact_uri + "/model", run.run_id, tags=tags, description=source)
    return version, True


def _registered(client: MlflowClient, name: str) -> None:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, description="Students that Everpin can serve; each version is a model folder.")


def _log(run: TrackedRun, folder: Path, manifest: Manifest, evaluation: Mapping[str, Any] | None) -> None:
    run.params({"precision": manifest.precision, "dimension": manifest.dimension, "max_tokens": manifest.max_tokens, "pooling": manifest.pooling})
    if manifest.lineage is not None:
        run.params({"config": manifest.lineage.config})
    run.metrics(manifest.metrics)
    if evaluation is not None:
        run.metrics({"dev": {**evaluation["languages"], "mean_other": evaluation["mean_other"] or {}}})
    run.files(folder, "model")


def lineage_tags(manifest: Manifest) -> dict[str, str]:
    """What a version was made from, as tags of at most LONGEST characters each."""
    lineage = manifest.lineage
    tags: dict[str, Any] = {
        "model_id": manifest.model_id,
        "sha256": manifest.files[MODEL],
        "languages": ",".join(manifest.languages),
        "teacher": manifest.teacher or "none",
        "weights_digest": manifest.data_digest,
        "template_version": manifest.template_version,
    }
    if lineage is not None:
        tags |= flattened({"labels": "none" if lineage.labels is None else lineage.labels, "data": lineage.data_digests, "seed": lineage.seeds})
        tags |= {"licence_classes": ",".join(lineage.licence_classes), "code_version": lineage.code_version}
    return {name: str(value)[:LONGEST] for name, value in tags.items()}


def promote(client: MlflowClient, version: ModelVersion, manifest: Manifest, verdict: Verdict) -> bool:
    """Make a version the default if it wins and is small enough; whether it became so."""
    size = manifest.metrics.get("model_megabytes", 0.0)
    if not verdict.wins or size > MEGABYTES:
        return False
    client.set_registered_model_alias(version.name, DEFAULT, version.version)
    return True


def _evaluation(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no evaluation ({error}); make one with python -m training.evaluate MODEL --data DIR --json") from error
    if missing := [name for name in ("model_id", "languages", "mean_other", "data") if not isinstance(body, dict) or name not in body]:
        raise DataError(f"{path} is no evaluation (no {', '.join(missing)}); make one with python -m training.evaluate MODEL --data DIR --json")
    return body


def publish(folder: Path, mlflow: str | None, card: bool, notices: Sequence[Path], evaluation: Path | None, default: Path | None) -> list[str]:
    """Check, write the card, register, compare; what was done, in sentences. Raises DataError."""
    new, old = _evaluation(evaluation), _evaluation(default)
    manifest = check(folder)
    if new is not None and new["model_id"] != manifest.model_id:
        raise DataError(f"{evaluation} is of {new['model_id']}, the folder holds {manifest.model_id}; evaluate the folder itself")
    if card:
        manifest = write_card(folder, notices, new)
    client = connect(mlflow)
    version, fresh = register(client, folder, manifest, new)
    said = [f"{manifest.model_id} is {'now' if fresh else 'already'} version {version.version} of {version.name} in {local(mlflow)}"]
    if new is not None and old is not None:
        verdict = wins(new, old)
        promoted = promote(client, version, manifest, verdict)
        said += [f"  {reason}" for reason in verdict.reasons]
        said.append(f"{manifest.model_id} {'replaces' if promoted else 'does not replace'} {old['model_id']} as the default")
    return said


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.publish",
        description="Register a model folder as an immutable version in MLflow's model registry, with its lineage.",
        epilog="With both evaluations it becomes the registry's default only if it wins on dev: English nDCG@20 is kept, something is gained beyond chance.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="made by python -m training.export")
    parser.add_argument("--mlflow", metavar="URI", help="sqlite:///FILE or the address of an MLflow server (default: .everpin/mlflow/mlflow.db)")
    parser.add_argument("--card", action="store_true", help="write MODEL_CARD.md into the folder first")
    parser.add_argument("--notice", type=Path, action="append", default=[], metavar="FILE", help="a NOTICE of training data whose text the card acknowledges")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="python -m training.evaluate MODEL_FOLDER --baseline DEFAULT --data DIR --json")
    parser.add_argument("--default", type=Path, metavar="FILE", help="the same of the present default, on the same data")
    args = parser.parse_args()
    for sentence in publish(args.model, args.mlflow, args.card, args.notice, args.evaluation, args.default):
        print(sentence)


if __name__ == "__main__":
    main()
