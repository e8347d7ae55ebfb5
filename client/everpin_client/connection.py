"""What the blocking and the asynchronous client share: where the API is, the key, the time limits, and what an answer means."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from everpin_client.calls import Call
from everpin_client.errors import BadRequest, DeadlineExceeded, EverpinError, RateLimited, Unavailable, UnexpectedAnswer, error_class
from everpin_client.models import Problem
from everpin_client.retries import Attempts, Retries, RetryBudget, retry_after_s

A = TypeVar("A", bound=BaseModel)

log = logging.getLogger("everpin_client")
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
BROKEN = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError)
REFUSED_UNHANDLED = (429, 503)
"""The server says that it did not do what was asked; so anything may be sent again."""


@dataclass(frozen=True)
class Options:
    """How calls are made. Times in seconds: `deadline_s` for all of a call, `attempt_s` for one attempt's wait for bytes, `connect_s` to connect."""

    deadline_s: float = 10.0
    attempt_s: float = 5.0
    connect_s: float = 2.0
    retries: Retries = field(default_factory=Retries)
    budget: RetryBudget = field(default_factory=RetryBudget, compare=False)

    def __post_init__(self) -> None:
        if min(self.deadline_s, self.attempt_s, self.connect_s) <= 0:
            raise ValueError(f"deadline_s {self.deadline_s}, attempt_s {self.attempt_s} and connect_s {self.connect_s} must be above 0 seconds")

    def changed(self, deadline_s: float | None, attempts: int | None) -> Options:
        """The same, the budget too, but for what is given."""
        retries = self.retries if attempts is None else replace(self.retries, attempts=attempts)
        return replace(self, deadline_s=self.deadline_s if deadline_s is None else deadline_s, retries=retries)

    def attempts(self) -> Attempts:
        """The attempts of a call that begins now."""
        return Attempts(self.retries, self.budget, self.deadline_s, time.monotonic)


class BearerKey(httpx.Auth):
    """Sends an API key, and shows it nowhere: no repr, no error message and no header dictionary of ours holds it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "BearerKey(...)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


def api_address(url: str | None) -> str:
    """The API's address from the argument or EVERPIN_URL. Raises ValueError for one that cannot be one."""
    address = url or os.environ.get("EVERPIN_URL", "")
    try:
        parsed = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ValueError(f"the API's address cannot be read: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the API's address is {address!r}; give it as url or in EVERPIN_URL, such as http://127.0.0.1:8600")
    if parsed.userinfo:
        raise ValueError("the API's address holds a user name or password; leave it out, and give a key as api_key or in EVERPIN_API_KEY")
    return address


def bearer(api_key: str | None) -> BearerKey | None:
    """The key from the argument or EVERPIN_API_KEY; None without one. Raises ValueError, without the key, for what no header can hold."""
    key = (os.environ.get("EVERPIN_API_KEY", "") if api_key is None else api_key).strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ValueError("the API key holds characters that no key has; copy it whole, as `everpin keys add` printed it")
    return BearerKey(key) if key else None


def user_agent() -> str:
    """How the client names itself to the server."""
    try:
        return f"everpin-client/{version('everpin-client')}"
    except PackageNotFoundError:
        return "everpin-client"


def request(http: httpx.Client | httpx.AsyncClient, call: Call[A], attempts: Attempts, options: Options) -> httpx.Request:
    """The next attempt's request, with no more time than the call has left. Raises BadRequest, DeadlineExceeded."""
    attempts.check()
    left_s = attempts.left_s
    timeout = httpx.Timeout(min(options.attempt_s, left_s), connect=min(options.connect_s, left_s), pool=left_s)
    headers = {} if call.body is None else {"Content-Type": "application/json"}
    try:
        made = http.build_request(call.method, call.path, params=call.params or None, content=call.content(), headers=headers, timeout=timeout)
    except (ValueError, httpx.InvalidURL) as error:
        raise BadRequest(f"not sent, no address can hold these parameters: {error}") from error
    attempts.sent += 1
    return made


def answered(call: Call[A], attempts: Attempts, budget: RetryBudget, response: httpx.Response, content: bytes) -> A | EverpinError:
    """What an answer means: the model it holds, or the error it is, to be raised or to be tried again."""
    if not response.is_success:
        return _refused(response, content, attempts.sent)
    try:
        answer = call.answer.model_validate_json(content)
    except ValidationError as error:
        where = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'answer'}: {item['msg']}" for item in error.errors()[:5])
        said = f"{call.method} {call.path}: HTTP {response.status_code} without a {call.answer.__name__} ({where})"
        raise UnexpectedAnswer(f"{said}; is the server of another version?", status=response.status_code, attempts=attempts.sent) from error
    budget.succeeded()
    return answer


def may_repeat(call: Call[A], error: EverpinError) -> bool:
    """Whether a call that failed like this may be sent again: it was not handled, or sending it twice does no harm."""
    if isinstance(error.__cause__, NEVER_SENT) or error.status in REFUSED_UNHANDLED:
        return True
    return call.repeatable and isinstance(error, Unavailable | RateLimited)


def broken(error: httpx.RequestError, attempts: Attempts) -> EverpinError:
    """The error of an attempt that got no whole answer."""
    said = str(error) or type(error).__name__
    made: EverpinError
    if isinstance(error, BROKEN):
        made = Unavailable(f"no answer from {error.request.url.host}: {said} (attempt {attempts.sent})", attempts=attempts.sent)
    else:
        made = UnexpectedAnswer(f"{error.request.url.host}: {said}", attempts=attempts.sent)
    made.__cause__ = error
    return made


def pause_s(call: Call[A], attempts: Attempts, error: EverpinError) -> float:
    """Seconds to wait before the next attempt. Raises the error where there is to be none, or DeadlineExceeded where time ran out."""
    wait = attempts.wait_s(error.retry_after_s) if may_repeat(call, error) else None
    if wait is not None:
        log.info("%s %s: attempt %d failed, next in %.2f s: %s", call.method, call.path, attempts.sent, wait, error)
        return wait
    if attempts.left_s <= 0:
        raise DeadlineExceeded.after(attempts.deadline_s, attempts.sent) from error
    raise error


def _refused(response: httpx.Response, content: bytes, sent: int) -> EverpinError:
    problem = _problem(content)
    detail = f"{problem.title}: {problem.detail} (request {problem.instance})" if problem else f"no problem document: {content[:200]!r}"
    after = retry_after_s(response.headers.get("Retry-After"))
    kind = error_class(response.status_code)
    return kind(f"HTTP {response.status_code}, {detail}", problem=problem, status=response.status_code, retry_after_s=after, attempts=sent)


def _problem(content: bytes) -> Problem | None:
    try:
        return Problem.model_validate_json(content)
    except ValidationError:
        return None
