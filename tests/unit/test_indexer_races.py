"""Lost races, stores that do not answer, and the isolation of a culprit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pins.errors import Unavailable, Unembeddable
from pins.events import PinDeleted, PinUpdated
from pins.features import FeatureRow
from pins.indexer import MAX_ROUNDS, Outcome, isolate
from tests.unit.house import NOW, House, rival, same
from tests.unit.samples import T0, caption, content


def test_a_race_lost_to_newer_features_leaves_the_winner_s_record(house: House) -> None:
    rival(house, [caption("p", "theirs, newer", T0 + 5)])
    report = house.apply(caption("p", "ours, older"), caption("q", "pie"))
    assert [(outcome.pin_id, outcome.reason) for outcome in report.outcomes] == [("q", "new"), ("p", "stale")]
    assert house.record().text == "theirs, newer"
    assert house.index.counts() == {"live": 2, "textless": 0, "dead": 0, "refused": 0}


def test_a_pin_that_lost_a_race_is_read_anew(house: House) -> None:
    house.apply(caption("p", "first"))

    def meanwhile() -> None:
        house.index.on_write = lambda: None
        house.features.write([FeatureRow("pin_caption", "p", T0 + 9, {"caption": "newest"})])
        house.index.points["p"] = replace(house.record(), v=NOW + 50), house.vector()

    house.index.on_write = meanwhile
    assert house.outcome(caption("p", "second", T0 + 1)) == Outcome("p", "text_changed", True, NOW + 51)
    assert same(house.vector(), "newest")


def test_the_same_text_from_the_winner_of_a_race_is_stale_and_written_once(house: House) -> None:
    rival(house, [caption("p", "soup")])
    report = house.apply(caption("p", "soup"))
    assert report.outcomes == [Outcome("p", "stale", False, house.record().v, house.record().embedded_at_us)]
    assert report.encoded == 1
    assert same(house.vector(), "soup")


def test_an_older_winner_of_a_race_is_written_over(house: House) -> None:
    house.apply(caption("p", "first"))
    known = house.index.points["p"]

    def zombie() -> None:
        house.index.points["p"] = replace(known[0], v=known[0].v + 10**9, text="zombie", fingerprint="z", seen="z"), known[1]
        house.index.on_write = lambda: None

    house.index.on_write = zombie
    assert house.outcome(caption("p", "newest", T0 + 1)) == Outcome("p", "text_changed", True, NOW + 1 + 10**9 + 1)
    assert house.record().text == "newest"
    assert house.encoder.encoded == ["first", "newest"]


def test_a_race_lost_to_a_delete_ends_deleted(house: House) -> None:
    rival(house, [PinDeleted("p", T0 + 5)])
    assert house.outcome(caption("p", "soup")).reason == "deleted"
    assert house.record().dead


def test_a_race_lost_on_the_payload_alone_is_written_again(house: House) -> None:
    house.apply(content("p", title="Soup"))
    rival(house, [content("p", T0 + 5, title="Soup", category="food")])
    assert house.outcome(content("p", T0 + 4, title="Soup", category="home")).reason == "stale"
    assert house.record().fields["category"] == "food"


@pytest.mark.parametrize("races", [MAX_ROUNDS - 1, MAX_ROUNDS])
def test_a_pin_may_lose_so_many_races_and_no_more(house: House, races: int) -> None:
    house.apply(caption("p", "soup"), caption("q", "pie"))
    left = [races]

    def raise_v() -> None:
        if left[0]:
            left[0] -= 1
            house.index.points["p"] = replace(house.record(), v=house.record().v + 1), house.vector()

    house.index.on_write = raise_v
    changes = caption("p", "stew", T0 + 1), caption("q", "cake", T0 + 1)
    if races == MAX_ROUNDS:
        with pytest.raises(Unavailable, match="1 pins lost 8 races for their record, 'p' among them"):
            house.apply(*changes)
    assert {outcome.pin_id for outcome in house.apply(*changes).outcomes} == {"p", "q"}
    assert (house.record("p").text, house.record("q").text) == ("stew", "cake")
    assert house.encoder.encoded.count("cake") == 1


def test_a_race_lost_by_a_refused_text_is_not_run_again(house: House) -> None:
    report = house.apply(caption("p", "broken"))
    assert set(report.refused) == {"p"}
    assert house.written == []


def test_a_race_makes_no_report_of_another_pin_forgotten(house: House) -> None:
    rival(house, [caption("p", "theirs", T0 + 5)])
    report = house.apply(caption("p", "ours"), caption("q", "broken"), PinUpdated("r", T0, {}, {"pin_caption": T0}), caption("s", "pie"))
    assert [(outcome.pin_id, outcome.reason) for outcome in report.outcomes] == [("s", "new"), ("p", "stale")]
    assert (set(report.refused), {event.pin_id for event, _ in report.behind}) == ({"q"}, {"r"})


def test_a_store_that_does_not_answer_stops_the_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(pin_ids: Sequence[str]) -> None:
        raise Unavailable("the index does not answer")

    monkeypatch.setattr(house.index, "known", down)
    with pytest.raises(Unavailable, match="does not answer"):
        house.apply(caption("p", "soup"))
    monkeypatch.undo()
    assert house.outcome(caption("p", "soup")).reason == "new"


def test_isolation_finds_every_culprit_and_tries_the_others_together() -> None:
    tried: list[list[int]] = []

    def halve(numbers: Sequence[int]) -> list[int]:
        tried.append(list(numbers))
        if {3, 6} & set(numbers):
            raise Unembeddable("odd", str(numbers))
        return [10 * number for number in numbers]

    found = isolate(halve, range(8))
    assert [item for item, _ in found] == list(range(8))
    assert [result for item, result in found if item not in (3, 6)] == [0, 10, 20, 40, 50, 70]
    assert all(isinstance(result, Unembeddable) for item, result in found if item in (3, 6))
    assert [0, 1] in tried
    assert isolate(halve, []) == []


def test_isolation_notices_an_answer_of_the_wrong_length() -> None:
    results = [result for _, result in isolate(lambda items: items[:-1], [1, 2])]
    assert [result.reason for result in results if isinstance(result, Unembeddable)] == ["defect", "defect"]
