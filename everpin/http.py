"""The worker's loopback routes: liveness, readiness, metrics, version, status, and reads of the index it owns."""

from __future__ import annotations

import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response

from everpin import __version__
from everpin.sockets import bound
from everpin.telemetry import STORES
from everpin.wiring import WorkerParts
from index.owner_routes import offer
from pins.errors import Unavailable

MODEL_FILE = "model.onnx"
"""The file of a model folder whose sha256 tells two models of one name apart."""
STALL_S = 120.0
"""A worker that has a batch in hand for longer than this beyond its retry budget is not alive: the orchestrator restarts it.
Nor is one whose event loop has not beaten for as long, nor one that has messages waiting and takes none: Faust's consumer
can stop fetching without an error."""


class Vitals:
    """What the worker's loop tells its routes. Written by the loop, read by the routes.

    `stores` says of each store whether its last call answered; `worker_app` shares it with the telemetry, whose timed
    wrappers keep it. `answering` is false while the batch in hand is being tried again, for whatever reason.
    `model_fits` is false when the index was written by another model of the same name.
    """

    def __init__(self) -> None:
        self.assigned = False
        self.answering = True
        self.model_fits = True
        self.busy_since: dict[str, float] = {}
        self.stores = dict.fromkeys(STORES, True)
        self._beaten_at: float | None = None
        self._moved_at = time.monotonic()

    def beat(self) -> None:
        """The event loop turns. Call it from a timer of the loop, about every second."""
        self._beaten_at = time.monotonic()

    def moved(self) -> None:
        """A batch was handled, or nothing is left to handle."""
        self._moved_at = time.monotonic()

    def still_s(self) -> float:
        """Seconds for which messages have waited and none was handled."""
        return time.monotonic() - self._moved_at

    def beaten_s(self) -> float:
        """Seconds since the last beat; 0 before the first."""
        return time.monotonic() - self._beaten_at if self._beaten_at is not None else 0.0

    @property
    def reasons(self) -> list[str]:
        """Why this worker is not ready; empty when it is."""
        found = [] if self.assigned else ["this worker has not joined its group yet, or is between two assignments"]
        found += [f"{store} does not answer" for store in STORES if not self.stores[store]]
        if not found and not self.answering:
            found.append("the batch in hand is being tried again; the log says why")
        if not self.model_fits:
            found.append("the index was written by another model of this name; compare sha256 of /version and give the new model an id of its own")
        return found

    @property
    def ready(self) -> bool:
        """Whether this worker has partitions, its stores answer and its model is the index's."""
        return not self.reasons

    def stalled_s(self) -> float:
        """Seconds since the oldest batch in hand was taken; 0 while there is none."""
        since = list(self.busy_since.values())
        return time.monotonic() - min(since) if since else 0.0


def worker_app(parts: WorkerParts, vitals: Vitals) -> FastAPI:
    """The routes of one worker."""
    app = FastAPI(title="Everpin worker", version=__version__)
    offer(app, parts.index)
    telemetry, manifest = parts.telemetry, parts.encoder.manifest
    vitals.stores = telemetry.stores
    telemetry.ready.set_function(lambda: float(vitals.ready))
    telemetry.disk_free.set_function(lambda: _free_bytes(parts.settings.home))
    telemetry.show_model(manifest.model_id, manifest.files[MODEL_FILE], manifest.template_version)

    @app.get("/livez")
    def livez(response: Response) -> dict[str, Any]:
        patience_s = parts.settings.retry_budget_s + STALL_S
        alive = vitals.stalled_s() < patience_s and vitals.still_s() < patience_s and vitals.beaten_s() < STALL_S
        response.status_code = 200 if alive else 503
        seconds = {"batch_in_hand_s": vitals.stalled_s(), "loop_beat_s": vitals.beaten_s(), "still_s": vitals.still_s()}
        return {"alive": alive} | {name: round(value, 1) for name, value in seconds.items()}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        reasons = vitals.reasons
        response.status_code = 503 if reasons else 200
        return {"ready": not reasons, "reasons": reasons, "partitions_assigned": vitals.assigned, "stores": dict(vitals.stores)}

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(telemetry.exposition(), media_type="text/plain; version=0.0.4")

    @app.get("/version")
    def version() -> dict[str, Any]:
        return {
            "version": __version__,
            "model_id": manifest.model_id,
            "model_sha256": manifest.files[MODEL_FILE],
            "template_version": manifest.template_version,
        }

    @app.get("/status")
    def status() -> dict[str, Any]:
        return _status(parts, vitals)

    return app


def _status(parts: WorkerParts, vitals: Vitals) -> dict[str, Any]:
    telemetry = parts.telemetry
    return {
        "pid": os.getpid(),
        "model_id": parts.encoder.model_id,
        "ready": vitals.ready,
        "reasons": vitals.reasons,
        "stores": dict(vitals.stores),
        "outcomes": telemetry.labelled(telemetry.pins),
        "dead_letters": telemetry.labelled(telemetry.dead_letters),
        "parked": telemetry.total(telemetry.parked),
        "refused": telemetry.labelled(telemetry.refused),
        "retries": telemetry.total(telemetry.retries),
        "races_lost": telemetry.total(telemetry.races_lost),
        "rebalances": telemetry.total(telemetry.rebalances),
        "encoder_calls": telemetry.total(telemetry.encoded),
        "freshness_ms": telemetry.freshness_ms(),
        "index": _counts(parts),
    }


def _counts(parts: WorkerParts) -> dict[str, int] | None:
    """Pins by state; None while the index does not answer, which the rest of the status must survive."""
    try:
        return dict(parts.index.counts())
    except Unavailable:
        return None


def _free_bytes(home: Path) -> float:
    try:
        return float(shutil.disk_usage(home).free)
    except OSError:  # the folder is gone: the worker's own calls say so louder than a scrape could
        return math.nan


@contextmanager
def listening(app: FastAPI, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve `app` from a thread of its own for the time of the block; yields its URL. Raises Unavailable."""
    with bound(host, port, "EVERPIN_HTTP_PORT") as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, args=([sock],), name="everpin-http", daemon=True)
        thread.start()
        try:
            _wait(lambda: server.started)
            yield f"http://{host}:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(5)


def _wait(done: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise Unavailable(f"the worker's HTTP routes did not start within {timeout_s:.0f} s")
        time.sleep(0.01)
