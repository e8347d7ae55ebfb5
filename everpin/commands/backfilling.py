"""`everpin backfill`: fill a model's collection with every pin, while the stream goes on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from everpin.commands.output import NOT_DONE, PARTIAL, AsJson, emit
from everpin.model_folders import model_folder
from everpin.settings import settings
from pins.changes import REASONS

if TYPE_CHECKING:
    from backfill.blocks import BackfillReport
    from backfill.blocks import Progress as HowFar


def fill(
    model: Annotated[str, typer.Option(help="Model id or folder. Default: EVERPIN_MODEL.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes that encode side by side; on one machine they share its cores.")] = 1,
    address: Annotated[str, typer.Option(help="A Ray cluster: auto on one of its nodes, or HOST:6379. Default: this machine, no set-up.")] = "",
    from_parquet: Annotated[Path | None, typer.Option(help="Folder of Feast's offline store, one Parquet file per view. Default: the online store.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Pins in one block.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many pins; the next run goes on there.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Look at every pin again, whatever an earlier run did.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed every pin that this model's collection lacks, while workers go on; interrupted, it goes on where it was. Exit code 1 on dead letters."""
    from backfill.run import backfill  # noqa: PLC0415  Ray is an extra, and slow to import

    config = settings()
    with _interruptible() as proceed, _bar(as_json) as step:
        report = backfill(
            config,
            model_folder(config, model) if model else config.model,
            workers=workers,
            address=address or None,
            batch=batch,
            from_parquet=from_parquet,
            limit=limit,
            restart=restart,
            proceed=proceed,
            step=step,
        )
    emit(asdict(report), as_json, lambda console: _show(console, report))
    _advise(report)
    raise typer.Exit(NOT_DONE if report.stopped == "problem" else PARTIAL if report.dead or report.stopped == "paused" else 0)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Whether to go on: the first Ctrl-C or SIGTERM says no, and the block in hand is finished; the second one is as usual."""
    asked = threading.Event()

    def stop(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: not asked.is_set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[HowFar], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("starting", total=None, rate="")

        def step(now: HowFar) -> None:
            progress.update(task, completed=now.done, total=now.pins, description="embedding pins", rate=f"{now.rate:.0f} pins/s")

        yield step


def _show(console: Console, report: BackfillReport) -> None:
    table = Table("outcome", "pins", "meaning")
    for reason, count in sorted(report.outcomes.items(), key=lambda item: -item[1]):
        table.add_row(reason, str(count), REASONS[reason])
    if report.outcomes:
        console.print(table)
    resumed = f", {report.resumed_at} of them by an earlier run" if report.resumed_at else ""
    console.print(f"{report.done} of {report.pins} pins of {report.model_id} done{resumed}; {report.encoded} texts encoded, {report.dead} dead letters")
    console.print(f"{report.pins_per_second:.0f} pins/s; {report.seconds:.0f} s in all, with starting and stopping")


def _advise(report: BackfillReport) -> None:
    if report.problem:
        print(f"everpin: {report.problem}", file=sys.stderr)
    if report.stopped:
        why = {"paused": "it was told to stop", "limit": "--limit was reached", "problem": "it could not go on"}[report.stopped]
        print(f"everpin: {report.pins - report.done} pins are left, because {why}; the same command goes on there", file=sys.stderr)
    if report.dead:
        print(
            f"everpin: {report.dead} pins could not be embedded; they are in {report.dead_letters} and, with a broker, in `everpin dlq list`", file=sys.stderr
        )
    if report.undelivered:
        print(f"everpin: {report.undelivered} of them are in that file only, because the broker did not take them", file=sys.stderr)
