"""Dead letters: what could not be used, why, where it came from; sending it through the ordinary path again; doing away with it.

Kafka cannot delete one record. A letter that was replayed or purged is SETTLED: a second record in its partition says so (its
place as key, no value; headers `settles`, `how`, `at_us`). It always lies behind its letter, and both retention and a purge take records from
the front, so a settlement never goes before its letter. Readers read twice: first which places are settled, then the letters.
Memory: about 100 bytes per settled letter that the broker still keeps, however many letters there are.

How the worker writes letters is in `streams.worker`; the command line is in `everpin.commands.deadletters`.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Protocol

from pins.errors import Unavailable
from streams.broker import DEAD, UPDATES, USER_ACTIONS, Broker, Post, end_offsets, read_topic
from streams.worker import header_int

HISTORY = ("source_topic", "source_partition", "source_offset", "source_timestamp_us", "attempts", "first_failure_us")
"""Headers that a replayed message keeps, so that a second failure continues the story of the first."""
CUT = "cut_from_bytes"
REPLAYED, PURGED = "replayed", "purged"
CHUNK = 100
"""Letters sent before they are settled: at most so many are sent twice when a replay is killed. That costs reads, no vectors."""
CHUNK_S = 1.0
"""And no longer than this, in seconds, where a rate is set."""
PLACE = re.compile(r"(\d{1,9}):(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of a letter: `how` is replayed or purged, `at_us` epoch microseconds."""

    how: str
    at_us: int


Settled = Mapping[int, Mapping[int, Settlement]]
"""By partition and offset of the letter."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of pin-updates.dead. `source` is where it first came from, `written_us` when it was written, in epoch microseconds.

    `pin_id` is the message's key: of a user action, the user.
    """

    partition: int
    offset: int
    written_us: int
    reason: str
    detail: str
    pin_id: str
    source: str
    attempts: int
    first_failure: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    settled: Settlement | None = None

    @property
    def letter(self) -> str:
        """Its place: partition:offset."""
        return f"{self.partition}:{self.offset}"

    @property
    def topic(self) -> str:
        """The topic to which a replay sends it. A parked event's is pin-updates: its source is where it first came from."""
        return USER_ACTIONS if self.headers.get("source_topic") == USER_ACTIONS.encode() else UPDATES

    @property
    def cut(self) -> bool:
        """Whether its value was too long to be kept whole, so that it cannot be replayed."""
        return CUT in self.headers

    def as_json(self) -> dict[str, Any]:
        """The letter without its payload, for listings."""
        names = ("letter", "reason", "detail", "pin_id", "source", "attempts", "first_failure")
        settled = {"how": self.settled.how, "at": moment(self.settled.at_us)} if self.settled else None
        times = {"written": moment(self.written_us), "bytes": len(self.value or b""), "settled": settled}
        return {name: getattr(self, name) for name in names} | times


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters: all that is given must hold. Times are epoch microseconds of when the letter was written, since <= it < until."""

    reason: str | None = None
    pin_id: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    places: frozenset[str] = frozenset()

    @property
    def all(self) -> bool:
        return self == Wanted()

    def __call__(self, letter: DeadLetter) -> bool:
        return (
            self.reason in (None, letter.reason)
            and self.pin_id in (None, letter.pin_id)
            and (self.since_us is None or self.since_us <= letter.written_us)
            and (self.until_us is None or letter.written_us < self.until_us)
            and (not self.places or letter.letter in self.places)
        )


EVERY = Wanted()


def dead_letters(broker: Broker, wanted: Wanted = EVERY, *, settled: bool = False, before: Mapping[int, int] | None = None) -> Iterator[DeadLetter]:
    """The letters that wait for somebody, oldest first per partition; the settled ones too where asked for. Raises Unavailable.

    `before`: only those before these offsets, as `end_offsets` gave them, so that nobody acts on letters that he has not counted.
    """
    known = settlements(read_topic(broker, DEAD))
    for letter in letters_of(read_topic(broker, DEAD), known):
        if wanted(letter) and (settled or letter.settled is None) and (before is None or letter.offset < before.get(letter.partition, 0)):
            yield letter


def settlements(records: Iterable[Any]) -> Settled:
    """Which letters these records settle. A record that names a place behind itself or in another partition settles nothing."""
    found: dict[int, dict[int, Settlement]] = defaultdict(dict)
    last = Settlement("", 0)
    for record in records:
        headers = _headers(record)
        place = PLACE.fullmatch(headers.get("settles", b"").decode("ascii", "replace"))
        if place and int(place[1]) == record.partition and int(place[2]) < record.offset:
            settlement = Settlement(headers.get("how", b"").decode("utf-8", "replace"), header_int(headers, "at_us"))
            last = last if last == settlement else settlement  # one object for a whole chunk
            found[record.partition].setdefault(int(place[2]), last)
    return found


def letters_of(records: Iterable[Any], known: Settled) -> Iterator[DeadLetter]:
    """The letters among these records, each with what is known of its settlement."""
    for record in records:
        headers = _headers(record)
        if "settles" not in headers:
            yield _letter(record, headers, known.get(record.partition, {}).get(record.offset))


def letters_since(broker: Broker, ends: Mapping[int, int]) -> int:
    """How many letters were written since `end_offsets(broker, DEAD)` gave these; settlements are none. Raises Unavailable."""
    if end_offsets(broker, DEAD) == ends:
        return 0
    return sum(1 for _ in letters_of(read_topic(broker, DEAD, ends), {}))


@dataclass(frozen=True, slots=True)
class Depth:
    """Letters that wait for somebody; `oldest_s` is the age of the oldest in seconds, None where there is none."""

    letters: int
    by_reason: Mapping[str, int]
    oldest_s: float | None


def depth(broker: Broker, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> Depth:
    """How many letters wait, why, and since when. It reads the whole topic twice: call it once a minute, not per scrape. Raises Unavailable."""
    reasons: Counter[str] = Counter()
    oldest: int | None = None
    for letter in dead_letters(broker):
        reasons[letter.reason] += 1
        oldest = letter.written_us if oldest is None else min(oldest, letter.written_us)
    return Depth(reasons.total(), dict(reasons), None if oldest is None else max(0.0, (now_us() - oldest) / 1e6))


class Producer(Protocol):
    """What sends messages: `streams.broker.EventProducer`."""

    def deliver(self, posts: Iterable[Post]) -> list[str]:
        """Send and wait; per message empty, or why it was refused. Raises Unavailable."""
        ...


@dataclass(slots=True)
class Report:
    """What a replay or a purge did: `done` letters were sent or purged, and settled. `refused`: place -> why the broker did not take it."""

    matched: int = 0
    done: int = 0
    by_reason: Counter[str] = field(default_factory=Counter)
    cut: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def note(self, letter: DeadLetter) -> bool:
        """Count a letter as matched; returns whether it is whole."""
        self.matched += 1
        self.by_reason[letter.reason] += 1
        if letter.cut:
            self.cut.append(letter.letter)
        return not letter.cut


Step = Callable[[int], None]


def replay(letters: Iterable[DeadLetter], producer: Producer, now_us: Callable[[], int], step: Step, *, rate: float = 0) -> Report:
    """Send letters to the topic they came from again, at most `rate` per second (0: no limit), and settle those that Kafka took.

    First sent and acknowledged, then settled: whoever is killed between the two has lost nothing. Cut letters stay as they are.
    Raises Unavailable, with what was done until then.
    """
    report = Report()
    whole = paced((letter for letter in letters if report.note(letter)), rate)
    try:
        for chunk in _chunks(whole, CHUNK if not rate else max(1, min(CHUNK, int(rate * CHUNK_S)))):
            answers = producer.deliver([Post(letter.topic, letter.key, letter.value, _history(letter)) for letter in chunk])
            report.refused |= {letter.letter: why for letter, why in zip(chunk, answers, strict=True) if why}
            taken = [letter for letter, why in zip(chunk, answers, strict=True) if not why]
            settle(taken, REPLAYED, producer, now_us())
            report.done += len(taken)
            step(len(chunk))
    except Unavailable as error:
        raise Unavailable(f"stopped after {report.done} letters were sent and settled; run it again for the others: {error}") from error
    return report


def purge(letters: Iterable[DeadLetter], producer: Producer, now_us: Callable[[], int], step: Step) -> tuple[Report, dict[int, list[int]]]:
    """Settle letters as purged; returns also their offsets by partition. `streams.erasure` then deletes. Raises Unavailable."""
    report, offsets = Report(), defaultdict[int, list[int]](list)
    try:
        for chunk in _chunks(letters, CHUNK):
            settle(chunk, PURGED, producer, now_us())
            for letter in chunk:
                report.note(letter)
                offsets[letter.partition].append(letter.offset)
            report.done += len(chunk)
            step(len(chunk))
    except Unavailable as error:
        raise Unavailable(f"stopped after {report.done} letters were settled as purged, none deleted; run it again: {error}") from error
    return report, offsets


def settle(letters: Iterable[DeadLetter], how: str, producer: Producer, at_us: int) -> None:
    """Write down, in each letter's own partition, what became of it. Raises Unavailable, also when Kafka refuses that."""
    rest = {"how": how.encode(), "at_us": str(at_us).encode()}
    places = [(letter.partition, letter.letter.encode()) for letter in letters]
    answers = producer.deliver([Post(DEAD, place, None, {"settles": place, **rest}, partition) for partition, place in places])
    if refused := [why for why in answers if why]:
        raise Unavailable(f"Kafka refused to note in {DEAD} that {len(refused)} letters were {how}, so they stay listed: {refused[0]}")


