"""`everpin reconcile`, `reembed`, `sweep`: is the index true, make it so, and delete for good."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from everpin.answers import reading
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.healing import Healing, Line, conditions, heal, matching, reembed, write_lines
from everpin.live import live_settings
from everpin.loading import feature_store, stream
from everpin.reconciling import Scope, Stores, Tally, differences, share_of
from everpin.settings import Settings, settings
from everpin.sweeping import SweepReport, sweep
from everpin.wiring import find_broker, lazy_encoder, now_us, worker_group
from pins.errors import EverpinError
from pins.ports import FeatureSource, PinIndex
from pins.reconcile import KINDS
from streams.broker import UPDATES, Offsets

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SHORT_HOLD_S = 3600.0
ELSEWHERE = (
    "Events stay in Kafka's topics until their retention ends, and dead letters until `everpin dlq purge --pin PIN`; "
    "the pin's id and the fact that it is deleted stay in the feature store."
)
SERVER_FILES = "A Qdrant server rewrites its segments in its own time: the bytes are gone from its disk when its optimizer has run."


def reconcile(
    sample: Annotated[str | None, typer.Option(help="A number of pins (10000) or a share of them (1%). Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed draws the same pins.")] = 0,
    vectors: Annotated[int, typer.Option(min=0, help="Encode the recorded text of this many pins again and compare the vectors.")] = 0,
    settle_s: Annotated[float, typer.Option(min=0, help="A difference counts if it is still there after this many seconds.")] = 2.0,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Pins read at once.")] = 500,
    fix: Annotated[bool, typer.Option("--fix", help="Send a refresh event for each difference, wait, and look again.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write every difference to this file, as JSON lines.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the feature store and the index, pin by pin. Exit code 1 on differences (with --fix: on those that are left)."""
    config = live_settings(settings())
    with ExitStack() as stack:
        stores, line = _opened(config, stack, fix)
        file = stack.enter_context(_spool(out))
        progress = stack.enter_context(_progress(as_json))
        scope = Scope(_share(sample, stores.features, seed), seed, settle_s, vectors, batch)
        tally, started = Tally(), time.monotonic()
        task = progress.add_task("comparing", total=2 * _records(stores.index) or None)
        write_lines(file, differences(stores, scope, tally, lambda n: progress.advance(task, n)))
        seconds = time.monotonic() - started
        healing = None
        if line and tally.kinds:
            healing = heal(file, stores, scope, _shown(line, progress, "refreshing", tally.kinds.total()), config.vanished_limit)
    document = _reconciled(tally, scope, seconds, healing) | {"events_behind": _behind(config) if tally.kinds else None}
    emit(document, as_json, lambda console: _show_reconciled(console, document))
    _advise(document, config)
    raise typer.Exit(0 if document["healthy"] else PARTIAL)


def _reconciled(tally: Tally, scope: Scope, seconds: float, healing: Healing | None) -> dict[str, Any]:
    left = tally.kinds if healing is None else healing.left
    return {
        "compared": tally.compared,
        "records": tally.records,
        "vectors_compared": tally.vectors,
        "share": scope.share,
        "seed": scope.seed,
        "differences": dict(tally.kinds),
        "examples": tally.examples,
        "nameless": tally.nameless,
        "seconds": round(seconds, 2),
        "pins_per_second": round(tally.compared / seconds, 1) if seconds else 0.0,
        "fix": None
        if healing is None
        else {
            "sent": healing.sent,
            "fixed": tally.kinds.total() - healing.left.total(),
            "not_fixed": dict(healing.left),
            "examples": healing.examples,
            "held_back": healing.held_back,
        },
        "healthy": not left.total() and not tally.nameless,
    }


def _show_reconciled(console: Console, document: dict[str, Any]) -> None:
    fix = document["fix"]
    table = Table("difference", "pins", *(["left"] if fix else []), "meaning", "for example")
    for kind, meaning in KINDS.items():
        if count := document["differences"].get(kind) or (fix and fix["not_fixed"].get(kind)):
            left = [str(fix["not_fixed"].get(kind, 0))] if fix else []
            examples = document["examples"].get(kind) or fix["examples"][kind]
            table.add_row(kind, str(count), *left, meaning, ", ".join(examples))
    if document["nameless"]:
        table.add_row("nameless", str(document["nameless"]), *([str(document["nameless"])] if fix else []), "points whose record names no pin, or another", "")
    if table.row_count:
        console.print(table)
    vectors = f" and {document['vectors_compared']} vectors" if document["vectors_compared"] else ""
    found = sum(document["differences"].values())
    console.print(
        f"{document['compared']} pins{vectors} compared in {document['seconds']} s ({document['pins_per_second']:.0f} pins/s): "
        + (f"{found} differences" if found else "no difference")
        + (f", {fix['sent']} refreshed, {fix['fixed']} fixed" if fix else "")
    )


