from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pins.changes import IndexedPin
from pins.features import UserAction
from pins.ports import Ask, Hit, PointWrite, Vector
from pins.retrieval.feed import FRESH_PLACE, NEWEST, Feed, FeedOptions, feed_seed, home_feed, newest_pins, take_turns
from pins.retrieval.interests import DAY_US
from pins.retrieval.related import RELATED_COSINE
from tests.fakes import FakeIndex
from tests.unit.samples import T0

AXES = 99
STALE = FeedOptions(fresh_days=0)
LONG_AGO = T0 - 400 * DAY_US


def at(axis: int, cosine: float = 1.0, beside: int = 7) -> Vector:
    """A unit vector at this cosine to an axis, leaning towards another."""
    vector = np.zeros(AXES, np.float32)
    vector[axis], vector[beside] = cosine, np.sqrt(1 - cosine**2)
    return vector


def index_of(vectors: dict[str, Vector | None], created_at_us: int | None = None, **fields: Any) -> FakeIndex:
    """Pins in the order in which they were created, long ago unless told otherwise."""
    index = FakeIndex()
    for created, (pin_id, vector) in enumerate(vectors.items()):
        shown = {"title": f"title of {pin_id}", "created_at_us": LONG_AGO + created if created_at_us is None else created_at_us} | fields
        index.write([PointWrite(IndexedPin(pin_id, 1, dead=False, embedded=vector is not None, model_id="fake-v1", fields=shown), None, vector)])
    return index


def bury(index: FakeIndex, pin_id: str) -> None:
    index.write([PointWrite(IndexedPin(pin_id, 2, dead=True, embedded=False, model_id="fake-v1"), 1)])


def age(index: FakeIndex, pin_id: str, days: float) -> None:
    record, vector = index.points[pin_id]
    index.points[pin_id] = replace(record, fields={**record.fields, "created_at_us": T0 - round(days * DAY_US)}), vector


def saved(*pin_ids: str, days_ago: float = 2, action: str = "save") -> list[UserAction]:
    return [UserAction(pin_id, action, round(T0 - days_ago * DAY_US) - place) for place, pin_id in enumerate(pin_ids)]


def ids(feed: Feed) -> list[str]:
    return [result.pin_id for result in feed.results]


def likes(name: str, axis: int, cosines: Sequence[float], beside: int = 10) -> dict[str, Vector]:
    """Pins at these cosines to an axis, each leaning towards an axis of its own."""
    return {f"{name} {n}": at(axis, cosine, beside + n) for n, cosine in enumerate(cosines)}


def test_a_user_without_history_gets_the_newest_pins() -> None:
    index = index_of({"old": at(0), "textless": None, "gone": at(1), "new": at(2)})
    bury(index, "gone")
    feed = home_feed([], index, T0)
    assert (feed.kind, feed.interests, ids(feed)) == ("newest", (), ["new", "old"])
    assert {(result.why, result.score, result.interest) for result in feed.results} == {("new", 0.0, None)}
    assert feed.results[0].hit.fields["title"] == "title of new"
    assert ids(home_feed([], index, T0, FeedOptions(limit=1, depth=1))) == ["new"]
    assert ids(home_feed([], FakeIndex(), T0)) == []


def test_pins_created_at_the_same_time_are_in_order_of_their_ids() -> None:
    assert ids(home_feed([], index_of({"b": at(0), "a": at(1)}, created_at_us=T0), T0)) == ["a", "b"]


def test_the_newest_pins_are_without_near_duplicates() -> None:
    assert ids(home_feed([], index_of({"chair": at(0), "soup": at(1), "copy": at(0, 0.999)}), T0)) == ["copy", "soup"]


def test_newest_pins_that_were_found_before_are_shown_as_they_are_now() -> None:
    index = index_of({"old": at(0), "gone": at(1), "edited": at(2)})
    found = newest_pins(index)
    assert [pin.pin_id for pin in found] == ["edited", "gone", "old"]
    assert [pin.pin_id for pin in newest_pins(index, 1)] == ["edited"]
    bury(index, "gone")
    record, vector = index.points["edited"]
    index.points["edited"] = replace(record, fields={**record.fields, "title": "another title"}), vector
    index.scan = None  # type: ignore[assignment]  # what is given is not looked for
    feed = home_feed([], index, T0, newest=found)
    assert [(result.pin_id, result.hit.fields["title"]) for result in feed.results] == [("edited", "another title"), ("old", "title of old")]
    assert ids(home_feed([], index, T0, newest=[])) == []
    assert FeedOptions().results <= NEWEST


