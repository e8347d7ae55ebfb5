"""The bridges of one EVERPIN_HOME: how one is fitted between two models, and where it is kept for serving.

    bridges/<first 16 digits of the digest>.npz      written once; a file of another digest is none of ours
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from embedder.artifact import Artifact, open_artifact
from embedder.bridged import read_bridge
from embedder.onnx import OnnxEncoder
from everpin.bridge_texts import Material, of_data, of_records
from everpin.bridging import KINDS, Vectors, cost, encode, fitted, levels, measured
from everpin.compared_texts import file_queries
from everpin.comparing import Text
from everpin.live import of_model
from everpin.model_folders import model_folder
from everpin.published import folder_digest
from everpin.settings import Settings
from everpin.wiring import open_index
from pins.bridge import Bridge, Map, Side, dump
from pins.errors import ArtifactError, EverpinError

PAIRS = 20_000
THRESHOLD = 0.95
DIGITS = 16


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a bridge is fitted. `kind`: of `everpin.bridging.KINDS`; `pairs`: texts at most that both models encode for it.

    `data`: a folder of the cxc layout whose judgements measure it; without one the old model's collection is fitted and measured on. `texts`: a
    file of more texts to fit on. `threshold`: the share of full re-embedding's nDCG@20 that it must keep, 0 to 1.
    """

    kind: str = "linear"
    pairs: int = PAIRS
    data: Path | None = None
    texts: Path | None = None
    threshold: float = THRESHOLD
    seed: int = 0


class Watching(Protocol):
    """Hears of long work: a task with a total, then what is done of it."""

    def __call__(self, task: str, total: int) -> Callable[[int], None]:
        """Returns what is to be called with each number of units that are done more."""


def fit(config: Settings, new: str, old: str, how: Fitting, watching: Watching) -> Bridge:
    """A bridge for queries of `new` into the collection of `old`, with what it was measured to keep, be it enough or not. Raises EverpinError."""
    artifacts = open_artifact(model_folder(config, new)), open_artifact(model_folder(config, old))
    if artifacts[0].manifest.model_id == artifacts[1].manifest.model_id:
        raise EverpinError(f"{new} and {old} are one model; a bridge leads from a new one to an old one")
    extra = file_queries(how.texts) if how.texts else []
    material = of_data(how.data, extra, how.pairs, how.seed) if how.data else _of_index(config, artifacts[1], extra, how)
    languages = artifacts[1].manifest.languages
    students = [OnnxEncoder(artifact, config.threads, cosmetic=False) for artifact in artifacts]
    total = 2 * sum(map(len, (material.pins, material.asked, material.searched, material.queries)))
    vectors = encode(material, students[0], students[1], languages, watching("encoding by both models", total))
    map_ = _map(how, vectors, watching)
    slope, intercept = levels(map_, vectors)
    figures = measured(map_, vectors, material, languages)
    about = {
        "kind": how.kind,
        "fitted_on": {"pins": len(material.pins), "texts": len(material.asked), "texts_old_reads": int(vectors.readable.sum()), "seed": how.seed},
        "measured_on": {"pins": len(material.searched), "queries": len(material.queries), "judged": material.judged},
        "kept": figures["all"]["kept"]["mean"],
        "threshold": how.threshold,
        "microseconds_per_query": cost(map_, vectors.queries.new),
        "quality": figures,
    }
    return Bridge(side(artifacts[0].folder), side(artifacts[1].folder), map_, slope, intercept, about)


def shortfall(bridge: Bridge) -> str:
    """Why a bridge is not good enough for its threshold, and what to do; empty when it is."""
    kept, threshold = float(bridge.figures["kept"]), float(bridge.figures["threshold"])
    if kept >= threshold:
        return ""
    return (
        f"the bridge keeps {kept:.1%} of full re-embedding's nDCG@20, {threshold - kept:.1%} below the threshold of {threshold:.1%}; nothing "
        f"was written. Fit it on more texts (--pairs, --texts), wait for the backfill, or accept less with --threshold {int(kept * 100) / 100:g}"
    )


def side(folder: Path) -> Side:
    """A model as one side of a bridge. Raises ArtifactError."""
    manifest = open_artifact(folder).manifest
    return Side(manifest.model_id, manifest.dimension, folder_digest(folder))


def bridge_file(config: Settings, digest: str) -> Path:
    """Where the bridge of a digest is kept."""
    return config.home / "bridges" / f"{digest[:DIGITS]}.npz"


def keep_bridge(path: Path, bridge: Bridge) -> None:
    """Write a bridge's file, all of it or nothing. Raises EverpinError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(dump(bridge))
        part.replace(path)
    except OSError as error:
        raise EverpinError(f"{path} cannot be written: {error}; give --out another place") from error


def open_bridge(config: Settings, digest: str, new: str, old: str) -> Bridge:
    """The kept bridge of a digest, for these two models as their folders are now. Raises ArtifactError."""
    path = bridge_file(config, digest)
    bridge = read_bridge(path)
    if bridge.digest != digest:
        raise ArtifactError(f"{path} is the bridge {bridge.digest[:DIGITS]}, the rollout names {digest[:DIGITS]}; copy the file of that name here")
    bridge.require(side(model_folder(config, new)), side(model_folder(config, old)))
    return bridge


def find_bridge(config: Settings, new: str, old: str) -> Bridge | None:
    """The newest kept bridge between these two models as their folders are now; None where there is none. Raises ArtifactError."""
    sides = side(model_folder(config, new)), side(model_folder(config, old))
    for path in sorted((config.home / "bridges").glob("*.npz"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        bridge = read_bridge(path)
        if (bridge.new, bridge.old) == sides and not shortfall(bridge):
            return bridge
    return None


def _of_index(config: Settings, old: Artifact, extra: Sequence[Text], how: Fitting) -> Material:
    manifest = old.manifest
    with open_index(of_model(config, old.folder), manifest.model_id, manifest.dimension, purpose="bridge fit") as index:
        return of_records((record for records in index.scan() for record in records), extra, how.pairs, how.seed)


def _map(how: Fitting, vectors: Vectors, watching: Watching) -> Map:
    training = KINDS[how.kind]
    step = watching("fitting", training.epochs if training else 1)
    try:
        return fitted(how.kind, vectors, how.seed, lambda epoch: step(1))
    except ValueError as error:
        raise EverpinError(f"{error}; fill the old collection, give --data or --texts, or fit --kind procrustes") from error
