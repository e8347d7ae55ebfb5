"""Run the system, or one worker of it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack, closing

from rich.console import Console

from embedder.artifact import read_manifest
from everpin.commands.output import AsJson, emit
from everpin.demo import run_demo
from everpin.live import live_settings
from everpin.parents import SERVING_ENVIRONMENT
from everpin.settings import settings
from everpin.supervising import Workers
from everpin.system import running_system, serving
from pins.errors import EverpinError


def demo(as_json: AsJson = False) -> None:
    """Run the whole system on embedded parts with the sample pins, show what happens, and end."""
    document = run_demo(settings(), quiet=as_json)
    emit(document, as_json, lambda console: None)


def up() -> None:
    """Run broker, worker, stores, API and web page in one process tree until Ctrl-C."""
    config = live_settings(settings())
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    console = Console(stderr=True)
    with ExitStack() as stack:
        system = stack.enter_context(running_system(config, None, console.print))
        page = stack.enter_context(serving(config, None, console.print))
        console.print(f"up: broker {system.broker}, worker {system.worker.pid}, routes {system.http.base_url}; the embedded broker keeps events in memory only")
        console.print("in another terminal: everpin import jsonl FILE, everpin search TEXT, everpin status; Ctrl-C ends it")
        console.print(f"open {page.url} for search, related pins, home feed and the map; the API is described in {page.url}/openapi.json")
        workers = stack.enter_context(closing(Workers(config, system.broker, running={read_manifest(config.model).model_id: system.worker})))
        while not stopped.wait(0.5):
            workers.follow()
            if lost := workers.lost():
                raise EverpinError(f"the worker of {lost[0]} ended with exit code {lost[1]}; its last lines are above")
            if page.process.poll() is not None:
                raise EverpinError(f"the serving process ended with exit code {page.process.returncode}; its last lines are above")


def serve() -> None:
    """Serve the API and the web page until SIGTERM: over QDRANT_URL, or over the embedded index of this EVERPIN_HOME."""
    os.execve(sys.executable, [sys.executable, "-m", "surfaces.app"], SERVING_ENVIRONMENT | os.environ)


def worker() -> None:
    """Run one worker on the Kafka in EVERPIN_KAFKA until SIGTERM. Start several to share the partitions."""
    os.execv(sys.executable, [sys.executable, "-m", "streams.app"])
