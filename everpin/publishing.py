"""Publish a model folder: verify it, judge it, copy it whole, register it. The last step is one rename, so a publication is there or it is not.

The registered version is made before the rename and called published after it: a folder that can be seen has one, and running it again ends what
a killed publication began.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from embedder.artifact import MANIFEST, Artifact, open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin.figures import Figures, figures
from everpin.gate import Line, Measured, Speeds, judge, speeds
from everpin.gate_rules import Rules
from everpin.live import installation
from everpin.model_folders import model_folder, published_folder
from everpin.published import Receipt, alone, copied, folder_digest, put, receipt_of, verify_published
from everpin.registry import Entry, Registered, Registry, gate_tags, lineage, open_registry
from everpin.settings import SHIPPED_MODEL, Settings
from pins.errors import ArtifactError, EverpinError

MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
QUERY_THREADS = 1


@dataclass(frozen=True, slots=True)
class Verified:
    """A folder that is what it says it is: its digest, its encoder, and its golden cosines in this runtime (mean)."""

    artifact: Artifact
    digest: str
    encoder: OnnxEncoder
    golden_cosine: float

    @property
    def files(self) -> list[str]:
        """Names of all files of the folder."""
        return sorted([*self.artifact.manifest.files, MANIFEST])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of `publish`. `receipt` is None where the gate refused; `already` when the same content was published before."""

    model_id: str
    digest: str
    place: Path
    gate: list[Line]
    receipt: Receipt | None
    already: bool = False


def publish(
    config: Settings,
    folder: Path,
    rules: Rules,
    evaluations: tuple[Figures | None, Figures | None] = (None, None),
    force: str = "",
    said: Callable[[str], None] = lambda words: None,
) -> Outcome:
    """Publish a folder unless its gate refuses. `evaluations`: of the new model and of the live one. `said` hears each step.

    The same content again is a success that changes nothing. Raises ArtifactError for a folder that is not whole or whose id is taken, and
    Unavailable where registry or disk fail; then nothing is published, and running it again is right.
    """
    said("verifying files and golden vectors")
    verified = verify(folder, config.threads)
    model_id = verified.artifact.manifest.model_id
    place = config.models_home.resolve() / model_id
    said("opening the registry")
    registry = open_registry(config)
    with alone(place.parent):
        versions = _same_content(config, registry, verified)
        if (there := published_folder(config, model_id)) is not None:
            return _again(config, there, verified, registry, versions)
        said("asking the gate")
        lines = judge(rules, measure(config, verified, evaluations))
        if not force and not all(line.passed for line in lines):
            return Outcome(model_id, verified.digest, place, lines, None)
        said("copying")
        entry = Entry(verified.artifact.manifest, verified.digest, verified.artifact.folder, place, lines, force, evaluations[0])
        with copied(verified.artifact.folder, verified.files, verified.digest, place) as copy:
            said("registering")
            version = versions[-1] if versions else registry.register(replace(entry, folder=copy))
            receipt = _receipt(entry, version, registry.uri)
            put(copy, place, receipt)
        if receipt.forced or not version.published:
            registry.finish(version, gate_tags(lines, force))
        return Outcome(model_id, verified.digest, place, lines, receipt)


def verify(folder: Path, threads: int) -> Verified:
    """Check hashes, template, head and all golden vectors in this runtime. Raises ArtifactError that says what is wrong."""
    artifact = open_artifact(folder.resolve())
    manifest = artifact.manifest
    if not MODEL_ID.fullmatch(str(manifest.model_id)):
        raise ArtifactError(f"{folder}: the model id {manifest.model_id!r} cannot name a folder; export it with letters, digits and . _ - (at most 100)")
    if nested := [name for name in manifest.files if Path(name).name != name]:
        raise ArtifactError(f"{folder / MANIFEST} names {', '.join(nested)}; a model folder holds plain files only: export it again")
    if strange := sorted({path.name for path in folder.iterdir()} - manifest.files.keys() - {MANIFEST}):
        raise ArtifactError(f"{folder}: {', '.join(strange)} not in its manifest; take it out, or export the folder again")
    encoder = OnnxEncoder(artifact, threads)
    cosines = encoder.golden_cosines(artifact)
    if not cosines.min() >= manifest.golden_tolerance:
        text = artifact.golden()[0][int(cosines.argmin())]
        raise ArtifactError(
            f"{folder} strays from its golden vectors: cosine {cosines.min():.5f} on {text[:60]!r}, promised {manifest.golden_tolerance}; export it again"
        )
    return Verified(artifact, folder_digest(artifact.folder), encoder, float(cosines.mean()))


