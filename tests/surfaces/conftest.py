from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.surfaces.parts import Running, running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One application for a whole file, whose tests change nothing in it."""
    with running(tmp_path_factory.mktemp("surface")) as parts:
        yield parts
