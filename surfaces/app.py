"""ENTRY: the serving process. The API and the web page over one installation's index, features and broker.

Run it with `everpin serve` or `python -m surfaces.app`. Where the parts are put together; routes are in `surfaces.routes`, limits on what comes
in are in `surfaces.guard` and `surfaces.schemas`, who may ask is in `surfaces.access`.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from everpin import __version__
from everpin.keys import KeyRing, RateLimiter
from everpin.logs import configure_logging
from everpin.parents import end_with_parent, share_the_interpreter
from everpin.serving import LiveModels, open_stores
from everpin.settings import Settings, settings
from everpin.sockets import bound
from everpin.system import CARD
from everpin.wiring import build_features
from pins.errors import ArtifactError, EverpinError, Unavailable
from surfaces.access import Access, allow
from surfaces.asked import Surface
from surfaces.connections import server_options
from surfaces.cosaves import CoSaves
from surfaces.exposures import ExposureLog
from surfaces.guard import LOOPBACK_HOSTS, Limits, guarded
from surfaces.metrics import Metrics, Timed
from surfaces.newest import Newest
from surfaces.people import People
from surfaces.problems import handle_problems
from surfaces.producer import Producer
from surfaces.projection import Maps
from surfaces.routes import feed, operations, pins, related, search, writes
from surfaces.schemas import Problem

log = logging.getLogger("everpin.surfaces")
WEB = Path(__file__).parent / "web"
CANNOT_START = 2
THREADS = 8
"""Requests that are worked on side by side. The index and the encoder let others run while they work; more threads than this only wait."""
DESCRIPTION = """Search, related pins and home feed over embeddings that are kept true to their pins.

Every answer is of one model, and says which; each result of an interleaved search does so itself. Errors are problem documents (RFC 9457). A
key travels as `Authorization: Bearer KEY`."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words, "content": {"application/problem+json": {}}}
    for status, words in {
        400: "The body or the cursor cannot be read",
        401: "No valid API key",
        403: "The key lacks the scope",
        404: "There is nothing at this address",
        408: "The body did not arrive in time",
        413: "The body is too large",
        414: "The address is too long",
        415: "The body is no JSON",
        421: "Not a name of this server",
        422: "A value does not fit",
        429: "Too many requests with this key; see Retry-After",
        431: "The headers are too large",
        503: "Overload, or a store that does not answer; see Retry-After",
    }.items()
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such pin", "content": {"application/problem+json": {}}}}
GONE: dict[int | str, dict[str, Any]] = {410: {"model": Problem, "description": "The cursor's model is gone", "content": {"application/problem+json": {}}}}


def build_app(surface: Surface, access: Access) -> FastAPI:
    """The API and the page over these parts, without the guards around it (`guarded`)."""
    app = FastAPI(title="Everpin", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=_few_threads)
    app.state.surface, app.state.access = surface, access
    handle_problems(app)
    for routes, scope, more in (
        (search.router, "read", GONE),
        (related.router, "read", NOT_FOUND | GONE),
        (feed.router, "read", GONE),
        (writes.router, "write", NOT_FOUND),
        (pins.router, "read", NOT_FOUND),
    ):
        app.include_router(routes, dependencies=[Depends(allow(scope))], responses=PROBLEMS | more)
    app.include_router(operations.router)
    app.include_router(operations.figures, dependencies=[Depends(allow("admin"))], responses=PROBLEMS)
    app.mount("/web", StaticFiles(directory=WEB), name="web")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    app.openapi()  # made once, here: the first who asks for it must not hold up the others
    return app


@asynccontextmanager
async def _few_threads(app: FastAPI) -> AsyncIterator[None]:
    """Work on few requests at once: threads beyond the cores only take the interpreter's lock from one another."""
    current_default_thread_limiter().total_tokens = THREADS
    yield


@contextmanager
def surface_parts(config: Settings) -> Iterator[Surface]:
    """Open everything that serving needs and close it after the block. Raises ArtifactError, Unavailable."""
    with ExitStack() as stack:
        metrics = Metrics(__version__)
        live = LiveModels(config, open_stores(config, stack), metrics.live)
        stack.callback(live.close)
        metrics.watch(lambda: bool(live.problem), lambda: (live.now.reader.hits, live.now.reader.misses))
        people, producer = People(lambda: build_features(config)), Producer(config)
        stack.callback(people.close)
        stack.callback(producer.close)
        cosaves = CoSaves(people)
        stack.callback(cosaves.close)
        exposures = ExposureLog(config, metrics)
        stack.callback(exposures.close)
        yield Surface(config, live, people, producer, cosaves, Newest(), Maps(), metrics, exposures)


def serve(config: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ArtifactError, Unavailable."""
    keys = KeyRing(config.home)
    if not keys.any() and not _loopback(config.host):
        raise ArtifactError(f"EVERPIN_HOST={config.host} can be reached from other machines, and there are no API keys: make one with `everpin keys add`")
    limits = Limits(in_flight=config.max_in_flight)
    with surface_parts(config) as surface, bound(config.host, config.port, "EVERPIN_PORT") as sock:
        surface.live.start()
        surface.cosaves.start()
        surface.exposures.start()
        _warm(surface)
        url = f"http://{config.host}:{sock.getsockname()[1]}"
        hosts = None if keys.any() else LOOPBACK_HOSTS
        inner = Timed(build_app(surface, Access(keys, RateLimiter(), surface.metrics)), surface.metrics)
        app = guarded(inner, limits, _origins(config), hosts, images=("https:",), shed=lambda reason: surface.metrics.shed.labels(reason).inc())
        _announce(config.home, url)
        log.info("serving %s: model %s, keys %s", url, surface.live.now.model_id, "asked for" if keys.any() else "off (loopback only)")
        options = server_options(limits) | {"lifespan": "on", "log_level": "warning", "timeout_graceful_shutdown": 10}
        uvicorn.Server(uvicorn.Config(app, **options)).run([sock])


def _warm(surface: Surface) -> None:
    """Open the feature store before anybody asks for a home feed: that takes seconds. Without it everything else is served."""
    try:
        surface.people.open()
    except Unavailable as error:
        log.warning("%s", error)


def _origins(config: Settings) -> tuple[str, ...]:
    return tuple(filter(None, (origin.strip() for origin in config.cors_origins.split(","))))


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(home: Path, url: str) -> None:
    fresh = home / f"{CARD}.{os.getpid()}"
    fresh.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    fresh.replace(home / CARD)


def main() -> None:
    """Serve; exit code 2 and one line on standard error where it cannot start."""
    try:
        config = settings()
        configure_logging(config.log_level)
        end_with_parent(sys.argv)
        share_the_interpreter()
        serve(config)
    except EverpinError as error:
        print(f"everpin serve: {error}", file=sys.stderr)
        sys.exit(CANNOT_START)


if __name__ == "__main__":
    main()
