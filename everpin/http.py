"""The worker's loopback routes: liveness, readiness, metrics, version, status, and reads of the index it owns."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from everpin import __version__
from everpin.wiring import WorkerParts
from index.loopback import routes
from pins.errors import Unavailable

STALL_S = 120.0
"""A worker that has a batch in hand for longer than this beyond its retry budget is not alive: the orchestrator restarts it."""


class Vitals:
    """What the worker's loop tells its routes. Written by the loop, read by the routes."""

    def __init__(self) -> None:
        self.assigned = False
        self.answering = True
        self.busy_since: dict[str, float] = {}

    @property
    def ready(self) -> bool:
        """Whether this worker has partitions and its stores answer."""
        return self.assigned and self.answering

    def stalled_s(self) -> float:
        """Seconds since the oldest batch in hand was taken; 0 while there is none."""
        since = list(self.busy_since.values())
        return time.monotonic() - min(since) if since else 0.0


def worker_app(parts: WorkerParts, vitals: Vitals) -> FastAPI:
    """The routes of one worker."""
    app = FastAPI(title="Everpin worker", version=__version__)
    app.include_router(routes(parts.index))
    telemetry = parts.telemetry
    telemetry.ready.set_function(lambda: float(vitals.ready))

    @app.get("/livez")
    def livez(response: Response) -> dict[str, Any]:
        alive = vitals.stalled_s() < parts.settings.retry_budget_s + STALL_S
        response.status_code = 200 if alive else 503
        return {"alive": alive, "batch_in_hand_s": round(vitals.stalled_s(), 1)}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        response.status_code = 200 if vitals.ready else 503
        return {"ready": vitals.ready, "partitions_assigned": vitals.assigned, "stores_answer": vitals.answering}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4")

    @app.get("/version")
    def version() -> dict[str, str]:
        return {"version": __version__, "model_id": parts.encoder.model_id}

    @app.get("/status")
    def status() -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "model_id": parts.encoder.model_id,
            "ready": vitals.ready,
            "outcomes": telemetry.labelled(telemetry.pins),
            "dead_letters": telemetry.labelled(telemetry.dead_letters),
            "parked": telemetry.total(telemetry.parked),
            "encoder_calls": telemetry.total(telemetry.encoded),
            "freshness_ms": telemetry.freshness_ms(),
            "index": dict(parts.index.counts()),
        }

    return app


@contextmanager
def listening(app: FastAPI, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve `app` from a thread of its own for the time of the block; yields its URL. Raises Unavailable."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            raise Unavailable(f"port {port} on {host} is taken ({error}); choose another EVERPIN_HTTP_PORT, or 0 for any free one") from error
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([sock],), name="everpin-http", daemon=True)
        thread.start()
        try:
            _wait(lambda: server.started)
            yield f"http://{host}:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(5)
    finally:
        sock.close()


def _wait(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise Unavailable(f"the worker's HTTP routes did not start within {timeout_s:.0f} s")
        time.sleep(0.01)
