"""`everpin bridge fit` and `bridge show`: a map that lets a new model's queries ask the old model's collection while the backfill runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from embedder.artifact import Artifact, open_artifact
from embedder.bridged import read_bridge
from embedder.onnx import OnnxEncoder
from everpin.bridge_texts import Material, of_data, of_records
from everpin.bridging import KINDS, Vectors, cost, encode, fitted, levels, measured
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.compared_texts import file_queries
from everpin.live import of_model
from everpin.model_folders import model_folder
from everpin.published import folder_digest
from everpin.settings import Settings, settings
from everpin.wiring import open_index
from pins.bridge import Bridge, Map, Side, dump
from pins.errors import EverpinError

PARTS = {"read": "old reads", "unread": "old cannot"}
"""Parts of the queries: by whether they are in a language that the old model reads."""
COLUMNS = ("n", "old", "bridged", "anew", "kept of anew", "same 10")


class Kind(StrEnum):
    """What is fitted."""

    linear = "linear"
    residual = "residual"
    procrustes = "procrustes"


def bridge_fit(
    new: str,
    old: str,
    out: Annotated[Path, typer.Option(help="File of the bridge, .npz.")],
    kind: Annotated[
        Kind, typer.Option(help="linear: a matrix that learned to rank. residual: a small network beside it. procrustes: a mere rotation.")
    ] = Kind.linear,
    pairs: Annotated[int, typer.Option(min=100, help="Texts at most that both models encode for it; a quarter of them are whole pins.")] = 20_000,
    data: Annotated[Path | None, typer.Option(help="Folder of the cxc layout; its judgements measure the bridge. Default: the collection of OLD.")] = None,
    texts: Annotated[Path | None, typer.Option(help="More texts to fit on, such as logged queries, one a line: text, or JSON with query and lang.")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Share of full re-embedding's nDCG@20 that it must keep, over all held-out queries.")] = 0.95,
    seed: Annotated[int, typer.Option(help="The same seed and texts give the same bridge.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a map of NEW's query vectors into OLD's space, and measure what it keeps of full re-embedding. Exit code 1, and no file, below the threshold."""
    config = settings()
    folders = model_folder(config, new), model_folder(config, old)
    artifacts = open_artifact(folders[0]), open_artifact(folders[1])
    if artifacts[0].manifest.model_id == artifacts[1].manifest.model_id:
        raise EverpinError(f"{new} and {old} are one model; a bridge leads from a new one to an old one")
    extra = file_queries(texts) if texts else []
    material = of_data(data, extra, pairs, seed) if data else _of_index(config, artifacts[1], extra, pairs, seed)
    with Progress(console=Console(stderr=True), disable=as_json) as progress:
        vectors = _encoded(config, artifacts, material, progress)
        map_ = _fitted(kind.value, vectors, seed, progress)
    slope, intercept = levels(map_, vectors)
    figures = measured(map_, vectors, material, artifacts[1].manifest.languages)
    about = {
        "kind": kind.value,
        "fitted_on": {"pins": len(material.pins), "texts": len(material.asked), "texts_old_reads": int(vectors.readable.sum()), "seed": seed},
        "measured_on": {"pins": len(material.searched), "queries": len(material.queries), "judged": material.judged},
        "kept": figures["all"]["kept"]["mean"],
        "threshold": threshold,
        "microseconds_per_query": cost(map_, vectors.queries.new),
        "quality": figures,
    }
    bridge = Bridge(_side(artifacts[0]), _side(artifacts[1]), map_, slope, intercept, about)
    kept = about["kept"]
    passed = bool(kept >= threshold)
    if passed:
        _write(out, bridge)
    emit(_document(bridge) | {"passed": passed, "path": str(out) if passed else None}, as_json, lambda console: _show(console, bridge))
    if not passed:
        print(
            f"everpin: the bridge keeps {kept:.1%} of full re-embedding's nDCG@20, {threshold - kept:.1%} below the threshold of {threshold:.1%}; nothing "
            f"was written. Fit it on more texts (--pairs, --texts), wait for the backfill, or accept less with --threshold {int(kept * 100) / 100:g}",
            file=sys.stderr,
        )
        raise typer.Exit(PARTIAL)


