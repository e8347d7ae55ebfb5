"""Which dead letters are meant, which are settled, and what a replay and a purge do, on records and a producer of the test's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from everpin.commands.deadletters import time_us, wanted
from pins.errors import EverpinError, Unavailable
from streams.broker import DEAD, UPDATES, USER_ACTIONS, Post
from streams.deadletters import CHUNK, PURGED, REPLAYED, DeadLetter, Settlement, Wanted, letters_of, paced, purge, replay, settlements
from streams.erasure import Erasure, fronts_of
from streams.worker import Message
from tests.unit.samples import T0
from tests.unit.stream import NOT_AN_EVENT, Stream, message

NOW = 1_764_000_000_000_000
HISTORY = {
    "source_topic": b"pin-updates", "source_partition": b"2", "source_offset": b"41", "source_timestamp_us": b"7",
    "attempts": b"3", "first_failure_us": b"1764000000000000",
}  # fmt: skip


@dataclass
class Record:
    """A record of Kafka's, as a client gives it."""

    partition: int
    offset: int
    key: bytes | None = b"p"
    value: bytes | None = b"{}"
    timestamp: int = NOW // 1000
    headers: list[tuple[str, bytes]] = field(default_factory=lambda: [("reason", b"not_json")])


@dataclass
class Kafka:
    """A topic of dead letters and a producer to it: takes what is delivered, refuses these values, is down after so many posts."""

    records: list[Record] = field(default_factory=list)
    sent: list[Post] = field(default_factory=list)
    refuses: frozenset[bytes] = frozenset()
    refuses_settlements: bool = False
    down_after: int | None = None

    def deliver(self, posts: Iterable[Post]) -> list[str]:
        return [self._take(post) for post in posts]

    def _take(self, post: Post) -> str:
        if self.down_after is not None and len(self.sent) >= self.down_after:
            raise Unavailable("Kafka does not answer")
        if post.value in self.refuses or (self.refuses_settlements and post.topic == DEAD):
            return "too large"
        self.sent.append(post)
        if post.topic == DEAD:
            assert post.partition is not None
            end = 1 + max(record.offset for record in self.records if record.partition == post.partition)
            self.records.append(Record(post.partition, end, post.key, post.value, headers=list(post.headers.items())))
        return ""

    def letters(self) -> list[DeadLetter]:
        return list(letters_of(self.records, settlements(self.records)))

    def waiting(self) -> list[DeadLetter]:
        return [letter for letter in self.letters() if letter.settled is None]

    def events(self) -> list[bytes | None]:
        return [post.value for post in self.sent if post.topic == UPDATES]


def of(*offsets: int, partition: int = 0, **headers: bytes) -> list[Record]:
    """Letters at these places; each value is its offset."""
    named = {"reason": b"not_json", **HISTORY, **headers}
    return [Record(partition, offset, b"p", str(offset).encode(), headers=list(named.items())) for offset in offsets]


def settled(partition: int, offset: int, settles: bytes, how: bytes = b"replayed", at: bytes = b"5") -> Record:
    return Record(partition, offset, None, None, headers=[("settles", settles), ("how", how), ("at_us", at)])


def nothing(_: int) -> None:
    """A step that shows nothing."""


def test_a_settlement_is_no_letter_and_settles_the_one_it_names() -> None:
    records = [*of(0, 1), *of(0, partition=1), settled(0, 2, b"0:1", b"purged", b"9")]
    known = settlements(records)
    assert {place: dict(those) for place, those in known.items()} == {0: {1: Settlement("purged", 9)}}
    assert [(letter.letter, letter.settled) for letter in letters_of(records, known)] == [("0:0", None), ("0:1", Settlement("purged", 9)), ("1:0", None)]


