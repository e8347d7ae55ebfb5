"""What a worker waits for: features that are behind, stores that do not answer, topics that cannot be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from pins.errors import Unavailable
from pins.events import PinEvent, PinUpdated, encode
from pins.features import FeatureRow
from pins.indexer import BatchReport
from streams.broker import DEAD, EMBEDDED, PARKED
from tests.unit.samples import T0, caption
from tests.unit.stream import LATE, NOT_AN_EVENT, SECOND_US, Stream, Time, failing, message


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


def test_only_messages_that_are_behind_are_parked(stream: Stream) -> None:
    stream.handle(message(LATE, offset=1), message(caption("p", "soup", T0 - 1), offset=2), message(LATE, offset=3))
    assert [parked.headers["source_offset"] for parked in stream.on(PARKED)] == [b"1", b"3"]
    assert stream.index.points["p"][0].text == "soup"


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
    for attempt, seconds, wait in ((2, 30, 30), (3, 45, 45), (4, 300, 60), (5, 590, 10)):
        stream.now = start + seconds * SECOND_US
        stream.handle(stream.again(stream.on(PARKED)[-1], PARKED))
        parked = stream.on(PARKED)[-1]
        assert (parked.headers["attempts"], parked.headers["first_failure_us"]) == (str(attempt).encode(), str(start).encode())
        assert parked.headers["not_before_us"] == str(stream.now + wait * SECOND_US).encode()
    stream.now = start + 600 * SECOND_US
    stream.handle(stream.again(stream.on(PARKED)[-1], PARKED))
    (dead,) = stream.on(DEAD)
    assert len(stream.on(PARKED)) == 5
    assert (dead.key, dead.value, dead.headers["error"], dead.headers["reason"]) == (b"p", encode(LATE), b"FeaturesBehind", b"features_behind")
    assert (dead.headers["attempts"], dead.headers["source_topic"], dead.headers["source_offset"]) == (b"6", b"pin-updates", b"41")
    assert (stream.seen.times_parked, stream.seen.dead) == (5, ["features_behind"])


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
def test_a_topic_that_cannot_be_written_leaves_the_batch_unacknowledged(stream: Stream, time: Time, topic: str) -> None:
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


def test_a_topic_that_can_be_written_again_in_time_costs_only_the_wait(stream: Stream, time: Time, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "everpin.worker")
    stream.worker.send = failing(Unavailable("cannot write"), 3, stream.worker.send)  # type: ignore[method-assign]
    stream.handle(message(NOT_AN_EVENT))
    assert time.waits == [0.2, 0.4, 0.8]
    assert len(stream.on(DEAD)) == 1
    assert stream.seen.states == [False] * 3 + [True]
    assert [line for _, line in lines_of(caplog, "again", "nothing acknowledged")] == [
        "waiting up to 10 s, nothing acknowledged: cannot write",
        "writes to pin-updates.dead answer again",
    ]


def test_a_dead_letter_counts_only_once_it_is_written(stream: Stream, time: Time) -> None:
    stream.down = {DEAD}
    with pytest.raises(Unavailable):
        stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert stream.seen.dead == []


def test_a_defect_is_raised_at_once_and_nothing_published(stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.worker.indexer, "apply", failing(ZeroDivisionError(), 1, stream.worker.indexer.apply))
    with pytest.raises(ZeroDivisionError):
        stream.handle(message(caption("p", "soup")), message(NOT_AN_EVENT))
    assert (time.waits, stream.sent) == ([], [])


@pytest.mark.parametrize("skew_s", [0, 9])
def test_a_vector_whose_notice_was_lost_in_a_crash_is_announced_when_its_message_comes_again(stream: Stream, time: Time, skew_s: int) -> None:
    stream.now = T0 - skew_s * SECOND_US  # the worker that died had a slow clock
    stream.down = {EMBEDDED}
    with pytest.raises(Unavailable):
        stream.handle(message(caption("p", "soup")))
    stream.down, stream.now = set(), T0 + 15 * SECOND_US
    stream.worker.assigned()
    stream.handle(message(caption("p", "soup")))
    (notice,) = stream.on(EMBEDDED)
    assert notice.body() == {"pin_id": "p", "model_id": "fake-v1", "v": T0 - skew_s * SECOND_US, "reason": "unchanged", "freshness_ms": -1000.0 * skew_s}
    assert stream.seen.batches[-1][2] == [], "a repeated notice is no freshness"


def test_messages_that_nobody_had_before_announce_nothing_again(stream: Stream) -> None:
    stream.worker.assigned()
    stream.now += 60 * SECOND_US
    stream.handle(message(caption("p", "soup"), at=stream.now - SECOND_US))
    stream.handle(message(caption("p", "soup"), at=stream.now - SECOND_US))
    assert len(stream.on(EMBEDDED)) == 1


def test_a_batch_that_is_tried_again_announces_what_its_first_try_wrote(stream: Stream, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stream.index.write

    def write_and_fail(points: Any) -> set[str]:
        write(points)
        monkeypatch.setattr(stream.index, "write", write)
        raise Unavailable("the answer was lost")

    monkeypatch.setattr(stream.index, "write", write_and_fail)
    stream.now += 600 * SECOND_US
    stream.handle(message(caption("p", "soup"), at=stream.now))
    assert [notice.body()["reason"] for notice in stream.on(EMBEDDED)] == ["unchanged"]


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
