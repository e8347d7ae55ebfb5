"""Blocks in parts, some of which are read and written while another is encoded: the student never waits for a store.

Encoding takes nine tenths of a block's time and has its cores to itself; reading, rendering and writing take the rest and mostly wait for other
processes. So a worker has OVERLAP threads, each with a `BlockWorker` of its own, and what they share is used by one at a time: the student, or two
would compete for the cores that one was given, and the feature store, whose client is not thread-safe.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from backfill.blocks import Block, BlockReport
from backfill.worker import BlockWorker
from pins.features import FeatureRow, PinFeatures
from pins.ports import Encoder, FeatureSource, Vector

OVERLAP = 2
PART = 64
"""Pins of a part: as many as are written at once, and enough for batches of like lengths."""


class SharedEncoder:
    """A student for several threads, which encodes for one at a time. Everything else is passed through."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._lock = encoder, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, texts: Sequence[str]) -> Vector:
        with self._lock:
            return self._encoder.encode(texts)


class SharedFeatures:
    """A feature store for several threads, which answers one at a time. Everything else is passed through."""

    def __init__(self, features: FeatureSource) -> None:
        self._features, self._lock = features, threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._features, name)

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        with self._lock:
            return self._features.of(pin_ids)

    def write(self, rows: Sequence[FeatureRow]) -> None:
        with self._lock:
            self._features.write(rows)


class Overlapping:
    """Does each block in parts of `part` pins, as many at once as there are workers."""

    def __init__(self, workers: Sequence[BlockWorker], part: int = PART) -> None:
        self._part = part
        self._free: SimpleQueue[BlockWorker] = SimpleQueue()
        for worker in workers:
            self._free.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), "everpin-backfill")

    def work(self, block: Block) -> BlockReport:
        """Bring the index up to date with these pins. Raises nothing: a block of which a part could not be done has that part's problem."""
        return united(list(self._threads.map(self._work, parts(block, self._part))))

    def _work(self, part: Block) -> BlockReport:
        worker = self._free.get()
        try:
            return worker.work(part)
        finally:
            self._free.put(worker)


def parts(block: Block, pins: int) -> list[Block]:
    """The block in parts of so many pins, in order."""
    return [
        Block(block.start + start, block.pin_ids[start : start + pins], block.snapshots[start : start + pins]) for start in range(0, len(block.pin_ids), pins)
    ]


def united(reports: Sequence[BlockReport]) -> BlockReport:
    """One report of consecutive parts, at least one."""
    outcomes: Counter[str] = Counter()
    timed = [report for report in reports if not report.problem] or reports
    for report in reports:
        outcomes.update(report.outcomes)
    return BlockReport(
        reports[0].start,
        reports[-1].end,
        dict(outcomes),
        sum(report.encoded for report in reports),
        tuple(dead for report in reports for dead in report.dead),
        min(report.began_s for report in timed),
        max(report.ended_s for report in timed),
        next((report.problem for report in reports if report.problem), ""),
    )
