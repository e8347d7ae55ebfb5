"""`everpin dlq`: look at dead letters, send them through the ordinary path again, or do away with them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.settings import settings
from everpin.wiring import now_us, require_broker, worker_groups
from pins.errors import EverpinError
from streams.broker import DEAD, Broker, EventProducer, end_offsets
from streams.deadletters import PLACE, Report, Wanted, dead_letters, purge, replay
from streams.erasure import Erasure, erase

Letters = Annotated[list[str] | None, typer.Argument(help="Only these letters, by place (partition:offset).", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Only this reason.")]
Pin = Annotated[str | None, typer.Option(help="Only this pin.")]
Since = Annotated[str | None, typer.Option(help="Only letters written then or later: an ISO time, or an age such as 90s, 15m, 2h, 7d.")]
Until = Annotated[str | None, typer.Option(help="Only letters written before: an ISO time, or an age such as 90s, 15m, 2h, 7d.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")]
AGE = re.compile(r"(\d{1,9})([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def dlq_list(
    reason: Reason = None,
    pin: Pin = None,
    since: Since = None,
    until: Until = None,
    settled: Annotated[bool, typer.Option("--all", help="Also those that were replayed or purged, with how and when.")] = False,
    as_json: AsJson = False,
) -> None:
    """The dead letters and why they are dead."""
    letters = [letter.as_json() for letter in dead_letters(require_broker(settings()), wanted(reason, pin, since, until), settled=settled)]
    table = Table("letter", "reason", "pin", "attempts", "first failure", "detail", *([Column("settled", overflow="fold")] if settled else []))
    for letter in letters:
        end = letter["settled"]
        words = [f"{end['how']} {end['at']}" if end else "waits"] if settled else []
        table.add_row(letter["letter"], letter["reason"], letter["pin_id"], str(letter["attempts"]), letter["first_failure"], letter["detail"][:100], *words)
    emit({"dead_letters": letters}, as_json, lambda console: console.print(table))


def dlq_show(letter: str, as_json: AsJson = False) -> None:
    """One dead letter whole, by its place (partition:offset)."""
    for found in dead_letters(require_broker(settings()), wanted(letters=[letter]), settled=True):
        document = found.as_json() | {"value": (found.value or b"").decode("utf-8", "replace")}
        emit(document, as_json, lambda console: console.print_json(json.dumps(document, ensure_ascii=False)))  # noqa: B023 called now
        return
    raise EverpinError(f"no dead letter at {letter!r}; `everpin dlq list --all` shows their places")


def dlq_replay(
    letters: Letters = None,
    reason: Reason = None,
    pin: Pin = None,
    since: Since = None,
    until: Until = None,
    rate: Annotated[float, typer.Option(min=0, help="Most events per second; 0: no limit.")] = 200,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send dead letters through the ordinary path again, each once. Exit code 1 when some could not be sent."""
    which, broker = wanted(reason, pin, since, until, letters), require_broker(settings())
    ends = end_offsets(broker, DEAD)
    report, missing = count(broker, which, ends)
    if not dry_run and report.matched:
        with at_work(broker, "replaying", report.matched - len(report.cut), as_json) as (producer, step):
            report = replay(dead_letters(broker, which, before=ends), producer, now_us, step, rate=rate)
    document = _counts(report, missing) | {"sent": report.done, "not_replayable": report.cut, "refused": report.refused, "dry_run": dry_run}
    emit(document, as_json, lambda console: _show_replay(console, document))
    raise typer.Exit(PARTIAL if report.cut or report.refused or missing else 0)


