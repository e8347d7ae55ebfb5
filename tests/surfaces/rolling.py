"""Two models side by side, for tests of what serving does while one is rolled out: the old one is live, the new one the candidate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from everpin.settings import SHIPPED_MODEL
from pins.rollout import Rollout
from surfaces.exposures import WAITING
from tests.surfaces.parts import BASE_MODEL, Running, running

OLD, NEW = BASE_MODEL.name, SHIPPED_MODEL.name
QUERIES = [f"{words} {number}" for number in range(10) for words in ("sourdough bread", "reading corner", "wool trousers", "balcony herbs")]


@contextmanager
def two_models(home: Path) -> Iterator[Running]:
    with running(home, (BASE_MODEL, SHIPPED_MODEL), pins=40) as made:
        made.stores.moved.point(OLD)
        yield made


def roll_out(run: Running, rollout: Rollout, *, well: bool = True) -> None:
    """`well`: serving must follow it without a problem."""
    assert run.stores.state.replace(run.stores.state.read(), rollout)
    run.surface.live.refresh()
    assert run.surface.live.problem == "" or not well


def end_rollout(run: Running) -> None:
    """The old model is live, there is no rollout, and no exposure waits."""
    run.stores.state.replace(run.stores.state.read(), None)
    run.stores.moved.point(OLD)
    run.surface.live.refresh()
    assert run.surface.live.problem == ""
    run.surface.exposures._drain(WAITING)