def test_a_history_of_pins_that_are_gone_counts_as_none_but_for_what_was_seen() -> None:
    index = index_of({"a": at(0), "b": at(1), "gone": at(2), "textless": None})
    bury(index, "gone")
    feed = home_feed(saved("gone", "unknown", "textless"), index, T0)
    assert (feed.kind, ids(feed)) == ("newest", ["b", "a"])


def test_pins_that_are_gone_are_passed_over() -> None:
    index = index_of({"chair": at(0), "stool": at(0, 0.8, 1), "gone": at(2), "like gone": at(2, 0.9)})
    bury(index, "gone")
    feed = home_feed(saved("chair", "gone", "unknown"), index, T0)
    assert [interest.medoid for interest in feed.interests] == ["chair"]
    assert ids(feed)[0] == "stool"


def test_a_feed_is_like_what_was_saved_and_holds_nothing_seen() -> None:
    index = index_of({"chair": at(0), "seen": at(0, 0.9), "stool": at(0, 0.8, beside=1), "soup": at(2), "shown": at(0, 0.7, beside=2)})
    feed = home_feed(saved("chair", "seen"), index, T0, FeedOptions(without=frozenset({"shown"})))
    assert (feed.kind, ids(feed)) == ("interests", ["stool", "soup"])
    (interest,) = feed.interests
    assert (interest.medoid, interest.title, interest.importance, interest.pins, interest.sampled) == ("chair", "title of chair", 1.0, 2, True)
    stool = feed.results[0]
    assert (stool.interest, stool.why, stool.score) == ("chair", "you saved title of chair", pytest.approx(0.8))


def test_a_medoid_that_was_only_clicked_says_so() -> None:
    index = index_of({"chair": at(0), "stool": at(0, 0.8)})
    assert home_feed(saved("chair", action="click"), index, T0).results[0].why == "you clicked title of chair"
    assert home_feed(saved("chair", action="click") + saved("chair"), index, T0).results[0].why == "you saved title of chair"


def test_a_pin_seen_before_what_counts_is_left_out_too() -> None:
    index = index_of({"chair": at(0), "seen long ago": at(0, 0.9), "stool": at(0, 0.8, beside=1)})
    feed = home_feed([*saved("chair"), *saved("seen long ago", days_ago=300)], index, T0)
    assert (ids(feed), feed.interests[0].pins) == (["stool"], 1)


def test_a_feed_leaves_out_near_duplicates_of_what_was_saved_and_of_one_another() -> None:
    index = index_of({"chair": at(0), "copy": at(0, 0.999), "stool": at(0, 0.8), "copy of stool": at(0, 0.795)})
    assert ids(home_feed(saved("chair"), index, T0)) == ["stool"]


CHAIRS = {"chair": at(0, beside=6)} | likes("a chair", 0, (0.9, 0.75, 0.55), 10)
SOUPS = {"soup": at(1, beside=6)} | likes("a soup", 1, (0.9, 0.75, 0.55), 20)
HATS = {"hat": at(2, beside=6)} | likes("a hat", 2, (0.9, 0.75, 0.55), 30)


def test_interests_take_turns() -> None:
    feed = home_feed(saved("chair", "soup"), index_of(CHAIRS | SOUPS), T0)
    assert {result.interest for result in feed.results[:2]} == {"chair", "soup"}
    for interest in ("chair", "soup"):
        assert [result.pin_id for result in feed.results if result.interest == interest] == [f"a {interest} {n}" for n in range(3)]
    assert all(feed.results[place].interest != feed.results[place + 1].interest for place in range(5))


def test_an_interest_that_has_run_out_leaves_its_turns_to_the_others() -> None:
    copies = {f"copy {n}": at(0, 0.999 - n / 10_000) for n in range(6)}
    index = index_of({"chair": at(0), "soup": at(1), **copies, **likes("a soup", 1, (0.95, 0.8, 0.6), 20)})
    assert ids(home_feed(saved("chair", "soup"), index, T0))[:3] == ["a soup 0", "a soup 1", "a soup 2"]