def dlq_purge(
    letters: Letters = None,
    reason: Reason = None,
    pin: Pin = None,
    since: Since = None,
    until: Until = None,
    all_letters: Annotated[bool, typer.Option("--all-letters", help="Purge every letter that waits.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Do away with dead letters for good, and say which of them the broker still keeps."""
    which = wanted(reason, pin, since, until, letters)
    if which.all != all_letters:
        raise EverpinError("say which letters: by place, --reason, --pin, --since or --until; or --all-letters without any of these")
    broker = require_broker(settings())
    ends = end_offsets(broker, DEAD)
    report, missing = count(broker, which, ends)
    if dry_run:
        document: dict[str, Any] = _counts(report, missing) | {"purged": 0, "dry_run": True}
        emit(document, as_json, lambda console: console.print(_matched(document)))
        raise typer.Exit(PARTIAL if missing else 0)
    if not yes and report.matched:
        _agreed(report, as_json)
    with at_work(broker, "purging", report.matched, as_json) as (producer, step):
        report, offsets = purge(dead_letters(broker, which, before=ends), producer, now_us, step)
    erasure = erase(broker, which)
    unreadable = erasure.gone(offsets)
    document = _counts(report, missing) | {
        "purged": report.done, "unreadable": unreadable, "readable": report.done - unreadable,
        "readable_from_before": max(0, erasure.readable - (report.done - unreadable)),
        "deleted": erasure.deleted, "blocked_by": erasure.blocked_by, "notes": _notes(broker, erasure), "dry_run": False,
    }  # fmt: skip
    emit(document, as_json, lambda console: _show_purge(console, document))
    raise typer.Exit(PARTIAL if missing or erasure.problem else 0)


def wanted(reason: str | None = None, pin: str | None = None, since: str | None = None, until: str | None = None, letters: list[str] | None = None) -> Wanted:
    """The filter that these options mean. Raises EverpinError, with what to write instead."""
    for place in letters or ():
        if not PLACE.fullmatch(place):
            raise EverpinError(f"{place!r} is no letter's place; write partition:offset such as 3:0, as `everpin dlq list` shows it")
    now = now_us()
    since_us, until_us = (None if text is None else time_us(name, text, now) for name, text in (("--since", since), ("--until", until)))
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise EverpinError(f"--since {since} is not before --until {until}, so no letter can match; exchange the two")
    return Wanted(reason, pin, since_us, until_us, frozenset(letters or ()))


def time_us(option: str, text: str, now: int) -> int:
    """An ISO time (without an offset it is UTC) or an age before `now`, as epoch microseconds. Raises EverpinError."""
    if age := AGE.fullmatch(text):
        return now - int(age[1]) * SECONDS[age[2]] * 1_000_000
    try:
        at = datetime.fromisoformat(text)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)
    except (ValueError, OverflowError) as error:
        raise EverpinError(f"{option} {text!r} is no time; write an age such as 90s, 15m, 2h, 7d, or an ISO time such as 2026-01-31T12:00:00Z") from error


def count(broker: Broker, which: Wanted, ends: Mapping[int, int]) -> tuple[Report, list[str]]:
    """The letters that match, counted, and the places that were asked for where none waits. Raises Unavailable."""
    report, found = Report(), set()
    for letter in dead_letters(broker, which, before=ends):
        report.note(letter)
        found |= {letter.letter} & which.places
    return report, sorted(which.places - found)


@contextmanager
def at_work(broker: Broker, words: str, total: int, quiet: bool) -> Iterator[tuple[EventProducer, Callable[[int], None]]]:
    """A producer, and a progress bar on standard error to step."""
    config = settings()
    producer = EventProducer(broker, lambda: worker_groups(config))
    with Progress(console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(f"{words} dead letters", total=total)
        yield producer, lambda n: progress.advance(task, n)
    producer.close()


def _agreed(report: Report, as_json: bool) -> None:
    question = f"Do away with {report.matched} dead letters ({_reasons(report.by_reason)})?"
    if as_json or not sys.stdin.isatty():
        raise EverpinError(f"{question} Add --yes to do it, or --dry-run to only count")
    typer.confirm(question, abort=True, err=True)


def _counts(report: Report, missing: list[str]) -> dict[str, Any]:
    return {"matched": report.matched, "by_reason": dict(report.by_reason), "not_waiting": missing}


def _reasons(by_reason: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(by_reason.items()))


def _matched(document: dict[str, Any]) -> str:
    reasons = f" ({_reasons(document['by_reason'])})" if document["by_reason"] else ""
    missing = document["not_waiting"]
    return f"{document['matched']} matched{reasons}" + (f"; no letter waits at {', '.join(missing)}: see `everpin dlq list --all`" if missing else "")


def _show_replay(console: Console, document: dict[str, Any]) -> None:
    console.print(f"{_matched(document)}; {document['sent']} sent" + (": a dry run sends nothing" if document["dry_run"] else ""))
    if document["not_replayable"]:
        console.print(f"{len(document['not_replayable'])} cannot be replayed, their value was cut: {', '.join(document['not_replayable'])}")
    for place, why in document["refused"].items():
        console.print(f"{place} was not taken by Kafka and still waits: {why}")


def _show_purge(console: Console, document: dict[str, Any]) -> None:
    purged, unreadable, readable = document["purged"], document["unreadable"], document["readable"]
    console.print(f"{_matched(document)}; {purged} purged: {unreadable} can no longer be read from the broker, {readable} still can")
    if document["readable_from_before"]:
        console.print(f"{document['readable_from_before']} more that match, replayed or purged before, can still be read")
    if document["deleted"] > unreadable:
        console.print(f"{document['deleted']} letters in all were deleted: those settled before went with them")
    for note in document["notes"]:
        console.print(note)


def _notes(broker: Broker, erasure: Erasure) -> list[str]:
    """What the figures do not say: why something is still there, and when it goes."""
    if broker.embedded:
        return ["The embedded broker cannot delete: it keeps its messages, in memory only, until it stops."]
    notes = []
    if erasure.problem:
        notes.append(f"Kafka did not delete: {erasure.problem}")
    if erasure.blocked_by:
        notes.append(
            "Kafka deletes from the front of a partition only. The others go when every letter before them is settled "
            f"(the first that waits: {', '.join(erasure.blocked_by)}) and you purge again, or when the topic's retention ends."
        )
    if erasure.deleted:
        notes.append('What cannot be read any more stays in Kafka\'s files until it drops them: docs/events.md, "Dead letters", says when.')
    return notes
