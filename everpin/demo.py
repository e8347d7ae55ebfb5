"""`everpin demo`: the whole system on embedded parts with the sample pins, from the first embedding to a scripted stream."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from everpin.answers import answer_feed, answer_related, answer_search
from everpin.importers import PinRow, read_jsonl
from everpin.loading import feature_store, import_pins
from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import now_us
from pins.changes import REASONS
from pins.events import PinDeleted, PinUpdated
from pins.features import FeatureRow
from pins.ports import Where
from pins.retrieval.related import RelatedOptions
from pins.retrieval.search import SearchOptions
from streams.broker import EMBEDDED, EventProducer, Offsets, read_topic, wait_for_lag

SAMPLE = Path(__file__).parent / "sample"
SEARCHES = (("balcony herb garden in small pots", Where()), ("cozy reading corner with warm light", Where()), ("Sauerteigbrot backen", Where(lang="de")))
RELATED_TO = "food-001"
FEED_OF = "user-01"
PACE_S = 0.05
"""Seconds between scripted updates: 20 a second."""


def run_demo(config: Settings, *, quiet: bool) -> dict[str, Any]:
    """Run it in a fresh folder below EVERPIN_HOME, which stays for looking around. Returns the demo's document."""
    config = replace_home(config, config.home / "demo")
    shutil.rmtree(config.home, ignore_errors=True)
    console = Console(stderr=True, quiet=quiet)
    rows = [row for row in read_jsonl(SAMPLE / "pins.jsonl") if isinstance(row, PinRow)]
    updates = [json.loads(line) for line in (SAMPLE / "updates.jsonl").read_text().splitlines()]
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        starting = progress.add_task("starting", total=3)

        def said(words: str) -> None:
            progress.update(starting, description=words, advance=1)

        with running_system(config, config.home / "worker.log", said) as system:
            progress.update(starting, description="broker and worker are ready", completed=3)
            _first_embedding(config, system, rows, progress)
            started_ms = time.time() * 1000
            _scripted_stream(system, rows, updates, progress)
            document = _document(config, system, started_ms)
    if not quiet:
        print_document(document, Console(), config)
    return document


def replace_home(config: Settings, home: Path) -> Settings:
    """The same settings on another state folder, always with the embedded parts."""
    return config.model_copy(update={"home": home, "kafka": "", "qdrant_url": "", "feast_yaml": None})


def _first_embedding(config: Settings, system: System, rows: Sequence[PinRow], progress: Progress) -> None:
    loading = progress.add_task("features and events of the sample pins", total=len(rows))
    with feature_store(config) as features:
        features.write(list(_histories()))
        import_pins(rows, system.broker, features, config, lambda n: progress.advance(loading, n), wait=False)
    embedding = progress.add_task("first embedding of every sample pin", total=len(rows))
    with _group(system) as offsets:
        while system.status()["index"]["live"] < len(rows) and sum(lag.messages for lag in offsets.lag()):
            progress.update(embedding, completed=system.status()["index"]["live"])
            time.sleep(0.1)
        wait_for_lag(offsets, 0)
    progress.update(embedding, completed=system.status()["index"]["live"])


def _scripted_stream(system: System, rows: Sequence[PinRow], updates: Sequence[Mapping[str, Any]], progress: Progress) -> None:
    sending = progress.add_task("scripted updates", total=len(updates))
    pins = {row.pin_id: row for row in rows}
    producer = EventProducer(system.broker, _group_name(system))
    for update in updates:
        for send in _messages(update, pins):
            send(producer)
        producer.flush()
        progress.advance(sending)
        time.sleep(PACE_S)
    producer.close()
    with _group(system) as offsets:
        wait_for_lag(offsets, 0)


def _messages(update: Mapping[str, Any], pins: dict[str, PinRow]) -> Iterator[Callable[[EventProducer], None]]:
    """What one line of the script sends. A changed pin's event carries the whole rows of the views that changed."""
    at = now_us()
    match update["kind"]:
        case "new":
            row = pins[update["pin"]["pin_id"]] = PinRow.model_validate(update["pin"])
            yield lambda producer: producer.send(_updated(row, at, {feature.view for feature in row.rows(at)}))
        case "change" | "duplicate":
            changed, views = _changed(pins, update["pin_id"], update["set"])
            for _ in range(2 if update["kind"] == "duplicate" else 1):
                yield lambda producer: producer.send(_updated(changed, at, views))
        case "reversed":
            older, views = _changed(pins, update["pin_id"], update["older"])
            newer, _ = _changed(pins, update["pin_id"], update["newer"])
            yield lambda producer: producer.send(_updated(newer, at, views))
            yield lambda producer: producer.send(_updated(older, at - 1_000_000, views))
        case "poison":
            yield lambda producer: producer.send_raw(None, update["value"].encode())
        case "delete":
            yield lambda producer: producer.send(PinDeleted(update["pin_id"], at))


