"""A service's child process: a free port, a wait with a deadline, an end. What the service is lives elsewhere."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.services import ServiceUnavailable

POLL_S: Final = 0.05
LOG_TAIL_CHARS: Final = 3000


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on now (another process may still take it first)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def spawn(command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` with its output appended to `log`.

    It gets a session of its own: Ctrl-C reaches the tests, which then stop it in order.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )


def wait_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], deadline_s: float, log: Path) -> None:
    """Return once `ready()` holds.

    Raises:
        ServiceUnavailable: the process ended first, or `deadline_s` passed (the process is then killed);
            the message carries the end of `log`.
    """
    give_up = time.monotonic() + deadline_s
    while not ready():
        if process.poll() is not None:
            raise ServiceUnavailable(_story(f"ended with exit code {process.returncode} before it was ready", log))
        if time.monotonic() > give_up:
            end(process, kill=True)
            raise ServiceUnavailable(_story(f"was not ready within {deadline_s:g} s", log))
        time.sleep(POLL_S)


def end(process: subprocess.Popen[bytes], *, kill: bool = False, grace_s: float = 30) -> None:
    """End the process and wait for it: SIGTERM, SIGKILL after `grace_s`; SIGKILL at once with `kill`.

    A process that has ended already is left as it is.
    """
    if kill:
        process.kill()
    else:
        process.terminate()
    try:
        process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _story(what: str, log: Path) -> str:
    return f"{log.stem} {what}; the end of its log {log}:\n{log.read_text(errors='replace')[-LOG_TAIL_CHARS:]}"
