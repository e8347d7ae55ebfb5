from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.features import FeatureRow
from pins.wire import FUTURE_TOLERANCE_US
from streams import worker as streams_worker
from streams.broker import DEAD, EMBEDDED, PARKED, UPDATES
from streams.worker import MAX_DEAD_VALUE_BYTES, TooManyDeadLetters
from tests.unit.samples import T0, caption
from tests.unit.stream import NOT_AN_EVENT, SECOND_US, Stream, message


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
    stream.now += 3600 * SECOND_US  # long after anybody else may have had these messages
    events = caption("p", "soup"), caption("p", "SOUP", T0 + 1), PinDeleted("q", T0)
    stream.handle(*(message(event, at=stream.now) for event in events), message(None, b"r", at=stream.now))
    assert stream.sent == []
    assert stream.index.counts() == {"live": 1, "textless": 0, "dead": 2, "refused": 0}


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


def test_too_many_dead_letters_stop_the_worker_before_they_are_sent(stream: Stream) -> None:
    stream.handle(*(message(NOT_AN_EVENT) for _ in range(4)))
    assert len(stream.on(DEAD)) == 4
    with pytest.raises(TooManyDeadLetters, match=r"5 more messages .* EVERPIN_DEAD_LETTER_LIMIT=5.*Nothing of the last batch"):
        stream.handle(message(NOT_AN_EVENT))
    assert len(stream.on(DEAD)) == 4


@pytest.mark.parametrize("fine", [caption("p", "soup"), PinUpdated("late", T0, {}, {"pin_caption": T0})], ids=["an outcome", "a parked pin"])
def test_a_good_message_forgives_a_dead_letter(stream: Stream, fine: PinEvent) -> None:
    for _ in range(20):
        stream.handle(*(message(NOT_AN_EVENT) for _ in range(4)))
        stream.handle(*(message(fine) for _ in range(4)))
    assert len(stream.on(DEAD)) == 80


def test_good_messages_few_and_far_between_do_not_hide_a_wave(stream: Stream) -> None:
    mostly_bad = [message(caption("p", "soup")), *(message(NOT_AN_EVENT) for _ in range(3))]
    stream.handle(*mostly_bad)
    stream.handle(*mostly_bad)
    with pytest.raises(TooManyDeadLetters):
        stream.handle(*mostly_bad)
    assert len(stream.on(DEAD)) == 6


def test_a_key_too_long_for_a_dead_letter_is_cut_and_says_so(stream: Stream) -> None:
    stream.handle(message(NOT_AN_EVENT, b"k" * 120_000))
    (dead,) = stream.on(DEAD)
    assert dead.key == b"k" * 2_000
    assert dead.headers["key_cut_from_bytes"] == b"120000"


def test_a_message_of_nothing_has_a_dead_letter_that_kafka_can_send(stream: Stream) -> None:
    stream.handle(message(None))
    (dead,) = stream.on(DEAD)
    assert (dead.key, dead.value, dead.headers["null_value"]) == (None, b"", b"1")
    assert dead.headers["reason"] == b"bad_pin_id"


def test_a_row_that_the_feature_store_cannot_take_makes_a_dead_letter_of_its_message_only(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stream.features.write

    def picky(rows: Sequence[FeatureRow]) -> None:
        if any(row.values == {"caption": "poison"} for row in rows):
            raise OverflowError
        write(rows)

    monkeypatch.setattr(stream.features, "write", picky)
    stream.handle(message(caption("p", "poison"), offset=1), message(caption("p", "soup"), offset=2))
    assert [dead.headers["source_offset"] for dead in stream.on(DEAD)] == [b"1"]
    assert stream.index.points["p"][0].text == "soup"
