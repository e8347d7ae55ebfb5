"""Real Chromium (Debian's) driven by Playwright, on a small fake of the API. Every page is watched: no error, no request elsewhere."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.fake import FakeEverpin, build_app
from tests.services import unavailable
from tests.serving import hosted

PATIENCE_MS = 8_000


@dataclass
class Watch:
    """What a page said and where it turned to. `forgiven`: console errors that a test brings about on purpose."""

    forgiven: str = ""
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def follow(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.errors.append(f"exception: {error}"))
        page.on("console", lambda message: self.errors.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))

    def check(self, host: str) -> None:
        unforgiven = [error for error in self.errors if not (self.forgiven and self.forgiven in error)]
        assert not unforgiven, "errors in the console"
        assert self.hosts <= {host, ""}, "requests to another origin"


def until(page: Page, script: str, holds: Callable[[Any], bool]) -> Any:
    """The value of a script once it holds. (Playwright's own wait evaluates in the page, which its content security policy forbids.)"""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not holds(value := page.evaluate(script)):
        assert time.monotonic() < deadline, f"still {value!r} after {PATIENCE_MS} ms: {script}"
        page.wait_for_timeout(30)
    return value


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        unavailable("the browser tests need Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def everpin() -> Iterator[tuple[FakeEverpin, str]]:
    fake = FakeEverpin()
    with hosted(build_app(fake)) as url:
        yield fake, url


@pytest.fixture
def fake(everpin: tuple[FakeEverpin, str]) -> FakeEverpin:
    everpin[0].reset()
    return everpin[0]


@pytest.fixture
def watch() -> Watch:
    return Watch()


Visit = Callable[..., Page]


@pytest.fixture
def blank(chromium: Browser, watch: Watch) -> Iterator[Visit]:
    """Make a watched page: `blank(width=1280, height=860, scheme="light", **more)`."""
    contexts = []

    def make(width: int = 1280, height: int = 860, scheme: str = "light", motion: str = "reduce", **more: object) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion, **more)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        watch.follow(page)
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def visit(blank: Visit, watch: Watch, fake: FakeEverpin, everpin: tuple[FakeEverpin, str]) -> Iterator[Visit]:
    """Open the page at an address such as `#/search?q=herbs`; what it did is checked at the end."""
    url = everpin[1]

    def go(address: str = "", **how: object) -> Page:
        page = blank(**how)
        page.goto(f"{url}/{address}")
        return page

    yield go
    watch.check(urlsplit(url).netloc)
