from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from pins.errors import Unavailable
from pins.events import FUTURE_TOLERANCE_US, PinDeleted, PinEvent, PinUpdated, encode
from pins.features import FeatureRow
from pins.indexer import BatchReport, PinIndexer
from streams import worker as streams_worker
from streams.broker import DEAD, EMBEDDED, PARKED, UPDATES
from streams.worker import MAX_DEAD_VALUE_BYTES, Limits, Message, TooManyDeadLetters, Worker
from tests.fakes import FakeEncoder, FakeFeatures, FakeIndex
from tests.unit.samples import T0, caption

SECOND_US = 1_000_000
NOT_AN_EVENT = b"not an event"


@dataclass(frozen=True)
class Sent:
    """What was published, in order."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    def body(self) -> dict[str, Any]:
        assert self.value is not None
        read: dict[str, Any] = json.loads(self.value)
        return read


@dataclass
class Seen:
    """An Observer that keeps what it is told."""

    batches: list[tuple[int, BatchReport, Sequence[float]]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    times_parked: int = 0
    times_retried: int = 0
    states: list[bool] = field(default_factory=list)

    def batch(self, messages: Sequence[Message], report: BatchReport, freshness_s: Sequence[float], seconds: float) -> None:
        assert seconds >= 0
        self.batches.append((len(messages), report, freshness_s))

    def dead_letter(self, reason: str) -> None:
        self.dead.append(reason)

    def parked(self) -> None:
        self.times_parked += 1

    def retried(self) -> None:
        self.times_retried += 1

    def ready(self, ready: bool) -> None:
        self.states.append(ready)


class Stream:
    """A worker on fakes, with a clock that a test sets, and everything it published."""

    def __init__(self) -> None:
        self.features, self.encoder, self.index, self.seen = FakeFeatures(), FakeEncoder(), FakeIndex(), Seen()
        self.now = T0 + 10 * SECOND_US
        self.sent: list[Sent] = []
        self.down: set[str] = set()
        indexer = PinIndexer(self.features, self.encoder, self.index, lambda: self.now)
        limits = Limits(retry_budget_s=10.0, dead_letters=5, park_delay_s=30.0, park_deadline_s=600.0)
        self.worker = Worker(indexer, self.send, self.seen, limits, lambda: self.now)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        if topic in self.down:
            raise Unavailable(f"cannot write to {topic}")
        self.sent.append(Sent(topic, key, value, headers))

    def handle(self, *messages: Message) -> None:
        asyncio.run(self.worker.handle(messages))

    def on(self, topic: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.topic == topic]

    def again(self, sent: Sent, topic: str) -> Message:
        """What was published, as the worker of that topic receives it; its time is that of the message it stands for."""
        return Message(topic, 0, 99, sent.key, sent.value, int(sent.headers["source_timestamp_us"]), sent.headers)


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.worker.close()


@dataclass
class Time:
    """Monotonic time that passes only while the worker waits."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(streams_worker, "time", SimpleNamespace(monotonic=lambda: made.now, perf_counter=lambda: made.now))
    monkeypatch.setattr(streams_worker, "asyncio", SimpleNamespace(sleep=made.sleep, get_running_loop=asyncio.get_running_loop, gather=asyncio.gather))
    return made


def message(event: PinEvent | bytes | None, key: bytes | None = None, offset: int = 7, at: int = T0, **headers: bytes) -> Message:
    value = event if isinstance(event, bytes | None) else encode(event)
    return Message(UPDATES, 3, offset, key, value, at, headers)


def failing(error: Exception, times: int, act: Callable[..., Any]) -> Callable[..., Any]:
    """The act, which fails this many times first."""
    left = [error] * times

    def attempt(*arguments: Any) -> Any:
        if left:
            raise left.pop()
        return act(*arguments)

    return attempt


