"""ENTRY: the worker process. The Faust app and its agents: batches, acknowledgements, stops. No decisions.

Run it with `everpin worker` or `python -m streams.app`. Traps of Faust 0.15.3, each met here (docs/adr/0004):

- `take` acknowledges a batch in a `finally`, whether its body failed or not (seen in `faust/streams.py`). So batches are taken
  with `noack_take`, everything is caught inside the loop, and messages are acknowledged after `Worker.handle` returned.
- A restarted agent does not see the batch again. So when a batch cannot be handled, the PROCESS stops, un-acknowledged.
- More than one concurrent actor loses messages in flight on a kill (faust-streaming issue 606). Concurrency stays 1.
- Commits run past messages that are acknowledged out of order: the gap test of `Consumer._new_offset` is off by one, and
  absent before the first commit. So each partition's messages are acknowledged in its own order (`streams/parking.py`).
- A rebalance repeats all work since the last commit (issue 502). Commits come every second; repeats are found `unchanged`.
- An orderly stop cancels agents in the middle of a batch, or with `stream_wait_empty` waits for messages nobody will
  acknowledge. So the batch in hand is drained here, in `on_before_shutdown`, while agents still run.
- An orderly stop hangs while the broker is gone. So every stop has a deadline of its own.
- A consumer can stall without an error (issues 175, 523, 629). `/livez` watches progress, not the process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faust

from everpin.http import Vitals, listening, worker_app
from everpin.logs import configure_logging
from everpin.owner import Owner, announce, place
from everpin.parents import end_with_parent, share_the_interpreter
from everpin.settings import Settings, settings
from everpin.wiring import WorkerParts, now_us, require_broker, worker_group, worker_parts
from pins.errors import EverpinError, Unavailable
from streams.actions import ActionWorker
from streams.broker import DEAD, EMBEDDED, PARKED, UPDATES, USER_ACTIONS, Broker, ensure_topics
from streams.parking import Parked, Parking
from streams.sensors import Figures, Watch, faust_sensor
from streams.transport import EmbeddedApp
from streams.worker import Limits, Message, Worker, header_int

log = logging.getLogger("everpin.app")
STOPPED_UNACKED = 70
"""Exit code of a worker that stopped with a batch un-acknowledged: start it again when the cause is mended."""
MIND_S = 1.0
STOP_GRACE_S = 20.0
"""How long an orderly stop may take before the process ends at once."""
DRAIN_S = 12.0
"""How long an orderly stop waits for the batch in hand. One that takes longer is redelivered: nothing of it is acknowledged."""
CANNOT_START = 2
METADATA_MAX_AGE_MS = 5_000
"""How long a worker believes what it knows of the topics. The leader of a group that met a broker just started may know of none, and then gives
every worker no partition at all: with the driver's five minutes the whole group stood still that long, and said that it was ready."""


def build_app(broker: Broker, group: str, datadir: Path, config: Settings) -> faust.App:
    """The Faust app, with the settings we mean and no others. Tables are not used, so there is nothing to recover."""
    kind = EmbeddedApp if broker.embedded else faust.App
    return kind(
        group,
        broker=f"kafka://{broker.address}",
        store="memory://",
        datadir=str(datadir),
        key_serializer="raw",
        value_serializer="raw",
        autodiscover=False,
        web_enabled=False,
        topic_partitions=config.partitions,
        topic_replication_factor=config.replication,
        topic_disable_leader=True,
        topic_allow_declare=False,  # `ensure_topics` makes them; the embedded broker makes its own
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=10,
        consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
        broker_heartbeat_interval=2,
        broker_rebalance_timeout=15,
        broker_commit_interval=1,
        broker_max_poll_records=500,
        producer_acks=-1,
        producer_max_request_size=2 << 20,
        stream_wait_empty=False,  # parked messages are never all acknowledged; `_stopping` waits for the batch in hand
    )