def measure(config: Settings, verified: Verified, evaluations: tuple[Figures | None, Figures | None]) -> Measured:
    """Measure what the gate asks for. The live model's evaluation is the one given, else the one it was published with."""
    manifest, live = verified.artifact.manifest, live_model_id(config)
    new, old = evaluations
    if new is not None and new.model_id != manifest.model_id:
        raise EverpinError(f"--evaluation is of {new.model_id}, the folder holds {manifest.model_id}; evaluate the folder itself")
    if live == manifest.model_id:
        live = None
    if old is not None and old.model_id != live:
        raise EverpinError(f"--live-evaluation is of {old.model_id}, live is {live or manifest.model_id}; evaluate the live model")
    if old is None and live is not None and (receipt := receipt_of(config, live)) is not None and receipt.evaluation is not None:
        old = figures(receipt.evaluation, f"the receipt of {live}")
    return Measured(
        manifest=manifest,
        megabytes=sum((verified.artifact.folder / name).stat().st_size for name in verified.files) / 1e6,
        golden_cosine=verified.golden_cosine,
        encoder=verified.encoder,
        live=live,
        speeds=_speeds(config, verified, live),
        figures=new,
        live_figures=old,
    )


def live_model_id(config: Settings) -> str | None:
    """The model that answers now: the one that the index's alias names, else EVERPIN_MODEL's, None without either. Raises Unavailable, ArtifactError."""
    alias = installation(config).alias.live()
    return alias or (read_manifest(config.model).model_id if (config.model / MANIFEST).exists() else None)


def _speeds(config: Settings, verified: Verified, live: str | None) -> dict[str, Speeds]:
    artifacts = {verified.artifact.manifest.model_id: verified.artifact}
    if live is not None:
        with suppress(ArtifactError):  # the gate has a line for it
            artifacts[live] = open_artifact(model_folder(config, live))
    texts = verified.artifact.golden()[0]
    return speeds({name: OnnxEncoder(artifact, QUERY_THREADS, cosmetic=False) for name, artifact in artifacts.items()}, texts)


def _same_content(config: Settings, registry: Registry, verified: Verified) -> list[Registered]:
    """The versions of this very content. Raises ArtifactError when the id stands for another one, here or in the registry."""
    manifest, digest = verified.artifact.manifest, verified.digest
    versions = registry.versions(manifest.model_id)
    for version in versions:
        if version.published and version.digest != digest:
            raise ArtifactError(
                f"{manifest.model_id} is published already, as version {version.version} in {registry.uri}, with other content (digest "
                f"{version.digest[:12]}..., here {digest[:12]}...); a version never changes: export this one under a model id of its own"
            )
    for folder in (SHIPPED_MODEL, config.model):
        if (folder / MANIFEST).exists() and read_manifest(folder).model_id == manifest.model_id and folder_digest(folder) != digest:
            raise ArtifactError(f"{folder} is {manifest.model_id} too, with other content; export this one under a model id of its own")
    return [version for version in versions if version.digest == digest]


def _again(config: Settings, there: Path, verified: Verified, registry: Registry, versions: Sequence[Registered]) -> Outcome:
    """The folder is in place: whole and the same, or refused. A registry that lost the version, or was not told of the end, is brought up to it."""
    model_id = verified.artifact.manifest.model_id
    open_artifact(there)
    verify_published(config, there, model_id)
    receipt = receipt_of(config, model_id)
    assert receipt is not None  # there is a folder
    if receipt.digest != verified.digest:
        raise ArtifactError(
            f"{model_id} is published already, in {there}, with other content (digest {receipt.digest[:12]}..., here {verified.digest[:12]}...); "
            "a published model never changes: export this one under a model id of its own"
        )
    lines = [Line(**line) for line in receipt.gate]
    if not any(version.published for version in versions):
        figures_then = figures(receipt.evaluation, f"the receipt of {model_id}") if receipt.evaluation else None
        entry = Entry(verified.artifact.manifest, receipt.digest, there, there, lines, receipt.forced, figures_then)
        version = versions[-1] if versions else registry.register(entry)
        registry.finish(version, gate_tags(lines, receipt.forced))
    return Outcome(model_id, receipt.digest, there, lines, receipt, already=True)


def _receipt(entry: Entry, version: Registered, registry: str) -> Receipt:
    return Receipt(
        model_id=entry.manifest.model_id,
        digest=entry.digest,
        version=version.version,
        registry=registry,
        published_at=datetime.now(UTC).isoformat(timespec="seconds"),
        forced=entry.forced if not all(line.passed for line in entry.gate) else "",
        gate=[asdict(line) for line in entry.gate],
        lineage=lineage(entry.manifest),
        evaluation=entry.figures.as_json() if entry.figures else None,
    )
