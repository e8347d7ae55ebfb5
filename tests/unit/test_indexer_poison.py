"""One bad pin never hurts another, its previous vector stays and is marked, and an emptied feature store deletes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import pins.indexer
from pins.errors import FeaturesLost, Unavailable
from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.features import FeatureRow
from pins.indexer import PinIndexer
from pins.retrieval.related import related_pins
from tests.unit.house import House, rival, same
from tests.unit.samples import T0, caption, content

FOUR = ("a", "b", "c", "d")


def soups(house: House, ids: Sequence[str] = FOUR) -> None:
    house.apply(*(caption(pin_id, f"soup {pin_id}") for pin_id in ids))


def test_a_refused_text_marks_the_vector_that_stays(house: House) -> None:
    soups(house)
    house.apply(caption("b", "broken", T0 + 1))
    before, (after, vector) = house.written[1].record, house.index.points["b"]
    assert after.refused == "encoder_error"
    assert (after.text, after.fingerprint, after.fields, after.reason) == (before.text, before.fingerprint, before.fields, before.reason)
    assert same(vector, "soup b")
    assert not any(house.record(pin_id).refused for pin_id in ("a", "c", "d"))


def test_a_search_shows_the_mark(house: House) -> None:
    soups(house, ["b"])
    house.apply(caption("b", "broken", T0 + 1))
    (hit,) = house.index.search(house.encoder.query("soup"), 5)
    assert hit.refused == "encoder_error"
    assert related_pins("b", house.index).results == []
    soups(house, ["c"])
    assert [result.hit.refused for result in related_pins("c", house.index).results] == ["encoder_error"]


def test_the_same_refusal_again_writes_nothing(house: House) -> None:
    soups(house)
    house.apply(caption("b", "broken", T0 + 1))
    writes = len(house.written)
    assert set(house.apply(caption("b", "broken", T0 + 2)).refused) == {"b"}
    assert len(house.written) == writes


@pytest.mark.parametrize(("words", "reason"), [("stew", "text_changed"), ("soup b", "payload_only"), ("SOUP B", "same_tokens"), (None, "no_text")])
def test_a_text_that_can_be_used_takes_the_mark_away(house: House, words: str | None, reason: str) -> None:
    soups(house)
    house.apply(caption("b", "broken", T0 + 1))
    assert house.outcome(caption("b", words, T0 + 2)).reason == reason
    assert not house.record("b").refused


def test_a_delete_takes_a_marked_pin_away(house: House) -> None:
    soups(house)
    house.apply(caption("b", "broken", T0 + 1))
    house.apply(PinDeleted("b", T0 + 2))
    assert house.record("b").dead
    assert not house.record("b").refused


def test_a_pin_that_was_never_embedded_has_nothing_to_mark(house: House) -> None:
    house.apply(content("p", category="home"), PinDeleted("q", T0))
    report = house.apply(caption("p", "broken", T0 + 1), caption("new", "broken"))
    assert set(report.refused) == {"p", "new"}
    assert not house.record("p").refused
    assert "new" not in house.index.points


def test_a_mark_does_not_fall_on_a_rival_s_newer_vector(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    soups(house)
    rival(house, [caption("b", "stew", T0 + 2)])
    house.apply(caption("b", "broken", T0 + 1))
    assert house.record("b").text == "stew"
    assert not house.record("b").refused


def test_an_index_that_refuses_the_mark_too_leaves_the_pin_as_it_was(house: House) -> None:
    soups(house)
    house.index.refuse = {"b"}
    report = house.apply(*(caption(pin_id, "stew", T0 + 1) for pin_id in FOUR))
    assert report.refused["b"].reason == "point_refused"
    assert {outcome.pin_id for outcome in report.outcomes} == {"a", "c", "d"}
    assert not house.record("b").refused


@pytest.mark.parametrize("step", ["render", "decide"])
def test_a_pin_that_meets_a_defect_is_refused_alone(house: House, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    soups(house)
    act = getattr(pins.indexer, step)

    def defective(*arguments: Any, **named: Any) -> Any:
        if "poison" in repr(arguments[:2]):
            raise KeyError("a bug")
        return act(*arguments, **named)

    monkeypatch.setattr(pins.indexer, step, defective)
    report = house.apply(*(caption(pin_id, f"{'poison' if pin_id == 'c' else 'stew'} {pin_id}", T0 + 1) for pin_id in FOUR))
    assert set(report.refused) == {"c"}
    assert report.refused["c"].reason == "defect"
    assert "KeyError: 'a bug' (line " in report.refused["c"].detail
    assert house.record("c").refused == "defect"
    assert same(house.vector("c"), "soup c")
    assert {outcome.pin_id for outcome in report.outcomes} == {"a", "b", "d"}


def test_a_row_that_the_feature_store_cannot_take_hurts_nobody_else(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    write = house.features.write

    def picky(rows: Sequence[FeatureRow]) -> None:
        if any(row.key == "b" and row.view == "pin_caption" for row in rows):
            raise OverflowError("too large a number")
        write(rows)

    monkeypatch.setattr(house.features, "write", picky)
    bad = caption("b", "soup")
    report = house.apply(bad, *(caption(pin_id, "soup") for pin_id in "acd"), PinUpdated("b", T0))
    ((event, error),) = report.unwritten
    assert event is bad
    assert error.reason == "defect"
    assert not report.refused
    assert {outcome.pin_id for outcome in report.outcomes} == {"a", "b", "c", "d"}, "the good event of the same pin is taken"


def test_a_store_that_does_not_answer_refuses_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(rows: Sequence[FeatureRow]) -> None:
        raise Unavailable("down")

    monkeypatch.setattr(house.features, "write", down)
    with pytest.raises(Unavailable):
        soups(house)


def emptied(limit: int) -> tuple[House, PinIndexer]:
    """An index of 40 pins whose feature store lost everything, and an indexer with this limit."""
    house = House()
    soups(house, [f"p{n}" for n in range(40)])
    house.features.rows.clear()
    return house, PinIndexer(house.features, house.encoder, house.index, lambda: house.now, limit)


def hints(start: int, stop: int) -> list[PinEvent]:
    return [PinUpdated(f"p{n}", T0) for n in range(start, stop)]


def test_an_emptied_feature_store_stops_the_worker_before_it_deletes_the_pins() -> None:
    house, indexer = emptied(limit=10)
    assert {outcome.reason for outcome in indexer.apply(hints(0, 9)).outcomes} == {"vanished"}
    with pytest.raises(FeaturesLost, match="EVERPIN_VANISHED_LIMIT=10"):
        indexer.apply(hints(9, 20))
    assert sum(record.dead for record, _ in house.index.points.values()) == 9
    assert same(house.vector("p9"), "soup p9")


def test_pins_that_vanish_among_others_are_taken_out() -> None:
    house, indexer = emptied(limit=10)
    for start in range(0, 40, 8):
        others = [caption(f"q{start + n}", "stew") for n in range(8)]
        assert len(indexer.apply([*hints(start, start + 8), *others]).outcomes) == 16
    assert house.index.counts() == {"live": 40, "textless": 0, "dead": 40, "refused": 0}


def test_a_batch_that_failed_counts_once_when_it_is_tried_again() -> None:
    house, indexer = emptied(limit=10)

    def down() -> None:
        raise Unavailable("down")

    house.index.on_write = down
    for _ in range(3):
        with pytest.raises(Unavailable):
            indexer.apply(hints(0, 6))
    house.index.on_write = lambda: None
    assert len(indexer.apply(hints(0, 6)).outcomes) == 6
