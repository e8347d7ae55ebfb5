"""The two topics of experiments: sending exposures and outcomes, and reading an experiment back whole, in bounded memory.

A report reads both topics from their beginning to their end of that moment, without a group. Where they are long it does so several times, each time
for a part of the request ids (`pins.experiments.joining`): memory is bounded by RECORDS_PER_PASS and by the units, not by the length of a topic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pins.errors import InvalidEvent
from pins.experiments.exposures import ExperimentEvent, Exposure, Outcome, decode, encode
from pins.experiments.joining import WINDOW_US, Joined, Pass, hashed
from streams.broker import EXPERIMENT_EXPOSURES, EXPERIMENT_OUTCOMES, Broker, Post, end_offsets, read_topic, start_offsets

RECORDS_PER_PASS = 2_000_000
"""Records of both topics that one pass may have to hold something of: about 1 GB where all of them are outcomes, usually a tenth of that."""
GROUP = "everpin-experiments"
"""Commits nothing: only a name for Kafka's logs."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What of an experiment is wanted: answers of one surface, since a time (epoch microseconds), with the actions of a window after each."""

    experiment: str
    surface: str = "search"
    since_us: int = 0
    window_us: int = WINDOW_US


@dataclass(slots=True)
class Summary:
    """One experiment of the topics: exposures by arm and by surface, outcomes, models, and the times of its first and last exposure."""

    experiment: str
    arms: Counter[str] = field(default_factory=Counter)
    surfaces: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0
    model_ids: set[str] = field(default_factory=set)
    first_us: int | None = None
    last_us: int | None = None


class Topics:
    """Both topics up to their end now. `gone`: records that the broker no longer keeps. Raises Unavailable."""

    def __init__(self, broker: Broker, now_us: int) -> None:
        self._broker, self._now_us = broker, now_us
        self._ends = {topic: end_offsets(broker, topic) for topic in (EXPERIMENT_OUTCOMES, EXPERIMENT_EXPOSURES)}
        starts = {topic: start_offsets(broker, topic) for topic in self._ends}
        self.gone = sum(sum(partitions.values()) for partitions in starts.values())
        self.records = sum(sum(partitions.values()) for partitions in self._ends.values()) - self.gone

    def events(self, topic: str, step: Callable[[int], None]) -> Iterator[ExperimentEvent | None]:
        """The events of one topic; None for a message that is none. Raises Unavailable."""
        ends: Mapping[int, int] = self._ends[topic]
        for record in read_topic(self._broker, topic):
            if record.offset < ends.get(record.partition, 0):
                step(1)
                yield self._event(record)

    def _event(self, record: object) -> ExperimentEvent | None:
        try:
            return decode(record.key, record.value, now_us=self._now_us)  # type: ignore[attr-defined]  # a record of an untyped client
        except InvalidEvent:
            return None


def post(event: ExperimentEvent) -> Post:
    """An event as a message, keyed by its request id."""
    return Post(EXPERIMENT_EXPOSURES if isinstance(event, Exposure) else EXPERIMENT_OUTCOMES, event.request_id.encode(), encode(event), {})


def passes(records: int, at_most: int = RECORDS_PER_PASS) -> int:
    """How often both topics are read for this many records."""
    return max(1, math.ceil(records / at_most))


def read_experiment(topics: Topics, wanted: Reading, parts: int, step: Callable[[int], None] = lambda records: None) -> Joined:
    """An experiment, joined and summed per unit. `step` is told of every record read, `parts` times all of them. Raises Unavailable."""
    joined = Joined()
    for part in range(parts):
        one = Pass(joined, wanted.surface, wanted.since_us, wanted.window_us)
        for topic in (EXPERIMENT_OUTCOMES, EXPERIMENT_EXPOSURES):
            for event in topics.events(topic, step):
                if event is None:
                    joined.counts["unreadable"] += part == 0
                elif event.experiment == wanted.experiment and hashed(event.request_id) % parts == part:
                    _take(one, event)
        one.close()
    return joined


def summaries(topics: Topics, step: Callable[[int], None] = lambda records: None) -> Sequence[Summary]:
    """Every experiment that the topics still know of, by name. Raises Unavailable."""
    found: dict[str, Summary] = {}
    for topic in (EXPERIMENT_OUTCOMES, EXPERIMENT_EXPOSURES):
        for event in topics.events(topic, step):
            if event is not None:
                _note(found.setdefault(event.experiment, Summary(event.experiment)), event)
    return [found[name] for name in sorted(found)]


def _take(one: Pass, event: ExperimentEvent) -> None:
    if isinstance(event, Outcome):
        one.act(event)
    else:
        one.show(event)


def _note(summary: Summary, event: ExperimentEvent) -> None:
    if isinstance(event, Outcome):
        summary.outcomes += 1
        return
    summary.arms[event.arm] += 1
    summary.surfaces[event.surface] += 1
    summary.model_ids |= set(event.model_ids)
    summary.first_us = event.at_us if summary.first_us is None else min(summary.first_us, event.at_us)
    summary.last_us = event.at_us if summary.last_us is None else max(summary.last_us, event.at_us)
