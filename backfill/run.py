"""A backfill from beginning to end: scan, hand out blocks, take their reports, keep a checkpoint. It can stop anywhere, and goes on there."""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fastapi import FastAPI

from backfill import checkpoint, offline, scan
from backfill.blocks import BackfillReport, Block, BlockReport, Dead, Pool, Progress
from backfill.checkpoint import Checkpoint, Span
from backfill.cluster import ray_pool, require_ray
from backfill.letters import Graveyard, open_graveyard
from backfill.stores import PURPOSE, Setting
from embedder.artifact import open_artifact
from everpin.http import listening
from everpin.owner import Owner, announce, place
from everpin.settings import Settings
from everpin.wiring import build_features, find_broker, now_us, open_index, worker_group
from index.edge import EdgePinIndex
from index.owner_routes import offer
from pins.errors import EverpinError, Unavailable
from pins.ports import PinIndex

BATCH = 256
SEGMENT_PINS = 131_072
"""Pins per worker that are handed to Ray at once."""
SAVE_S = 10.0
SHRINK = 16
"""A block whose worker died of it is cut into so many."""
PROBED, KNOWN_SHARE = 256, 0.9
"""A checkpoint is believed while the index has a record of this share of so many pins that it calls done."""
CRASHED = "crashed"


@dataclass(frozen=True, slots=True)
class Files:
    """Where a backfill keeps what it must remember, by model."""

    home: Path
    model_id: str

    @property
    def checkpoint(self) -> Path:
        return self.home / f"{self.model_id}.json"

    @property
    def scan(self) -> Path:
        return self.home / f"{self.model_id}.pins.parquet"

    @property
    def dead(self) -> Path:
        return self.home / f"{self.model_id}.dead.jsonl"

    @property
    def lock(self) -> Path:
        return self.home / f"{self.model_id}.lock"


