"""Dead letters come back, are done away with, and are never lost for want of a place: real workers, both brokers, the real command."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

from everpin.commands.deadletters import wanted
from pins.errors import Unavailable
from pins.events import encode
from streams.broker import DEAD, UPDATES, Broker, EventProducer, Post, embedded_broker, end_offsets, ensure_topics, read_topic, start_offsets
from streams.deadletters import REPLAYED, dead_letters, depth, letters_since, settle
from tests.faults.processes import command
from tests.integration.rig import Rig, captions, until
from tests.services.kafka import RunningKafka

STOPPED_UNACKED = 70


@pytest.fixture
def kafka_rig(kafka: RunningKafka, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(Broker(kafka.address), tmp_path / "home")
    ensure_topics(made.broker, 4, 1)
    yield made
    made.stop()


@pytest.fixture
def embedded_rig(tmp_path: Path) -> Iterator[Rig]:
    with embedded_broker() as broker:
        made = Rig(broker, tmp_path / "home")
        yield made
        made.stop()


@pytest.fixture(params=["embedded", "kafka"])
def rig(request: pytest.FixtureRequest) -> Rig:
    made: Rig = request.getfixturevalue(f"{request.param}_rig")
    return made


def everpin(rig: Rig, *arguments: str, code: int = 0) -> Any:
    """Run a command with --json; its document, or what it said where it did nothing."""
    environment = {**os.environ, "EVERPIN_HOME": str(rig.home), "EVERPIN_KAFKA": str(rig.broker)}
    done = command([*arguments, "--json"], environment)
    assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout else done.stderr


def poison(rig: Rig, *pins: str, value: bytes = b"this is no event") -> None:
    """A message per pin that no worker can use."""
    producer = EventProducer(rig.broker, rig.group)
    for pin in pins:
        producer.send_raw(pin.encode(), value)
    producer.close()


def letter(rig: Rig, pin: str, reason: str = "not_json", value: bytes = b"this is no event", **headers: bytes) -> str:
    """A dead letter without a worker, all in one partition; its place."""
    producer = EventProducer(rig.broker, rig.group)
    assert producer.deliver([Post(DEAD, pin.encode(), value, {"reason": reason.encode(), **headers}, 0)]) == [""]
    producer.close()
    return f"0:{end_offsets(rig.broker, DEAD)[0] - 1}"


def without_key_and_value(rig: Rig) -> str:
    """A dead letter of a message that was nothing at all; its place."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": rig.broker.address})
    producer.produce(DEAD, partition=0, headers={"reason": b"bad_pin_id"})
    assert producer.flush(10) == 0
    return f"0:{end_offsets(rig.broker, DEAD)[0] - 1}"


def waiting(rig: Rig) -> list[str]:
    return [found.letter for found in dead_letters(rig.broker)]


def test_letters_come_back_once_and_fail_again_with_their_history(rig: Rig) -> None:
    rig.url(rig.start())
    rig.send(captions(["good"], "a first caption"))
    before = end_offsets(rig.broker, DEAD)
    poison(rig, "a", "b", "b")
    rig.drain()
    first = everpin(rig, "dlq", "list")["dead_letters"]
    assert [(found["reason"], found["attempts"], found["settled"]) for found in first] == [("not_json", 1, None)] * 3
    assert [found["pin_id"] for found in everpin(rig, "dlq", "list", "--pin", "b")["dead_letters"]] == ["b", "b"]
    assert everpin(rig, "dlq", "list", "--until", "1h")["dead_letters"] == []

    counted = everpin(rig, "dlq", "replay", "--pin", "b", "--dry-run")
    assert (counted["matched"], counted["sent"], counted["by_reason"]) == (2, 0, {"not_json": 2})
    sent = everpin(rig, "dlq", "replay", "--reason", "not_json", "--since", "1h", "--rate", "50")
    assert (sent["matched"], sent["sent"], sent["not_replayable"], sent["refused"]) == (3, 3, [], {})
    rig.drain()
    second = everpin(rig, "dlq", "list")["dead_letters"]
    assert [found["attempts"] for found in second] == [2, 2, 2]
    assert {(found["first_failure"], found["source"]) for found in second} == {(found["first_failure"], found["source"]) for found in first}
    whole = everpin(rig, "dlq", "list", "--all")["dead_letters"]
    assert sorted((found["attempts"], found["settled"] and found["settled"]["how"]) for found in whole) == [(1, "replayed")] * 3 + [(2, None)] * 3

    again = everpin(rig, "dlq", "replay", first[0]["letter"], second[0]["letter"], code=1)
    assert (again["sent"], again["not_waiting"]) == (1, [first[0]["letter"]]), "a letter is replayed once"
    rig.drain()
    assert sorted(found.attempts for found in dead_letters(rig.broker)) == [2, 2, 3]
    assert everpin(rig, "dlq", "show", first[0]["letter"])["settled"]["how"] == "replayed"
    assert everpin(rig, "status", code=0)["broker"]["dead_letters"] == depth(rig.broker).letters == 3
    assert letters_since(rig.broker, before) == 3 + 3 + 1, "an import counts letters, not settlements"
    assert rig.stop() == [0]