class WorkerProcess:
    """One worker: the Faust app around `streams.worker.Worker`."""

    def __init__(self, parts: WorkerParts, broker: Broker, vitals: Vitals) -> None:
        config = parts.settings
        self.parts, self.vitals, self.broker = parts, vitals, broker
        datadir = config.home / "faust"
        datadir.mkdir(parents=True, exist_ok=True)
        group = worker_group(config, parts.encoder.model_id)
        self.app = build_app(broker, group, datadir, config)
        self.topics = {name: self.app.topic(name, key_type=bytes, value_type=bytes) for name in (UPDATES, PARKED, DEAD, EMBEDDED, USER_ACTIONS)}
        limits = Limits(config.retry_budget_s, config.dead_letter_limit, config.park_delay_s, config.park_deadline_s)
        self.worker = Worker(parts.indexer, self.send, Figures(parts, vitals), limits, now_us, parts.prepare)
        self.action_worker = ActionWorker(self.worker, parts.features, parts.telemetry.observe_actions)
        self.parking: Parking[Any] = Parking(now_us, lambda event: event.ack())
        self._parked_paused = False
        self.stopping = False
        self._kafka_gone_since: float | None = None
        self._ticking = False
        self._start: asyncio.Task[None] | None = None
        faust_sensor(self.app, parts.telemetry)
        self.watch = Watch(self.app, broker, group, parts, vitals, self.worker.in_indexer)
        self.watch.start()
        self._subscribe()

    def _subscribe(self) -> None:
        self.app.agent(self.topics[UPDATES], name="updates")(self.updates)
        self.app.agent(self.topics[PARKED], name="parked")(self.parked)
        self.app.agent(self.topics[USER_ACTIONS], name="actions")(self.actions)
        self.app.task(self.due)
        self.app.timer(MIND_S, name="everpin-kafka")(self._tick)
        self.app.on_partitions_assigned.connect(self._assigned, weak=False)  # type: ignore[arg-type]  # mode's signal type wants
        self.app.on_partitions_revoked.connect(self._revoked, weak=False)  # type: ignore[arg-type]  # a keyword it never sends
        self.app.on_before_shutdown.connect(self._stopping, weak=False)  # type: ignore[arg-type]  # likewise

    async def updates(self, stream: Any) -> None:
        """The agent of pin-updates."""
        async for events in stream.noack_take(self.parts.settings.batch_events, within=self.parts.settings.batch_ms / 1000):
            await self.finish(UPDATES, events)

    async def parked(self, stream: Any) -> None:
        """The agent of pin-updates.parked: it only holds what `due` takes when its time has come."""
        async for events in stream.noack_take(self.parts.settings.batch_events, within=self.parts.settings.batch_ms / 1000):
            self.parking.hold(map(_parked, events))
            self._read_parked()

    async def actions(self, stream: Any) -> None:
        """The agent of user-actions."""
        async for events in stream.noack_take(self.parts.settings.batch_events, within=self.parts.settings.batch_ms / 1000):
            await self.finish(USER_ACTIONS, events)

    async def due(self) -> None:
        """Parked messages whose time has come: the same work."""
        while True:
            ripe = await self.parking.due(self.parts.settings.batch_events)
            await self.finish(PARKED, [one.message for one in ripe], lambda ripe=ripe: self.parking.finish(ripe))  # type: ignore[misc]  # bound now
            self._read_parked()

    def _read_parked(self) -> None:
        """Read no more parked messages than memory should hold; the partitions of updates are read on meanwhile."""
        mine = {tp for tp in self.app.consumer.assignment() if tp.topic == PARKED}
        if self.parking.full and not self._parked_paused:
            self._parked_paused = True
            self.app.consumer.pause_partitions(mine)
        elif self.parking.roomy and self._parked_paused:
            self._parked_paused = False
            self.app.consumer.resume_partitions(mine)

    async def finish(self, topic: str, events: Sequence[Any], ack: Callable[[], None] | None = None) -> None:
        """Handle a batch and acknowledge it; when it cannot be handled, stop the process with nothing of it acknowledged."""
        if self.stopping:
            await asyncio.Event().wait()  # until the agent is cancelled: the batch is the next worker's
        self.vitals.busy_since[topic] = time.monotonic()
        try:
            await (self.action_worker if topic == USER_ACTIONS else self.worker).handle([_message(event) for event in events])
        except asyncio.CancelledError:
            raise
        except EverpinError as error:
            await self.stop(error)
        except Exception as error:
            log.exception("a defect of Everpin's own")
            await self.stop(error)
        else:
            if topic != USER_ACTIONS:  # what `/livez` watches is pin-updates
                self.vitals.moved()
            if ack:
                ack()
            else:
                for event in events:
                    event.ack()
        finally:
            self.vitals.busy_since.pop(topic, None)

    async def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        """Publish and wait for the broker's acknowledgement. Raises Unavailable."""
        try:
            await (await self.topics[topic].send(key=key, value=value, headers=list(headers.items())))
        except Exception as error:  # aiokafka's errors, and Faust's own around them
            if topic == DEAD:
                self.parts.telemetry.dead_letter_write_failures.inc()
            raise Unavailable(f"cannot write to {topic}: {error!r}") from error

    async def _tick(self) -> None:
        self._ticking = True
        await self.mind_the_broker()

    async def _mind_the_start(self) -> None:
        """Mind the broker until Faust's timers run: they wait for its offsets, which a broker that died meanwhile never sends."""
        while not (self._ticking or self.stopping):
            await self.watch.look()
            try:
                await self.mind_the_broker()
            except Unavailable:
                return  # the process is ending
            await asyncio.sleep(MIND_S)

    async def mind_the_broker(self) -> None:
        """Say once that Kafka is gone and once that it is back; stop when it stays away for longer than the budget."""
        budget_s, now = self.parts.settings.retry_budget_s, time.monotonic()
        if self.vitals.stores["kafka"]:
            if self._kafka_gone_since is not None:
                log.info("Kafka answers again after %.0f s", now - self._kafka_gone_since)
            self._kafka_gone_since = None
        elif self._kafka_gone_since is None:
            self._kafka_gone_since = now
            log.error("Kafka at %s does not answer: waiting up to %.0f s", self.broker.address, budget_s)
        elif now - self._kafka_gone_since > budget_s and not self.stopping:
            await self.stop(Unavailable(f"Kafka at {self.broker.address} did not answer for {budget_s:.0f} s; check EVERPIN_KAFKA and the broker"))

    async def stop(self, error: Exception) -> None:
        """Stop the whole app: acknowledged offsets are committed, the group is left, the batch in hand is redelivered."""
        log.critical("stopping with exit code %d, nothing of the batch in hand acknowledged: %s", STOPPED_UNACKED, error)
        _end_in_time()
        await self.app.crash(error)
        raise error

    async def _stopping(self, app: faust.App, **_: Any) -> None:
        """Let the batch in hand end, so that it is acknowledged and committed; no other is begun."""
        _end_in_time()
        self.stopping = True
        deadline = time.monotonic() + DRAIN_S
        while self.vitals.busy_since and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self.vitals.busy_since:
            log.warning("the batch in hand did not end within %.0f s; it comes again", DRAIN_S)

    async def _assigned(self, app: faust.App, assigned: Any, **_: Any) -> None:
        self.worker.assigned()
        self._start = self._start or asyncio.create_task(self._mind_the_start(), name="everpin-start")
        self._parked_paused = False
        app.consumer.resume_partitions({tp for tp in assigned if tp.topic == PARKED})
        self.vitals.assigned = True  # by none at all too: a worker beyond the partitions stands by, and a deploy must not wait for it
        log.info("partitions assigned: %d", len(assigned))

    async def _revoked(self, app: faust.App, revoked: Any, **_: Any) -> None:
        self.vitals.assigned = False
        gone = {(tp.topic, tp.partition) for tp in revoked}
        self.parking.forget(lambda place: place in gone)


