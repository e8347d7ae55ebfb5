"""Who may ask: API keys with scopes and a rate of their own. Without any key the API is open, and the process listens on loopback only."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from everpin.keys import KeyRing, RateLimiter
from surfaces.metrics import Metrics
from surfaces.problems import Refused

_bearer = HTTPBearer(auto_error=False, description="An API key from `everpin keys add`. Not needed while there are no keys, on loopback.")


@dataclass(frozen=True, slots=True)
class Access:
    """The keys of this installation, and how much of its rate each has used."""

    keys: KeyRing
    limiter: RateLimiter
    metrics: Metrics

    def check(self, header: str | None, scope: str) -> None:
        """Raises Refused: 401 without a valid key, 403 without the scope, 429 beyond the key's rate."""
        if not self.keys.any():
            return
        key = self.keys.authenticate(header)
        if key is None:
            words = "give a valid API key as `Authorization: Bearer KEY`; `everpin keys add` makes one"
            raise self._refused(401, "no-key", words, "WWW-Authenticate", "Bearer")
        if scope not in key.scopes:
            raise self._refused(403, "scope", f"this key may not {scope}; ask for one with the scope {scope!r}")
        wait_s = self.limiter.take(key)
        if wait_s > 0:
            raise self._refused(429, "rate", f"this key may ask {key.rate:g} times a second; wait {wait_s:.2f} s", "Retry-After", str(math.ceil(wait_s)))

    def _refused(self, status: int, kind: str, detail: str, *header: str) -> Refused:
        self.metrics.refused.labels(str(status)).inc()
        return Refused(status, kind, detail, {header[0]: header[1]} if header else None)


def allow(scope: str) -> Callable[..., Awaitable[None]]:
    """A dependency of routes that need a scope: `read`, `write` or `admin`."""

    async def allowed(request: Request, bearer: HTTPAuthorizationCredentials | None = Security(_bearer)) -> None:
        access: Access = request.app.state.access
        access.check(request.headers.get("authorization"), scope)

    return allowed
