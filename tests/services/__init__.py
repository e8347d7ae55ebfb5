"""Real services for tests: one Apache Kafka broker, one Redis, each a child process or an address that was given.

The rule for a service that is not there lives here: skip on a laptop, fail in CI, so that CI never
passes by testing nothing. How each service starts lives in `kafka` and `redis`.
"""

import os
from typing import NoReturn

import pytest


class ServiceUnavailable(Exception):
    """A service cannot run on this machine; the message says what to install or set."""


def unavailable(reason: object) -> NoReturn:
    """End the running test: failed where the environment says CI=true, skipped elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have this service: {reason}", pytrace=False)
    pytest.skip(str(reason))