def _message(event: Any) -> Message:
    """A Faust event as a plain message. A parked one keeps the time of the message it stands for."""
    raw = event.message
    headers = {name: bytes(value or b"") for name, value in dict(raw.headers or {}).items()}
    timestamp_us = header_int(headers, "source_timestamp_us") or round(raw.timestamp * 1e6)
    return Message(raw.topic, raw.partition, raw.offset, raw.key, raw.value, timestamp_us, headers)


def _parked(event: Any) -> Parked[Any]:
    """A parked event with its time, its partition, and where it first came from."""
    message = _message(event)
    source = tuple(message.headers.get(name, b"") for name in ("source_topic", "source_partition", "source_offset"))
    known = source if all(source) else (message.topic, message.partition, message.offset)
    return Parked(header_int(message.headers, "not_before_us"), (message.topic, message.partition), known, event)


def main() -> None:
    """Run one worker until SIGTERM (exit 0), a cause to stop un-acknowledged (70), or a reason not to start (2)."""
    try:
        _main()
    except SystemExit as ended:
        code = ended.code
    else:
        code = 0
    logging.shutdown()
    sys.stderr.flush()
    # Every store is closed. Native threads that outlive their libraries' Python side may crash an interpreter that ends slowly.
    os._exit(code if isinstance(code, int) else 1)


def _main() -> None:
    try:
        config = settings()
        configure_logging(config.log_level)
        end_with_parent(sys.argv)
        share_the_interpreter()
        broker = require_broker(config)
        with worker_parts(config) as parts:
            ensure_topics(broker, config.partitions, config.replication)
            vitals = Vitals()
            with listening(worker_app(parts, vitals), config.http_port, config.http_host) as url:
                if not config.qdrant_url:
                    announce(place(config.home, parts.encoder.model_id), Owner(os.getpid(), url, str(broker), "worker"))
                log.info("worker %d: model %s, broker %s, routes %s", os.getpid(), parts.encoder.model_id, broker, url)
                _run(WorkerProcess(parts, broker, vitals))
    except EverpinError as error:
        print(f"everpin worker: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)


def _run(process: WorkerProcess) -> None:
    worker = faust.Worker(process.app, override_logging=False, redirect_stdouts=False, quiet=True)
    try:
        worker.execute_from_commandline()
    except SystemExit as ended:  # Faust always ends in one: 0 after a signal, 1 after a crash
        if ended.code:
            sys.exit(STOPPED_UNACKED)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Faust gave it back: a second one would end an orderly stop with -15
        process.watch.close()
        process.worker.close()


def _end_in_time() -> None:
    """End the process when an orderly stop hangs, as Faust's does while its broker is gone."""
    deadline = threading.Timer(STOP_GRACE_S, os._exit, [STOPPED_UNACKED])
    deadline.daemon = True
    deadline.start()


if __name__ == "__main__":
    main()
