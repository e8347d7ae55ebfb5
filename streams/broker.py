"""The embedded Kafka-protocol broker, and what every client of it or of a real one needs: topics, lag, pacing.

The embedded broker is librdkafka's own test cluster: in memory, one broker, four partitions per topic, one worker per group,
and at most 5 MiB kept per partition, silently. So whoever produces to it must stay close to the worker's lag (`Pacer`).
Real deployments name a Kafka in EVERPIN_KAFKA; nothing else changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, UnknownError

from pins import actions
from pins.errors import Unavailable
from pins.events import PinEvent, encode

UPDATES, PARKED, DEAD, EMBEDDED = "pin-updates", "pin-updates.parked", "pin-updates.dead", "pin-embedded"
USER_ACTIONS = "user-actions"
EXPERIMENT_EXPOSURES, EXPERIMENT_OUTCOMES = "experiment-exposures", "experiment-outcomes"
TOPICS = (UPDATES, PARKED, DEAD, EMBEDDED, USER_ACTIONS, EXPERIMENT_EXPOSURES, EXPERIMENT_OUTCOMES)
TAKEN = (UPDATES, PARKED, USER_ACTIONS)
"""What a worker reads."""
EMBEDDED_SCHEME = "embedded://"
EMBEDDED_OUTSTANDING = 400
EMBEDDED_OUTSTANDING_BYTES = 3 << 20
"""Events and bytes that may be unprocessed on the embedded broker: well under its 5 MiB even if all fell into one partition."""
READ_PATIENCE_S = 30.0
"""How long a reader waits for the next records of a topic before it says that Kafka does not answer."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Kafka is, and whether it is the embedded one, whose protocol is a subset."""

    address: str
    embedded: bool = False

    @classmethod
    def parse(cls, address: str) -> Broker:
        """`host:port`, or `embedded://host:port` for the embedded broker of another process."""
        return cls(address.removeprefix(EMBEDDED_SCHEME), address.startswith(EMBEDDED_SCHEME))

    def __str__(self) -> str:
        return EMBEDDED_SCHEME + self.address if self.embedded else self.address

    def options(self) -> dict[str, Any]:
        """Connection options of a kafka-python client. The embedded broker cannot say which protocol it speaks."""
        return {"bootstrap_servers": self.address, "bootstrap_timeout_ms": 10_000, **({"api_version": (2, 3)} if self.embedded else {})}


@contextmanager
def embedded_broker() -> Iterator[Broker]:
    """Run the embedded broker in this process for the time of the block."""
    host = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    addresses = [f"{broker.host}:{broker.port}" for broker in host.list_topics(timeout=10).brokers.values()]
    for topic in TOPICS:
        host.list_topics(topic, timeout=10)  # a topic appears at its first metadata request
    yield Broker(addresses[0], embedded=True)
    host.flush(1)


def ensure_topics(broker: Broker, partitions: int, replication: int) -> None:
    """Create Everpin's topics where they are missing. Raises Unavailable."""
    if broker.embedded:
        return
    try:
        admin = KafkaAdminClient(**broker.options(), request_timeout_ms=10_000)
        try:
            missing = set(TOPICS) - set(admin.list_topics())
            for topic in sorted(missing):
                _create(admin, NewTopic(topic, partitions, replication))
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        raise Unavailable(f"Kafka at {broker.address} does not answer: {error}; check EVERPIN_KAFKA and the broker") from error


def _create(admin: KafkaAdminClient, topic: NewTopic) -> None:
    with suppress(TopicAlreadyExistsError):  # another worker was faster
        admin.create_topics([topic])


@dataclass(frozen=True, slots=True)
class Lag:
    """Unprocessed messages of one partition: the group's committed offset (None: nothing committed) and the end offset."""

    topic: str
    partition: int
    committed: int | None
    end: int

    @property
    def messages(self) -> int:
        return self.end - (self.committed or 0)


class Offsets:
    """Reads a group's progress without joining it. Close it after use."""

    def __init__(self, broker: Broker, group: str) -> None:
        self._broker = broker
        self._consumer = _reached(broker, lambda: KafkaConsumer(**broker.options(), group_id=group, enable_auto_commit=False, consumer_timeout_ms=5000))

    def lag(self, topics: tuple[str, ...] = TAKEN) -> list[Lag]:
        """Lag per partition. Raises Unavailable."""
        lags: list[Lag] = _reached(self._broker, lambda: self._lag(topics))
        return lags

    def _lag(self, topics: tuple[str, ...]) -> list[Lag]:
        partitions = [TopicPartition(topic, number) for topic in topics for number in sorted(self._consumer.partitions_for_topic(topic) or ())]
        ends = self._consumer.end_offsets(partitions)
        starts = self._consumer.beginning_offsets(partitions)
        return [Lag(tp.topic, tp.partition, self._consumer.committed(tp) or starts[tp], ends[tp]) for tp in partitions]

    def close(self) -> None:
        self._consumer.close()


