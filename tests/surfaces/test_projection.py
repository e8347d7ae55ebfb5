from __future__ import annotations

import numpy as np
import pytest

from surfaces.projection import project


def cloud(categories: int, each: int = 40, width: int = 16) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(7)
    middles = 3 * rng.normal(size=(categories, width))
    return np.concatenate([middle + rng.normal(size=(each, width)) for middle in middles]), [f"c{number}" for number in range(categories) for _ in range(each)]


def test_categories_lie_apart() -> None:
    vectors, labels = cloud(4)
    places = project(vectors, labels)
    middles = np.stack([places[[label == name for label in labels]].mean(axis=0) for name in sorted(set(labels))])
    nearest = np.argmin(((places[:, None] - middles[None]) ** 2).sum(axis=2), axis=1)
    assert (nearest == [int(label[1]) for label in labels]).mean() > 0.9


@pytest.mark.parametrize(("categories", "each"), [(1, 30), (2, 30), (5, 1), (1, 2)])
def test_every_place_lies_within_the_frame(categories: int, each: int) -> None:
    places = project(*cloud(categories, each))
    assert places.shape == (categories * each, 2)
    assert np.isfinite(places).all()
    assert (np.abs(places) <= 1).all()


@pytest.mark.parametrize("pins", [0, 1])
def test_nothing_to_project(pins: int) -> None:
    assert project(np.ones((pins, 4)), ["a"] * pins).shape == (pins, 2)


def test_equal_vectors_share_a_place() -> None:
    assert (project(np.ones((5, 4)), list("abcde")) == 0).all()