def bridge_show(file: Path, as_json: AsJson = False) -> None:
    """What a bridge's file says of itself: its two models, what it was fitted and measured on, what it keeps, and its cost per query."""
    bridge = read_bridge(file)
    emit(_document(bridge) | {"path": str(file)}, as_json, lambda console: _show(console, bridge))


def _of_index(config: Settings, old: Artifact, extra: Sequence[Any], pairs: int, seed: int) -> Material:
    manifest = old.manifest
    with open_index(of_model(config, old.folder), manifest.model_id, manifest.dimension, purpose="bridge fit") as index:
        return of_records((record for records in index.scan() for record in records), extra, pairs, seed)


def _encoded(config: Settings, artifacts: tuple[Artifact, Artifact], material: Material, progress: Progress) -> Vectors:
    new, old = (OnnxEncoder(artifact, config.threads, cosmetic=False) for artifact in artifacts)
    task = progress.add_task("encoding by both models", total=2 * sum(map(len, (material.pins, material.asked, material.searched, material.queries))))
    return encode(material, new, old, artifacts[1].manifest.languages, lambda n: progress.advance(task, n))


def _fitted(kind: str, vectors: Vectors, seed: int, progress: Progress) -> Map:
    training = KINDS[kind]
    epochs = training.epochs if training else 1
    task = progress.add_task("fitting", total=epochs)
    try:
        return fitted(kind, vectors, seed, lambda epoch: progress.update(task, completed=epoch))
    except ValueError as error:
        raise EverpinError(f"{error}; fill the old collection, give --data or --texts, or fit --kind procrustes") from error


def _side(artifact: Artifact) -> Side:
    return Side(artifact.manifest.model_id, artifact.manifest.dimension, folder_digest(artifact.folder))


def _write(path: Path, bridge: Bridge) -> None:
    """All of it or nothing. Raises EverpinError."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(dump(bridge))
        part.replace(path)
    except OSError as error:
        raise EverpinError(f"{path} cannot be written: {error}; give --out another place") from error


def _document(bridge: Bridge) -> dict[str, Any]:
    return {
        "new": asdict(bridge.new),
        "old": asdict(bridge.old),
        "digest": bridge.digest,
        "levels": {"slope": bridge.slope, "intercept": bridge.intercept},
    } | dict(bridge.figures)


def _show(console: Console, bridge: Bridge) -> None:
    figures = bridge.figures
    console.print(f"{bridge.new.model_id} -> {bridge.old.model_id}, {figures['kind']}, digest {bridge.digest[:12]}")
    table = Table("queries", *(Column(name, justify="right", no_wrap=True) for name in COLUMNS), title="nDCG@20", title_justify="left")
    for name, part in figures["quality"].items():
        means = (f"{part['ndcg@20'][system]['mean']:.3f}" for system in ("old", "bridged", "new"))
        kept = "{mean:.1%} [{low:.1%}, {high:.1%}]".format(**part["kept"])
        table.add_row(PARTS.get(name, name), str(part["queries"]), *means, kept, f"{part['overlap@10']['mean']:.2f}")
    console.print(table)
    on, by, cost_us = figures["fitted_on"], figures["measured_on"], figures["microseconds_per_query"]
    console.print(
        f"fitted on {on['pins']} pins and {on['texts']} texts; measured on {by['queries']} queries over {by['pins']} other pins, judged: {by['judged']}"
    )
    console.print(f"{cost_us['p50']:.0f} us more per query (p99 {cost_us['p99']:.0f}); threshold {figures['threshold']:.1%}, kept {figures['kept']:.1%}")
