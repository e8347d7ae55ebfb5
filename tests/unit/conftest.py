"""The stages of the core's and the worker's tests, and Hypothesis for busy machines: no deadline per example."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import settings

from streams import worker as streams_worker
from tests.unit.house import House
from tests.unit.stream import Stream, Time

# As many examples as EVERPIN_TEST_EXAMPLES says.
settings.register_profile("everpin", deadline=None, max_examples=int(os.environ.get("EVERPIN_TEST_EXAMPLES", "60")))
settings.load_profile("everpin")


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def cosmetic() -> House:
    return House(0.4)


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.worker.close()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(streams_worker, "time", SimpleNamespace(monotonic=lambda: made.now, perf_counter=lambda: made.now))
    monkeypatch.setattr(streams_worker, "asyncio", SimpleNamespace(sleep=made.sleep, get_running_loop=asyncio.get_running_loop, gather=asyncio.gather))
    return made