def test_a_batch_is_embedded_and_every_new_vector_announced(stream: Stream) -> None:
    stream.handle(message(caption("p", "soup"), at=T0 + SECOND_US), message(caption("é", "pie"), at=T0))
    assert stream.index.counts()["live"] == 2
    first, second = stream.on(EMBEDDED)
    assert (first.key, first.headers) == (b"p", {})
    assert first.body() == {"pin_id": "p", "model_id": "fake-v1", "v": stream.index.points["p"][0].v, "reason": "new", "freshness_ms": 9000.0}
    assert (second.key, second.body()["pin_id"], second.body()["freshness_ms"]) == ("é".encode(), "é", 10_000.0)
    assert stream.sent == [first, second]
    ((size, report, freshness),) = stream.seen.batches
    assert (size, report.encoded, freshness) == (2, 2, [9.0, 10.0])


def test_what_changes_no_vector_announces_nothing(stream: Stream) -> None:
    stream.handle(message(caption("p", "soup")))
    stream.sent.clear()
    stream.handle(message(caption("p", "soup")), message(caption("p", "SOUP", T0 + 1)), message(PinDeleted("q", T0)), message(None, b"r"))
    assert stream.sent == []
    assert stream.index.counts() == {"live": 1, "textless": 0, "dead": 2}


def test_freshness_is_measured_from_the_first_message_of_a_pin(stream: Stream) -> None:
    stream.handle(message(caption("p", "soup", T0 + 5), at=T0), message(caption("p", "pie", T0), at=T0 + 5 * SECOND_US))
    (embedded,) = stream.on(EMBEDDED)
    assert embedded.body()["freshness_ms"] == 10_000.0


def test_a_batch_leaves_one_log_line(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "everpin.worker")
    late = PinUpdated("late", T0, {}, {"pin_caption": T0})
    stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT), message(late))
    (line,) = caplog.messages
    assert line.startswith("batch messages=3 outcomes=1 encoded=1 dead=1 parked=1 ms=")


def test_an_empty_batch_is_harmless(stream: Stream) -> None:
    stream.handle()
    assert stream.sent == []


def test_what_is_no_event_becomes_a_dead_letter_that_can_be_replayed(stream: Stream) -> None:
    stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT, b"p1", offset=41, at=T0 + 5))
    (dead,) = stream.on(DEAD)
    assert (dead.key, dead.value) == (b"p1", NOT_AN_EVENT)
    detail = dead.headers["detail"].decode()
    assert detail.startswith("not_json: ")
    assert dead.headers == {
        "source_topic": b"pin-updates", "source_partition": b"3", "source_offset": b"41", "source_timestamp_us": str(T0 + 5).encode(),
        "attempts": b"1", "first_failure_us": str(stream.now).encode(), "error": b"InvalidEvent", "reason": b"not_json", "detail": detail.encode(),
    }  # fmt: skip
    assert stream.seen.dead == ["not_json"]
    assert stream.index.counts()["live"] == 1


def test_an_event_from_the_future_is_judged_by_the_worker_s_clock(stream: Stream) -> None:
    stream.now = T0
    ahead = message(caption("p", "soup", T0 + FUTURE_TOLERANCE_US + 1))
    stream.handle(ahead)
    assert stream.seen.dead == ["far_future"]
    stream.now += 1
    stream.handle(ahead)
    assert stream.index.counts()["live"] == 1


def test_a_pin_the_student_refuses_is_a_dead_letter_and_keeps_its_vector(stream: Stream) -> None:
    stream.handle(message(caption("p", "soup")))
    stream.handle(message(caption("p", "broken", T0 + 1), offset=8), message(PinUpdated("p", T0), offset=9), message(caption("q", "pie")))
    assert [dead.headers["source_offset"] for dead in stream.on(DEAD)] == [b"8", b"9"]
    assert {(dead.headers["error"], dead.headers["reason"]) for dead in stream.on(DEAD)} == {(b"Unembeddable", b"encoder_error")}
    assert stream.index.points["p"][0].text == "soup"
    assert stream.index.points["q"][0].text == "pie"


