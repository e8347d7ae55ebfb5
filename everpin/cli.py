"""ENTRY: the command line. Every command takes --json and prints one document then.

Exit codes: 0 all done; 1 done in part, or something is unhealthy; 2 not done, and why.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from embedder.artifact import read_manifest
from everpin import __version__
from everpin.answers import answer_feed, answer_related, answer_search, explain, reading
from everpin.checks import doctor, status
from everpin.demo import results_table, run_demo
from everpin.evaluation import evaluate, read_queries
from everpin.importers import READERS, BadRow, count_rows
from everpin.loading import ImportReport, feature_store, import_pins, stream
from everpin.settings import Settings, settings, variable
from everpin.system import running_system
from everpin.wiring import build_encoder, require_broker, worker_group
from pins.errors import EverpinError
from pins.ports import Where
from streams.broker import EventProducer
from streams.deadletters import dead_letters, replay

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Everpin keeps the embedding of every pin true to the pin.")
importing = typer.Typer(no_args_is_help=True, help="Load pins: features to Feast, events to Kafka, the worker does the rest.")
evaluating = typer.Typer(no_args_is_help=True, help="Score the vectors in the index against human judgements.")
dlq = typer.Typer(no_args_is_help=True, help="Dead letters: messages that could not be used.")
app.add_typer(importing, name="import")
app.add_typer(evaluating, name="evaluate")
app.add_typer(dlq, name="dlq")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Wait = Annotated[bool, typer.Option(help="Return when the worker has taken every event.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many results.")]
PARTIAL, NOT_DONE = 1, 2
SHOWN_BAD_ROWS = 20


def emit(document: Any, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a result: as JSON, or for people."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2, default=str))
    else:
        show(Console())


@app.command()
def demo(as_json: AsJson = False) -> None:
    """Run the whole system on embedded parts with the sample pins, show what happens, and end."""
    document = run_demo(settings(), quiet=as_json)
    emit(document, as_json, lambda console: None)


@app.command()
def up() -> None:
    """Run broker, worker and stores in one process tree until Ctrl-C."""
    config = settings()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    console = Console(stderr=True)
    with running_system(config, None, console.print) as system:
        console.print(f"up: broker {system.broker}, worker {system.worker.pid}, routes {system.http.base_url}; the embedded broker keeps events in memory only")
        console.print("in another terminal: everpin import jsonl FILE, everpin search TEXT, everpin status; Ctrl-C ends it")
        while not stopped.wait(0.5):
            if system.worker.poll() is not None:
                raise EverpinError(f"the worker ended with exit code {system.worker.returncode}; its last lines are above")


@app.command()
def worker() -> None:
    """Run one worker on the Kafka in EVERPIN_KAFKA until SIGTERM. Start several to share the partitions."""
    os.execv(sys.executable, [sys.executable, "-m", "streams.app"])


@importing.command("jsonl")
def import_jsonl(file: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load pins from JSON lines. Fields: see docs/import.md; only pin_id is required."""
    _import("jsonl", file, wait, as_json)


