"""Faust's Kafka transport with a short wait for a fetch.

Faust asks a broker to hold an empty fetch for 1.5 s, and offers no setting for it. Apache Kafka answers such a fetch as soon
as a message arrives; the embedded broker answers it only when the wait is over, which would be every event's freshness.
"""

from __future__ import annotations

from typing import Any, ClassVar

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

FETCH_WAIT_MS = 20
"""How long the broker may hold an empty fetch. The embedded broker is a neighbour: asking often is cheap."""


class _Thread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, *arguments: Any, **named: Any) -> Any:
        consumer = super()._create_worker_consumer(*arguments, **named)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(Transport):
    Consumer: ClassVar[type[Consumer]] = _Consumer


class EmbeddedApp(faust.App):
    """A Faust app for the embedded broker."""

    def _new_transport(self) -> Any:
        return _Transport(self.conf.broker_consumer, self)