def test_a_dead_letter_tells_how_often_and_since_when_its_message_fails(stream: Stream) -> None:
    stream.handle(message(NOT_AN_EVENT, b"p1", offset=41))
    first, born = stream.on(DEAD)[0], stream.now
    stream.now += SECOND_US
    stream.handle(stream.again(first, UPDATES))
    second = stream.on(DEAD)[1]
    assert second.headers["attempts"] == b"2"
    assert second.headers["first_failure_us"] == str(born).encode()
    origin = ("source_topic", "source_partition", "source_offset", "source_timestamp_us")
    assert [second.headers[name] for name in origin] == [first.headers[name] for name in origin] == [b"pin-updates", b"3", b"41", str(T0).encode()]


ALIEN = [b"many", b"", b"-3", b"1.5", b"\xff", "٣".encode(), b"9" * 5_000]


@pytest.mark.parametrize("number", ALIEN, ids=["words", "empty", "negative", "a fraction", "not text", "Arabic", "5,000 digits"])
def test_headers_of_others_do_not_stop_the_worker(stream: Stream, number: bytes) -> None:
    stream.handle(message(NOT_AN_EVENT, attempts=number, first_failure_us=number, trace=b"abc"))
    stream.handle(message(PinUpdated("late", T0, {}, {"pin_caption": T0}), attempts=number, first_failure_us=number))
    for sent in (*stream.on(DEAD), *stream.on(PARKED)):
        assert (sent.headers["attempts"], sent.headers["first_failure_us"]) == (b"1", str(stream.now).encode())
        assert "trace" not in sent.headers
    assert len(stream.sent) == 2


@pytest.mark.parametrize("extra", [0, 1])
def test_a_value_too_long_for_a_dead_letter_is_cut_and_says_so(stream: Stream, extra: int) -> None:
    value = b"x" * (MAX_DEAD_VALUE_BYTES + extra)
    stream.handle(message(value))
    (dead,) = stream.on(DEAD)
    assert dead.value == value[:MAX_DEAD_VALUE_BYTES]
    assert dead.headers.get("cut_from_bytes") == (str(len(value)).encode() if extra else None)


def test_a_long_or_unspeakable_reason_still_fits_a_header(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: object, value: object, **times: int) -> None:
        raise streams_worker.InvalidEvent("not_json", "\ud800" * 9_000)

    monkeypatch.setattr(streams_worker, "decode", refuse)
    stream.handle(message(b"?"))
    (dead,) = stream.on(DEAD)
    assert dead.headers["detail"] == b"not_json: " + b"?" * 1990


def test_too_many_dead_letters_in_a_row_stop_the_worker_before_they_are_sent(stream: Stream) -> None:
    stream.handle(*(message(NOT_AN_EVENT) for _ in range(4)))
    assert len(stream.on(DEAD)) == 4
    with pytest.raises(TooManyDeadLetters, match=r"5 messages in a row .* EVERPIN_DEAD_LETTER_LIMIT=5.*Nothing of the last batch"):
        stream.handle(message(NOT_AN_EVENT))
    assert len(stream.on(DEAD)) == 4


@pytest.mark.parametrize("fine", [caption("p", "soup"), PinUpdated("late", T0, {}, {"pin_caption": T0})], ids=["an outcome", "a parked pin"])
def test_anything_in_order_starts_the_count_of_dead_letters_anew(stream: Stream, fine: PinEvent) -> None:
    for _ in range(3):
        stream.handle(*(message(NOT_AN_EVENT) for _ in range(4)))
        stream.handle(message(fine), *(message(NOT_AN_EVENT) for _ in range(9)))
    assert len(stream.on(DEAD)) == 39


LATE = PinUpdated("p", T0, {}, {"pin_caption": T0})