def _advise(document: dict[str, Any], config: Settings) -> None:
    """What to do about what is left, on standard error."""
    fix = document["fix"]
    if document["events_behind"]:
        print(f"everpin: the worker is {document['events_behind']} events behind; some of these pins may only be late", file=sys.stderr)
    if fix and fix["held_back"]:
        print(
            f"everpin: {fix['held_back']} orphans were left alone (EVERPIN_VANISHED_LIMIT={config.vanished_limit}): did the feature store lose its data? "
            "If these pins are truly gone, raise the limit for the worker and for this command",
            file=sys.stderr,
        )
    if document["nameless"]:
        print(f"everpin: {document['nameless']} points name no pin of theirs; `everpin sweep` removes what --fix does not heal", file=sys.stderr)


def reembed_pins(
    pins: Annotated[list[str] | None, typer.Argument(help="Pin ids.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="lang=, category=, board=, model=, reason= or refused=; repeat to narrow.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every pin of the feature store.")] = False,
    rate: Annotated[float, typer.Option(min=0, help="Most events a second. 0: as fast as the worker takes them.")] = 0.0,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Ask the worker for a new vector of these pins, and wait until it is there. Exit code 1 when any id is unknown or failed."""
    config = live_settings(settings())
    wanted = conditions(where or [])
    if sum((bool(pins), bool(where), every)) != 1:
        raise EverpinError("say which pins: their ids, or --where KEY=VALUE, or --all; one of the three")
    _agree(every and not dry_run, yes, as_json, "embed every pin anew")
    with ExitStack() as stack:
        stores, line = _opened(config, stack, not dry_run)
        batches: Iterable[Sequence[str]] = _parts(pins) if pins else stores.features.pin_ids(500) if every else matching(stores, wanted)
        progress = stack.enter_context(_progress(as_json))
        shown = _shown(line, progress, "sending", len(pins) if pins else None, rate) if line else None
        report = reembed(batches, stores, shown, stack.enter_context(_spool(None)))
    document = asdict(report) | {"dry_run": dry_run}
    emit(
        document,
        as_json,
        lambda console: console.print(
            f"{report.matched} pins {'would be' if dry_run else 'were'} embedded anew; left out: {report.deleted} deleted, {report.textless} without text"
        ),
    )
    if report.unknown_pins:
        print(f"everpin: {report.unknown_pins} ids are unknown to the feature store: {', '.join(report.unknown[:20])}", file=sys.stderr)
    if report.failed_pins:
        print(f"everpin: {report.failed_pins} pins got no new vector, {', '.join(report.failed)} among them; see `everpin dlq list`", file=sys.stderr)
    raise typer.Exit(PARTIAL if report.unknown_pins or report.failed_pins else 0)


def sweep_deleted(
    hold: Annotated[str, typer.Option(help="Age of a deletion from which on it is swept: 30m, 24h, 7d. Longer than any worker can lag.")] = "24h",
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete for good: no text or vector of a pin that was deleted longer ago than the hold stays in features, index, or their files."""
    config = live_settings(settings())
    hold_s = seconds(hold)
    if hold_s < SHORT_HOLD_S:
        print(f"everpin: a worker that lags more than {hold} could bring a swept pin back; the hold must be longer than that", file=sys.stderr)
    _agree(not dry_run, yes, as_json, f"erase every pin that was deleted more than {hold} ago")
    with ExitStack() as stack:
        features = stack.enter_context(feature_store(config))
        index = stack.enter_context(reading(config))
        progress = stack.enter_context(_progress(as_json))
        task = progress.add_task("sweeping", total=None)
        report = sweep(features, index, now_us() - int(hold_s * 1e6), now_us, lambda n: progress.advance(task, n), dry_run=dry_run)
    elsewhere = [ELSEWHERE, *([SERVER_FILES] if config.qdrant_url else [])]
    document = asdict(report) | {"hold_s": hold_s, "dry_run": dry_run, "complete": report.complete, "elsewhere": elsewhere}
    emit(document, as_json, lambda console: _show_sweep(console, report, elsewhere, dry_run))
    _warn_of_rest(report)
    raise typer.Exit(0 if report.complete else PARTIAL)


def _show_sweep(console: Console, report: SweepReport, elsewhere: Sequence[str], dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    console.print(f"{report.deleted} pins deleted before the hold; {would}erased in the feature store: {report.erased}")
    console.print(f"tombstones {would}removed from the index: {report.tombstones}; points that name no pin: {report.nameless}")
    for words in elsewhere:
        console.print(words)


def _warn_of_rest(report: SweepReport) -> None:
    if report.still_served:
        print(
            f"everpin: the index still serves {report.still_served} of them, such as {', '.join(report.examples)}: `everpin reconcile --fix`, then sweep again",
            file=sys.stderr,
        )
    if report.too_young:
        print(f"everpin: {report.too_young} tombstones are younger than the hold, because their deletion came late; sweep again later", file=sys.stderr)
    if report.not_erased:
        print(f"everpin: a producer keeps writing to {', '.join(report.not_erased[:20])}; stop it and sweep again", file=sys.stderr)
    if not report.scrubbed:
        print("everpin: another process held the feature store's file, so erased text may still be in it; sweep again", file=sys.stderr)


def seconds(duration: str) -> float:
    """`30m`, `24h`, `7d`, or plain seconds. Raises EverpinError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", duration)
    if not found:
        raise EverpinError(f"--hold {duration}: write a number and s, m, h or d, such as 24h")
    return float(found[1]) * UNITS[found[2] or "s"]


def _share(sample: str | None, features: FeatureSource, seed: int) -> float:
    if sample is None:
        return 1.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", sample)
    if not found or not float(found[1]) or (found[2] and float(found[1]) > 100) or not (found[2] or found[1].isdigit()):
        raise EverpinError(f"--sample {sample}: write a number of pins (10000) or a share of them (1%)")
    return float(found[1]) / 100 if found[2] else share_of(features, int(found[1]), seed)


def _opened(config: Settings, stack: ExitStack, sending: bool) -> tuple[Stores, Line | None]:
    """The stores, and with `sending` the way to the worker. The system is started first where none runs: it owns the index then."""
    broker = stack.enter_context(stream(config)) if sending else None
    encoder = lazy_encoder(config)
    stores = Stores(stack.enter_context(feature_store(config)), stack.enter_context(reading(config)), encoder)
    return stores, Line(broker, worker_group(config, encoder.model_id)) if broker else None


def _shown(line: Line, progress: Progress, words: str, total: int | None, rate: float = 0.0) -> Line:
    task = progress.add_task(words, total=total)
    return Line(line.broker, line.group, rate, lambda n: progress.advance(TaskID(task), n))


def _behind(config: Settings) -> int | None:
    """Events that the worker has yet to take; None where there is no broker."""
    broker = find_broker(config)
    if broker is None:
        return None
    offsets = Offsets(broker, worker_group(config, lazy_encoder(config).model_id))
    try:
        return sum(lag.messages for lag in offsets.lag((UPDATES,)))
    finally:
        offsets.close()


def _agree(asked: bool, yes: bool, as_json: bool, what: str) -> None:
    """Go on only if told to. Raises EverpinError where nobody can be asked, Abort."""
    if not asked or yes:
        return
    if as_json or not sys.stdin.isatty():
        raise EverpinError(f"this would {what}; add --yes, or --dry-run to see what it would do")
    typer.confirm(f"This will {what}. Go on?", abort=True, err=True)


@contextmanager
def _spool(out: Path | None) -> Iterator[IO[str]]:
    """Where differences are kept while they are many: the named file, or a temporary one."""
    if out is None:
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            yield file
        return
    try:
        with out.open("w+", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise EverpinError(f"cannot write {out}: {error}; name a file in a folder that exists") from error


def _records(index: PinIndex) -> int:
    counts = index.counts()
    return counts["live"] + counts["textless"] + counts["dead"]


def _parts(pins: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(dict.fromkeys(pins))
    while part := list(islice(rest, 500)):
        yield part


def _progress(quiet: bool) -> Progress:
    return Progress(console=Console(stderr=True), disable=quiet)
