"""Errors as RFC 9457 problem documents: one place where an exception becomes a status, a name and words."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pins.errors import ArtifactError, InvalidEvent, PinNotFound, Unavailable, Unembeddable
from surfaces.cursors import BadCursor
from surfaces.schemas import Problem

log = logging.getLogger("everpin.surfaces")
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
MAX_ERRORS = 20
TITLES = {
    400: "The request cannot be read",
    401: "No valid API key",
    403: "The API key lacks a scope",
    404: "Not found",
    405: "Method not allowed",
    410: "The model of this cursor is gone",
    413: "The body is too large",
    422: "A value does not fit",
    429: "Too many requests with this key",
    500: "A defect of Everpin's own",
    503: "Not now",
}


class Refused(Exception):
    """A request that is answered with a problem: `kind` is its stable name."""

    def __init__(self, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.headers = status, kind, detail, dict(headers or {})


def request_id(request: Request) -> str:
    """The id that the guard gave this request."""
    return str(request.scope.get("request_id", ""))


def problem(
    request: Request, status: int, kind: str, detail: str, errors: list[dict[str, Any]] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """A problem document as a response."""
    title = TITLES.get(status, "The request failed")
    body = Problem(type=f"/problems/{kind}", title=title, status=status, detail=detail, instance=request_id(request), errors=errors or [])
    return Response(body.model_dump_json(), status, dict(headers or {}), MEDIA_TYPE)


def handle_problems(app: FastAPI) -> None:
    """Answer every exception that a route may raise with a problem document."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return problem(request, error.status, error.kind, error.detail, headers=error.headers)

    @app.exception_handler(PinNotFound)
    async def no_pin(request: Request, error: PinNotFound) -> Response:
        return problem(request, 404, "pin-not-found", str(error))

    @app.exception_handler(BadCursor)
    async def bad_cursor(request: Request, error: BadCursor) -> Response:
        return problem(request, 400, "bad-cursor", str(error))

    @app.exception_handler(InvalidEvent)
    async def bad_event(request: Request, error: InvalidEvent) -> Response:
        return problem(request, 422, "invalid-event", str(error))

    @app.exception_handler(Unembeddable)
    async def unembeddable(request: Request, error: Unembeddable) -> Response:
        return problem(request, 422, "unembeddable", str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"where": ".".join(map(str, item["loc"])), "why": item["msg"]} for item in error.errors()[:MAX_ERRORS]]
        detail = "; ".join(f"{item['where']}: {item['why']}" for item in found[:3])
        return problem(request, 422, "validation", detail or "the request does not fit its schema", found)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        kind = {404: "not-found", 405: "method-not-allowed", 400: "unreadable"}.get(error.status_code, "refused")
        detail = f"there is nothing at {request.url.path!r}; see /docs" if error.status_code == 404 else str(error.detail)
        return problem(request, error.status_code, kind, detail[:500], headers=error.headers)

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> Response:
        log.warning("request %s: %s", request_id(request), error)
        return problem(request, 503, "store-unavailable", str(error), headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(ArtifactError)
    async def artifact(request: Request, error: ArtifactError) -> Response:
        log.error("request %s: %s", request_id(request), error)
        return problem(request, 503, "model-unavailable", str(error), headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        log.error("request %s: a defect of Everpin's own", request_id(request), exc_info=error)
        return problem(request, 500, "defect", f"a defect of Everpin's own; report it with the request id {request_id(request)}")
