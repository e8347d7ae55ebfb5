"""What a worker does with a block of pins: the way of one update, with nobody's event. Ray stays outside.

Every pin of a block is given to a `PinIndexer` as an update that carries nothing: records first, then features, decide, encode, write where the
record is still the one that was read. So a backfill races the stream like any second worker, and a pin that is current costs two reads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from backfill.blocks import Block, BlockReport, Dead
from backfill.offline import Recorded, Snapshots
from pins.errors import EverpinError, Unavailable
from pins.events import PinUpdated
from pins.indexer import BatchReport, PinIndexer
from pins.ports import Encoder, FeatureSource, PinIndex

FIRST_RETRY_S, LONGEST_RETRY_S = 0.2, 5.0


class Parts(Protocol):
    """Where a worker takes its three outsides from: `backfill.stores.Stores`."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def features(self) -> FeatureSource: ...
    def index(self) -> PinIndex: ...
    def lost(self) -> None: ...


class BlockWorker:
    """Embeds blocks, one at a time. Waits `patience_s` seconds for a store that does not answer."""

    def __init__(
        self,
        parts: Parts,
        patience_s: float,
        vanished_limit: int,
        clock: Callable[[], int],
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts, self._patience_s, self._vanished_limit = parts, patience_s, vanished_limit
        self._clock, self._sleep, self._monotonic = clock, sleep, monotonic
        self._began_us = 0
        self._indexer: PinIndexer | None = None
        self._snapshots: Snapshots | None = None

    def work(self, block: Block) -> BlockReport:
        """Bring the index up to date with these pins. Raises nothing: a block that could not be done has a problem."""
        try:
            done = self._patiently(block)
        except Exception as error:
            words = str(error) if isinstance(error, EverpinError) else f"{type(error).__name__}: {error}"
            return BlockReport(block.start, block.end, problem=words)
        places = {pin_id: block.start + place for place, pin_id in enumerate(block.pin_ids)}
        at_us = self._clock()
        return BlockReport(
            block.start,
            block.end,
            dict(Counter(outcome.reason for outcome in done.outcomes)),
            done.encoded,
            tuple(Dead(pin_id, type(error).__name__, error.reason, str(error), places[pin_id], at_us) for pin_id, error in done.refused.items()),
            self._began_us / 1e6,
            at_us / 1e6,
        )

    def _patiently(self, block: Block) -> BatchReport:
        deadline, delay = self._monotonic() + self._patience_s, FIRST_RETRY_S
        while True:
            try:
                return self._apply(block)
            except Unavailable:
                self._indexer = None
                self._parts.lost()
                if self._monotonic() + delay > deadline:
                    raise
                self._sleep(delay)
                delay = min(2 * delay, LONGEST_RETRY_S)

    def _apply(self, block: Block) -> BatchReport:
        indexer = self._opened()
        assert self._snapshots  # opened with the indexer
        self._snapshots.held = dict(zip(block.pin_ids, block.snapshots, strict=bool(block.snapshots)))
        self._began_us = self._clock()
        return indexer.apply([PinUpdated(pin_id, self._began_us) for pin_id in block.pin_ids])

    def _opened(self) -> PinIndexer:
        if self._indexer is None:
            recorded = Recorded(self._parts.index())
            self._snapshots = Snapshots(self._parts.features, lambda: recorded.ids)
            self._indexer = PinIndexer(self._snapshots, self._parts.encoder, recorded, self._clock, self._vanished_limit)
        return self._indexer