@dataclass(frozen=True, slots=True)
class Post:
    """One message to be sent. Without a partition, the key chooses it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    partition: int | None = None


class EventProducer:
    """Sends pin events, keyed by pin id, and user actions (`send_actions`). An embedded broker drops what it holds too long, so there the producer
    stays close to the slowest of the consumer groups: one name, or whatever names there are at the time."""

    def __init__(self, broker: Broker, groups: str | Callable[[], Collection[str]]) -> None:
        self._broker = broker
        self._groups: Callable[[], Collection[str]] = (lambda: [groups]) if isinstance(groups, str) else groups
        # Not idempotent: after one refused message kafka-python 3.0.12 would refuse all that follow. A message sent twice is harmless here.
        options = broker.options() | {"acks": "all", "enable_idempotence": False, "linger_ms": 2, "max_request_size": 2 << 20}
        self._producer = _reached(broker, lambda: KafkaProducer(**options))
        self._offsets: dict[str, Offsets] = {}
        self._unchecked = self._unchecked_bytes = 0
        self._refused: list[Exception] = []

    def send(self, event: PinEvent) -> None:
        """Queue one event; waits while an embedded broker holds too much. Raises Unavailable."""
        self.send_raw(event.pin_id.encode(), encode(event))

    def send_raw(self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Queue any bytes: a Kafka tombstone, or what a producer with a defect would send."""
        self._queue(Post(UPDATES, key, value, headers)).add_errback(self._refused.append)

    def act(self, acted: actions.UserActed) -> None:
        """Queue one user action, likewise."""
        self._queue(Post(USER_ACTIONS, acted.user_id.encode(), actions.encode(acted), {})).add_errback(self._refused.append)

    def forget(self, user_id: str) -> None:
        """Queue the deletion of a user's history, likewise."""
        self._queue(Post(USER_ACTIONS, user_id.encode(), None, {})).add_errback(self._refused.append)

    def deliver(self, posts: Iterable[Post], timeout_s: float = 30) -> list[str]:
        """Send these and wait for the broker's answer to each: empty, or why it refused that one. Raises Unavailable."""
        empty = "it has neither key nor value, so it names no pin"  # Kafka's client for Python refuses such a message
        sent = [None if post.key is None and post.value is None else self._queue(post) for post in posts]
        _reached(self._broker, lambda: self._wait(timeout_s))
        return [empty if future is None else _refusal(self._broker, future) for future in sent]

    def flush(self, timeout_s: float = 30) -> None:
        """Wait until everything queued is acknowledged. Raises Unavailable, also when the broker refused any of it."""
        _reached(self._broker, lambda: self._wait(timeout_s))
        if self._refused:
            refused, self._refused = self._refused, []
            raise Unavailable(f"Kafka at {self._broker.address} did not take {len(refused)} messages, the first because: {refused[0]}; send them again")

    def close(self) -> None:
        self.flush()
        self._producer.close()
        for offsets in self._offsets.values():
            offsets.close()

    def _wait(self, timeout_s: float) -> None:
        """Flush. kafka-python 3.0.12 gives up on a batch that it had to split, because the broker found it too large: wait for its parts."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._producer.flush(timeout_s)
                return
            except UnknownError:
                if time.monotonic() > deadline:
                    raise

    def _queue(self, post: Post) -> Any:
        """Hand one message to Kafka's client; returns the future of its acknowledgement."""
        size = len(post.value or b"")
        if post.topic in (UPDATES, USER_ACTIONS):  # the worker's lag says nothing of the other topics
            self._pace(size)
            self._unchecked, self._unchecked_bytes = self._unchecked + 1, self._unchecked_bytes + size
        headers = list(post.headers.items())
        return _reached(self._broker, lambda: self._producer.send(post.topic, post.value, post.key, headers, post.partition))

    def _pace(self, size: int) -> None:
        if not self._broker.embedded:
            return
        if self._unchecked_bytes + size > EMBEDDED_OUTSTANDING_BYTES:
            self._stay_close(0)
            self._unchecked = self._unchecked_bytes = 0
        elif self._unchecked >= EMBEDDED_OUTSTANDING // 2:
            self._stay_close(EMBEDDED_OUTSTANDING // 2)
            self._unchecked = 0

    def _stay_close(self, at_most: int) -> None:
        self.flush()
        for group in self._groups():
            if group not in self._offsets:
                self._offsets[group] = Offsets(self._broker, group)
            wait_for_lag(self._offsets[group], at_most)


def send_actions(producer: EventProducer, acted: Sequence[actions.UserActed], timeout_s: float = 30) -> None:
    """Send user actions and wait until the broker has all of them. Raises Unavailable: send all of them again, which is harmless."""
    for action in acted:
        producer.act(action)
    producer.flush(timeout_s)


def wait_for_lag(offsets: Offsets, at_most: int, timeout_s: float = 600.0, poll_s: float = 0.1) -> None:
    """Wait until the group is at most this many messages behind. Raises Unavailable when it makes no progress in time."""
    deadline, best = time.monotonic() + timeout_s, None
    while (behind := sum(lag.messages for lag in offsets.lag())) > at_most:
        if best is None or behind < best:
            best, deadline = behind, time.monotonic() + timeout_s
        if time.monotonic() > deadline:
            raise Unavailable(f"the worker made no progress for {timeout_s:.0f} s and is {behind} events behind; see `everpin status`")
        time.sleep(poll_s)


def start_offsets(broker: Broker, topic: str) -> dict[int, int]:
    """Where each partition of a topic begins now: what lay before it can no longer be read. Raises Unavailable."""
    return {partition: start for partition, (start, _) in _bounds(broker, topic).items()}


def end_offsets(broker: Broker, topic: str) -> dict[int, int]:
    """Where each partition of a topic ends now: what is written later has that offset or a greater one. Raises Unavailable."""
    return {partition: end for partition, (_, end) in _bounds(broker, topic).items()}


def _bounds(broker: Broker, topic: str) -> dict[int, tuple[int, int]]:
    offsets = Offsets(broker, "everpin-count")
    try:
        # Of a group that never commits, what counts as committed is the beginning.
        return {lag.partition: (lag.committed or 0, lag.end) for lag in offsets.lag((topic,))}
    finally:
        offsets.close()


def read_topic(broker: Broker, topic: str, start: Mapping[int, int] = MappingProxyType({})) -> Iterator[Any]:
    """Every record of a topic from its beginning, or per partition from `start`, up to its end now; without a group.

    Records come in order within a partition. What is removed from the front meanwhile is left out. Raises Unavailable.
    """
    options = broker.options() | {"enable_auto_commit": False, "auto_offset_reset": "earliest"}
    consumer = _reached(broker, lambda: KafkaConsumer(**options))
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(_reached(broker, lambda: consumer.partitions_for_topic(topic)) or ())]
        ends: Mapping[TopicPartition, int] = _reached(broker, lambda: consumer.end_offsets(partitions)) if partitions else {}
        starts: Mapping[TopicPartition, int] = _reached(broker, lambda: consumer.beginning_offsets(partitions)) if partitions else {}
        consumer.assign(partitions)
        for tp in partitions:
            consumer.seek(tp, max(starts[tp], start.get(tp.partition, 0)))
        deadline = time.monotonic() + READ_PATIENCE_S
        while any((consumer.position(tp, timeout_ms=1000) or 0) < ends[tp] for tp in partitions):
            if time.monotonic() > deadline:
                raise Unavailable(f"Kafka at {broker.address} gave no record of {topic} for {READ_PATIENCE_S:.0f} s; check the broker")
            for tp, records in _reached(broker, lambda: consumer.poll(timeout_ms=500)).items():
                yield from (record for record in records if record.offset < ends[tp])
                deadline = time.monotonic() + READ_PATIENCE_S
    finally:
        consumer.close()


def delete_before(broker: Broker, topic: str, offsets: Mapping[int, int]) -> None:
    """Make the records before an offset per partition unreadable, for good. Real Kafka only: the embedded broker cannot. Raises Unavailable."""
    wanted = {TopicPartition(topic, partition): offset for partition, offset in offsets.items()}

    def act() -> None:
        admin = KafkaAdminClient(**broker.options(), request_timeout_ms=10_000)
        try:
            admin.delete_records(wanted)
        finally:
            admin.close()

    _reached(broker, act)


def _refusal(broker: Broker, future: Any) -> str:
    """Why the broker refused one message; empty where it took it. Raises Unavailable where it did not answer."""
    try:
        future.get(timeout=1)  # done already: the producer was flushed
    except KafkaTimeoutError as error:
        raise Unavailable(f"Kafka at {broker.address} does not answer: {error}; check EVERPIN_KAFKA and the broker") from error
    except KafkaError as error:
        return str(error) or type(error).__name__
    return ""


def _reached(broker: Broker, act: Any) -> Any:
    try:
        return act()
    except (KafkaError, OSError) as error:
        raise Unavailable(f"Kafka at {broker.address} does not answer: {error}; check EVERPIN_KAFKA and the broker") from error
