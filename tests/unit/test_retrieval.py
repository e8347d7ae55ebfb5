from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from pins.changes import IndexedPin
from pins.features import UserAction
from pins.ports import PointWrite, Vector
from pins.retrieval.feed import HISTORY, INTERESTS, SAME_INTEREST_COSINE, home_feed
from pins.retrieval.results import Result
from tests.fakes import FakeIndex
from tests.unit.samples import T0

DAY_US = 86_400_000_000


def at(axis: int, cosine: float = 1.0, beside: int = 7) -> Vector:
    """A unit vector at this cosine to an axis, leaning towards another."""
    vector = np.zeros(8, np.float32)
    vector[axis], vector[beside] = cosine, np.sqrt(1 - cosine**2)
    return vector


def index_of(vectors: dict[str, Vector | None], **fields: object) -> FakeIndex:
    index = FakeIndex()
    for created, (pin_id, vector) in enumerate(vectors.items()):
        shown = {"title": f"title of {pin_id}", "created_at_us": T0 + created, "lang": "en"} | fields
        index.write([PointWrite(IndexedPin(pin_id, 1, dead=False, embedded=vector is not None, model_id="fake-v1", fields=shown), None, vector)])
    return index


def bury(index: FakeIndex, pin_id: str) -> None:
    index.write([PointWrite(IndexedPin(pin_id, 2, dead=True, embedded=False, model_id="fake-v1"), 1 if pin_id in index.points else None)])


def ids(results: Sequence[Result]) -> list[str]:
    return [result.pin_id for result in results]


def saved(*pin_ids: str, days_ago: float = 0) -> list[UserAction]:
    return [UserAction(pin_id, "save", round(T0 - days_ago * DAY_US) - place) for place, pin_id in enumerate(pin_ids)]


def test_a_user_without_history_gets_the_newest_pins() -> None:
    index = index_of({"old": at(0), "textless": None, "gone": at(1), "new": at(2)})
    bury(index, "gone")
    results = home_feed([], index, T0)
    assert ids(results) == ["new", "old"]
    assert [(result.why, result.score, result.title) for result in results] == [("new", 0.0, "title of new"), ("new", 0.0, "title of old")]
    assert ids(home_feed([], index, T0, limit=1)) == ["new"]


def test_pins_created_at_the_same_time_are_in_order_of_their_ids() -> None:
    assert ids(home_feed([], index_of({"b": at(0), "a": at(1)}, created_at_us=T0), T0)) == ["a", "b"]


def test_a_history_of_pins_that_are_gone_counts_as_none_but_for_what_was_seen() -> None:
    index = index_of({"a": at(0), "b": at(1), "gone": at(2)})
    bury(index, "gone")
    assert ids(home_feed(saved("gone", "unknown"), index, T0)) == ["b", "a"]


def test_a_feed_is_like_what_was_saved_and_holds_nothing_seen() -> None:
    index = index_of({"chair": at(0), "seen": at(0, 0.9), "stool": at(0, 0.8, beside=1), "soup": at(2)})
    results = home_feed(saved("chair", "seen"), index, T0)
    assert ids(results)[0] == "stool"
    assert {"chair", "seen"}.isdisjoint(ids(results))
    assert results[0].why.startswith("you saved ")


def test_a_pin_seen_before_the_latest_actions_is_left_out_too() -> None:
    index = index_of({"chair": at(0), "seen long ago": at(0, 0.9), "stool": at(0, 0.8, beside=1)})
    recent = [UserAction("chair", "save", T0 - n) for n in range(HISTORY)]
    assert ids(home_feed([*recent, *saved("seen long ago", days_ago=300)], index, T0)) == ["stool"]


def test_a_feed_leaves_out_near_duplicates_of_what_was_saved() -> None:
    index = index_of({"chair": at(0), "copy": at(0, 0.999), "stool": at(0, 0.8)})
    assert ids(home_feed(saved("chair"), index, T0)) == ["stool"]


def test_interests_take_turns() -> None:
    vectors = {"chair": at(0, beside=6), "soup": at(1, beside=6)}
    vectors |= {f"chair {n}": at(0, cosine, beside=4) for n, cosine in enumerate((0.9, 0.75, 0.55))}
    vectors |= {f"soup {n}": at(1, cosine, beside=5) for n, cosine in enumerate((0.9, 0.75, 0.55))}
    results = home_feed(saved("chair", "chair") + saved("soup", days_ago=1), index_of(vectors), T0, limit=6)
    assert ids(results) == ["chair 0", "soup 0", "chair 1", "soup 1", "chair 2", "soup 2"]
    assert [result.why for result in results] == ["you saved chair", "you saved soup"] * 3
    assert ids(home_feed(saved("chair", "soup"), index_of(vectors), T0, limit=3)) == ids(results)[:3]


