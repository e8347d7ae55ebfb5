"""For whoever runs it: is it alive, is it ready, which version and model, and its figures."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from everpin import __version__
from pins.errors import EverpinError
from surfaces.asked import Surface

router = APIRouter(tags=["operations"])
figures = APIRouter(tags=["operations"])
PROBE_PIN = "everpin-probe"
"""A pin that is nobody's: reading it asks the index whether it answers."""


@router.get("/livez", summary="Is the process alive?")
async def livez() -> dict[str, Any]:
    """200 while the event loop turns."""
    return {"alive": True}


@router.get("/readyz", summary="May it get traffic?", responses={503: {"description": "No, and why"}})
def readyz(request: Request, response: Response) -> dict[str, Any]:
    """503 while the index does not answer. An alias that cannot be followed is told here, but the model before it goes on answering."""
    surface: Surface = request.app.state.surface
    served = surface.live.now
    reasons = []
    started = time.perf_counter()
    try:
        served.index.known([PROBE_PIN])
    except EverpinError as error:
        reasons.append(str(error))
    response.status_code = 503 if reasons else 200
    ms = round((time.perf_counter() - started) * 1000, 2)
    return {"ready": not reasons, "reasons": reasons, "model_id": served.model_id, "alias_problem": surface.live.problem, "index_ms": ms}


@router.get("/version", summary="Version and live model")
async def version(request: Request) -> dict[str, Any]:
    """The release, and the model that answers now."""
    served = request.app.state.surface.live.now
    return {"version": __version__, "model_id": served.model_id, "collection": served.collection}


@figures.get("/metrics", summary="Figures in Prometheus' text format", response_class=Response)
def metrics(request: Request) -> Response:
    """Every metric of `surfaces.metrics`."""
    return Response(request.app.state.surface.metrics.exposition(), media_type="text/plain; version=0.0.4")
