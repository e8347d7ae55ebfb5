"""One thread for torch: the students of the tests are so small that two threads wait for one another more than they compute."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    torch = sys.modules.get("torch")  # imported by the modules that need it, before their first test
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
