"""Model folders on this machine: which there are, what each says of itself and how it was published, and whether one is whole."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from embedder.artifact import MANIFEST, open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.commands.publishing import gate_table
from everpin.gate import Line
from everpin.model_folders import model_folder, model_folders, published_folder
from everpin.published import Receipt, receipt_of, verify_published
from everpin.publishing import live_model_id
from everpin.settings import Settings, settings
from pins.errors import ArtifactError, EverpinError


def model_list(as_json: AsJson = False) -> None:
    """The models that ship with Everpin, those beside EVERPIN_MODEL and those published; the live one is what the index's alias names."""
    config = settings()
    live_id, live = _live(config)
    rows = [_row(config, folder, manifest.model_id, live) for folder, manifest in model_folders(config)]
    emit({"models": rows}, as_json, lambda console: _show_models(console, rows))
    if not (config.model / MANIFEST).exists():
        print(f"everpin: EVERPIN_MODEL names {config.model}, which is no model folder; nothing can run here", file=sys.stderr)
        raise typer.Exit(PARTIAL)
    if live is None:
        print(f"everpin: the live model is {live_id}, which has no folder on this machine; publish it here too", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def _row(config: Settings, folder: Path, model_id: str, live: Path | None) -> dict[str, Any]:
    receipt = _receipt(config, model_id) if folder == published_folder(config, model_id) else None
    return {
        "model_id": model_id,
        "path": str(folder),
        "live": folder == live,
        "published": receipt is not None,
        "version": receipt.version if receipt else None,
        "digest": receipt.digest if receipt else None,
        "published_at": receipt.published_at if receipt else None,
    }


def _receipt(config: Settings, model_id: str) -> Receipt | None:
    try:
        return receipt_of(config, model_id)
    except ArtifactError as error:
        print(f"everpin: {error}", file=sys.stderr)
        return None


def _live(config: Settings) -> tuple[str | None, Path | None]:
    """Id and folder of the live model; where the alias cannot be read, EVERPIN_MODEL's, and that is said."""
    try:
        live = live_model_id(config)
    except EverpinError as error:
        print(f"everpin: the alias of the index cannot be read, so EVERPIN_MODEL is taken for the live model: {error}", file=sys.stderr)
        live = read_manifest(config.model).model_id
    try:
        return live, None if live is None else model_folder(config, live)
    except ArtifactError:
        return live, None


def model_show(model: str, as_json: AsJson = False) -> None:
    """What a model folder says of itself, by model id or path: its manifest, what it was made from, and what the gate said when it was published."""
    config = settings()
    folder = model_folder(config, model)
    manifest = read_manifest(folder)
    receipt = receipt_of(config, manifest.model_id)
    document = {"path": str(folder), "live": folder == _live(config)[1], **asdict(manifest), "publication": asdict(receipt) if receipt else None}
    emit(document, as_json, lambda console: _show_manifest(console, document))


def model_verify(model: str, as_json: AsJson = False) -> None:
    """Check a model folder, by model id or path: every file's hash, and all golden vectors in this runtime. Exit code 1 when they differ."""
    config = settings()
    artifact = open_artifact(_checked(config, model))
    verify_published(config, artifact.folder, artifact.manifest.model_id)
    cosines = OnnxEncoder(artifact, config.threads).golden_cosines(artifact)
    tolerance = artifact.manifest.golden_tolerance
    document = {
        "model_id": artifact.manifest.model_id,
        "path": str(artifact.folder),
        "files": len(artifact.manifest.files),
        "golden_texts": len(cosines),
        "golden_cosine_min": float(cosines.min()),
        "golden_cosine_mean": float(cosines.mean()),
        "golden_tolerance": tolerance,
        "ok": bool(cosines.min() >= tolerance),
    }
    emit(document, as_json, lambda console: _show_verdict(console, document))
    if not document["ok"]:
        texts = artifact.golden()[0]
        print(f"everpin: {document['model_id']} strays from its golden vectors most on {texts[int(cosines.argmin())][:60]!r}; export it again", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def _checked(config: Settings, model: str) -> Path:
    """The folder that an id stands for: the published one, where there is one, since that is what others run."""
    folder = None if Path(model).is_dir() else published_folder(config, model)
    return folder or model_folder(config, model)


def _show_models(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table("", "model", "published", Column("folder", overflow="fold"))
    for row in rows:
        published = f"version {row['version']}, {row['published_at'][:10]}" if row["published"] else ""
        table.add_row("[green]live[/]" if row["live"] else "", row["model_id"], published, row["path"])
    console.print(table)


def _show_manifest(console: Console, document: dict[str, Any]) -> None:
    table = Table("field", Column("value", overflow="fold"), show_header=False)
    for name, value in document.items():
        if name not in ("files", "publication"):
            table.add_row(name, escape(_readable(value)))
    console.print(table)
    if publication := document["publication"]:
        console.print(f"version {publication['version']} in {publication['registry']}, published {publication['published_at']}, digest {publication['digest']}")
        if publication["forced"]:
            console.print(f"[yellow]published against its gate[/]: {escape(publication['forced'])}")
        console.print(gate_table([Line(**line) for line in publication["gate"]]))


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_readable(item) if isinstance(item, float) else json.dumps(item, default=str)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _show_verdict(console: Console, document: dict[str, Any]) -> None:
    verdict = "[green]whole[/]" if document["ok"] else "[red]strays[/]"
    least, mean, promised = (document[name] for name in ("golden_cosine_min", "golden_cosine_mean", "golden_tolerance"))
    console.print(f"{document['model_id']}: {verdict}. {document['files']} files have their hashes.")
    console.print(f"{document['golden_texts']} golden texts: cosine {least:.5f} at least, {mean:.5f} on average; promised: {promised:.5f}")