def test_features_that_are_behind_park_the_message_for_later(stream: Stream) -> None:
    stream.handle(message(LATE, b"p", offset=41), message(caption("q", "pie")))
    (parked,) = stream.on(PARKED)
    assert (parked.key, parked.value) == (b"p", encode(LATE))
    assert parked.headers == {
        "source_topic": b"pin-updates", "source_partition": b"3", "source_offset": b"41", "source_timestamp_us": str(T0).encode(), "attempts": b"1",
        "first_failure_us": str(stream.now).encode(), "parked_since_us": str(stream.now).encode(),
        "not_before_us": str(stream.now + 30 * SECOND_US).encode(), "reason": b"features_behind",
        "detail": f"pin 'p': view 'pin_caption' is at 0 us, the event announced {T0} us".encode(),
    }  # fmt: skip
    assert (stream.seen.times_parked, stream.seen.dead) == (1, [])
    assert "p" not in stream.index.points
    assert "q" in stream.index.points


def test_every_message_of_a_pin_that_is_behind_is_parked(stream: Stream) -> None:
    stream.handle(message(LATE, offset=1), message(PinUpdated("p", T0), offset=2))
    assert [parked.headers["source_offset"] for parked in stream.on(PARKED)] == [b"1", b"2"]


def test_a_parked_message_is_embedded_once_its_features_have_come(stream: Stream) -> None:
    stream.handle(message(LATE, b"p"))
    stream.now += 30 * SECOND_US
    stream.features.write([FeatureRow("pin_caption", "p", T0, {"caption": "soup"})])
    stream.handle(stream.again(stream.on(PARKED)[0], PARKED))
    (embedded,) = stream.on(EMBEDDED)
    assert embedded.body()["freshness_ms"] == 40_000.0
    assert len(stream.on(PARKED)) == 1


def test_a_parked_message_is_parked_again_until_its_deadline_and_then_a_dead_letter(stream: Stream) -> None:
    start = stream.now
    stream.handle(message(LATE, b"p", offset=41))
    for attempt, seconds in ((2, 300), (3, 600)):
        stream.now = start + seconds * SECOND_US
        stream.handle(stream.again(stream.on(PARKED)[-1], PARKED))
        parked = stream.on(PARKED)[-1]
        assert (parked.headers["attempts"], parked.headers["first_failure_us"]) == (str(attempt).encode(), str(start).encode())
        assert parked.headers["not_before_us"] == str(stream.now + 30 * SECOND_US).encode()
    stream.now += 1
    stream.handle(stream.again(stream.on(PARKED)[-1], PARKED))
    (dead,) = stream.on(DEAD)
    assert len(stream.on(PARKED)) == 3
    assert (dead.key, dead.value, dead.headers["error"], dead.headers["reason"]) == (b"p", encode(LATE), b"FeaturesBehind", b"features_behind")
    assert (dead.headers["attempts"], dead.headers["source_topic"], dead.headers["source_offset"]) == (b"4", b"pin-updates", b"41")
    assert (stream.seen.times_parked, stream.seen.dead) == (3, ["features_behind"])


def test_a_parked_message_waits_until_it_is_due(stream: Stream, time: Time) -> None:
    stream.handle(message(LATE, b"p"))
    parked = stream.again(stream.on(PARKED)[0], PARKED)
    for passed in (0, 20, 30, 99):
        stream.now = T0 + (10 + passed) * SECOND_US
        asyncio.run(stream.worker.ripe(parked))
    asyncio.run(stream.worker.ripe(replace(parked, headers={})))
    assert time.waits == [30.0, 10.0, 0.0, 0.0, 0.0]


def lines_of(caplog: pytest.LogCaptureFixture, *words: str) -> list[tuple[str, str]]:
    return [(entry.levelname, entry.getMessage()) for entry in caplog.records if any(word in entry.getMessage() for word in words)]


def test_a_store_that_does_not_answer_is_waited_for_with_growing_pauses(
    stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "everpin.worker")
    monkeypatch.setattr(stream.index, "known", failing(Unavailable("the index is away"), 4, stream.index.known))
    stream.handle(message(caption("p", "soup")))
    assert time.waits == [0.2, 0.4, 0.8, 1.6]
    assert stream.index.counts()["live"] == 1
    assert len(stream.on(EMBEDDED)) == 1
    assert stream.seen.states == [False] * 4 + [True]
    assert lines_of(caplog, "nothing acknowledged", "answer again") == [
        ("ERROR", "waiting up to 10 s, nothing acknowledged: the index is away"),
        ("INFO", "the stores answer again"),
    ]