def test_a_pin_found_by_two_interests_is_shown_once_for_the_nearer_one() -> None:
    between = (0.6 * at(0) + 0.8 * at(1)).astype(np.float32)
    feed = home_feed(saved("a", "b"), index_of({"a": at(0), "b": at(1), "both": between}), T0)
    assert [(result.pin_id, result.interest, result.score) for result in feed.results] == [("both", "b", pytest.approx(0.8))]


def test_the_interest_with_more_and_younger_actions_is_more_important() -> None:
    index = index_of(CHAIRS | SOUPS)
    feed = home_feed(saved("chair", "chair", "chair", days_ago=3) + saved("soup"), index, T0)
    assert [(interest.medoid, round(interest.importance, 2)) for interest in feed.interests] == [("chair", 0.75), ("soup", 0.25)]
    faded = home_feed(saved("chair", "chair", days_ago=80) + saved("soup"), index, T0, FeedOptions(decay_per_day=0.1))
    assert [interest.medoid for interest in faded.interests] == ["soup", "chair"]


def test_only_some_interests_are_asked_and_the_seed_says_which() -> None:
    vectors = {f"saved {axis}": at(axis) for axis in range(7)} | {f"like {axis}": at(axis, 0.9) for axis in range(7)}
    index, history = index_of(vectors), saved(*(f"saved {axis}" for axis in range(7)))
    feeds = [home_feed(history, index, T0, seed=seed) for seed in range(12)]
    for feed in feeds:
        assert len(feed.interests) == 7
        assert sum(interest.sampled for interest in feed.interests) == 3
        assert {result.interest for result in feed.results} == {interest.medoid for interest in feed.interests if interest.sampled}
    assert len({tuple(ids(feed)) for feed in feeds}) > 6
    assert home_feed(history, index, T0, seed=3) == feeds[3]
    assert home_feed(history[::-1], index, T0, seed=3) == feeds[3]


def test_what_was_done_today_is_felt_today() -> None:
    vectors = {f"saved {axis}": at(axis) for axis in range(7)} | {f"like {axis}": at(axis, 0.9) for axis in range(7)}
    index, often = index_of(vectors), saved(*(f"saved {axis}" for axis in range(6) for _ in range(9)))
    for seed in range(9):
        before, after = (home_feed(often + new, index, T0, seed=seed) for new in ([], saved("saved 6", days_ago=0.5)))
        drawn_before, drawn_after = ({interest.medoid for interest in feed.interests if interest.sampled} for feed in (before, after))
        assert drawn_after - drawn_before == {"saved 6"}, "the others stay"
        assert "like 6" in ids(after)[:3]
    yesterday = [home_feed(often + saved("saved 6", days_ago=1.5), index, T0, seed=seed) for seed in range(9)]
    assert not all("saved 6" in {result.interest for result in feed.results} for feed in yesterday)


def test_a_fresh_pin_has_its_place_on_each_page() -> None:
    olds = likes("old", 0, np.linspace(0.95, 0.6, 12).tolist())
    fresh = {"far": at(0, RELATED_COSINE - 0.01, 1), "near": at(0, 0.7, 1), "nearer": at(0, 0.8, 2), "stale": at(0, 0.75, 3)}
    index = index_of({"chair": at(0)} | olds | fresh)
    for pin_id, days in (("far", 1), ("near", 1), ("nearer", 6.9), ("stale", 7.1)):
        age(index, pin_id, days)
    feed = home_feed(saved("chair"), index, T0, FeedOptions(limit=6, depth=18))
    places = {result.pin_id: place for place, result in enumerate(feed.results) if result.interest is None}
    assert places == {"nearer": FRESH_PLACE, "near": 6 + FRESH_PLACE}
    assert feed.results[FRESH_PLACE].why == "new, and you saved title of chair"
    assert len(ids(feed)) == len(set(ids(feed)))
    assert not {"nearer", "near"} & {result.pin_id for result in home_feed(saved("chair"), index, T0, STALE).results if result.interest is None}
    assert ids(home_feed(saved("chair"), index, T0, FeedOptions(limit=2, depth=4)))[1] == "nearer", "the last place of a page that is shorter"
    assert "far" in ids(feed), "what is fresh and not near has no place kept, and may come in its turn"


