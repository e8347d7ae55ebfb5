"""`everpin dlq`: look at dead letters, and send them through the ordinary path again."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from embedder.artifact import read_manifest
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.settings import settings
from everpin.wiring import require_broker, worker_group
from pins.errors import EverpinError
from streams.broker import EventProducer
from streams.deadletters import dead_letters, replay


def dlq_list(reason: Annotated[str | None, typer.Option(help="Only this reason.")] = None, as_json: AsJson = False) -> None:
    """The dead letters and why they are dead."""
    letters = [letter.as_json() for letter in dead_letters(require_broker(settings()), reason)]
    table = Table("letter", "reason", "pin", "attempts", "first failure", "detail")
    for letter in letters:
        table.add_row(letter["letter"], letter["reason"], letter["pin_id"], str(letter["attempts"]), letter["first_failure"], letter["detail"][:100])
    emit({"dead_letters": letters}, as_json, lambda console: console.print(table))


def dlq_show(letter: str, as_json: AsJson = False) -> None:
    """One dead letter whole, by its place (partition:offset)."""
    for found in dead_letters(require_broker(settings())):
        if found.letter == letter:
            document = found.as_json() | {"value": (found.value or b"").decode("utf-8", "replace")}
            emit(document, as_json, lambda console: console.print_json(json.dumps(document, ensure_ascii=False)))  # noqa: B023 called now
            return
    raise EverpinError(f"no dead letter at {letter!r}; `everpin dlq list` shows their places")


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
