"""What serving writes for experiments: whom it showed what, and what they did with it. It never slows or fails a request.

Events wait in a bounded queue; a thread of its own sends them to Kafka in batches. While Kafka is away the queue fills, and what does not fit is
dropped and counted: an experiment loses some of its data, evenly in all arms, and nobody loses an answer.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from everpin.settings import Settings
from everpin.wiring import now_us, require_broker
from pins.errors import Unavailable
from pins.experiments.exposures import MAX_SHOWN, ExperimentEvent, Exposure, Outcome, unit_name
from streams.broker import EventProducer, Post
from streams.experiments import GROUP, post
from surfaces.metrics import Metrics
from surfaces.schemas import UserActionIn

if TYPE_CHECKING:
    from surfaces.asked import Surface  # which holds an ExposureLog itself

log = logging.getLogger("everpin.surfaces")
WAITING, BATCH = 10_000, 500
"""Events that may wait, and events sent at once."""
LINGER_S, IDLE_S, RETRY_S = 0.1, 0.5, 2.0
"""How long a batch fills; how soon an idle log sees that it is to end; how long Kafka is left alone after it did not answer."""
DELIVER_S = 10.0
CLOSE_S = 5.0
"""How long the end of the process waits for what is still to be sent."""


class Sender(Protocol):
    """What sends: a Kafka producer."""

    def deliver(self, posts: Iterable[Post], timeout_s: float = ...) -> list[str]:
        """Send and wait: per message empty, or why the broker refused it. Raises Unavailable."""

    def close(self) -> None: ...


class ExposureLog:
    """The way of exposures and outcomes to Kafka. Nothing is sent before `start`."""

    def __init__(self, config: Settings, metrics: Metrics, connect: Callable[[], Sender] | None = None) -> None:
        self._connect: Callable[[], Sender] = connect or (lambda: EventProducer(require_broker(config), GROUP))
        self._metrics = metrics
        self._queue: queue.Queue[ExperimentEvent] = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="everpin-exposures", daemon=True)
        self._sender: Sender | None = None

    def start(self) -> None:
        """Send from now on, until `close`."""
        self._thread.start()

    def log(self, event: ExperimentEvent) -> None:
        """Take an event, at once; where too many wait it is dropped and counted."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._count([event], "dropped")

    def close(self) -> None:
        """Send what waits, for `CLOSE_S` at most, and count the rest as dropped."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        self._count(self._drain(WAITING), "dropped")

    def _work(self) -> None:
        while batch := self._batch():
            try:
                self._send(batch)
            except Exception:  # a defect must not end the log for the rest of the process's life
                log.exception("a defect of Everpin's own: %d exposures and outcomes are dropped", len(batch))
                self._count(batch, "dropped")
        self._let_go()

    def _batch(self) -> list[ExperimentEvent]:
        """The next events to send; none when the log is at its end."""
        while True:
            try:
                first = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                if self._stop.is_set():
                    return []
                continue
            self._stop.wait(LINGER_S)
            return [first, *self._drain(BATCH - 1)]

    def _drain(self, at_most: int) -> list[ExperimentEvent]:
        taken: list[ExperimentEvent] = []
        while len(taken) < at_most and not self._queue.empty():
            taken.append(self._queue.get_nowait())
        return taken

    def _send(self, batch: Sequence[ExperimentEvent]) -> None:
        """Send a batch, again and again while Kafka is away: what is sent twice counts once. At the end of the process one attempt is made."""
        while True:
            try:
                self._sender = self._sender or self._connect()
                refusals = self._sender.deliver([post(event) for event in batch], DELIVER_S)
            except Unavailable as error:
                log.warning("%d exposures and outcomes wait: %s", len(batch) + self._queue.qsize(), error)
                self._let_go()
                if self._stop.wait(RETRY_S):
                    self._count(batch, "dropped")
                    return
                continue
            if refused := [event for event, why in zip(batch, refusals, strict=True) if why]:
                log.warning("Kafka refused %d exposures and outcomes, one because: %s", len(refused), next(filter(None, refusals)))
            self._count(refused, "refused")
            self._count([event for event, why in zip(batch, refusals, strict=True) if not why], "sent")
            return

    def _let_go(self) -> None:
        """Close the connection; the next batch makes a new one, wherever the broker is then."""
        sender, self._sender = self._sender, None
        try:
            if sender:
                sender.close()
        except Unavailable as error:
            log.debug("closing: %s", error)

    def _count(self, events: Iterable[ExperimentEvent], fate: str) -> None:
        for kind, number in Counter("exposure" if isinstance(event, Exposure) else "outcome" for event in events).items():
            self._metrics.experiment_events.labels(kind, fate).inc(number)


def running(surface: Surface) -> str | None:
    """The experiment that runs now: a canary's, under the candidate's model id; None where no canary answers."""
    canary = surface.live.canary
    return canary.served.model_id if canary else None


def expose(
    surface: Surface,
    experiment: str | None,
    arm: str,
    unit: str,
    request_id: str,
    model_id: str | Sequence[str],
    pin_ids: Sequence[str],
    surface_name: str,
    *,
    teams: Sequence[str] = (),
    share: float | None = None,
) -> None:
    """Write down that a unit (a user id, or a query) was shown these pins; nothing without an experiment or an arm. Call it for first pages alone.

    `model_id`: the model, or of an interleaved answer the control's and the candidate's, with `teams` for each pin. `share`: the candidate's share of
    units now, for the check of the sample ratio.
    """
    if experiment and arm:
        models = (model_id,) if isinstance(model_id, str) else tuple(model_id)
        shown, named = tuple(pin_ids[:MAX_SHOWN]), unit_name(unit, experiment)
        surface.exposures.log(Exposure(experiment, named, arm, surface_name, request_id, models, shown, now_us(), tuple(teams[:MAX_SHOWN]), share))


def act(surface: Surface, user_id: str, actions: Sequence[UserActionIn], times_us: Sequence[int]) -> None:
    """Write down what a user did with pins of answers that they name, for the experiment that runs; nothing without one."""
    if experiment := running(surface):
        unit = unit_name(user_id, experiment)
        for action, at_us in zip(actions, times_us, strict=True):
            if action.request_id is not None:
                surface.exposures.log(Outcome(experiment, unit, action.request_id, action.pin_id, action.action, at_us, action.dwell_ms))