def _changed(pins: dict[str, PinRow], pin_id: str, changes: Mapping[str, Any]) -> tuple[PinRow, set[str]]:
    before = pins[pin_id]
    after = pins[pin_id] = PinRow.model_validate(before.model_dump() | dict(changes))
    old, new = before.rows(0), after.rows(0)
    return after, {row.view for row, was in zip(new, old, strict=True) if row.values != was.values}


def _updated(row: PinRow, at: int, views: set[str]) -> PinUpdated:
    return PinUpdated(row.pin_id, at, {feature.view: dict(feature.values) for feature in row.rows(at) if feature.view in views})


def _histories() -> Iterator[FeatureRow]:
    """The sample users' actions as feature rows."""
    for line in (SAMPLE / "users.jsonl").read_text().splitlines():
        user = json.loads(line)
        times = [int(datetime.fromisoformat(action["time"]).timestamp() * 1e6) for action in user["actions"]]
        values = {"pin_ids": [a["pin_id"] for a in user["actions"]], "actions": [a["action"] for a in user["actions"]], "action_times_us": times}
        yield FeatureRow("user_history", user["user_id"], now_us(), values)


def _document(config: Settings, system: System, started_ms: float) -> dict[str, Any]:
    status = system.status()
    freshness = [json.loads(record.value)["freshness_ms"] for record in read_topic(system.broker, EMBEDDED) if record.timestamp >= started_ms]
    p50, p99 = np.percentile(freshness, [50, 99])
    return {
        "pins": status["index"]["live"],
        "outcomes": status["outcomes"],
        "freshness_ms": {"p50": round(float(p50), 1), "p99": round(float(p99), 1)},
        "searches": [_searched(config, query, where) for query, where in SEARCHES],
        "related": answer_related(config, RELATED_TO, RelatedOptions(limit=5)),
        "home_feed": answer_feed(config, FEED_OF, 6)["results"],
        "dead_letters": sum(status["dead_letters"].values()),
        "encoder_calls": status["encoder_calls"],
        "model_id": status["model_id"],
    }


def _searched(config: Settings, query: str, where: Where) -> dict[str, Any]:
    return {"query": query, "where": {"lang": where.lang} if where.lang else {}, "results": answer_search(config, query, SearchOptions(limit=5, where=where))}


def _group_name(system: System) -> str:
    return f"everpin-{system.status()['model_id']}"


@contextmanager
def _group(system: System) -> Iterator[Offsets]:
    offsets = Offsets(system.broker, _group_name(system))
    try:
        yield offsets
    finally:
        offsets.close()


def print_document(document: Mapping[str, Any], console: Console, config: Settings) -> None:
    """The document as tables."""
    outcomes = Table("outcome", "pins", "meaning", title="What the worker did, by reason")
    for reason, count in sorted(document["outcomes"].items(), key=lambda item: -item[1]):
        outcomes.add_row(reason, str(count), REASONS[reason])
    outcomes.add_row("dead letter", str(document["dead_letters"]), "the message is no event; kept with its reason")
    console.print(outcomes)
    console.print(f"{document['encoder_calls']} encoder calls for {sum(document['outcomes'].values())} looks at pins; {document['pins']} pins are searchable")
    freshness = document["freshness_ms"]
    console.print(f"freshness of the scripted updates, event produced to searchable: p50 {freshness['p50']:.0f} ms, p99 {freshness['p99']:.0f} ms")
    for search in document["searches"]:
        only = f" (only {search['where']['lang']})" if search["where"] else ""
        console.print(results_table(f"Search: {search['query']}{only}", search["results"]))
    console.print(results_table(f"Related to {RELATED_TO}", document["related"]))
    console.print(results_table(f"Home feed of {FEED_OF}", document["home_feed"]))
    console.print(
        f"\nThe stores stay in {config.home}. Try:\n"
        f'  EVERPIN_HOME={config.home} .venv/bin/everpin search "winter soup"\n'
        f"  EVERPIN_HOME={config.home} .venv/bin/everpin explain {RELATED_TO}\n"
        "  .venv/bin/everpin up          the same system, running on\n"
        "  .venv/bin/everpin --help      everything else; your own pins: everpin import jsonl FILE\n"
    )


def results_table(title: str, results: Sequence[Mapping[str, Any]]) -> Table:
    """Results as a table, with relevance levels where there was a query."""
    with_level = any("level" in result for result in results)
    if not results:
        title += ": nothing found (`everpin status` tells how many pins are searchable)"
    table = Table("score", *(["relevance"] if with_level else []), "pin", "lang", "title", *([] if with_level else ["why"]), title=title, title_justify="left")
    for result in results:
        level = [f"{result['level']} {result['level_label']}"] if with_level else []
        table.add_row(f"{result['score']:.3f}", *level, result["pin_id"], result["lang"], result["title"], *([] if with_level else [result.get("why", "")]))
    return table