def paced(
    letters: Iterable[DeadLetter], rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> Iterator[DeadLetter]:
    """The letters, never more than `rate` per second (0: at once). Time lost elsewhere is not caught up."""
    due = clock()
    for letter in letters:
        if rate:
            sleep(max(0.0, due - clock()))
            due = max(due, clock()) + 1 / rate
        yield letter


def moment(at_us: int) -> str:
    """Epoch microseconds as an ISO time in UTC; empty for 0."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds") if at_us else ""


def _history(letter: DeadLetter) -> dict[str, bytes]:
    return {name: letter.headers[name] for name in HISTORY if name in letter.headers}


def _chunks(letters: Iterable[DeadLetter], size: int) -> Iterator[list[DeadLetter]]:
    rest = iter(letters)
    while chunk := list(islice(rest, size)):
        yield chunk


def _headers(record: Any) -> dict[str, bytes]:
    return {name: bytes(value or b"") for name, value in record.headers}


def _letter(record: Any, headers: dict[str, bytes], settled: Settlement | None) -> DeadLetter:
    def text(name: str) -> str:
        return headers.get(name, b"").decode("utf-8", "replace")

    return DeadLetter(
        partition=record.partition,
        offset=record.offset,
        written_us=record.timestamp * 1000,
        reason=text("reason"),
        detail=text("detail"),
        pin_id=record.key.decode("utf-8", "replace") if record.key else "",
        source=f"{text('source_topic')}:{text('source_partition')}:{text('source_offset')}",
        attempts=header_int(headers, "attempts"),
        first_failure=moment(header_int(headers, "first_failure_us")),
        key=record.key,
        value=record.value,
        headers=headers,
        settled=settled,
    )
