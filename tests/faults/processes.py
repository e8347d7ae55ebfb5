"""Worker processes: a new interpreter each (`exec`), or a fork of one that has done the imports already (`fork`).

Importing Faust, Feast and their like costs a worker 2 s of processor time, and a run with 200 kills has 250 starts. A forked
worker is a process like any other, with its own model, stores and sockets, and dies by the same signals; it starts in 1 s.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

IMPORTED = (
    "everpin.wiring", "everpin.http", "streams.broker", "streams.features", "streams.worker", "streams.transport", "index.qdrant", "faust", "uvicorn",
    "everpin.cli", "pandas", "pyarrow.parquet", "feast.infra.offline_stores.dask", "feast.infra.passthrough_provider", "faust.assignor.partition_assignor",
    "faust.sensors.prometheus", "uvicorn.protocols.websockets.auto", "tests.faults.warmed",
)  # fmt: skip
"""Everything that `streams.app` stands on, and what is imported when it starts; not itself, because it takes the parts that `tests.faults.worker` replaces.

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
    def kill(self) -> None: ...


def start(how: str, environment: Mapping[str, str], log: Path, module: str = "tests.faults.worker", *arguments: str) -> WorkerProcess:
    """Start a module's `main` with this environment, its output appended to `log`."""
    if how == "fork":
        return _Forked(_work, [module, *arguments], environment, log)
    with log.open("ab") as output:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True)


class _Forked:
    """A fork of the process that has done the imports."""

    def __init__(self, act: Callable[..., None], what: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._reading = threading.Lock()  # two readers of one exit code would get it once
        self._process = _forkserver().Process(target=act, args=(list(what), dict(environment), str(log)), name="everpin-worker", daemon=True)
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
                raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
            time.sleep(0.02)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def command(arguments: Sequence[str], environment: Mapping[str, str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run `everpin ARGUMENTS` in a fork of the process with the imports done; its exit code and what it printed. Raises TimeoutExpired."""
    with tempfile.TemporaryDirectory() as scratch:
        out, said = Path(scratch, "stdout"), Path(scratch, "stderr")
        process = _forkserver().Process(target=_command, args=(list(arguments), dict(environment), str(out), str(said)), daemon=True)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["everpin", *arguments], timeout)
        return subprocess.CompletedProcess(["everpin", *arguments], process.exitcode, out.read_text(), said.read_text())


def script(source: str, arguments: Sequence[object], log: Path) -> WorkerProcess:
    """Run Python source in a fork of the process with the imports done, with our environment; what it prints is appended to `log`."""
    return _Forked(_script, [source, *map(str, arguments)], os.environ, log)


def _forkserver() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


def _command(arguments: list[str], environment: dict[str, str], out: str, said: str) -> None:
    """In the fork: become the command."""
    _become(environment, out, said)
    sys.argv = ["everpin", *arguments]
    importlib.import_module("everpin.cli").main()


def _become(environment: dict[str, str], out: str, said: str) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, out), (2, said)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    warnings.simplefilter("ignore")


def _script(what: list[str], environment: dict[str, str], log: str) -> None:
    """In the fork: become the source that is given."""
    _become(environment, log, log)
    source, *arguments = what
    sys.argv = ["-c", *arguments]
    exec(compile(source, "<script>", "exec"), {"__name__": "__main__"})


def _work(what: list[str], environment: dict[str, str], log: str) -> None:
    """In the fork: become the worker."""
    _become(environment, log, log)
    sys.argv = what
    importlib.import_module(what[0]).main()