@pytest.mark.parametrize("settles", [b"", b"0", b"0:", b"0:x", b"-1:0", b"1:0", b"0:5", b"0:6", b"\xff", b"0:" + b"9" * 30])
def test_a_settlement_that_names_no_earlier_place_of_its_partition_settles_nothing(settles: bytes) -> None:
    records = [*of(0), settled(0, 5, settles), *of(6)]
    assert [letter.letter for letter in letters_of(records, settlements(records)) if letter.settled is None] == ["0:0", "0:6"]


def test_the_first_settlement_of_a_letter_holds_and_its_numbers_may_be_missing() -> None:
    records = [*of(0, 1), settled(0, 2, b"0:0"), settled(0, 3, b"0:0", b"purged"), settled(0, 4, b"0:1", b"purged", b"soon")]
    assert [letter.settled for letter in letters_of(records, settlements(records))] == [Settlement("replayed", 5), Settlement("purged", 0)]


def test_a_dead_tombstone_of_a_pin_is_a_letter() -> None:
    assert [letter.pin_id for letter in letters_of([Record(0, 0, b"p9", None)], {})] == ["p9"]


def test_a_chunk_of_settlements_shares_one_value() -> None:
    known = settlements([*of(0, 1), settled(0, 2, b"0:0"), settled(0, 3, b"0:1")])
    assert known[0][0] is known[0][1]


LETTER = next(letters_of([Record(3, 7, b"p1", headers=[("reason", b"bad_time")])], {}))


@pytest.mark.parametrize(
    ("which", "matches"),
    [
        (Wanted(), True),
        (Wanted(reason="bad_time"), True),
        (Wanted(reason="bad"), False),
        (Wanted(pin_id="p1"), True),
        (Wanted(pin_id=""), False),
        (Wanted(since_us=NOW), True),
        (Wanted(since_us=NOW + 1), False),
        (Wanted(until_us=NOW + 1), True),
        (Wanted(until_us=NOW), False),
        (Wanted(places=frozenset({"3:7", "0:0"})), True),
        (Wanted(places=frozenset({"3:70"})), False),
        (Wanted("bad_time", "p2", NOW, NOW + 1, frozenset({"3:7"})), False),
    ],
)
def test_all_that_is_given_must_match(which: Wanted, matches: bool) -> None:
    assert which(LETTER) is matches


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("90s", NOW - 90_000_000),
        ("15m", NOW - 900_000_000),
        ("2h", NOW - 7_200_000_000),
        ("7d", NOW - 604_800_000_000),
        ("0s", NOW),
        ("2025-11-24T16:00:00Z", NOW),
        ("2025-11-24T16:00:00", NOW),
        ("2025-11-24T17:00:00+01:00", NOW),
        ("2025-11-24T16:00:00.000001", NOW + 1),
        ("2025-11-24", NOW - 16 * 3_600_000_000),
    ],
)
def test_times_are_ages_or_iso_times(text: str, us: int) -> None:
    assert datetime.fromtimestamp(NOW / 1e6, UTC).isoformat() == "2025-11-24T16:00:00+00:00"
    assert time_us("--since", text, NOW) == us


@pytest.mark.parametrize("text", ["", "yesterday", "15", "15 m", "-3h", "3.5h", "2h30m", "2025-13-01", "1764000000", "9" * 40 + "d"])
def test_what_is_no_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(EverpinError, match=r"--until '.*' is no time; write an age such as 90s, 15m, 2h, 7d, or an ISO time such as"):
        time_us("--until", text, NOW)


def test_a_filter_that_cannot_match_is_refused() -> None:
    with pytest.raises(EverpinError, match=r"--since 1h is not before --until 2h.*exchange"):
        wanted(since="1h", until="2h")
    with pytest.raises(EverpinError, match="'7' is no letter's place; write partition:offset such as 3:0"):
        wanted(letters=["3:0", "7"])
    assert wanted().all
    assert not wanted(letters=["3:0"]).all


