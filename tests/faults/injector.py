"""Makes bad things happen on a seeded plan: kills, zombies, deploys, and outages of the services.

`plan` is pure: same arguments, same plan. Each worker's slot has a thread that carries out its own faults in order, so kills
fall on several workers at once; one more thread carries out the outages. What a fault at a named point waits for is the
worker reaching it, so the moment is exact to the instruction and only its time of day is the machine's.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.fleet import Fleet, Slot
from tests.faults.setting import Setting
from tests.faults.worker import POINTS

AT_POINT = 0.6
"""Share of kills at a named point; the others come at a random moment, be it at work, at rest, joining or starting."""
SESSION_S = 10.0
"""Everpin's session time-out (`streams.app.build_app`)."""
ZOMBIE_SESSIONS = (1.2, 1.6)
"""A pause is longer than the session: the group has moved on when the zombie wakes."""
AWAKE_S = 3.0
"""Time a zombie has, once awake, to write what it meant to write, before its slot meets the next fault."""
OUTAGE_S = (4.0, 10.0)
REACH_S = 90.0
"""How long a fault waits for its worker to reach its point."""
ZOMBIE_POINTS = ("after_read", "mid_encode", "mid_write", "after_write", "before_ack")
RANDOM, NOT_REACHED = "random moment", "not reached"


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind`: kill, pause, deploy, or an outage of `Setting.outages`; `slot` -1 for outages; `point` "" for a random moment."""

    at_s: float
    kind: str
    slot: int = -1
    point: str = ""
    lasts_s: float = 0.0


def plan(
    seed: int, seconds: float, workers: int, *, kills: int, pauses: int, deploys: int, outages: Sequence[str],
    at_points: int | None = None, session_s: float = SESSION_S, outage_s: Sequence[float] = OUTAGE_S,
) -> list[Fault]:  # fmt: skip
    """A plan of faults over `seconds`, in the order of their times; points come round in turn, so each gets its share."""
    chance = random.Random(f"faults-{seed}")

    def when() -> float:
        return round(chance.uniform(1.0, max(1.5, seconds - 5.0)), 3)

    points, zombies = list(POINTS), list(ZOMBIE_POINTS)
    chance.shuffle(points)
    chance.shuffle(zombies)
    at_point = round(kills * AT_POINT) if at_points is None else at_points
    shortest, longest = (sessions * session_s for sessions in ZOMBIE_SESSIONS)
    made = [Fault(when(), "kill", number % workers, points[number % len(points)] if number < at_point else "") for number in range(kills)]
    made += [Fault(when(), "pause", (one + 1) % workers, zombies[one % len(zombies)], round(chance.uniform(shortest, longest), 2)) for one in range(pauses)]
    made += [Fault(when(), "deploy", (number + 2) % workers) for number in range(deploys)]
    made += [Fault(when(), kind, lasts_s=round(chance.uniform(*outage_s), 2)) for kind in outages]
    return sorted(made, key=lambda fault: fault.at_s)


class Injector:
    """Carries out a plan on a fleet and its services. `done` counts what happened, by (kind, point)."""

    def __init__(self, faults: Sequence[Fault], fleet: Fleet, setting: Setting) -> None:
        self.fleet, self.setting = fleet, setting
        self.done: Counter[tuple[str, str]] = Counter()
        self.failures: list[BaseException] = []
        self._counting = threading.Lock()
        self._cancelled = threading.Event()
        self._breaking = {
            "kafka_kill": self._kafka_kill, "qdrant_kill": self._qdrant_kill, "qdrant_hang": self._qdrant_hang,
            "qdrant_slow": self._qdrant_slow, "redis_hang": self._redis_hang,
        }  # fmt: skip
        queues = [[fault for fault in faults if fault.slot == number] for number in range(-1, len(fleet.slots))]
        self._threads = [threading.Thread(target=self._play, args=(queue,), name="faults-injector", daemon=True) for queue in queues if queue]

    def start(self) -> None:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def cancel(self) -> None:
        """Carry out nothing more; faults under way end by themselves."""
        self._cancelled.set()
        for thread in self._threads:
            thread.join(2 * OUTAGE_S[1] + ZOMBIE_SESSIONS[1] * SESSION_S)

    def count(self, kind: str, point: str | None = None) -> int:
        return sum(number for (one, where), number in self.done.items() if one == kind and point in (None, where) and where != NOT_REACHED)

    def _play(self, faults: Sequence[Fault]) -> None:
        try:
            for fault in faults:
                if self._cancelled.wait(max(0.0, self._started + fault.at_s - time.monotonic())):
                    return
                happened = self._do(fault)
                with self._counting:
                    self.done[fault.kind, (fault.point or RANDOM) if happened else NOT_REACHED] += 1
        except BaseException as error:  # handed to the run, which reports it
            self.failures.append(error)

    def _do(self, fault: Fault) -> bool:
        if fault.slot < 0:
            self._breaking[fault.kind](fault.lasts_s)
            return True
        slot = self.fleet.slots[fault.slot]
        if fault.kind == "deploy":
            self.until(slot.ready, 60)
            self.fleet.replace(slot)
            return True
        if fault.kind == "pause":
            return self._zombie(slot, fault)
        return self._kill_at(slot, fault.point) if fault.point else self._kill_now(slot)

    def _kill_now(self, slot: Slot) -> bool:
        if not self.until(lambda: slot.process is not None and slot.process.poll() is None, 30):
            return False
        with slot.changing:
            process = slot.process
            if process is None or process.poll() is not None:
                return False
            slot.note("kill", "random", process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
        return True

    def _kill_at(self, slot: Slot, point: str) -> bool:
        before = _lines(slot, f"kill {point} ")
        _arm(slot.arm, f"kill {point}")
        self.until(lambda: _lines(slot, f"kill {point} ") > before, REACH_S)
        slot.arm.unlink(missing_ok=True)
        if _lines(slot, f"kill {point} ") == before:
            return False
        dying = slot.process  # the supervisor may be replacing it already
        self.until(lambda: dying is not slot.process or dying is None or dying.poll() is not None, 5)
        return True

    def _zombie(self, slot: Slot, fault: Fault) -> bool:
        before = _lines(slot, f"pause {fault.point} ")
        _arm(slot.arm, f"pause {fault.point}")
        self.until(lambda: _lines(slot, f"pause {fault.point} ") > before, REACH_S)
        slot.arm.unlink(missing_ok=True)
        if _lines(slot, f"pause {fault.point} ") == before:
            return False
        self._cancelled.wait(fault.lasts_s)
        process = slot.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            self._cancelled.wait(AWAKE_S)
        return True

    def _kafka_kill(self, lasts_s: float) -> None:
        assert self.setting.kafka is not None
        self.setting.kafka.kill()
        self._cancelled.wait(lasts_s)
        self.setting.kafka.restart()

    def _qdrant_kill(self, lasts_s: float) -> None:
        assert self.setting.qdrant is not None
        self.setting.qdrant.kill()
        self._cancelled.wait(lasts_s)
        self.setting.qdrant.start()

    def _qdrant_hang(self, lasts_s: float) -> None:
        assert self.setting.qdrant is not None
        self.setting.qdrant.send_signal(signal.SIGSTOP)
        self._cancelled.wait(lasts_s)
        self.setting.qdrant.send_signal(signal.SIGCONT)

    def _qdrant_slow(self, lasts_s: float) -> None:
        assert self.setting.qdrant is not None
        self.setting.qdrant.delay(2.0)
        self._cancelled.wait(lasts_s)
        self.setting.qdrant.delay(0.0)

    def _redis_hang(self, lasts_s: float) -> None:
        assert self.setting.redis is not None
        self.setting.redis.send_signal(signal.SIGSTOP)
        self._cancelled.wait(lasts_s)
        self.setting.redis.send_signal(signal.SIGCONT)

    def until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait on a condition; False when the time is over or the run was cancelled."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline or self._cancelled.wait(0.05):
                return False
        return True


def _arm(path: Path, words: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(words)
    fresh.replace(path)


def _lines(slot: Slot, start: str) -> int:
    return sum(line.startswith(start) for line in slot.ledger.read_text().splitlines()) if slot.ledger.exists() else 0