def backfill(
    config: Settings,
    model: Path,
    *,
    workers: int = 1,
    threads: int | None = None,
    address: str | None = None,
    batch: int = BATCH,
    from_parquet: Path | None = None,
    limit: int | None = None,
    restart: bool = False,
    proceed: Callable[[], bool] = lambda: True,
    step: Callable[[Progress], None] = lambda progress: None,
) -> BackfillReport:
    """Fill the collection of the model in this folder with every pin of the feature store, or of an export of it.

    `workers` processes of `threads` cores each (default: this machine's cores divided among them; on a cluster EVERPIN_THREADS), on the Ray
    cluster at `address` or on this machine. `proceed` is asked between blocks: False stops the run, and the next one goes on there, unless it is
    told to `restart`. `limit`: pins of this run at most. Raises ArtifactError for the model, Unavailable where it cannot begin; what goes wrong
    later is in the report.
    """
    require_ray()
    mine = config.model_copy(update={"home": config.home.resolve(), "model": model.resolve()})
    manifest = open_artifact(mine.model).manifest
    files = Files(mine.home / "backfill", manifest.model_id)
    cores = threads or (config.threads if address else max(1, (os.cpu_count() or 1) // workers))
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(_alone(files))
        index = stack.enter_context(open_index(mine, manifest.model_id, manifest.dimension, purpose=PURPOSE))
        url = stack.enter_context(_served(index, mine)) if isinstance(index, EdgePinIndex) else ""
        point, resumed = _scanned(mine, files, index, from_parquet, restart)
        report = BackfillReport(manifest.model_id, point.pins, point.done_pins, resumed_at=point.done_pins if resumed else 0, dead_letters=str(files.dead))
        if not point.complete:
            broker, group = find_broker(mine), worker_group(mine, manifest.model_id)
            graveyard = open_graveyard(files.dead, broker, group, mine.partitions, mine.replication, more=resumed)
            stack.callback(graveyard.close)
            pool = stack.enter_context(ray_pool(Setting(mine, cores, url), workers, address))
            Run(point, files, graveyard, index.flush, report, mine.dead_letter_limit, proceed, step).go(pool, batch, workers, limit)
            report.undelivered = graveyard.undelivered
        else:
            report.complete = True
        if report.complete:
            files.scan.unlink(missing_ok=True)
    report.seconds = time.monotonic() - started
    return report


class Run:
    """Hands the blocks that are left to a pool and takes their reports, until all are done or something says stop. Fills `report`."""

    def __init__(
        self,
        point: Checkpoint,
        files: Files,
        graveyard: Graveyard,
        flush: Callable[[], None],
        report: BackfillReport,
        dead_limit: int,
        proceed: Callable[[], bool],
        step: Callable[[Progress], None],
    ) -> None:
        self._point, self._files, self._graveyard, self._flush, self.report = point, files, graveyard, flush, report
        self._dead_limit, self._proceed, self._step = dead_limit, proceed, step
        self._fresh: list[Span] = []
        self._saved_s = time.monotonic()
        self._began_s, self._ended_s = 0.0, 0.0
        self._before = point.done_pins
        self._excess = 0

    def go(self, pool: Pool, batch: int, workers: int, limit: int | None) -> None:
        """Run until nothing is left, in ever smaller blocks where workers died of them."""
        size, places = batch, _first(checkpoint.left(self._point.done, self._point.pins), limit)
        try:
            while places and self._going():
                self._pass(pool, scan.blocks(self._files.scan, places, size), max(1, workers * SEGMENT_PINS // size))
                self._save()
                places = list(_within(checkpoint.left(self._point.done, self._point.pins), places))
                if size == 1 and self._going():
                    self._crashed(places)
                    break
                size = max(1, size // SHRINK)
        except EverpinError as error:
            self._stop("problem", str(error))
        finally:
            self._save()
        self.report.complete = self._point.complete
        if not self.report.complete and not self.report.stopped:
            self.report.stopped = "limit"

    def _pass(self, pool: Pool, blocks: Iterator[Block], at_once: int) -> None:
        while self._going() and (segment := list(islice(blocks, at_once))):
            for done in pool.run(segment):
                self._take(done)
                if not self._going():
                    break

    def _take(self, done: BlockReport) -> None:
        if done.problem:
            self._stop("problem", done.problem)
            return
        fine = done.end - done.start - len(done.dead)
        self._excess = max(0, self._excess + len(done.dead) - fine)
        if self._excess >= self._dead_limit:
            words = f"{self._excess} more pins could not be embedded than could (limit EVERPIN_DEAD_LETTER_LIMIT={self._dead_limit})"
            self._stop("problem", f"{words}, the last because of {done.dead[-1].reason}: {done.dead[-1].detail}")
            return
        self._graveyard.bury(done.dead)
        report = self.report
        report.outcomes = dict(Counter(report.outcomes) + Counter(done.outcomes))
        report.encoded += done.encoded
        report.dead += len(done.dead)
        report.done += done.end - done.start
        self._fresh.append((done.start, done.end))
        self._began_s = min(self._began_s or done.began_s, done.began_s)
        self._ended_s = max(self._ended_s, done.ended_s)
        self._tell()
        if time.monotonic() - self._saved_s > SAVE_S:
            self._save()

    def _tell(self) -> None:
        report, seconds = self.report, self._ended_s - self._began_s
        report.pins_per_second = (report.done - self._before) / seconds if seconds > 0 else 0.0
        to_go = (report.pins - report.done) / report.pins_per_second if report.pins_per_second else None
        self._step(Progress(report.pins, report.done, report.encoded, report.dead, seconds, report.pins_per_second, to_go))

    def _crashed(self, places: Sequence[Span]) -> None:
        """Pins that are alone in a block and still have no report: whatever takes them up dies."""
        words = "the process that embedded this pin alone died each time"
        for block in scan.blocks(self._files.scan, places, 1):
            dead = Dead(block.pin_ids[0], "WorkerDied", CRASHED, words, block.start, now_us())
            self._take(BlockReport(block.start, block.end, dead=(dead,), began_s=self._began_s, ended_s=self._ended_s))

    def _going(self) -> bool:
        """Whether nothing has stopped the run, which this may do."""
        if not self.report.stopped and not self._proceed():
            self._stop("paused")
        return not self.report.stopped

    def _stop(self, why: str, problem: str = "") -> None:
        self.report.stopped = self.report.stopped or why
        self.report.problem = self.report.problem or problem

    def _save(self) -> None:
        """What is done, once it is durable in the index."""
        self._saved_s = time.monotonic()
        if self._fresh:
            try:
                self._flush()
            except Unavailable as error:
                self._stop("problem", str(error))
                return
            self._point, self._fresh = self._point.with_done(self._fresh), []
            self._point.write(self._files.checkpoint)


def _first(spans: Iterator[Span], limit: int | None) -> list[Span]:
    """The spans, or as much of them as holds `limit` places."""
    if limit is None:
        return list(spans)
    kept: list[Span] = []
    for start, end in spans:
        if limit > 0:
            kept.append((start, min(end, start + limit)))
            limit -= end - start
    return kept


def _within(spans: Iterator[Span], places: Sequence[Span]) -> Iterator[Span]:
    """The parts of `spans` that lie in `places`."""
    for start, end in spans:
        yield from ((max(start, begin), min(end, stop)) for begin, stop in places if max(start, begin) < min(end, stop))


def _scanned(config: Settings, files: Files, index: PinIndex, from_parquet: Path | None, restart: bool) -> tuple[Checkpoint, bool]:
    """The scan to work on, and whether it is one that an earlier run did not finish."""
    source = str(from_parquet.resolve()) if from_parquet else ""
    found = None if restart else checkpoint.read(files.checkpoint)
    if found and not found.complete and found.source == source and files.scan.exists() and _believed(found, files, index):
        return found, True
    at_us = now_us()
    if from_parquet:
        pins = scan.write(offline.newest(from_parquet, files.home), files.scan)
    else:
        features = build_features(config)
        try:
            pins = scan.write(((pin_id, "") for some in features.pin_ids() for pin_id in some), files.scan)
        finally:
            features.close()
    fresh = Checkpoint(files.model_id, source, at_us, pins).with_done(())
    fresh.write(files.checkpoint)
    return fresh, False


def _believed(point: Checkpoint, files: Files, index: PinIndex) -> bool:
    """Whether the collection holds what the checkpoint calls done: somebody may have dropped it meanwhile."""
    done = scan.sample(files.scan, point.done, PROBED)
    return len(index.known(done)) >= KNOWN_SHARE * len(done)


@contextmanager
def _alone(files: Files) -> Iterator[None]:
    """One backfill of a model at a time. Raises Unavailable."""
    files.home.mkdir(parents=True, exist_ok=True)
    with files.lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Unavailable(f"another backfill of {files.model_id} runs on {files.home.parent}; wait for it, or stop it") from error
        yield


@contextmanager
def _served(index: EdgePinIndex, config: Settings) -> Iterator[str]:
    """The collection that this process owns, for its workers and whoever else reads it."""
    app = FastAPI()
    offer(app, index)
    with listening(app, 0) as url:
        announce(place(config.home, index.model_id), Owner(os.getpid(), url, purpose=PURPOSE))
        yield url
