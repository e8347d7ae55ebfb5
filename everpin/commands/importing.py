"""`everpin import`: pins and events from files, through the ordinary path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.importers import READERS, BadRow, count_rows, read_events
from everpin.live import live_settings
from everpin.loading import ImportReport, feature_store, import_events, import_pins, stream
from everpin.settings import settings
from everpin.wiring import now_us

Wait = Annotated[bool, typer.Option(help="Return when the worker has taken every event.")]
SHOWN_BAD_ROWS = 20


def import_jsonl(file: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load pins from JSON lines. Fields: see docs/import.md; only pin_id is required."""
    _import("jsonl", file, wait, as_json)


def import_parquet(file: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load pins from a parquet file with the same columns as the JSON lines."""
    _import("parquet", file, wait, as_json)


def import_cxc(folder: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load the items.parquet of a folder of the cxc layout."""
    _import("cxc", folder, wait, as_json)


def import_events_file(file: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Send events from JSON lines, one event a line. Format: see docs/events.md; an event may carry features."""
    config = live_settings(settings())
    total = count_rows("jsonl", file)
    with stream(config) as broker, _bar(file, total, as_json) as step:
        report = import_events(read_events(file, now_us()), broker, config, step, wait=wait)
    _tell(report, as_json)


def _import(kind: str, path: Path, wait: bool, as_json: bool) -> None:
    config = live_settings(settings())
    total = count_rows(kind, path)
    with stream(config) as broker, feature_store(config) as features, _bar(path, total, as_json) as step:
        report = import_pins(READERS[kind](path), broker, features, config, step, wait=wait)
    _tell(report, as_json)


@contextmanager
def _bar(path: Path, total: int, as_json: bool) -> Iterator[Callable[[int], None]]:
    with Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task(f"importing {path}", total=total)
        yield lambda rows: progress.advance(task, rows)


def _tell(report: ImportReport, as_json: bool) -> None:
    document = {
        "rows": report.rows,
        "sent": report.sent,
        "bad_rows": len(report.bad),
        "errors": [{"line": bad.line, "field": bad.field, "problem": bad.problem, "instead": bad.instead} for bad in report.bad],
        "dead_letters": report.dead_letters,
        "worker_done": report.waited,
    }
    emit(document, as_json, lambda console: _show_import(console, report))
    raise typer.Exit(0 if report.complete else PARTIAL)


def _show_import(console: Console, report: ImportReport) -> None:
    done = "the worker has taken all of them" if report.waited else "the worker takes them from here"
    console.print(f"{report.sent} of {report.rows} rows sent; {done}; {report.dead_letters} dead letters")
    if report.bad:
        console.print(_bad_rows(report.bad))


def _bad_rows(bad: list[BadRow]) -> Table:
    table = Table("line", "field", "what is wrong", "write instead", title=f"{len(bad)} rows left out" + (", the first:" if len(bad) > SHOWN_BAD_ROWS else ""))
    for row in bad[:SHOWN_BAD_ROWS]:
        table.add_row(str(row.line), row.field, row.problem, row.instead)
    return table
