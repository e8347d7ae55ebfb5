"""Dead letters: what could not be used, why, where it came from; and sending it through the ordinary path again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streams.broker import DEAD, Broker, EventProducer, read_topic
from streams.worker import header_int

HISTORY = ("source_topic", "source_partition", "source_offset", "source_timestamp_us", "attempts", "first_failure_us")
"""Headers that a replayed message keeps, so that a second failure continues the story of the first."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of pin-updates.dead. `letter` is its place there (partition:offset), `source` where it first came from."""

    letter: str
    reason: str
    detail: str
    pin_id: str
    source: str
    attempts: int
    first_failure: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    def as_json(self) -> dict[str, Any]:
        """The letter without its payload, for listings."""
        names = ("letter", "reason", "detail", "pin_id", "source", "attempts", "first_failure")
        return {name: getattr(self, name) for name in names} | {"bytes": len(self.value or b"")}


def dead_letters(broker: Broker, reason: str | None = None, pin_id: str | None = None) -> Iterator[DeadLetter]:
    """The dead letters, oldest first per partition, with this reason and of this pin where given. Raises Unavailable."""
    for record in read_topic(broker, DEAD):
        letter = _letter(record)
        if reason in (None, letter.reason) and pin_id in (None, letter.pin_id):
            yield letter


def replay(letters: Iterable[DeadLetter], producer: EventProducer) -> tuple[int, list[DeadLetter]]:
    """Send letters to pin-updates again; returns how many were sent, and those that cannot be, because their value was cut."""
    sent, cut = 0, []
    for letter in letters:
        if "cut_from_bytes" in letter.headers:
            cut.append(letter)
            continue
        producer.send_raw(letter.key, letter.value, {name: letter.headers[name] for name in HISTORY if name in letter.headers})
        sent += 1
    producer.flush()
    return sent, cut


def _letter(record: Any) -> DeadLetter:
    headers = {name: bytes(value or b"") for name, value in record.headers}

    def text(name: str) -> str:
        return headers.get(name, b"").decode("utf-8", "replace")

    first_us = header_int(headers, "first_failure_us")
    return DeadLetter(
        letter=f"{record.partition}:{record.offset}",
        reason=text("reason"),
        detail=text("detail"),
        pin_id=record.key.decode("utf-8", "replace") if record.key else "",
        source=f"{text('source_topic')}:{text('source_partition')}:{text('source_offset')}",
        attempts=header_int(headers, "attempts"),
        first_failure=datetime.fromtimestamp(first_us / 1e6, UTC).isoformat(timespec="milliseconds") if first_us else "",
        key=record.key,
        value=record.value,
        headers=headers,
    )