def test_a_replay_sends_each_letter_once_with_its_history() -> None:
    kafka, steps = Kafka(of(0, 1)), list[int]()
    report = replay(kafka.waiting(), kafka, lambda: NOW, steps.append)
    assert (report.matched, report.done, report.by_reason, report.cut, report.refused) == (2, 2, {"not_json": 2}, [], {})
    assert kafka.sent[0] == Post(UPDATES, b"p", b"0", HISTORY), "reason, detail and error belong to the letter, not to the event"
    assert steps == [2]
    assert [letter.settled for letter in kafka.letters()] == [Settlement(REPLAYED, NOW)] * 2
    assert replay(kafka.waiting(), kafka, lambda: NOW, nothing).matched == 0
    assert kafka.events() == [b"0", b"1"]


def test_a_replay_sends_each_letter_to_the_topic_that_it_came_from() -> None:
    kafka = Kafka([*of(0), *of(1, source_topic=b"user-actions"), *of(2, source_topic=b"pin-updates.parked")])
    replay(kafka.waiting(), kafka, lambda: NOW, nothing)
    assert [post.topic for post in kafka.sent if post.topic != DEAD] == [UPDATES, USER_ACTIONS, UPDATES]


def test_cut_and_refused_letters_stay_and_are_named() -> None:
    kafka = Kafka([*of(0), *of(1, cut_from_bytes=b"2000000"), *of(2)], refuses=frozenset({b"2"}))
    report = replay(kafka.waiting(), kafka, lambda: NOW, nothing)
    assert (report.matched, report.done, report.cut, report.refused) == (3, 1, ["0:1"], {"0:2": "too large"})
    assert [letter.letter for letter in kafka.waiting()] == ["0:1", "0:2"]


@pytest.mark.parametrize("down_after", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 7, 4 * CHUNK + 9])
def test_a_replay_that_ends_anywhere_loses_no_letter(down_after: int) -> None:
    """What was not sent still waits. A second run sends it, and at most one chunk a second time."""
    kafka = Kafka(of(*range(2 * CHUNK + 5)), down_after=down_after)
    with pytest.raises(Unavailable, match=r"stopped after \d+ letters were sent and settled; run it again"):
        replay(kafka.waiting(), kafka, lambda: NOW, nothing)
    sent, waiting = set(kafka.events()), {letter.value for letter in kafka.waiting()}
    assert sent | waiting == {str(n).encode() for n in range(2 * CHUNK + 5)}
    assert len(sent & waiting) <= CHUNK
    kafka.down_after = None
    replay(kafka.waiting(), kafka, lambda: NOW, nothing)
    assert len(set(kafka.events())) == 2 * CHUNK + 5
    assert kafka.waiting() == []


def test_a_settlement_that_is_refused_is_no_success() -> None:
    kafka = Kafka(of(0), refuses_settlements=True)
    with pytest.raises(Unavailable, match=r"after 0 letters .*refused to note in pin-updates.dead that 1 letters .* stay listed: too large"):
        replay(kafka.waiting(), kafka, lambda: NOW, nothing)
    assert len(kafka.waiting()) == 1


@dataclass
class Time:
    now: float = 100.0

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.mark.parametrize(("rate", "seconds"), [(0, 0.0), (10, 0.9), (0.5, 18.0)])
def test_the_rate_is_held(rate: float, seconds: float) -> None:
    time = Time()
    letters = list(letters_of(of(*range(10)), {}))
    assert list(paced(letters, rate, lambda: time.now, time.sleep)) == letters
    assert time.now - 100 == pytest.approx(seconds)


def test_lost_time_is_not_caught_up() -> None:
    time, times = Time(), list[float]()
    for n, _ in enumerate(paced(letters_of(of(*range(5)), {}), 1, lambda: time.now, time.sleep)):
        times.append(time.now)
        time.now += 10 if n == 1 else 0
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([1, 10, 1, 1])


