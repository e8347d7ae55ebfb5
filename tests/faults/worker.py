"""A worker process that can be told to die or freeze at a named point. Run as `python -m tests.faults.worker`.

It is the real worker (`streams.app.main`) with its parts wrapped from outside; Everpin knows nothing of it. At a point the
process sends itself SIGKILL (nothing is flushed, closed or said) or SIGSTOP (a zombie: somebody else must send SIGCONT).

The environment says what to do:
    FAULT_POINT, FAULT_AT   die at the n-th time (default 1) this point is reached; the points are in POINTS
    FAULT_PAUSE, FAULT_AT   freeze there instead
    FAULT_ARM               a file that may appear at any time, holding `kill POINT` or `pause POINT`: done at the next time
    FAULT_LEDGER            a file to append to: one line per kill, pause, batch, encoded text
    FAULT_CLOCK_SKEW_S      seconds by which this worker's clock is wrong
    FAULT_SESSION_S         the group's session time-out; production's 10 s would make a short form of many kills a long one
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import everpin.wiring
from pins.changes import fingerprint
from pins.ports import PointWrite

POINTS = {
    "before_read": "a batch is in hand, nothing of it is read",
    "after_read": "records and features are read, nothing is decided",
    "mid_encode": "half of the texts are encoded",
    "mid_write": "half of the points are written",
    "after_write": "all points are written, nothing is published",
    "before_ack": "everything is written and published, nothing acknowledged",
}


class Ledger:
    """Lines that outlive a kill: each is one append to a file, and ends with the machine's monotonic time in seconds."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if path else None

    def note(self, *words: object) -> None:
        if self._file is not None:
            os.write(self._file, (" ".join(map(str, (*words, f"{time.monotonic():.3f}"))) + "\n").encode())


class Fate:
    """What is to happen at which point, and how often each point was reached."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.ledger = Ledger(environment.get("FAULT_LEDGER", ""))
        self._arm = Path(environment["FAULT_ARM"]) if environment.get("FAULT_ARM") else None
        self._at = int(environment.get("FAULT_AT", "1"))
        self._wanted = {point: act for name, act in (("FAULT_POINT", "kill"), ("FAULT_PAUSE", "pause")) if (point := environment.get(name, ""))}
        for point in self._wanted:
            if point not in POINTS:
                raise SystemExit(f"no point {point!r}; use one of {sorted(POINTS)}")
        self._reached = dict.fromkeys(POINTS, 0)

    def due(self, point: str) -> str:
        """What is to happen now that `point` is reached: `kill`, `pause` or nothing. Counts the visit."""
        self._reached[point] += 1
        if point in self._wanted and self._reached[point] == self._at:
            return self._wanted[point]
        return self._armed(point)

    def meet(self, point: str, act: str) -> None:
        """Die or freeze here."""
        self.ledger.note(act, point, os.getpid())
        os.kill(os.getpid(), signal.SIGKILL if act == "kill" else signal.SIGSTOP)
        time.sleep(0.05)  # a signal to oneself may arrive a moment later; nothing may happen in between
        self.ledger.note("awake", point, os.getpid())

    def _armed(self, point: str) -> str:
        if self._arm is None or not self._arm.exists():
            return ""
        act, wanted = self._arm.read_text().split()
        if wanted != point:
            return ""
        self._arm.unlink(missing_ok=True)
        return act


def wrapped(parts: Any, fate: Fate) -> Any:
    """Put the points around the parts of a worker. Reads and writes of its HTTP routes pass untouched."""
    working = threading.local()
    index, features, encoder, indexer = parts.index, parts.features, parts.encoder, parts.indexer
    apply, known, of, encode, write = indexer.apply, index.known, features.of, encoder.encode, index.write

    def at_work() -> bool:
        return getattr(working, "now", False)

    def meet(point: str) -> None:
        if at_work() and (act := fate.due(point)):
            fate.meet(point, act)

    def applying(events: Any) -> Any:
        working.now = True
        try:
            return apply(events)
        finally:
            working.now = False

    def knowing(pin_ids: Sequence[str]) -> Any:
        meet("before_read")
        return known(pin_ids)

    def reading(pin_ids: Sequence[str]) -> Any:
        found = of(pin_ids)
        meet("after_read")
        return found

    def encoding(texts: Sequence[str]) -> Any:
        if texts and at_work() and (act := fate.due("mid_encode")):
            middle = (len(texts) + 1) // 2
            first = encode(texts[:middle])
            _note_texts(fate, texts[:middle])
            fate.meet("mid_encode", act)
            _note_texts(fate, texts[middle:])
            return np.concatenate([first, encode(texts[middle:])])
        vectors = encode(texts)
        if at_work():
            _note_texts(fate, texts)
        return vectors

    def writing(points: Sequence[PointWrite]) -> Any:
        if points and at_work() and (act := fate.due("mid_write")):
            middle = (len(points) + 1) // 2
            landed = write(points[:middle])
            fate.meet("mid_write", act)
            return landed | write(points[middle:])
        landed = write(points)
        if points:
            meet("after_write")
        return landed

    indexer.apply, index.known, features.of, encoder.encode, index.write = applying, knowing, reading, encoding, writing
    return parts


def _note_texts(fate: Fate, texts: Sequence[str]) -> None:
    for text in texts:
        fate.ledger.note("text", fingerprint(text))


def install(fate: Fate, skew_s: float) -> None:
    """Replace what `streams.app` will import: the parts, the clock, and the worker's way to an acknowledgement."""
    parts = everpin.wiring.worker_parts

    @functools.wraps(parts)
    @contextmanager
    def faulty_parts(settings: Any) -> Iterator[Any]:
        with parts(settings) as opened:
            yield wrapped(opened, fate)

    everpin.wiring.worker_parts = faulty_parts
    everpin.wiring.now_us = lambda: time.time_ns() // 1000 + round(skew_s * 1e6)

    from streams import worker  # after the clock was changed

    handle = worker.Worker.handle

    async def handling(self: Any, messages: Any) -> None:
        await handle(self, messages)
        if act := fate.due("before_ack"):
            fate.meet("before_ack", act)
        fate.ledger.note("batch", len(messages))

    worker.Worker.handle = handling  # type: ignore[method-assign]  # the one way in from outside


def shorter_session(build: Callable[..., Any], session_s: float) -> Callable[..., Any]:
    """The same app with another session time-out."""

    def built(*arguments: Any, **named: Any) -> Any:
        app = build(*arguments, **named)
        app.conf.broker_session_timeout, app.conf.broker_heartbeat_interval = session_s, session_s / 4
        return app

    return built


def main() -> None:
    environment = dict(os.environ)
    fate = Fate(environment)
    install(fate, float(environment.get("FAULT_CLOCK_SKEW_S", "0")))
    import streams.app

    if session_s := float(environment.get("FAULT_SESSION_S", "0")):
        streams.app.build_app = shorter_session(streams.app.build_app, session_s)
    fate.ledger.note("start", os.getpid())
    streams.app.main()


if __name__ == "__main__":
    main()
