"""One server for all tests of the client, cleared before each; and both clients, driven alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from everpin_client import AsyncEverpin, Everpin, Options, Retries, RetryBudget
from tests.client.stage import Stage, running

QUICK = Retries(base_s=0.001, cap_s=0.005)


@pytest.fixture(scope="session")
def server() -> Iterator[Stage]:
    with running() as stage:
        yield stage


@pytest.fixture
def stage(server: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.delenv("EVERPIN_API_KEY", raising=False)
    monkeypatch.delenv("EVERPIN_URL", raising=False)
    server.plays.clear()
    server.asked.clear()
    server.pages = 1
    return server


class Driver:
    """Makes calls with one of the clients: `ask(lambda client: client.search("herbs"))`, one outcome for each; an error is an outcome."""

    def __init__(self, stage: Stage, awaits: bool) -> None:
        self.stage, self.awaits = stage, awaits

    def ask(self, *acts: Callable[[Any], Any], url: str = "", api_key: str | None = None, **options: Any) -> list[Any]:
        given: dict[str, Any] = {"retries": QUICK, "budget": RetryBudget()} | options
        made = Options(**given)
        where = url or self.stage.url
        return asyncio.run(self._awaited(acts, where, api_key, made)) if self.awaits else self._blocking(acts, where, api_key, made)

    def one(self, act: Callable[[Any], Any], **options: Any) -> Any:
        return self.ask(act, **options)[0]

    def _blocking(self, acts: tuple[Callable[[Any], Any], ...], url: str, api_key: str | None, options: Options) -> list[Any]:
        outcomes: list[Any] = []
        with Everpin(url, api_key=api_key, options=options) as client:
            for act in acts:
                try:
                    made = act(client)
                    outcomes.append(list(made) if hasattr(made, "__next__") else made)
                except Exception as error:
                    outcomes.append(error)
        return outcomes

    async def _awaited(self, acts: tuple[Callable[[Any], Any], ...], url: str, api_key: str | None, options: Options) -> list[Any]:
        outcomes: list[Any] = []
        async with AsyncEverpin(url, api_key=api_key, options=options) as client:
            for act in acts:
                try:
                    made = act(client)
                    outcomes.append([page async for page in made] if hasattr(made, "__anext__") else await made)
                except Exception as error:
                    outcomes.append(error)
        return outcomes


@pytest.fixture(params=["Everpin", "AsyncEverpin"])
def client(request: pytest.FixtureRequest, stage: Stage) -> Driver:
    return Driver(stage, awaits=request.param == "AsyncEverpin")
