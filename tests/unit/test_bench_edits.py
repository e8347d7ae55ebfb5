"""What the benchmark of edits and actions takes for seen, and how it counts."""

from __future__ import annotations

import pytest

from bench.edits import Times, acted_pins, follows, new_titles, percentiles, shows_title, timed
from bench.sample import rows

HIT = {"pin_id": "p1", "title": "New", "v": 11}


@pytest.mark.parametrize(
    ("hits", "shown"),
    [
        ([HIT], True),
        ([HIT | {"pin_id": "p2"}, HIT], True),
        ([HIT | {"v": 10}], False),
        ([HIT | {"title": "Old"}], False),
        ([HIT | {"pin_id": "p2"}], False),
        ([], False),
    ],
)
def test_an_edit_is_seen_when_its_own_pin_has_the_new_title_and_a_newer_version(hits: list[dict[str, object]], shown: bool) -> None:
    assert shows_title({"results": hits}, "p1", "New", after_v=10) is shown


@pytest.mark.parametrize(
    ("interests", "results", "followed"),
    [([3, 1], ["p2"], True), ([2, 1], ["p2"], False), ([3, 1], ["p2", "p1"], False), ([], ["p2"], False)],
)
def test_a_feed_follows_when_it_counts_one_pin_more_and_shows_the_saved_one_no_longer(interests: list[int], results: list[str], followed: bool) -> None:
    feed = {"interests": [{"pins": pins} for pins in interests], "results": [{"pin_id": pin_id} for pin_id in results]}
    assert acted_pins(feed) == sum(interests)
    assert follows(feed, "p1", before=3) is followed


def test_every_edit_gives_another_pin_a_title_that_nothing_else_has() -> None:
    titles = new_titles(31)
    assert len({pin_id for pin_id, _ in titles}) == len({title for _, title in titles}) == 31
    assert not {title for _, title in titles} & {row.title for row in rows()}


def test_times_are_counted_without_the_first_and_without_what_was_never_seen() -> None:
    times = Times([500.0, 1.0, 2.0, 3.0], [900.0, 10.0, None, 30.04])
    found = times.after_the_first().summary("edit")
    assert found["edit_accepted_ms"] == {"count": 3, "p50": 2.0, "p90": 2.8, "max": 3.0}
    assert found["edit_seen_ms"] == {"count": 2, "p50": 20.0, "p90": 28.0, "max": 30.0, "unseen_within_30_s": 1, "every": [10.0, None, 30.0]}
    assert percentiles([]) == {"count": 0, "p50": None, "p90": None, "max": None}


def test_a_change_is_asked_for_until_it_shows_and_the_clock_began_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += seconds

    def takes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("bench.edits.time", Clock)
    times = Times()
    timed(lambda: takes(0.2), lambda: takes(0.05) is None and now[0] > 100.4, times)
    assert times.accepted == [pytest.approx(200)]
    assert times.seen == [pytest.approx(430)], "200 ms of the change, four answers of 50 ms, three pauses of 10 ms"
    timed(lambda: takes(0.2), lambda: False, times)
    assert times.seen[1] is None
