"""The workers of a run, and a supervisor that starts an ended one again, as an orchestrator does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.processes import WorkerProcess, start
from tests.faults.setting import Setting
from tests.services.process import free_port

ARMED = "arm"
STOP_DEADLINE_S = 45.0
RESTART_AFTER_S = 0.3


@dataclass
class Slot:
    """One place for a worker: its process now, the one that is being replaced, and the files they share with the injector."""

    number: int
    folder: Path
    skew_s: float = 0.0
    process: WorkerProcess | None = None
    port: int = 0
    starts: int = 0
    wanted: bool = False
    changing: threading.RLock = field(default_factory=threading.RLock)

    @property
    def arm(self) -> Path:
        return self.folder / ARMED

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def note(self, *words: object) -> None:
        """Append to the ledger, where the worker notes what it does."""
        with self.ledger.open("a") as ledger:
            ledger.write(" ".join(map(str, (*words, f"{time.monotonic():.3f}"))) + "\n")

    def ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False


class Fleet:
    """Starts the workers, and keeps them running until `stop`. `exits` counts exit codes, and `unclean` those of orderly stops."""

    def __init__(self, setting: Setting, workers: int, skew_s: float = 0.0, settings: dict[str, str] | None = None, how: str = "fork") -> None:
        self.setting, self.settings, self.how = setting, settings or {}, how
        skews = (0.0, skew_s, -skew_s)
        self.slots = [Slot(number, setting.folder / f"worker-{number}", skews[number % 3] if workers > 1 else 0.0) for number in range(workers)]
        self.exits: Counter[int] = Counter()
        self.unclean: list[int] = []
        self._ended = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="faults-supervisor", daemon=True)

    def start(self) -> None:
        for slot in self.slots:
            slot.folder.mkdir(parents=True, exist_ok=True)
            slot.wanted = True
            self.spawn(slot)
        self._supervisor.start()

    def spawn(self, slot: Slot, **more: str) -> None:
        """Start a worker in this slot."""
        slot.port, slot.starts = free_port(), slot.starts + 1
        faults = {"FAULT_ARM": str(slot.arm), "FAULT_LEDGER": str(slot.ledger), "FAULT_CLOCK_SKEW_S": str(slot.skew_s)}
        told = self.setting.environment(f"{slot.number}-{slot.starts}") | {"EVERPIN_HTTP_PORT": str(slot.port)} | faults | self.settings | more
        slot.process = start(self.how, told, slot.log)

    def replace(self, slot: Slot) -> None:
        """A deploy: a new worker beside the old one, which is then told to stop. Where only one may run, one after the other."""
        with slot.changing:
            old = slot.process
            beside = self.setting.qdrant is not None and self.setting.kafka is not None
            if beside:
                self.spawn(slot)
                self._await(slot.ready)
            self._stop(old)
            if not beside:
                self.spawn(slot)

    def stop(self) -> None:
        """SIGTERM to all, and their exit codes."""
        for slot in self.slots:
            slot.wanted = False
        self._ended.set()
        if self._supervisor.is_alive():
            self._supervisor.join(STOP_DEADLINE_S)
        for slot in self.slots:
            self._signal(slot.process, signal.SIGCONT)
            self._signal(slot.process, signal.SIGTERM)
        for slot in self.slots:
            self._ended_in_order(slot.process)

    def kill(self) -> None:
        """End what may still run, at once."""
        for slot in self.slots:
            slot.wanted = False
            self._signal(slot.process, signal.SIGKILL)
            if slot.process:
                slot.process.wait()

    def rebalances(self) -> int:
        """How often a worker was given partitions."""
        return sum(slot.log.read_text(errors="replace").count("partitions assigned") for slot in self.slots if slot.log.exists())

    def tail(self, lines: int = 12) -> str:
        logs = [slot.log for slot in self.slots if slot.log.exists()]
        return "\n".join("\n".join([f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]]) for log in logs)

    def await_ready(self, timeout_s: float = 120) -> None:
        """Wait until every worker has partitions. Raises TimeoutError with the ends of their logs."""
        if not self._await(lambda: all(slot.ready() for slot in self.slots), timeout_s):
            raise TimeoutError(f"the workers were not ready within {timeout_s:.0f} s\n{self.tail()}")

    def _await(self, holds: Callable[[], bool], timeout_s: float = 60) -> bool:
        deadline = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _supervise(self) -> None:
        while not self._ended.wait(0.1):
            for slot in self.slots:
                if not slot.changing.acquire(blocking=False):
                    continue  # a deploy is under way
                try:
                    if slot.wanted and slot.process and (code := slot.process.poll()) is not None:
                        self.exits[code] += 1
                        slot.note("exit", code)
                        self._ended.wait(RESTART_AFTER_S)
                        self.spawn(slot)
                finally:
                    slot.changing.release()

    def _stop(self, process: WorkerProcess | None) -> None:
        if process is not None and process.poll() is not None:
            self.exits[process.wait()] += 1  # it had died before it could be stopped
            return
        self._signal(process, signal.SIGTERM)
        self._ended_in_order(process)

    def _ended_in_order(self, process: WorkerProcess | None) -> None:
        """Wait for a worker that was told to stop, once: a second SIGTERM would meet the interpreter's end, and kill it."""
        if process is None:
            return
        try:
            code = process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._signal(process, signal.SIGKILL)
            code = process.wait()
        self.exits[code] += 1
        if code != 0:
            self.unclean.append(code)

    @staticmethod
    def _signal(process: WorkerProcess | None, number: int) -> None:
        if process is not None and process.poll() is None:
            os.kill(process.pid, number)
