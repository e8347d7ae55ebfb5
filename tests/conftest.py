"""Shared by every suite: the real services, skipped on a laptop without them and failing in CI, and one TLS context."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from httpx._transports import default

pytest_plugins = ["tests.services.fixtures"]


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Every address in the tests is plain HTTP, yet each new client of httpx reads the certificate authorities: 40 ms of processor time."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(default, "create_ssl_context", cache(default.create_ssl_context))
        yield
