"""The whole system on embedded parts in one process tree: the broker here, one worker and the serving process as children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx

from embedder.artifact import read_manifest
from everpin.owner import live_owner, owners, place
from everpin.parents import END_WITH_PARENT, SERVING_ENVIRONMENT
from everpin.settings import Settings
from pins.errors import Unavailable
from streams.broker import Broker, embedded_broker

CARD = "serve.json"
"""In the state folder: where the serving process listens, for whoever started it."""
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class System:
    """A running system: its broker, its worker process, and the worker's routes."""

    broker: Broker
    worker: subprocess.Popen[bytes]
    http: httpx.Client

    def status(self) -> dict[str, Any]:
        """What the worker says of itself. Raises Unavailable."""
        try:
            body: dict[str, Any] = self.http.get("/status").raise_for_status().json()
        except httpx.HTTPError as error:
            raise Unavailable(f"the worker does not answer: {error} (exit code {self.worker.poll()})") from error
        return body


@contextmanager
def running_system(config: Settings, log: Path | None = None, said: Callable[[str], None] = lambda words: None) -> Iterator[System]:
    """Start everything, wait until it is ready, and stop it again after the block.

    The broker is the embedded one unless the settings name a Kafka. `log` receives the worker's log lines (None: standard
    error). Raises Unavailable with the end of the log when the worker does not start.
    """
    for owner in owners(config.home).values():
        raise Unavailable(f"{config.home} is in use by process {owner.pid} ({owner.purpose}); stop it, or set another EVERPIN_HOME")
    with ExitStack() as stack:
        said("starting the broker")
        broker = Broker.parse(config.kafka) if config.kafka else stack.enter_context(embedded_broker())
        said("starting the worker")
        worker = stack.enter_context(worker_process(config, broker, log))
        http = stack.enter_context(httpx.Client(base_url=_ready(config, worker, log), timeout=30))
        yield System(broker, worker, http)


@dataclass(frozen=True, slots=True)
class Page:
    """A serving process and the address it listens at."""

    url: str
    process: subprocess.Popen[bytes]


@contextmanager
def serving(config: Settings, log: Path | None = None, said: Callable[[str], None] = lambda words: None) -> Iterator[Page]:
    """Start the API and the page over a running installation, wait until it answers, and stop it after the block. Raises Unavailable."""
    said("starting the API and the web page")
    card = config.home / CARD
    card.unlink(missing_ok=True)
    with _child("surfaces.app", config, config.kafka, log, SERVING_ENVIRONMENT) as process:
        yield Page(_answering(process, card, log), process)


@contextmanager
def worker_process(config: Settings, broker: Broker, log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the settings' model as a child process. It may not be ready yet."""
    with _child("streams.app", config, str(broker), log) as process:
        yield process


@contextmanager
def _child(module: str, config: Settings, kafka: str, log: Path | None, more: Mapping[str, str] = MappingProxyType({})) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a child process that ends with us; `log` receives what it says (None: standard error)."""
    mine = {
        "EVERPIN_KAFKA": kafka,
        "EVERPIN_HOME": str(config.home),
        "QDRANT_URL": config.qdrant_url,
        "EVERPIN_FEAST_YAML": str(config.feast_yaml or ""),
        "EVERPIN_MODEL": str(config.model),
        "EVERPIN_HOST": config.host,
        "EVERPIN_PORT": str(config.port),
        "EVERPIN_HTTP_PORT": str(config.http_port),
        "PYTHONWARNINGS": "ignore",  # of the libraries; ours are errors in the tests
    }
    environment = {**more, **os.environ, **mine}
    with ExitStack() as stack:
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)
        output = stack.enter_context(log.open("ab")) if log else None
        # A session of its own: Ctrl-C reaches this process, which then stops its children in order.
        command = [sys.executable, "-m", module, END_WITH_PARENT]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=output, stdout=output, start_new_session=True)
        try:
            yield process
        finally:
            stop(process)
            if process.stdin:
                process.stdin.close()


def stop(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> int:
    """Ask a child to end, wait, and kill it when it does not; returns its exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def _ready(config: Settings, worker: subprocess.Popen[bytes], log: Path | None) -> str:
    """The URL of the worker's routes, once it says it is ready."""
    deadline, folder = time.monotonic() + START_TIMEOUT_S, place(config.home, read_manifest(config.model).model_id)
    while time.monotonic() < deadline:
        if worker.poll() is not None:
            raise Unavailable(f"the worker ended with exit code {worker.returncode} while starting{_tail(log)}")
        owner = live_owner(folder)
        if owner and owner.pid == worker.pid and owner.url and _answers(f"{owner.url}/readyz"):
            return owner.url
        time.sleep(0.1)
    raise Unavailable(f"the worker was not ready within {START_TIMEOUT_S:.0f} s{_tail(log)}")


def _answering(process: subprocess.Popen[bytes], card: Path, log: Path | None) -> str:
    """The URL that the serving process announced, once it answers there."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"the serving process ended with exit code {process.returncode} while starting{_tail(log)}")
        url = str(json.loads(card.read_text())["url"]) if card.exists() else ""
        if url and _answers(f"{url}/readyz"):
            return url
        time.sleep(0.1)
    raise Unavailable(f"the serving process did not answer within {START_TIMEOUT_S:.0f} s{_tail(log)}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _tail(log: Path | None) -> str:
    if log is None or not log.exists():
        return ""
    return f"; the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-8:])
