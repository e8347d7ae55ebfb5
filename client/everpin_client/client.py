"""The two clients: `Everpin` blocks, `AsyncEverpin` awaits. Each method is a call of `everpin_client.calls`, sent; errors are in `.errors`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from copy import copy
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
from pydantic import BaseModel

from everpin_client import calls
from everpin_client.calls import Call
from everpin_client.connection import Options, answered, api_address, bearer, broken, pause_s, request, user_agent
from everpin_client.errors import DeadlineExceeded, EverpinError, UnexpectedAnswer
from everpin_client.methods import named_like
from everpin_client.models import FeedAnswer, RelatedAnswer, SearchAnswer
from everpin_client.retries import Attempts

P = ParamSpec("P")
A = TypeVar("A", bound=BaseModel)
PAGES = "Page after page until the last. CursorGone: the model changed on the way; begin again."
PageOf = TypeVar("PageOf", SearchAnswer, RelatedAnswer, FeedAnswer)


def _method(build: Callable[P, Call[A]]) -> Callable[Concatenate[Everpin, P], A]:
    def method(client: Everpin, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return client.send(build(*args, **kwargs))

    return named_like(build, method, "{}")


def _pages(build: Callable[P, Call[PageOf]]) -> Callable[Concatenate[Everpin, P], Iterator[PageOf]]:
    def pages(client: Everpin, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[PageOf]:
        return client.send_pages(build(*args, **kwargs))

    return named_like(build, pages, "Iterator[{}]", PAGES)


def _async_method(build: Callable[P, Call[A]]) -> Callable[Concatenate[AsyncEverpin, P], Coroutine[Any, Any, A]]:
    async def method(client: AsyncEverpin, /, *args: P.args, **kwargs: P.kwargs) -> A:
        return await client.send(build(*args, **kwargs))

    return named_like(build, method, "{}")


def _async_pages(build: Callable[P, Call[PageOf]]) -> Callable[Concatenate[AsyncEverpin, P], AsyncIterator[PageOf]]:
    def pages(client: AsyncEverpin, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[PageOf]:
        return client.send_pages(build(*args, **kwargs))

    return named_like(build, pages, "AsyncIterator[{}]", PAGES)


class Everpin:
    """A blocking client; use it as a context manager, or close it. Threads may share one.

    `url` or EVERPIN_URL: the API's address. `api_key` or EVERPIN_API_KEY: the key, if the server asks for one.
    `options`: time limits and retries. Raises ValueError for an address or key that cannot be one.
    """

    def __init__(self, url: str | None = None, *, api_key: str | None = None, options: Options | None = None) -> None:
        self._options = options or Options()
        self._http = httpx.Client(base_url=api_address(url), auth=bearer(api_key), headers={"User-Agent": user_agent()})

    search = _method(calls.search)
    search_pages = _pages(calls.search)
    related = _method(calls.related)
    related_pages = _pages(calls.related)
    feed = _method(calls.feed)
    feed_pages = _pages(calls.feed)
    embed = _method(calls.embed)
    pin = _method(calls.pin)
    map = _method(calls.map_pins)
    edit_pin = _method(calls.edit_pin)
    send_events = _method(calls.send_events)
    send_actions = _method(calls.send_actions)

    def with_options(self, *, deadline_s: float | None = None, attempts: int | None = None) -> Self:
        """The same client, connections and retry budget, with other limits for the calls made through it: `everpin.with_options(deadline_s=1).search(...)`."""
        twin = copy(self)
        twin._options = self._options.changed(deadline_s, attempts)
        return twin

    def send(self, call: Call[A]) -> A:
        """Send a call until it is answered, refused for good, or out of time. Raises EverpinError.

        The deadline is looked at between reads: a body that trickles in ends at most `attempt_s` after it.
        """
        attempts = self._options.attempts()
        while True:
            outcome = self._attempt(call, attempts)
            if not isinstance(outcome, EverpinError):
                return outcome
            time.sleep(pause_s(call, attempts, outcome))

    def send_pages(self, call: Call[PageOf]) -> Iterator[PageOf]:
        """Send a call, then the same for each next page. Raises EverpinError."""
        seen: set[str] = set()
        while True:
            page = self.send(call)
            yield page
            if page.cursor is None:
                return
            call = _next_page(call, page.cursor, seen)

    def _attempt(self, call: Call[A], attempts: Attempts) -> A | EverpinError:
        made = request(self._http, call, attempts, self._options)
        try:
            response = self._http.send(made, stream=True)
            try:
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    attempts.check()
            finally:
                response.close()
        except httpx.RequestError as error:
            return broken(error, attempts)
        return answered(call, attempts, self._options.budget, response, b"".join(chunks))

    def close(self) -> None:
        """Close the connections, of clients made by `with_options` too."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r})"


class AsyncEverpin:
    """The client for asyncio; the same arguments and methods as `Everpin`, to be awaited. Tasks of one event loop may share one."""

    def __init__(self, url: str | None = None, *, api_key: str | None = None, options: Options | None = None) -> None:
        self._options = options or Options()
        self._http = httpx.AsyncClient(base_url=api_address(url), auth=bearer(api_key), headers={"User-Agent": user_agent()})

    search = _async_method(calls.search)
    search_pages = _async_pages(calls.search)
    related = _async_method(calls.related)
    related_pages = _async_pages(calls.related)
    feed = _async_method(calls.feed)
    feed_pages = _async_pages(calls.feed)
    embed = _async_method(calls.embed)
    pin = _async_method(calls.pin)
    map = _async_method(calls.map_pins)
    edit_pin = _async_method(calls.edit_pin)
    send_events = _async_method(calls.send_events)
    send_actions = _async_method(calls.send_actions)

    def with_options(self, *, deadline_s: float | None = None, attempts: int | None = None) -> Self:
        """As `Everpin.with_options`."""
        twin = copy(self)
        twin._options = self._options.changed(deadline_s, attempts)
        return twin

    async def send(self, call: Call[A]) -> A:
        """Send a call until it is answered, refused for good, or out of time. Raises EverpinError."""
        attempts = self._options.attempts()
        try:
            async with asyncio.timeout(attempts.left_s):
                while True:
                    outcome = await self._attempt(call, attempts)
                    if not isinstance(outcome, EverpinError):
                        return outcome
                    await asyncio.sleep(pause_s(call, attempts, outcome))
        except TimeoutError as error:
            raise DeadlineExceeded.after(attempts.deadline_s, attempts.sent) from error

    async def send_pages(self, call: Call[PageOf]) -> AsyncIterator[PageOf]:
        """Send a call, then the same for each next page. Raises EverpinError."""
        seen: set[str] = set()
        while True:
            page = await self.send(call)
            yield page
            if page.cursor is None:
                return
            call = _next_page(call, page.cursor, seen)

    async def _attempt(self, call: Call[A], attempts: Attempts) -> A | EverpinError:
        made = request(self._http, call, attempts, self._options)
        try:
            response = await self._http.send(made)
        except httpx.RequestError as error:
            return broken(error, attempts)
        return answered(call, attempts, self._options.budget, response, response.content)

    async def aclose(self) -> None:
        """Close the connections, of clients made by `with_options` too."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._http.base_url)!r})"


def _next_page(call: Call[PageOf], cursor: str, seen: set[str]) -> Call[PageOf]:
    if cursor in seen:
        raise UnexpectedAnswer(f"{call.method} {call.path}: the server gave the same cursor twice, so its pages have no end; report it")
    seen.add(cursor)
    return call.from_cursor(cursor)
