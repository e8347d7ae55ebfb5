"""A real HTTP server on a free loopback port, for the time of a test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from index.owner_routes import offer
from pins.ports import PinIndex


@contextmanager
def serving(index: PinIndex) -> Iterator[str]:
    """What the owner of an index answers; its URL."""
    app = FastAPI()
    offer(app, index)
    with hosted(app) as url:
        yield url


@contextmanager
def hosted(app: Any, **options: Any) -> Iterator[str]:
    """Any ASGI application; its URL. `options` are uvicorn's."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the test server did not start within 10 s"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
