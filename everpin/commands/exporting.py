"""`everpin export`: the pins of the live model's index as one file, or as a folder of Parquet files that shows one moment."""

from __future__ import annotations

import re
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from embedder.artifact import read_manifest
from everpin.answers import reading
from everpin.commands.healing import seconds
from everpin.commands.output import AsJson, emit
from everpin.exports.manifest import Model, moment, read_export
from everpin.exports.moment import Patience
from everpin.exports.one_file import export
from everpin.exports.writing import MOST_PARTITIONS, PARTITIONS, Told, Wanted, following, write_export
from everpin.live import live_settings
from everpin.settings import Settings, settings
from everpin.wiring import now_us
from pins.errors import EverpinError
from pins.ports import PinIndex


def export_pins(
    file: Annotated[Path | None, typer.Argument(help="A .jsonl or .parquet file: every live pin, read in one pass while the index changes.")] = None,
    vectors: Annotated[bool, typer.Option("--vectors", help="With FILE: with each pin's vector.")] = False,
    out: Annotated[Path | None, typer.Option(help="A new folder of Parquet files: every pin that has a vector, as of one moment.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what changed since: the folder of an export, or a moment such as 2026-01-31T06:00:00Z.")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, max=MOST_PARTITIONS, help=f"Files, by a hash of the pin id. Default: {PARTITIONS}.")] = None,
    text: Annotated[bool, typer.Option("--text", help="With --out: with each pin's text and fields.")] = False,
    hold: Annotated[str, typer.Option(help="The hold of your sweeps: a deletion older than that may have left no trace for --since to find.")] = "24h",
    settle_s: Annotated[float, typer.Option(min=0, help="With QDRANT_URL: how long to look for a moment at which nothing is written.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Write the live pins of the index: to a FILE, or with --out to a folder of Parquet files that shows one moment. Format: see docs/exports.md."""
    if (file is None) == (out is None):
        raise EverpinError("name a FILE, or a folder with --out; one of the two")
    if out is None and (since is not None or partitions is not None or text):
        raise EverpinError("--since, --partitions and --text are of an export to a folder; name one with --out")
    if file is None and vectors:
        raise EverpinError("an export to a folder always has the vectors; leave --vectors out")
    config = live_settings(settings())
    with reading(config) as index, Progress(console=Console(stderr=True), disable=as_json) as progress:
        if file:
            _to_a_file(index, file, vectors, progress, as_json)
        elif out:
            _to_a_folder(index, config, out, wanted(config, since, partitions, text, hold), settle_s, progress, as_json)


def wanted(config: Settings, since: str | None, partitions: int | None, text: bool, hold: str) -> Wanted:
    """What to export, of the model of these settings. Raises EverpinError where it cannot go on from `since`."""
    model = Model.of(read_manifest(config.model))
    if since is None:
        return Wanted(model, partitions or PARTITIONS, text)
    if Path(since).is_dir():
        asked = following(read_export(Path(since)), Path(since), model, partitions, text)
    else:
        asked = Wanted(model, partitions or PARTITIONS, text, _moment(since))
    age_us = now_us() - (asked.since_us or 0)
    if age_us > seconds(hold) * 1e6:
        raise EverpinError(
            f"--since {since} is {age_us / 3.6e9:.1f} hours ago: a sweep with a hold of {hold} may have removed deletions from before. Make a full export, "
            "or name a longer --hold if your sweeps keep it"
        )
    return asked


def _moment(words: str) -> int:
    """Epoch microseconds of an ISO 8601 moment, UTC where it names no zone."""
    if re.fullmatch(r"\d{16}", words):
        return int(words)
    try:
        at = datetime.fromisoformat(words)
    except ValueError as error:
        raise EverpinError(f"--since {words}: neither the folder of an export nor a moment such as 2026-01-31T06:00:00Z") from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)


def _to_a_file(index: PinIndex, file: Path, vectors: bool, progress: Progress, as_json: bool) -> None:
    task = progress.add_task(f"exporting to {file}", total=_records(index) or None)
    report = export(index, file, vectors=vectors, step=lambda n: progress.advance(task, n))
    document = asdict(report) | {"file": str(file)}
    emit(document, as_json, lambda console: console.print(f"{report.pins} pins written to {file}, {report.textless} of them without text"))


def _to_a_folder(index: PinIndex, config: Settings, out: Path, asked: Wanted, settle_s: float, progress: Progress, as_json: bool) -> None:
    read = progress.add_task("reading", total=(_records(index) if asked.since_us is None else None) or None)
    written = progress.add_task("writing", total=asked.partitions)
    told = Told(lambda n: progress.advance(read, n), lambda n: progress.advance(written, n))
    began = time.monotonic()
    manifest = write_export(index, out, asked, now_us, Patience(not config.qdrant_url, settle_s), told)
    took = time.monotonic() - began
    document: dict[str, Any] = {"folder": str(out), "seconds": round(took, 2), **manifest.model_dump(mode="json")}
    emit(document, as_json, lambda console: _show(console, document))


def _show(console: Console, document: dict[str, Any]) -> None:
    since = f" since {moment(document['since_us'])}" if document["since_us"] is not None else ""
    gone = f", {document['deleted']} of them deletions," if document["kind"] == "incremental" else ""
    console.print(
        f"{document['rows']} rows{gone} of {document['model']['model_id']}{since} written to {document['folder']} "
        f"in {document['seconds']} s, as of {document['as_of']}",
        soft_wrap=True,
    )


def _records(index: PinIndex) -> int:
    counts = index.counts()
    return counts["live"] + counts["textless"] + counts["dead"]
