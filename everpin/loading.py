"""Putting pins and events through the ordinary path: features to Feast, events to Kafka, and waiting until the worker has done the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from embedder.artifact import read_manifest
from everpin.importers import BadRow, PinRow, batches
from everpin.settings import Settings
from everpin.system import running_system
from everpin.wiring import build_features, find_broker, now_us, worker_group, worker_groups
from pins.events import PinEvent, PinUpdated
from streams.broker import DEAD, Broker, EventProducer, Offsets, end_offsets, ensure_topics, wait_for_lag
from streams.deadletters import letters_since

if TYPE_CHECKING:
    from streams.features import FeastFeatures

T = TypeVar("T")


@dataclass(slots=True)
class ImportReport:
    """What an import did and did not do."""

    rows: int = 0
    sent: int = 0
    bad: list[BadRow] = field(default_factory=list)
    dead_letters: int = 0
    waited: bool = False

    @property
    def complete(self) -> bool:
        return not self.bad and not self.dead_letters


@contextmanager
def stream(config: Settings) -> Iterator[Broker]:
    """The broker of the running system; where nothing runs, a system of our own for the time of the block."""
    broker = find_broker(config)
    if broker:
        yield broker
        return
    print(f"no system runs on {config.home}: starting one for this command", file=sys.stderr)
    with running_system(config, config.home / "worker.log") as system:
        yield system.broker


def import_pins(
    rows: Iterable[PinRow | BadRow], broker: Broker, features: FeastFeatures, config: Settings, step: Callable[[int], None], *, wait: bool = True
) -> ImportReport:
    """Write features, send one event per good row, and (with `wait`) return when the worker has taken them all.

    Raises Unavailable; running the import again is then harmless.
    """
    return _import(rows, lambda batch, producer, report: _send(batch, producer, features, report), broker, config, step, wait)


def import_events(events: Iterable[PinEvent | BadRow], broker: Broker, config: Settings, step: Callable[[int], None], *, wait: bool = True) -> ImportReport:
    """Send events as they are; the features that they carry are the worker's to write. Raises as `import_pins`."""
    return _import(events, _pass_on, broker, config, step, wait)


def _import(
    rows: Iterable[T],
    send: Callable[[list[T], EventProducer, ImportReport], None],
    broker: Broker,
    config: Settings,
    step: Callable[[int], None],
    wait: bool,
) -> ImportReport:
    report = ImportReport()
    group = worker_group(config, read_manifest(config.model).model_id)
    ensure_topics(broker, config.partitions, config.replication)
    with ExitStack() as stack:
        producer = EventProducer(broker, lambda: worker_groups(config))
        stack.callback(producer.close)
        dead_before = end_offsets(broker, DEAD)
        for batch in batches(rows):
            report.rows += len(batch)
            send(batch, producer, report)
            step(len(batch))
        producer.flush()
        if wait:
            _drain(broker, group, stack)
            report.waited = True
            report.dead_letters = letters_since(broker, dead_before)
    return report


def _send(batch: Sequence[PinRow | BadRow], producer: EventProducer, features: FeastFeatures, report: ImportReport) -> None:
    at = now_us()
    good = [row for row in batch if isinstance(row, PinRow)]
    report.bad += [row for row in batch if isinstance(row, BadRow)]
    features.write([feature for row in good for feature in row.rows(at)])
    for row in good:
        producer.send(PinUpdated(row.pin_id, at, features_as_of={feature.view: at for feature in row.rows(at)}))
    report.sent += len(good)


def _pass_on(batch: Sequence[PinEvent | BadRow], producer: EventProducer, report: ImportReport) -> None:
    report.bad += [row for row in batch if isinstance(row, BadRow)]
    good = [event for event in batch if not isinstance(event, BadRow)]
    for event in good:
        producer.send(event)
    report.sent += len(good)


def _drain(broker: Broker, group: str, stack: ExitStack) -> None:
    offsets = Offsets(broker, group)
    stack.callback(offsets.close)
    wait_for_lag(offsets, 0)


@contextmanager
def feature_store(config: Settings) -> Iterator[FeastFeatures]:
    """The feature store for the time of the block. Raises Unavailable."""
    features = build_features(config)
    try:
        yield features
    finally:
        features.close()