def test_a_replayed_event_that_can_be_used_now_reaches_the_index(rig: Rig) -> None:
    ensure_topics(rig.broker, 4, 1)
    (event,) = captions(["late"], "once refused, now welcome")
    letter(rig, "late", "unknown_type", encode(event), attempts=b"1", first_failure_us=b"1764000000000000")
    rig.url(rig.start())
    assert everpin(rig, "dlq", "replay", "--reason", "unknown_type")["sent"] == 1
    assert everpin(rig, "dlq", "replay", "--reason", "unknown_type")["matched"] == 0
    rig.drain()
    assert rig.stop() == [0]
    rig.assert_equals_oracle(["late"])
    assert waiting(rig) == []


def test_what_cannot_be_replayed_is_said_and_stays(rig: Rig) -> None:
    whole, cut = letter(rig, "a"), letter(rig, "b", "too_large", b"x" * 1000, cut_from_bytes=b"2000000")
    done = everpin(rig, "dlq", "replay", code=1)
    assert (done["matched"], done["sent"], done["not_replayable"]) == (2, 1, [cut])
    assert waiting(rig) == [cut]
    with_nothing = without_key_and_value(rig)
    assert everpin(rig, "dlq", "replay", with_nothing, code=1)["refused"] == {with_nothing: "it has neither key nor value, so it names no pin"}
    assert waiting(rig) == [cut, with_nothing]
    assert everpin(rig, "dlq", "list", "--all")["dead_letters"][0]["letter"] == whole


def test_what_kafka_refuses_is_said_and_stays(kafka: RunningKafka, tmp_path: Path) -> None:
    """pin-updates takes less than pin-updates.dead: a replay names the letter, and a producer does not call it sent."""
    rig = Rig(Broker(kafka.address), tmp_path / "home")
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.create_topics([NewTopic(UPDATES, 4, 1, topic_configs={"max.message.bytes": "500"})])
    admin.close()
    ensure_topics(rig.broker, 4, 1)
    small, large = letter(rig, "a"), letter(rig, "b", value=os.urandom(2000))
    done = everpin(rig, "dlq", "replay", code=1)
    assert (done["matched"], done["sent"], list(done["refused"])) == (2, 1, [large])
    assert "MessageSizeTooLarge" in done["refused"][large]
    assert waiting(rig) == [large]
    assert [found.settled is not None for found in dead_letters(rig.broker, wanted(letters=[small]), settled=True)] == [True]
    producer = EventProducer(rig.broker, rig.group)
    producer.send_raw(b"b", os.urandom(2000))
    with pytest.raises(Unavailable, match=r"did not take 1 messages, the first because: .*MessageSizeTooLarge.*send them again"):
        producer.flush()
    producer.close()


def test_a_bad_filter_says_what_to_write(embedded_rig: Rig) -> None:
    assert "write an age such as 90s, 15m, 2h, 7d" in everpin(embedded_rig, "dlq", "list", "--since", "yesterday", code=2)
    assert "write partition:offset" in everpin(embedded_rig, "dlq", "replay", "12", code=2)


def test_depth_counts_what_waits(embedded_rig: Rig) -> None:
    rig = embedded_rig
    assert (depth(rig.broker).letters, depth(rig.broker).oldest_s) == (0, None)
    letter(rig, "a")
    letter(rig, "b", "bad_time")
    letter(rig, "c", "bad_time")
    producer = EventProducer(rig.broker, rig.group)
    settle([next(iter(dead_letters(rig.broker)))], REPLAYED, producer, 5)
    producer.close()
    found = depth(rig.broker)
    assert (found.letters, found.by_reason) == (2, {"bad_time": 2})
    assert found.oldest_s is not None
    assert 0 <= found.oldest_s < 300


def test_a_purge_wants_a_filter_and_a_yes(embedded_rig: Rig) -> None:
    rig = embedded_rig
    letter(rig, "a")
    assert "say which letters" in everpin(rig, "dlq", "purge", "--yes", code=2)
    assert "--all-letters without any of these" in everpin(rig, "dlq", "purge", "--yes", "--all-letters", "--pin", "a", code=2)
    assert "Add --yes" in everpin(rig, "dlq", "purge", "--pin", "a", code=2)
    assert everpin(rig, "dlq", "purge", "--pin", "a", "--dry-run")["matched"] == 1
    assert waiting(rig) == ["0:0"]


