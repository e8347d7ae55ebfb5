"""Everpin's HTTP API from Python: `Everpin` blocks, `AsyncEverpin` awaits. `models` is what goes over the wire, `errors` what can go wrong."""

from everpin_client.client import AsyncEverpin, Everpin
from everpin_client.connection import Options
from everpin_client.errors import (
    BadRequest,
    CursorGone,
    DeadlineExceeded,
    EverpinError,
    NotFound,
    RateLimited,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from everpin_client.models import Filters, UserActionIn
from everpin_client.retries import Retries, RetryBudget

__all__ = [
    "AsyncEverpin",
    "BadRequest",
    "CursorGone",
    "DeadlineExceeded",
    "Everpin",
    "EverpinError",
    "Filters",
    "NotFound",
    "Options",
    "RateLimited",
    "Retries",
    "RetryBudget",
    "Unauthorized",
    "Unavailable",
    "UnexpectedAnswer",
    "UserActionIn",
]
