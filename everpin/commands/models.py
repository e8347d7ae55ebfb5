"""Model folders on this machine: which there are, what each says of itself, and whether one is whole."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from embedder.artifact import open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.model_folders import model_folder, model_folders
from everpin.settings import settings


def model_list(as_json: AsJson = False) -> None:
    """The model folders that ship with Everpin and those beside EVERPIN_MODEL; the live one is what this machine runs."""
    config = settings()
    rows = [{"model_id": manifest.model_id, "path": str(folder), "live": folder == config.model.resolve()} for folder, manifest in model_folders(config)]
    emit({"models": rows}, as_json, lambda console: _show_models(console, rows))
    if not any(row["live"] for row in rows):
        print(f"everpin: EVERPIN_MODEL names {config.model}, which is no model folder; nothing can run here", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def model_show(model: str, as_json: AsJson = False) -> None:
    """What a model folder says of itself: its manifest, by model id or path."""
    config = settings()
    folder = model_folder(config, model)
    document = {"path": str(folder), "live": folder == config.model.resolve(), **asdict(read_manifest(folder))}
    emit(document, as_json, lambda console: _show_manifest(console, document))


def model_verify(model: str, as_json: AsJson = False) -> None:
    """Check a model folder, by model id or path: every file's hash, and all golden vectors in this runtime. Exit code 1 when they differ."""
    config = settings()
    artifact = open_artifact(model_folder(config, model))
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


def _show_models(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table("", "model", Column("folder", overflow="fold"))
    for row in rows:
        table.add_row("[green]live[/]" if row["live"] else "", row["model_id"], row["path"])
    console.print(table)


def _show_manifest(console: Console, document: dict[str, Any]) -> None:
    table = Table("field", Column("value", overflow="fold"), show_header=False)
    for name, value in document.items():
        if name != "files":
            table.add_row(name, _readable(value))
    console.print(table)


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