def test_the_embedded_broker_keeps_what_is_purged_until_it_stops(embedded_rig: Rig) -> None:
    rig = embedded_rig
    letter(rig, "a")
    done = everpin(rig, "dlq", "purge", "--all-letters", "--yes")
    assert (done["purged"], done["unreadable"], done["readable"], done["deleted"]) == (1, 0, 1, 0)
    assert "in memory only, until it stops" in done["notes"][0]
    assert waiting(rig) == []


def test_a_purge_deletes_on_kafka_as_far_as_kafka_can(kafka_rig: Rig, kafka: RunningKafka) -> None:
    rig = kafka_rig
    secret = b"the words of a pin that was deleted"
    for pin in ("gone", "gone", "stays", "gone"):
        letter(rig, pin, value=secret if pin == "gone" else b"this is no event")
    done = everpin(rig, "dlq", "purge", "--pin", "gone", "--yes")
    assert (done["purged"], done["unreadable"], done["readable"], done["deleted"], done["blocked_by"]) == (3, 2, 1, 2, ["0:2"])
    assert start_offsets(rig.broker, DEAD)[0] == 2
    assert [found.letter for found in dead_letters(rig.broker, settled=True)] == ["0:2", "0:3"]
    assert waiting(rig) == ["0:2"]

    rest = everpin(rig, "dlq", "purge", "0:2", "--yes")
    assert (rest["purged"], rest["unreadable"], rest["readable"], rest["deleted"], rest["blocked_by"]) == (1, 1, 0, 2, [])
    assert start_offsets(rig.broker, DEAD)[0] == end_offsets(rig.broker, DEAD)[0] == 8, "four letters and four settlements"
    assert list(read_topic(rig.broker, DEAD)) == []
    assert kafka.node is not None
    files = list(kafka.node.data_dir.glob(f"logs/{DEAD}-0/*.log"))
    assert any(secret in file.read_bytes() for file in files), "docs/events.md says that Kafka's files keep it for a while: correct it"
    assert any("stays in Kafka's files" in note for note in rest["notes"])
    assert letter(rig, "new") == "0:8"
    assert waiting(rig) == ["0:8"], "a new letter is not settled by an old settlement"


def test_a_later_purge_takes_what_was_replayed_before(kafka_rig: Rig) -> None:
    rig = kafka_rig
    letter(rig, "a")
    letter(rig, "b")
    assert everpin(rig, "dlq", "replay", "--pin", "b")["sent"] == 1
    blocked = everpin(rig, "dlq", "purge", "--pin", "b", "--yes")
    assert (blocked["purged"], blocked["readable_from_before"], blocked["blocked_by"]) == (0, 1, ["0:0"])
    done = everpin(rig, "dlq", "purge", "--pin", "a", "--yes")
    assert (done["purged"], done["unreadable"], done["deleted"]) == (1, 1, 2)


def test_a_dead_letter_that_cannot_be_written_stops_the_worker_unacknowledged(kafka: RunningKafka, tmp_path: Path) -> None:
    rig = Rig(Broker(kafka.address), tmp_path / "home", {"EVERPIN_RETRY_BUDGET_S": "2"})
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    admin.create_topics([NewTopic(DEAD, 4, 1, topic_configs={"max.message.bytes": "100"})])
    ensure_topics(rig.broker, 4, 1)
    poison(rig, "p")
    assert rig.lag() == 1
    assert rig.start().wait(90) == STOPPED_UNACKED
    said = rig.log.read_text()
    assert "nothing of the batch in hand acknowledged: cannot write to pin-updates.dead: MessageSizeTooLargeError" in said
    assert rig.lag() == 1
    assert list(read_topic(rig.broker, DEAD)) == []
    assert rig.start().wait(90) == STOPPED_UNACKED, "a plain restart meets it again"
    assert rig.lag() == 1

    rig.send(captions(["good"], "behind the poison"))
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, DEAD, configs={"max.message.bytes": "1048588"})])
    admin.close()
    rig.url(rig.start())
    rig.drain()
    (dead,) = dead_letters(rig.broker)
    assert (dead.pin_id, dead.reason, dead.attempts) == ("p", "not_json", 1)
    until(lambda: "good" in rig.indexed(["good"]), "the good event behind it is in the index")
    assert rig.stop()[-1] == 0
    rig.assert_equals_oracle(["good"])