@importing.command("parquet")
def import_parquet(file: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load pins from a parquet file with the same columns as the JSON lines."""
    _import("parquet", file, wait, as_json)


@importing.command("cxc")
def import_cxc(folder: Path, wait: Wait = True, as_json: AsJson = False) -> None:
    """Load the items.parquet of a folder of the cxc layout."""
    _import("cxc", folder, wait, as_json)


def _import(kind: str, path: Path, wait: bool, as_json: bool) -> None:
    config = settings()
    total = count_rows(kind, path)
    with stream(config) as broker, feature_store(config) as features, Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task(f"importing {path}", total=total)
        report = import_pins(READERS[kind](path), broker, features, config, lambda n: progress.advance(task, n), wait=wait)
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


@evaluating.command("cxc")
def evaluate_cxc(
    folder: Path,
    split: Annotated[str | None, typer.Option(help="A value of the queries' split column, or all. Default: dev where there is one, else all.")] = None,
    as_json: AsJson = False,
) -> None:
    """NDCG@10, nDCG@20 and P@8 per language, with and without the own pin, with 95 % bootstrap intervals by group."""
    config = settings()
    queries = read_queries(folder, split)
    with reading(config) as index, Progress(console=Console(stderr=True), disable=as_json) as progress:
        task = progress.add_task("encoding queries", total=len(queries))
        document = evaluate(queries, build_encoder(config), index, lambda n: progress.advance(task, n))
    emit(document, as_json, lambda console: _show_evaluation(console, document))
    if document["missing_pins"]:
        print(f"everpin: {document['missing_pins']} judged pins have no vector and ranked last; run `everpin import cxc {folder}` first", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def _show_evaluation(console: Console, document: dict[str, Any]) -> None:
    for part, title in (("languages", "own pin included"), ("languages_without_own_pin", "own pin left out")):
        table = Table("language", "queries", "nDCG@10", "nDCG@20", "P@8", title=f"{document['model_id']}, {title}")
        for lang, metrics in document[part].items():
            cells = [f"{m['mean']:.3f} [{m['low']:.3f}, {m['high']:.3f}]" for m in (metrics[name] for name in ("ndcg@10", "ndcg@20", "p@8"))]
            table.add_row(lang, str(metrics["queries"]), *cells)
        console.print(table)


@app.command()
def search(
    text: str,
    limit: Limit = 10,
    lang: Annotated[str | None, typer.Option(help="Only pins of this language.")] = None,
    category: Annotated[str | None, typer.Option(help="Only pins of this category.")] = None,
    board: Annotated[str | None, typer.Option(help="Only pins with this board title.")] = None,
    as_json: AsJson = False,
) -> None:
    """The pins most relevant to a text, each with its relevance level."""
    if not text.strip():
        raise EverpinError("the query is empty; give at least one word")
    results = answer_search(settings(), text, limit, Where(lang=lang, category=category, board=board))
    emit({"query": text, "results": results}, as_json, lambda console: console.print(results_table(f"Search: {text}", results)))


@app.command()
def related(pin: str, limit: Limit = 10, as_json: AsJson = False) -> None:
    """Pins like a pin."""
    results = answer_related(settings(), pin, limit)
    emit({"pin_id": pin, "results": results}, as_json, lambda console: console.print(results_table(f"Related to {pin}", results)))


@app.command()
def feed(user: str, limit: Limit = 20, as_json: AsJson = False) -> None:
    """A user's home feed; the newest pins for a user without a history."""
    results = answer_feed(settings(), user, limit)
    emit({"user_id": user, "results": results}, as_json, lambda console: console.print(results_table(f"Home feed of {user}", results)))


@app.command("explain")
def explain_pin(pin: str, as_json: AsJson = False) -> None:
    """A pin's own story: features with their times, rendered text, record in the index, and what would be decided now."""
    document = explain(settings(), pin)
    emit(document, as_json, lambda console: console.print_json(json.dumps(document, ensure_ascii=False, default=str)))
    if document["features"] is None and document["record"] is None:
        print(f"everpin: pin {pin!r} is neither in the feature store nor in the index", file=sys.stderr)
        raise typer.Exit(NOT_DONE)


@app.command("status")
def show_status(as_json: AsJson = False) -> None:
    """Broker, lag per partition, Feast, index, dead letters. Exit code 1 when anything is unhealthy."""
    document = status(settings())
    emit(document, as_json, lambda console: console.print_json(json.dumps(document, default=str)))
    for problem in document["problems"]:
        print(f"unhealthy: {problem}", file=sys.stderr)
    raise typer.Exit(0 if document["healthy"] else PARTIAL)


@app.command("doctor")
def show_doctor(as_json: AsJson = False) -> None:
    """Check versions, disk, ports, state folder and model folder, each with the fix."""
    checks = doctor(settings())
    table = Table("", "check", "found", "fix")
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]no[/]", check.name, check.found, "" if check.ok else check.fix)
    document = {"checks": [{"name": c.name, "ok": c.ok, "found": c.found, "fix": "" if c.ok else c.fix} for c in checks]}
    emit(document, as_json, lambda console: console.print(table))
    raise typer.Exit(0 if all(check.ok for check in checks) else PARTIAL)


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Every setting, its environment variable, its value now, and how to choose one."""
    config = settings()
    table = Table(Column("variable", overflow="fold"), Column("value", overflow="fold"), "meaning")
    for name, field in Settings.model_fields.items():
        table.add_row(variable(name), str(getattr(config, name)), field.description)
    document = {variable(name): str(getattr(config, name)) for name in Settings.model_fields}
    emit(document, as_json, lambda console: console.print(table))


@app.command("version")
def show_version(as_json: AsJson = False) -> None:
    """The version of Everpin."""
    emit({"version": __version__}, as_json, lambda console: console.print(__version__))


@dlq.command("list")
def dlq_list(reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None, as_json: AsJson = False) -> None:
    """The dead letters and why they are dead."""
    letters = [letter.as_json() for letter in dead_letters(require_broker(settings()), reason)]
    table = Table("letter", "reason", "pin", "attempts", "first failure", "detail")
    for letter in letters:
        table.add_row(letter["letter"], letter["reason"], letter["pin_id"], str(letter["attempts"]), letter["first_failure"], letter["detail"][:100])
    emit({"dead_letters": letters}, as_json, lambda console: console.print(table))


@dlq.command("show")
def dlq_show(letter: str, as_json: AsJson = False) -> None:
    """One dead letter whole, by its place (partition:offset)."""
    for found in dead_letters(require_broker(settings())):
        if found.letter == letter:
            document = found.as_json() | {"value": (found.value or b"").decode("utf-8", "replace")}
            emit(document, as_json, lambda console: console.print_json(json.dumps(document, ensure_ascii=False)))  # noqa: B023 called now
            return
    raise EverpinError(f"no dead letter at {letter!r}; `everpin dlq list` shows their places")


@dlq.command("replay")
def dlq_replay(
    reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None,
    pin: Annotated[str | None, typer.Option(help="Only this pin.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, send nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters through the ordinary path again."""
    config = settings()
    broker = require_broker(config)
    letters = list(dead_letters(broker, reason, pin))
    sent, cut = 0, [letter for letter in letters if "cut_from_bytes" in letter.headers]
    if not dry_run:
        producer = EventProducer(broker, worker_group(config, read_manifest(config.model).model_id))
        sent, cut = replay(letters, producer)
        producer.close()
    document = {"matched": len(letters), "sent": sent, "not_replayable": [letter.letter for letter in cut], "dry_run": dry_run}
    emit(document, as_json, lambda console: console.print(f"{len(letters)} matched, {sent} sent, {len(cut)} cannot be replayed (their value was cut)"))
    raise typer.Exit(PARTIAL if cut else 0)


def main() -> None:
    """Run a command; an error a person can act on becomes one line and exit code 2."""
    try:
        app()
    except EverpinError as error:
        print(f"everpin: {error}", file=sys.stderr)
        sys.exit(NOT_DONE)


if __name__ == "__main__":
    main()
