"""Deleting settled dead letters from the broker, as far as Kafka can: the front of each partition, up to the first letter that waits.

What settled means, and why Kafka can do no more than this, is in `streams.deadletters`. Deleted here means that no client can read it
any more; Kafka frees the bytes on its disk later, file by file (docs/events.md, "Dead letters").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pins.errors import Unavailable
from streams.broker import DEAD, Broker, delete_before, read_topic, start_offsets
from streams.deadletters import Settled, Wanted, letters_of, settlements


@dataclass(slots=True)
class Front:
    """Of one partition: every letter before `until` is settled. `waiting`: the place of the letter that ends it; empty, nothing waits.

    `letters` of them all; `mine` those of the filter, and `mine_behind` the settled ones of the filter that lie behind it.
    """

    until: int = 0
    waiting: str = ""
    letters: int = 0
    mine: int = 0
    mine_behind: int = 0


@dataclass(frozen=True, slots=True)
class Erasure:
    """What no client can read any more (`deleted` letters; everything before `starts`, per partition), and what can still be read.

    `readable`: settled letters of the filter that are still there; `blocked_by`: the letters that wait before them.
    `problem`: why Kafka did not delete; empty where it did.
    """

    deleted: int
    starts: Mapping[int, int]
    readable: int
    blocked_by: Sequence[str]
    problem: str = ""

    def gone(self, offsets: Mapping[int, Sequence[int]]) -> int:
        """How many of these places, by partition, can no longer be read."""
        return sum(offset < self.starts.get(partition, 0) for partition, those in offsets.items() for offset in those)


def erase(broker: Broker, wanted: Wanted) -> Erasure:
    """Delete from each partition the longest front in which everything is settled. Raises Unavailable where nothing could be read.

    Letters that arrive meanwhile are safe: nothing behind the last record that was looked at is deleted. The embedded broker cannot
    delete; there, this only counts.
    """
    fronts = fronts_of(read_topic(broker, DEAD), settlements(read_topic(broker, DEAD)), wanted)
    wished = {partition: front.until for partition, front in fronts.items() if front.until and not broker.embedded}
    problem = ""
    try:
        if wished:
            delete_before(broker, DEAD, wished)
    except Unavailable as error:
        problem = str(error)
    starts = start_offsets(broker, DEAD)  # what really went: one partition may have refused
    done = {partition for partition, front in fronts.items() if front.until and starts.get(partition, 0) >= front.until}
    return Erasure(
        deleted=sum(front.letters for partition, front in fronts.items() if partition in done),
        starts=starts,
        readable=sum(front.mine_behind + (0 if partition in done else front.mine) for partition, front in fronts.items()),
        blocked_by=[front.waiting for front in fronts.values() if front.mine_behind],
        problem=problem,
    )


def fronts_of(records: Iterable[Any], known: Settled, wanted: Wanted) -> dict[int, Front]:
    """The front of each partition that has records."""
    fronts: dict[int, Front] = defaultdict(Front)
    for record in records:
        front = fronts[record.partition]
        for letter in letters_of([record], known):
            if letter.settled is None:
                front.waiting = front.waiting or letter.letter
            elif front.waiting:
                front.mine_behind += wanted(letter)
            else:
                front.letters += 1
                front.mine += wanted(letter)
        if not front.waiting:
            front.until = record.offset + 1
    return fronts
