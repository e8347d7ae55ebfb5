"""What becomes of pins that could not be embedded: a line in a file, always, and a dead letter where there is a broker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from backfill.blocks import Dead
from pins.errors import Unavailable
from pins.events import PinUpdated, encode
from streams.broker import DEAD, Broker, EventProducer, Post, ensure_topics

SOURCE = "backfill"
"""In the place of a topic: where these letters come from. `everpin dlq replay` sends them to pin-updates."""


class Graveyard:
    """Takes dead pins. `undelivered`: those that are in the file only, because the broker did not take them."""

    def __init__(self, file: IO[str], producer: EventProducer | None) -> None:
        self._file, self._producer = file, producer
        self.undelivered = 0

    def bury(self, dead: Sequence[Dead]) -> None:
        """Write and send these."""
        for one in dead:
            self._file.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")
        self._file.flush()
        if self._producer and dead:
            try:
                self.undelivered += sum(bool(why) for why in self._producer.deliver([letter(one) for one in dead]))
            except Unavailable:
                self.undelivered += len(dead)

    def close(self) -> None:
        """Release the file and the producer."""
        self._file.close()
        if self._producer:
            self._producer.close()


def letter(dead: Dead) -> Post:
    """The dead letter of a pin, with the headers that a worker writes: a replay of it says "look at this pin again"."""
    headers = {
        "source_topic": SOURCE.encode(),
        "source_partition": b"0",
        "source_offset": str(dead.place).encode(),
        "source_timestamp_us": str(dead.at_us).encode(),
        "attempts": b"1",
        "first_failure_us": str(dead.at_us).encode(),
        "error": dead.error.encode(),
        "reason": dead.reason.encode(),
        "detail": dead.detail[:2000].encode("utf-8", "replace"),
    }
    return Post(DEAD, dead.pin_id.encode(), encode(PinUpdated(dead.pin_id, dead.at_us)), headers)


def open_graveyard(file: Path, broker: Broker | None, group: str, partitions: int, replication: int, *, more: bool) -> Graveyard:
    """A graveyard that begins its file anew, or with `more` goes on in it. Without a broker, or one that does not answer, it has only the file."""
    producer = None
    if broker:
        try:
            ensure_topics(broker, partitions, replication)
            producer = EventProducer(broker, group)
        except Unavailable:
            producer = None
    return Graveyard(file.open("a" if more else "w", encoding="utf-8"), producer)