def test_when_the_budget_is_spent_the_error_is_raised_and_nothing_published(
    stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "everpin.worker")
    stream.worker.limits = replace(stream.worker.limits, retry_budget_s=20.0)
    monkeypatch.setattr(stream.index, "known", failing(Unavailable("the index is away"), 99, stream.index.known))
    for _ in range(2):
        with pytest.raises(Unavailable, match="the index is away"):
            stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert time.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] * 2
    assert stream.sent == []
    assert stream.seen.batches == []
    assert stream.seen.dead == []
    assert set(stream.seen.states) == {False}
    assert len(lines_of(caplog, "nothing acknowledged")) == 1
    monkeypatch.undo()
    stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert (len(stream.on(EMBEDDED)), len(stream.on(DEAD))) == (1, 1)
    assert lines_of(caplog, "answer again") == [("INFO", "the stores answer again")]


def test_a_write_that_fails_midway_is_applied_again_without_a_second_vector(stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stream.index.write

    def write_and_fail(points: Any) -> set[str]:
        write(points)
        monkeypatch.setattr(stream.index, "write", write)
        raise Unavailable("the answer was lost")

    monkeypatch.setattr(stream.index, "write", write_and_fail)
    stream.handle(message(caption("p", "soup")))
    assert stream.encoder.encoded == ["soup"]
    assert stream.index.points["p"][0].text == "soup"


@pytest.mark.parametrize("topic", [DEAD, PARKED, EMBEDDED])
def test_a_topic_that_cannot_be_written_leaves_the_batch_unacknowledged(stream: Stream, topic: str) -> None:
    batch = message(caption("p", "soup")), message(NOT_AN_EVENT), message(PinUpdated("late", T0, {}, {"pin_caption": T0}))
    stream.down = {topic}
    with pytest.raises(Unavailable, match=f"cannot write to {topic}"):
        stream.handle(*batch)
    assert stream.on(topic) == []
    assert stream.seen.batches == []
    stream.down = set()
    stream.sent.clear()
    stream.handle(*batch)
    assert (len(stream.on(DEAD)), len(stream.on(PARKED))) == (1, 1)
    assert stream.index.counts()["live"] == 1


def test_a_dead_letter_counts_only_once_it_is_written(stream: Stream) -> None:
    stream.down = {DEAD}
    with pytest.raises(Unavailable):
        stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert stream.seen.dead == []


def test_a_defect_is_raised_at_once_and_nothing_published(stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.features, "of", failing(ZeroDivisionError(), 1, stream.features.of))
    with pytest.raises(ZeroDivisionError):
        stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert (time.waits, stream.sent) == ([], [])


def test_heartbeats_go_on_while_the_indexer_works(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> int:
        loop, beats = asyncio.get_running_loop(), asyncio.Event()

        def slow(events: Iterable[PinEvent]) -> BatchReport:
            asyncio.run_coroutine_threadsafe(beats.wait(), loop).result(10)
            return BatchReport([])

        monkeypatch.setattr(stream.worker.indexer, "apply", slow)
        handling = asyncio.create_task(stream.worker.handle([message(caption("p", "soup"))]))
        await asyncio.sleep(0)
        beats.set()
        await handling
        return len(stream.seen.batches)

    assert asyncio.run(work()) == 1


def test_a_replayed_message_whose_features_were_late_waits_anew(stream: Stream) -> None:
    history = {"first_failure_us": str(T0 - 3600 * SECOND_US).encode(), "attempts": b"9", "source_topic": b"pin-updates"}
    stream.handle(message(LATE, b"p", **history))
    assert stream.on(DEAD) == []
    assert stream.on(PARKED)[0].headers["first_failure_us"] == history["first_failure_us"]