def test_a_fresh_copy_of_what_is_there_is_not_shown_beside_it() -> None:
    index = index_of({"chair": at(0), "stool": at(0, 0.8, 1), "fresh copy": at(0, 0.799, 1), "copy of chair": at(0, 0.999)})
    age(index, "fresh copy", 1)
    age(index, "copy of chair", 1)
    assert ids(home_feed(saved("chair"), index, T0)) == ["stool"]


def test_a_feed_is_no_longer_than_asked_for_and_a_page_is_never_cut_short() -> None:
    index = index_of({"chair": at(0)} | likes("like", 0, np.linspace(0.98, -0.98, 60).tolist()))
    assert len(home_feed(saved("chair"), index, T0, FeedOptions(limit=5, depth=10)).results) == 10
    assert len(home_feed(saved("chair"), index, T0, FeedOptions(limit=30, depth=10)).results) == 30


def test_diversity_is_within_each_interest() -> None:
    index = index_of({"chair": at(0)} | {"a": at(0, 0.9, 4), "like a": at(0, 0.8, 4), "unlike": at(0, 0.7, 5)})
    assert ids(home_feed(saved("chair"), index, T0)) == ["a", "like a", "unlike"]
    assert ids(home_feed(saved("chair"), index, T0, FeedOptions(diversity=0.9))) == ["a", "unlike", "like a"]


def test_turns_go_by_score_where_nothing_is_discounted_and_round_where_much_is() -> None:
    scores, medoids = [[0.9, 0.8, 0.7], [0.5, 0.4, 0.3]], np.eye(2, dtype=np.float32)
    assert take_turns(scores, medoids, 1.0) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert take_turns(scores, medoids, 0.01) == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)]
    assert take_turns(scores, medoids, 0.6) == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)], "0.8 * 0.6 is less than 0.5, 0.7 * 0.6 more than 0.4"
    assert take_turns([[], [0.1]], medoids, 0.5) == [(1, 0)]
    assert take_turns([[-0.5, -0.6], [0.1]], medoids, 0.5)[0] == (1, 0)


def test_interests_that_are_alike_share_their_turns() -> None:
    medoids = np.stack([at(0), at(0, 0.9), at(1)])
    turns = [turn for turn, _ in take_turns([[0.8] * 40] * 3, medoids, 0.5)][:40]
    assert turns.count(2) > 1.6 * turns.count(0)
    assert abs(turns.count(0) - turns.count(1)) <= 1


@pytest.mark.parametrize("discount", [0.0, -1.0, 1.5, float("nan")])
def test_a_discount_that_is_none_is_refused(discount: float) -> None:
    with pytest.raises(ValueError, match="give a number above 0 and at most 1"):
        take_turns([[0.5]], np.eye(1, dtype=np.float32), discount)


def test_all_neighbours_come_in_one_round_trip_and_the_stages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    index, trips, stages = index_of(CHAIRS | SOUPS | HATS), list[int](), list[str]()
    answer = index.ask

    def ask(asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        trips.append(len(asks))
        return answer(asks)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        stages.append(name)
        yield

    monkeypatch.setattr(index, "ask", ask)
    home_feed(saved("chair", "soup", "hat"), index, T0, stage=stage)
    home_feed(saved("chair"), index, T0, STALE, stage=stage)
    assert trips == [6, 1]
    assert list(dict.fromkeys(stages)) == ["retrieve", "cluster", "merge"]


def test_a_hit_without_its_vector_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of({"chair": at(0), "stool": at(0, 0.8)})
    answer = index.ask
    monkeypatch.setattr(index, "ask", lambda asks: [[replace(hit, vector=None) for hit in hits] for hits in answer(asks)])
    assert ids(home_feed(saved("chair"), index, T0)) == []


def test_a_seed_stays_for_an_hour_and_is_each_users_own() -> None:
    hour = 3_600_000_000
    start = T0 - T0 % hour
    assert feed_seed("u", start) == feed_seed("u", start + hour - 1) != feed_seed("u", start + hour)
    assert feed_seed("u", start) != feed_seed("v", start)
    assert feed_seed("\ud800", start) >= 0
