"""What can go wrong, one class per reaction. Each error carries the API's problem document (RFC 9457) where there was one.

| class | reaction |
|---|---|
| BadRequest | change the request: it does not fit the API, or is too large |
| CursorGone | ask for the first page again: the cursor is of a model that is no longer live |
| Unauthorized | give another key: there is none, it is unknown, or it lacks the scope |
| NotFound | there is no such pin |
| RateLimited | ask less often; `retry_after_s` says when |
| Unavailable | try later: no connection, overload, or a store behind the API does not answer |
| DeadlineExceeded | the same, within the time that the caller gave |
| UnexpectedAnswer | report it, with `request_id`: the server failed, or is of another version than this client |
"""

from __future__ import annotations

from everpin_client.models import Problem


class EverpinError(Exception):
    """Base of everything this package raises on purpose.

    `problem`: what the API said; None where no answer came or it was not the API's. `status`: of the HTTP answer, if there was one.
    `retry_after_s`: seconds after which the server wants to be asked again, if it said so. `attempts`: requests that were sent for this call.
    """

    def __init__(
        self, message: str, *, problem: Problem | None = None, status: int | None = None, retry_after_s: float | None = None, attempts: int = 0
    ) -> None:
        super().__init__(message)
        self.problem = problem
        self.status = status
        self.retry_after_s = retry_after_s
        self.attempts = attempts

    @property
    def request_id(self) -> str | None:
        """The id to name in a report."""
        return self.problem.instance if self.problem else None


class BadRequest(EverpinError):
    """The request does not fit the API: `problem.errors` says where. Status 400, 413 or 422; None when this package saw it before sending."""


class CursorGone(BadRequest):
    """The cursor is of a model that is no longer live: begin with the first page again. Status 410."""


class Unauthorized(EverpinError):
    """No key or an unknown one (401), or one without the scope that this call needs (403)."""


class NotFound(EverpinError):
    """No such pin. Status 404."""


class RateLimited(EverpinError):
    """This key asked more often than it may. Status 429."""


class Unavailable(EverpinError):
    """No connection, a broken one, overload, or a store that does not answer: status 502, 503, 504, or None."""


class DeadlineExceeded(Unavailable):
    """The call's time ended before an answer came."""

    @classmethod
    def after(cls, deadline_s: float, attempts: int) -> DeadlineExceeded:
        """The error of a call that had `deadline_s` seconds."""
        return cls(f"no answer within {deadline_s:g} s (requests sent: {attempts}); give a longer deadline_s", attempts=attempts)


class UnexpectedAnswer(EverpinError):
    """A failure of the server, or an answer that does not fit this client's models: is the server of another version?"""


def error_class(status: int) -> type[EverpinError]:
    """The class of an HTTP status that is not success."""
    named = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 410: CursorGone, 429: RateLimited, 502: Unavailable, 503: Unavailable, 504: Unavailable}
    if status in named:
        return named[status]
    return BadRequest if 400 <= status < 500 else UnexpectedAnswer
