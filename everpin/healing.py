"""Making the index true again, through the ordinary path: refresh events to the worker, waiting until it took them, looking again.

Nothing here writes to the index. What differs: `everpin.reconciling`. What is deleted for good: `everpin.sweeping`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import IO

from everpin.reconciling import EXAMPLES, Difference, Scope, Stores, recheck
from everpin.wiring import now_us
from pins.changes import IndexedPin
from pins.errors import EverpinError, Unavailable
from pins.events import PinEvent, PinUpdated
from pins.reconcile import FORCED
from pins.text import render
from streams.broker import UPDATES, Broker, EventProducer, Offsets, end_offsets

NO_PROGRESS_S = 120.0
"""How long a worker may take no event at all before waiting for it is given up."""
CONDITIONS = ("lang", "category", "board", "model", "reason", "refused")
"""What `reembed --where` compares."""


@dataclass(slots=True)
class Healing:
    """What a repair did. `held_back`: orphans that were not touched, because so many look like a feature store that lost its data."""

    sent: int = 0
    held_back: int = 0
    left: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Reembedding:
    """What a re-embedding did. `unknown` are ids without features; `failed` are pins whose record did not get a new vector."""

    matched: int = 0
    sent: int = 0
    deleted: int = 0
    textless: int = 0
    unknown_pins: int = 0
    unknown: list[str] = field(default_factory=list)
    failed_pins: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Line:
    """The way to the worker: broker, consumer group, most events a second (0: as fast as it goes), and who is told of progress."""

    broker: Broker
    group: str
    rate: float = 0.0
    step: Callable[[int], None] = lambda n: None


def write_lines(file: IO[str], found: Iterable[Difference]) -> None:
    """One JSON object per difference, so that a million of them need no memory."""
    for difference in found:
        file.write(json.dumps(asdict(difference), ensure_ascii=False) + "\n")
    file.flush()


def read_lines(file: IO[str]) -> Iterator[Difference]:
    """The differences written by `write_lines`, from the first one on."""
    file.seek(0)
    return (Difference(**json.loads(line)) for line in file)


def heal(file: IO[str], stores: Stores, scope: Scope, line: Line, orphan_limit: int) -> Healing:
    """Send a refresh for every difference in the file, wait until the worker took them, and look again at exactly those.

    From `orphan_limit` orphans on none of them is touched: the worker would stop at that many pins without features, and
    rightly. Raises Unavailable when the worker makes no progress.
    """
    report = Healing()
    orphans = sum(one.kind == "orphan" for one in read_lines(file))
    report.held_back = orphans if orphans >= orphan_limit else 0
    wanted = (one for one in read_lines(file) if not (report.held_back and one.kind == "orphan"))
    report.sent = send(line, (PinUpdated(one.pin_id, now_us(), reembed=one.kind in FORCED) for one in wanted))
    for one in recheck(stores, scope, read_lines(file)):
        report.left[one.kind] += 1
        some = report.examples.setdefault(one.kind, [])
        if len(some) < EXAMPLES:
            some.append(one.pin_id)
    return report


def send(line: Line, events: Iterable[PinEvent]) -> int:
    """Send events at the line's rate and return when the worker has taken them all: how many. Raises Unavailable."""
    producer, sent, started = EventProducer(line.broker, line.group), 0, time.monotonic()
    try:
        for event in events:
            if line.rate:
                time.sleep(max(0.0, started + sent / line.rate - time.monotonic()))
            producer.send(event)
            sent += 1
            line.step(1)
        producer.flush()
    finally:
        producer.close()
    if sent:
        _wait_until_taken(line, end_offsets(line.broker, UPDATES))
    return sent


def _wait_until_taken(line: Line, ends: Mapping[int, int]) -> None:
    """Wait until the group has committed up to these ends. Newer events are nobody's business here: the stream never stops."""
    offsets, best, deadline = Offsets(line.broker, line.group), -1, time.monotonic() + NO_PROGRESS_S
    try:
        while (behind := sum(max(0, ends.get(lag.partition, 0) - (lag.committed or 0)) for lag in offsets.lag((UPDATES,)))) > 0:
            if best < 0 or behind < best:
                best, deadline = behind, time.monotonic() + NO_PROGRESS_S
            if time.monotonic() > deadline:
                raise Unavailable(f"the worker took no event for {NO_PROGRESS_S:.0f} s and is {behind} behind; the events are sent and wait for it")
            time.sleep(0.1)
    finally:
        offsets.close()


def reembed(batches: Iterable[Sequence[str]], stores: Stores, line: Line | None, spool: IO[str]) -> Reembedding:
    """Ask for a new vector of each of these pins, wait, and check by the version of each record that it came.

    Without a line it only counts. Raises Unavailable.
    """
    report = Reembedding()
    chosen = _chosen(batches, stores, report)
    if line is None:
        report.matched = sum(1 for _ in chosen)
        return report

    def events() -> Iterator[PinEvent]:
        for one in chosen:
            report.matched += 1
            write_lines(spool, [one])
            yield PinUpdated(one.pin_id, now_us(), reembed=True)

    report.sent = send(line, events())
    written = read_lines(spool)
    while batch := list(islice(written, 500)):
        known = stores.index.known([one.pin_id for one in batch])
        failed = [one.pin_id for one in batch if one.pin_id not in known or known[one.pin_id].v <= one.v or known[one.pin_id].refused]
        report.failed_pins += len(failed)
        report.failed += failed[: max(0, EXAMPLES - len(report.failed))]
    return report


def _chosen(batches: Iterable[Sequence[str]], stores: Stores, report: Reembedding) -> Iterator[Difference]:
    """Those that can have a vector, each with the version of its record now."""
    for ids in batches:
        known, found = stores.index.known(ids), stores.features.of(ids)
        for pin_id in ids:
            pin = found.get(pin_id)
            if pin is None:
                report.unknown_pins += 1
                report.unknown += [pin_id] if len(report.unknown) < 1000 else []
            elif pin.deleted:
                report.deleted += 1
            elif not render(pin):
                report.textless += 1
            else:
                yield Difference(pin_id, "reembed", known[pin_id].v if pin_id in known else 0)


def conditions(pairs: Sequence[str]) -> list[tuple[str, str]]:
    """`key=value` pairs of `--where`. Raises EverpinError."""
    split = [pair.partition("=") for pair in pairs]
    if wrong := [pair for pair, (key, equals, _) in zip(pairs, split, strict=True) if not equals or key not in CONDITIONS]:
        raise EverpinError(f"--where {wrong[0]}: write KEY=VALUE with one of {', '.join(CONDITIONS)}; `refused=*` is any reason")
    return [(key, value) for key, _, value in split]


def matching(stores: Stores, wanted: Sequence[tuple[str, str]], batch: int = 500) -> Iterator[list[str]]:
    """Ids of the live pins of the index that meet all conditions, in batches."""
    for records in stores.index.scan(batch):
        yield [record.pin_id for record in records if record.pin_id and not record.dead and all(_meets(record, *pair) for pair in wanted)]


def _meets(record: IndexedPin, key: str, value: str) -> bool:
    match key:
        case "model":
            return record.model_id == value
        case "reason":
            return record.reason == value
        case "refused":
            return record.refused == value or (value == "*" and bool(record.refused))
        case "board":
            return value in record.fields.get("boards", ())
        case _:
            return bool(record.fields.get(key) == value)