def test_a_slow_replay_settles_at_least_every_second() -> None:
    kafka, steps = Kafka(of(0, 1, 2)), list[int]()
    replay(kafka.waiting(), kafka, lambda: NOW, steps.append, rate=1000)
    assert steps == [3]
    kafka, steps = Kafka(of(*range(4))), []
    replay(kafka.waiting()[:2], kafka, lambda: NOW, steps.append, rate=1.5)
    assert steps == [1, 1]


def test_a_purge_settles_and_says_where() -> None:
    kafka = Kafka([*of(0, 1), *of(4, partition=2, cut_from_bytes=b"2000000")])
    report, offsets = purge(kafka.waiting(), kafka, lambda: NOW, nothing)
    assert (report.matched, report.done, offsets) == (3, 3, {0: [0, 1], 2: [4]})
    assert {letter.settled for letter in kafka.letters()} == {Settlement(PURGED, NOW)}
    assert kafka.events() == []


def test_the_front_ends_before_the_first_letter_that_waits() -> None:
    records = [
        *of(10, 11), settled(0, 12, b"0:10"), settled(0, 13, b"0:11", b"purged"), *of(14, 15), settled(0, 16, b"0:15"),
        *of(3, partition=1), settled(1, 4, b"1:3"),
        *of(0, partition=2), *of(1, partition=2, reason=b"bad_time"), settled(2, 2, b"2:1"),
    ]  # fmt: skip
    fronts = fronts_of(records, settlements(records), Wanted(reason="not_json"))
    shown = {partition: (front.until, front.waiting, front.letters, front.mine, front.mine_behind) for partition, front in fronts.items()}
    assert shown == {0: (14, "0:14", 2, 2, 1), 1: (5, "", 1, 1, 0), 2: (0, "2:0", 0, 0, 0)}


def test_no_settlement_goes_before_its_letter() -> None:
    """Whatever is settled in whatever order: a letter behind the front keeps the record that settles it."""
    for order in ([0, 1, 2], [2, 1, 0], [1], [0, 2], [2]):
        kafka = Kafka(of(0, 1, 2))
        letters = kafka.letters()
        for n in order:
            purge([letters[n]], kafka, lambda: NOW, nothing)
        until = fronts_of(kafka.records, settlements(kafka.records), Wanted())[0].until
        before = {letter.letter for letter in kafka.waiting()}
        kafka.records = [record for record in kafka.records if record.offset >= until]
        assert {letter.letter for letter in kafka.waiting()} == before


def test_what_is_gone_is_counted_by_place() -> None:
    erasure = Erasure(deleted=9, starts={0: 5, 1: 0}, readable=0, blocked_by=[])
    assert erasure.gone({0: [3, 4, 5, 6], 1: [0], 2: [0]}) == 2


def test_a_history_goes_on_over_two_failures_and_two_replays() -> None:
    """Worker and replay together: attempts 1, 2, 3; source and first failure stay what they were."""
    stream, kafka = Stream(), Kafka()
    stream.handle(message(NOT_AN_EVENT, b"p1", offset=41, at=T0))
    story = list[Mapping[str, Any]]()
    for attempt in range(3):
        dead = stream.on(DEAD)[attempt]
        kafka.records.append(Record(0, 10 * attempt, dead.key, dead.value, headers=list(dead.headers.items())))
        (waiting,) = kafka.waiting()
        story.append({name: waiting.headers[name] for name in HISTORY} | {"reason": waiting.reason})
        replay([waiting], kafka, lambda: NOW, nothing)
        sent = next(post for post in reversed(kafka.sent) if post.topic == UPDATES)
        stream.now += 1_000_000_000
        stream.handle(Message(UPDATES, 0, 1000 + attempt, sent.key, sent.value, stream.now, sent.headers))
    assert [letter["attempts"] for letter in story] == [b"1", b"2", b"3"]
    for name in set(HISTORY) - {"attempts"}:
        assert len({letter[name] for letter in story}) == 1, name
    assert (story[0]["source_offset"], story[0]["first_failure_us"], story[0]["reason"]) == (b"41", str(T0 + 10_000_000).encode(), "not_json")