def test_an_interest_that_has_run_out_leaves_its_turns_to_the_others() -> None:
    copies = {f"copy {n}": at(0, 0.999 - n / 10_000) for n in range(6)}
    soups = {f"soup {n}": at(1, cosine, beside=5) for n, cosine in enumerate((0.95, 0.8, 0.6, 0.4, 0.2, 0.0))}
    index = index_of({"chair": at(0), "soup": at(1), **copies, **soups})
    assert ids(home_feed(saved("chair", "soup"), index, T0, limit=3)) == ["soup 0", "soup 1", "soup 2"]


def test_a_pin_found_by_two_interests_is_shown_once() -> None:
    between = (at(0) + at(1)) / np.sqrt(np.float32(2))
    results = home_feed(saved("a", "b"), index_of({"a": at(0), "b": at(1), "both": between}), T0)
    assert ids(results) == ["both"]
    assert results[0].why == "you saved a"


def test_the_interest_with_more_and_younger_actions_leads() -> None:
    index = index_of({"chair": at(0), "soup": at(1), "a chair": at(0, 0.9, beside=4), "a soup": at(1, 0.9, beside=5)})
    often = saved("chair", "chair", "chair", days_ago=1) + saved("soup")
    assert ids(home_feed(often, index, T0))[0] == "a chair"
    long_ago = saved("chair", "chair", "chair", days_ago=300) + saved("soup")
    assert ids(home_feed(long_ago, index, T0))[0] == "a soup"


def test_an_action_from_the_future_weighs_no_more_than_one_of_now() -> None:
    index = index_of({"chair": at(0), "soup": at(1), "a chair": at(0, 0.9, beside=4), "a soup": at(1, 0.9, beside=5)})
    assert ids(home_feed(saved("chair", days_ago=-300) + saved("soup", "soup"), index, T0))[0] == "a soup"


def test_only_the_strongest_interests_are_asked() -> None:
    vectors = {f"saved {axis}": at(axis) for axis in range(5)} | {f"like {axis}": at(axis, 0.9, beside=7) for axis in range(5)}
    results = home_feed(saved(*(f"saved {axis}" for axis in range(5))), index_of(vectors), T0)
    assert {result.why for result in results} == {f"you saved saved {axis}" for axis in range(INTERESTS)}


def test_pins_of_one_interest_are_spoken_for_by_their_medoid() -> None:
    vectors = {"edge": at(0, 0.6, beside=1), "middle": at(0, 0.95, beside=1), "other edge": at(0, 0.9, beside=2), "found": at(0, 0.9, beside=3)}
    assert all(float(vectors["edge"] @ vectors[other]) > SAME_INTEREST_COSINE for other in ("middle", "other edge"))
    results = home_feed(saved("edge", "middle", "other edge"), index_of(vectors), T0)
    assert [(result.pin_id, result.why) for result in results] == [("found", "you saved middle")]


def test_a_pin_joins_the_nearest_interest() -> None:
    lean = (0.6 * at(0) + 0.8 * at(1)).astype(np.float32)
    vectors = {"chair": at(0), "soup": at(1), "lean": lean, "another soup": at(1, 0.9, beside=3)}
    results = home_feed(saved("chair", "soup", "lean"), index_of(vectors), T0)
    assert (results[0].pin_id, results[0].why) == ("another soup", "you saved soup")


def test_the_order_of_a_history_does_not_matter() -> None:
    index = index_of({"chair": at(0), "soup": at(1), "a chair": at(0, 0.9, beside=4), "a soup": at(1, 0.9, beside=5)})
    history = saved("chair", "soup", "chair")
    assert home_feed(history[::-1], index, T0) == home_feed(history, index, T0)


def test_a_feed_is_repeatable_for_actions_of_the_same_moment() -> None:
    index = index_of({"chair": at(0), "soup": at(1), "a chair": at(0, 0.9, beside=4), "a soup": at(1, 0.9, beside=5)})
    actions = [UserAction("soup", "save", T0), UserAction("chair", "save", T0)]
    assert home_feed(actions, index, T0) == home_feed(actions[::-1], index, T0)
    assert ids(home_feed(actions, index, T0)) == ["a chair", "a soup"]


def test_interests_do_not_depend_on_the_order_of_actions_of_the_same_moment() -> None:
    lean = (0.6 * at(0) + 0.8 * at(1)).astype(np.float32)
    index = index_of({"chair": at(0), "lean": lean, "soup": at(1), "a chair": at(0, 0.9, beside=4), "a soup": at(1, 0.9, beside=5)})
    orders = permutations([UserAction(pin_id, "save", T0) for pin_id in ("chair", "lean", "soup")])
    assert len({tuple((result.pin_id, result.why) for result in home_feed(actions, index, T0)) for actions in orders}) == 1
