"""What travels between the driver of a backfill and its workers, and what a run says of itself: plain values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Block:
    """Pins at consecutive places of a scan, from `start` on. `snapshots`: their features as of an export, empty where they are read online."""

    start: int
    pin_ids: Sequence[str]
    snapshots: Sequence[str] = ()

    @property
    def end(self) -> int:
        return self.start + len(self.pin_ids)


@dataclass(frozen=True, slots=True)
class Dead:
    """A pin that could not be embedded: the class and the short reason of the error, its words, and where in the scan the pin stands."""

    pin_id: str
    error: str
    reason: str
    detail: str
    place: int
    at_us: int


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What became of a block: outcomes of `pins.changes.REASONS`, texts encoded, dead rows. Times are the worker's, epoch seconds.

    `problem`: why nothing can be said of it, so that the run must stop; empty where the block is done.
    """

    start: int
    end: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    encoded: int = 0
    dead: Sequence[Dead] = ()
    began_s: float = 0.0
    ended_s: float = 0.0
    problem: str = ""

    def to_json(self) -> str:
        """Every field, as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> BlockReport:
        """What `to_json` wrote."""
        body = json.loads(text)
        return cls(**body | {"dead": tuple(Dead(**one) for one in body["dead"])})


class Pool(Protocol):
    """Workers that take blocks. A block whose worker died again and again has no report."""

    def run(self, blocks: Sequence[Block]) -> Iterator[BlockReport]:
        """Reports in the order in which blocks end. Leaving the iterator early gives up what is not done. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. `done` of `pins` places of the scan; `rate` is pins per second of this run, `eta_s` seconds to go, None before the first."""

    pins: int
    done: int
    encoded: int
    dead: int
    seconds: float
    rate: float
    eta_s: float | None


@dataclass(slots=True)
class BackfillReport:
    """What a run did. `pins`: how many the scan holds; `done`: of them in this run and those before it; `outcomes`: of this run.

    `complete`: every pin of the scan is in the index or a dead letter. Else `stopped` says why: `paused`, `limit`, or `problem`, which
    `problem` puts in words. `pins_per_second` counts from the first block's beginning to the last one's end.
    """

    model_id: str
    pins: int = 0
    done: int = 0
    resumed_at: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    encoded: int = 0
    dead: int = 0
    undelivered: int = 0
    seconds: float = 0.0
    pins_per_second: float = 0.0
    complete: bool = False
    stopped: str = ""
    problem: str = ""
    dead_letters: str = ""
