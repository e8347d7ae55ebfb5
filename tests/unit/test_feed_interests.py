from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.cluster.hierarchy import fcluster, linkage

from pins.actions import KEPT_US, MOST_ACTIONS
from pins.features import UserAction
from pins.ports import Vector
from pins.retrieval.interests import DAY_US, Interest, drawn, interest, interests, pin_weights, recent, ward
from tests.unit.samples import T0


def scipy_ward(vectors: Vector, merge_distance: float) -> list[list[int]]:
    labels = fcluster(linkage(vectors.astype(np.float64), "ward"), merge_distance, "distance")
    return sorted(np.flatnonzero(labels == label).tolist() for label in set(labels.tolist()))


def clouds(seed: int, rows: int, dimension: int = 16) -> Vector:
    chance = np.random.default_rng(seed)
    middles = chance.normal(size=(1 + rows // 8, dimension))
    vectors = middles[chance.integers(len(middles), size=rows)] + 0.5 * chance.normal(size=(rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rows", [2, 3, 7, 40, 150])
@pytest.mark.parametrize("merge_distance", [0.0, 0.3, 0.7, 1.0, 1.3, 2.0, 9.0])
def test_clusters_are_those_of_scipy(rows: int, merge_distance: float) -> None:
    vectors = clouds(rows, rows)
    assert ward(vectors, merge_distance) == scipy_ward(vectors, merge_distance)


@settings(deadline=None)
@given(arrays.arrays(np.float64, st.tuples(st.integers(2, 9), st.just(3)), elements=st.integers(-3, 3)), st.floats(0, 8))
def test_every_row_is_in_one_cluster_and_equal_rows_are_together(rows: Vector, merge_distance: float) -> None:
    """Rows on a grid have many ties, which Ward's method may break either way."""
    clusters = ward(rows, merge_distance)
    assert sorted(place for cluster in clusters for place in cluster) == list(range(len(rows)))
    of = {place: number for number, cluster in enumerate(clusters) for place in cluster}
    assert all(of[one] == of[other] for one in of for other in of if (rows[one] == rows[other]).all())
    assert len(ward(rows, merge_distance + 1)) <= len(clusters)


def test_no_number_of_clusters_is_given() -> None:
    assert ward(np.eye(40, dtype=np.float32), 1.0) == [[place] for place in range(40)]
    assert ward(np.eye(40, dtype=np.float32), 99.0) == [list(range(40))]
    assert ward(np.zeros((0, 4), np.float32), 1.0) == []


def test_distance_of_merging_grows_with_the_clusters() -> None:
    """Two pairs whose centroids are 1 apart are sqrt(2 * 2 * 2 / 4) apart in Ward's sense."""
    rows = np.array([[0.0, 0], [0, 0], [1, 0], [1, 0]])
    assert ward(rows, math.sqrt(2) - 1e-9) == [[0, 1], [2, 3]]
    assert ward(rows, math.sqrt(2) + 1e-9) == [[0, 1, 2, 3]]


def unit(*values: float) -> Vector:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def test_an_interest_is_spoken_for_by_its_medoid_and_weighs_what_its_pins_weigh() -> None:
    vectors = {"edge": unit(1, 0.5, 0), "middle": unit(1, 0, 0), "other": unit(1, -0.5, 0), "far": unit(0, 0, 1)}
    groups = interests({"edge": 1.0, "middle": 0.5, "other": 0.25, "far": 0.5, "gone": 9.0}, vectors, 1.2)
    assert [(group.medoid, set(group.pins), group.weight) for group in groups] == [("middle", {"edge", "middle", "other"}, 1.75), ("far", {"far"}, 0.5)]
    assert groups[0].pins[0] == "middle"
    assert (groups[0].vector == vectors["middle"]).all()
    assert interests({"gone": 1.0}, {}, 1.0) == []


def test_interests_do_not_depend_on_the_order_of_the_pins() -> None:
    vectors = {f"p{place}": row for place, row in enumerate(clouds(3, 30))}
    forward, backward = dict.fromkeys(vectors, 1.0), dict.fromkeys(reversed(vectors), 1.0)
    assert [(g.medoid, g.pins) for g in interests(forward, vectors, 1.0)] == [(g.medoid, g.pins) for g in interests(backward, vectors, 1.0)]


def test_importance_halves_in_69_days() -> None:
    actions = [UserAction("now", "save", T0), UserAction("then", "click", T0 - round(69.3147 * DAY_US)), UserAction("ahead", "save", T0 + DAY_US)]
    assert pin_weights(actions, T0, 0.01) == pytest.approx({"now": 1.0, "then": 0.5, "ahead": 1.0}, abs=1e-6)
    assert pin_weights([*actions, UserAction("then", "save", T0)], T0, 0.01)["then"] == pytest.approx(1.5)
    assert set(pin_weights(actions, T0, 0.0).values()) == {1.0}


def test_what_counts_is_the_latest_of_the_last_90_days_before_the_last_action() -> None:
    actions = [UserAction("old", "save", T0 - KEPT_US - 1), UserAction("kept", "save", T0 - KEPT_US), UserAction("latest", "click", T0)]
    assert [action.pin_id for action in recent(actions, T0)] == ["latest", "kept"]
    assert [action.pin_id for action in recent(actions, T0 + 10 * KEPT_US)] == ["latest", "kept"], "who comes back finds his interests"
    assert [action.pin_id for action in recent([*actions, UserAction("ahead", "save", T0 + KEPT_US)], T0)] == ["ahead", "latest", "kept"]
    many = [UserAction(f"p{n}", "save", T0 - n) for n in range(MOST_ACTIONS + 3)]
    assert len(recent(many, T0)) == MOST_ACTIONS
    assert recent([UserAction("", "forgotten", T0)], T0) == []
    assert recent([], T0) == []


def of_weight(medoid: str, weight: float) -> Interest:
    return Interest(medoid, (medoid,), weight, unit(1, 0))


def test_interests_are_drawn_in_proportion_to_their_weight() -> None:
    groups = [of_weight("a", 6.0), of_weight("b", 3.0), of_weight("c", 1.0)]
    first = Counter(drawn(groups, 1, seed)[0].medoid for seed in range(4000))
    assert {name: round(count / 4000, 1) for name, count in first.items()} == {"a": 0.6, "b": 0.3, "c": 0.1}
    second = Counter(drawn(groups, 2, seed)[1].medoid for seed in range(4000) if drawn(groups, 1, seed)[0].medoid == "a")
    assert second["b"] / second.total() == pytest.approx(0.75, abs=0.03), "without replacement: 3 of the 4 that are left"


def test_a_draw_is_the_seeds_and_each_interest_keeps_its_luck() -> None:
    groups = [of_weight(f"m{n}", 1.0 + n % 3) for n in range(12)]
    one = drawn(groups, 3, 5)
    assert one == drawn(groups[::-1], 3, 5)
    assert any(drawn(groups, 3, seed) != one for seed in range(6, 12))
    undrawn = next(group for group in groups if group not in one)
    assert drawn([group for group in groups if group is not undrawn], 3, 5) == one
    assert drawn(groups, 99, 5)[:3] == one
    assert len(drawn(groups, 99, 5)) == 12


def test_one_pin_is_its_own_medoid() -> None:
    alone = interest(["p"], unit(1, 0)[None], {"p": 2.0})
    assert (alone.medoid, alone.pins, alone.weight) == ("p", ("p",), 2.0)
