"""What serving writes: events and user actions, to Kafka alone. The worker does the rest, in order."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from everpin.settings import Settings
from everpin.wiring import require_broker, worker_groups
from pins.actions import UserActed
from pins.events import PinEvent
from streams.broker import EventProducer, send_actions

TIMEOUT_S = 5.0
"""How long the broker may take to accept what one request sends."""


class Producer:
    """A Kafka producer behind a lock, connected when it is first needed and again after the broker moved."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._connected: tuple[str, EventProducer] | None = None

    def send(self, events: Sequence[PinEvent]) -> None:
        """Send events and wait until the broker has all of them. Raises Unavailable: send all of them again, which is harmless."""
        with self._lock:
            producer = self._producer()
            for event in events:
                producer.send(event)
            producer.flush(TIMEOUT_S)

    def act(self, actions: Sequence[UserActed]) -> None:
        """Send user actions, likewise."""
        with self._lock:
            send_actions(self._producer(), actions, TIMEOUT_S)

    def close(self) -> None:
        """Let go of the broker."""
        with self._lock:
            if self._connected:
                self._connected[1].close()
                self._connected = None

    def _producer(self) -> EventProducer:
        broker = require_broker(self._config)
        if self._connected is None or self._connected[0] != str(broker):
            self._connected = str(broker), EventProducer(broker, lambda: worker_groups(self._config))
        return self._connected[1]
