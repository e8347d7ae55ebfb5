"""Worker processes: a new interpreter each (`exec`), or a fork of one that has done the imports already (`fork`).

Importing Faust, Feast and their like costs a worker 4 s of processor time, and a run with 200 kills has 250 starts. A forked
worker is a process like any other, with its own model, stores and sockets, and dies by the same signals; it starts in 1 s.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

IMPORTED = (
    "everpin.wiring", "everpin.http", "streams.broker", "streams.features", "streams.worker", "streams.transport", "index.qdrant", "faust", "uvicorn",
)  # fmt: skip
"""Everything that `streams.app` stands on; not itself, because it takes the parts that `tests.faults.worker` replaces.

In a worker's own order: Feast, imported before prometheus_client, switches that to files shared by several processes.
"""


class WorkerProcess(Protocol):
    """What the fleet asks of a process; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None:
        """The exit code, minus the signal for a killed one; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""

    def send_signal(self, sig: int) -> None: ...


def start(how: str, environment: Mapping[str, str], log: Path) -> WorkerProcess:
    """Start `tests.faults.worker` with this environment, its output appended to `log`."""
    if how == "fork":
        return _Forked(environment, log)
    with log.open("ab") as output:
        command = [sys.executable, "-m", "tests.faults.worker"]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)


class _Forked:
    """A fork of the process that has done the imports."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(IMPORTED))
        self._reading = threading.Lock()  # two readers of one exit code would get it once
        self._process = context.Process(target=_work, args=(dict(environment), str(log)), name="everpin-worker", daemon=True)
        self._process.start()
        self._code: int | None = None

    @property
    def pid(self) -> int:
        return int(self._process.pid or 0)

    def poll(self) -> int | None:
        with self._reading:
            if self._code is None:
                self._code = self._process.exitcode
            return self._code

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout if timeout is not None else 3600)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("tests.faults.worker", timeout or 0)
            time.sleep(0.02)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)


def _work(environment: dict[str, str], log: str) -> Any:
    """In the fork: become the worker."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["tests.faults.worker"]
    import warnings

    warnings.simplefilter("ignore")
    from tests.faults import worker

    worker.main()
