from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pins.changes import IndexedPin
from pins.events import PinDeleted, PinUpdated
from pins.features import FeatureRow, PinFeatures
from pins.indexer import BatchReport, Outcome, feature_rows
from tests.unit.house import NOW, House, same
from tests.unit.samples import T0, caption, content, record


def test_a_new_pin_is_embedded_and_its_record_says_what_from(house: House) -> None:
    event = content("p", title="Red chair", category="home", created_at_us=T0 - 1)
    assert house.apply(event) == BatchReport([Outcome("p", "new", True, NOW + 1)], encoded=1)
    expected = record(PinFeatures("p", title="Red chair", category="home", created_at_us=T0 - 1, as_of={"pin_content": T0}), v=NOW + 1, embedded_at_us=NOW + 1)
    assert house.record() == expected
    assert same(house.vector(), "Red chair")


def test_an_event_again_writes_nothing(house: House) -> None:
    house.apply(caption("p", "soup"))
    assert house.apply(caption("p", "soup"), caption("p", "soup")) == BatchReport([Outcome("p", "unchanged", False, NOW + 1, embedded_at_us=NOW + 1)])
    assert len(house.written) == 1
    assert house.encoder.encoded == ["soup"]


def test_a_batch_writes_each_pin_once_whatever_its_events_are(house: House) -> None:
    house.apply(caption("p", "one"), caption("q", "soup"), caption("p", "two", T0 + 1), content("p", T0 + 2, title="Title"))
    assert [write.record.pin_id for write in house.written] == ["p", "q"]
    assert house.record().text == "Title. two"
    assert house.record().as_of == {"pin_caption": T0 + 1, "pin_content": T0 + 2}


def test_an_empty_batch_is_nothing(house: House) -> None:
    assert house.apply() == BatchReport([])


def test_a_batch_may_be_an_iterator(house: House) -> None:
    assert house.indexer.apply(iter([caption("p", "soup")])).outcomes[0].reason == "new"


def test_carried_features_are_written_before_anything_is_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def told(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: (calls.append(name), act(*arguments))[1]

    monkeypatch.setattr(house.features, "write", told("write features", house.features.write))
    monkeypatch.setattr(house.features, "of", told("read features", house.features.of))
    monkeypatch.setattr(house.index, "known", told("read records", house.index.known))
    monkeypatch.setattr(house.index, "write", told("write points", house.index.write))
    house.apply(caption("p", "soup"))
    assert calls == ["write features", "read records", "read features", "write points"]


def test_an_older_event_carries_nothing_over_a_newer_one(house: House) -> None:
    house.apply(caption("p", "newer", T0 + 5))
    assert house.outcome(caption("p", "older", T0)).reason == "unchanged"
    assert house.record().text == "newer"


def test_an_event_carries_rows_and_a_delete_carries_a_status() -> None:
    assert feature_rows(caption("p", "soup")) == [FeatureRow("pin_caption", "p", T0, {"caption": "soup"})]
    assert feature_rows(PinUpdated("p", T0)) == []
    assert feature_rows(PinDeleted("p", T0)) == [FeatureRow("pin_status", "p", T0, {"deleted": 1})]


def test_a_changed_text_is_embedded_anew(house: House) -> None:
    house.apply(caption("p", "tomato soup"))
    assert house.outcome(caption("p", "onion pie", T0 + 1)) == Outcome("p", "text_changed", True, NOW + 2)
    assert same(house.vector(), "onion pie")
    assert (house.record().reason, house.record().embedded_at_us) == ("text_changed", NOW + 2)


def test_a_payload_write_keeps_the_vector_and_its_story(house: House) -> None:
    house.apply(content("p", title="Soup", category="food"))
    before, vector = house.record(), house.vector()
    assert house.outcome(content("p", T0 + 1, title="Soup", category="home")) == Outcome("p", "payload_only", False, NOW + 2, NOW + 1)
    assert house.vector() is vector
    assert house.record() == replace(before, v=NOW + 2, fields=dict(before.fields) | {"category": "home"}, as_of={"pin_content": T0 + 1})
    assert house.written[-1].keep_vector


def test_the_same_tokens_keep_the_vector_and_settle_on_the_new_text(house: House) -> None:
    house.apply(caption("p", "tomato soup"))
    vector = house.vector()
    assert house.outcome(caption("p", "TOMATO soup", T0 + 1)).reason == "same_tokens"
    assert house.vector() is vector
    assert house.record().text == "TOMATO soup"
    assert house.record().fingerprint == house.record().seen
    assert (house.record().reason, house.record().embedded_at_us) == ("new", NOW + 1)


def test_a_cosmetic_change_keeps_the_vector_and_the_text_it_stands_for(cosmetic: House) -> None:
    cosmetic.apply(caption("p", "a red chair by the sea"))
    before, vector = cosmetic.record(), cosmetic.vector()
    assert cosmetic.outcome(caption("p", "a red chair by the lake", T0 + 1)) == Outcome("p", "cosmetic", False, NOW + 2, NOW + 1)
    after = cosmetic.record()
    assert cosmetic.vector() is vector
    assert (after.text, after.fingerprint) == (before.text, before.fingerprint)
    assert after.seen not in (before.seen, "")
    assert cosmetic.outcome(caption("p", "a red chair by the lake", T0 + 2)).reason == "unchanged"


def test_a_payload_write_after_a_cosmetic_change_keeps_the_text_that_is_embedded(cosmetic: House) -> None:
    cosmetic.apply(caption("p", "a red chair by the sea"))
    cosmetic.apply(caption("p", "a red chair by the lake", T0 + 1))
    before = cosmetic.record()
    assert cosmetic.outcome(content("p", T0 + 2, category="garden")).reason == "payload_only"
    after = cosmetic.record()
    assert (after.text, after.fingerprint, after.seen) == ("a red chair by the sea", before.fingerprint, before.seen)
    assert after.fields["category"] == "garden"


def test_a_chain_of_small_changes_ends_in_a_new_vector(cosmetic: House) -> None:
    texts = ["a b c d e f", "a b c d e F2", "a b c d e2 F2", "a b c d2 e2 F2", "a b c2 d2 e2 F2"]
    outcomes = [cosmetic.outcome(caption("p", text, T0 + at)).reason for at, text in enumerate(texts)]
    assert outcomes == ["new", "cosmetic", "text_changed", "cosmetic", "text_changed"]
    assert same(cosmetic.vector(), texts[-1])


def test_a_pin_without_text_has_a_record_and_no_vector(house: House) -> None:
    assert house.outcome(content("p", category="food")) == Outcome("p", "no_text", False, NOW + 1)
    assert (house.record().embedded, house.record().text, house.record().reason) == (False, "", "no_text")
    assert house.vector() is None
    assert house.outcome(content("p", T0 + 1, category="food")).reason == "unchanged"
    assert house.outcome(content("p", T0 + 2, category="home")).reason == "payload_only"
    assert house.vector() is None
    assert house.outcome(content("p", T0 + 3, title="Soup")) == Outcome("p", "text_changed", True, NOW + 4)


def test_a_pin_that_loses_its_text_loses_its_vector(house: House) -> None:
    house.apply(caption("p", "soup"))
    assert house.outcome(caption("p", None, T0 + 1)).reason == "no_text"
    assert house.vector() is None
    assert not house.written[-1].keep_vector


def test_a_deleted_pin_leaves_a_tombstone_that_holds_nothing(house: House) -> None:
    house.apply(content("p", title="Soup", category="food"))
    assert house.outcome(PinDeleted("p", T0 + 1)) == Outcome("p", "deleted", False, NOW + 2)
    assert house.record() == IndexedPin("p", NOW + 2, dead=True, embedded=False, model_id="fake-v1", reason="deleted")
    assert house.vector() is None
    assert house.outcome(PinDeleted("p", T0 + 1)) == Outcome("p", "deleted", False, NOW + 2)
    assert len(house.written) == 2


def test_an_unknown_pin_leaves_a_tombstone(house: House) -> None:
    assert house.outcome(PinUpdated("p", T0)) == Outcome("p", "deleted", False, NOW + 1)
    assert house.record().dead


def test_a_deleted_pin_comes_back_only_when_its_status_says_so(house: House) -> None:
    house.apply(caption("p", "soup"), PinDeleted("p", T0 + 1))
    assert house.outcome(caption("p", "pie", T0 + 2)).reason == "deleted"
    revived = PinUpdated("p", T0 + 3, {"pin_status": {"deleted": 0}})
    assert house.outcome(revived) == Outcome("p", "new", True, NOW + 3)
    assert same(house.vector(), "pie")


def test_a_text_in_two_pins_is_encoded_once(house: House) -> None:
    report = house.apply(caption("p", "soup"), caption("q", "soup"), caption("r", "pie"))
    assert house.encoder.encoded == ["soup", "pie"]
    assert report.encoded == 2
    assert same(house.vector("p"), "soup")
    assert same(house.vector("q"), "soup")


def test_a_text_the_encoder_refuses_leaves_the_others_of_its_batch_alone(house: House) -> None:
    house.apply(caption("b", "whole"))
    texts = {"a": "soup", "b": "broken bowl", "c": "pie", "d": "broken bowl", "e": "stew"}
    report = house.apply(*(caption(pin_id, text, T0 + 1) for pin_id, text in texts.items()))
    assert {outcome.pin_id for outcome in report.outcomes} == {"a", "c", "e"}
    assert {pin_id: error.reason for pin_id, error in report.refused.items()} == {"b": "encoder_error", "d": "encoder_error"}
    assert same(house.vector("b"), "whole")
    assert house.record("b").text == "whole"
    assert "d" not in house.index.points


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0], ids=["NaN", "infinite", "all zero"])
def test_a_bad_vector_is_refused_and_the_one_before_stays(house: House, monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    house.apply(caption("p", "soup"), caption("q", "pie"))
    query = house.encoder.query
    monkeypatch.setattr(house.encoder, "query", lambda text: np.full(8, bad, np.float32) if "poison" in text else query(text))
    report = house.apply(caption("p", "poison", T0 + 1), caption("q", "stew", T0 + 1))
    assert report.refused["p"].reason == "bad_vector"
    assert "fake-v1" in report.refused["p"].detail
    assert "'poison'" in report.refused["p"].detail
    assert [outcome.pin_id for outcome in report.outcomes] == ["q"]
    assert same(house.vector("p"), "soup")
    assert same(house.vector("q"), "stew")


def test_a_vector_with_one_nan_is_refused(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.encoder, "query", lambda text: np.array([np.nan, 1, 0, 0, 0, 0, 0, 0], np.float32))
    assert set(house.apply(caption("p", "soup")).refused) == {"p"}


def test_a_refused_point_leaves_the_others_of_its_batch_alone(house: House) -> None:
    house.index.refuse = {"b", "d"}
    report = house.apply(*(caption(pin_id, f"soup {pin_id}") for pin_id in "abcde"), PinDeleted("f", T0))
    assert set(report.refused) == {"b", "d"}
    assert report.refused["b"].reason == "point_refused"
    assert {outcome.pin_id for outcome in report.outcomes} == set(house.index.points) == {"a", "c", "e", "f"}


def test_features_that_have_not_arrived_are_waited_for(house: House) -> None:
    house.apply(caption("p", "old soup"), caption("q", "pie"))
    report = house.apply(PinUpdated("p", T0 + 5, {}, {"pin_caption": T0 + 5}), caption("q", "stew", T0 + 1), PinUpdated("r", T0, {}, {"pin_boards": T0}))
    assert {event.pin_id: error.detail for event, error in report.behind} == {
        "p": f"pin 'p': view 'pin_caption' is at {T0} us, the event announced {T0 + 5} us",
        "r": f"pin 'r': view 'pin_boards' is at 0 us, the event announced {T0} us",
    }
    assert [outcome.pin_id for outcome in report.outcomes] == ["q"]
    assert house.record("p").text == "old soup"
    assert "r" not in house.index.points
    house.features.write([FeatureRow("pin_caption", "p", T0 + 5, {"caption": "new soup"})])
    assert house.outcome(PinUpdated("p", T0 + 5, {}, {"pin_caption": T0 + 5})).reason == "text_changed"


def test_features_newer_than_announced_are_taken(house: House) -> None:
    house.apply(caption("p", "soup", T0 + 9))
    assert house.outcome(PinUpdated("p", T0, {}, {"pin_caption": T0 + 8})).reason == "unchanged"


def test_an_event_that_is_behind_holds_up_no_other_of_its_pin(house: House) -> None:
    late = PinUpdated("p", T0, {}, {"pin_boards": T0})
    report = house.apply(late, caption("p", "soup", T0 + 1), late)
    assert [event for event, _ in report.behind] == [late, late]
    assert [outcome.reason for outcome in report.outcomes] == ["new"]
    assert house.record().text == "soup"


@pytest.mark.parametrize("late_first", [True, False])
def test_a_delete_waits_for_no_features_whatever_is_announced_after_it(house: House, late_first: bool) -> None:
    house.apply(caption("p", "soup"))
    events = [PinUpdated("p", T0 + 2, {}, {"pin_caption": T0 + 2}), PinDeleted("p", T0 + 1)]
    report = house.apply(*(events if late_first else reversed(events)))
    assert [outcome.reason for outcome in report.outcomes] == ["deleted"]
    assert report.behind == [], "what a deleted pin would have said matters to nobody"
    assert house.record().dead


def test_a_revival_that_is_announced_is_waited_for(house: House) -> None:
    house.apply(PinDeleted("p", T0))
    report = house.apply(PinUpdated("p", T0 + 2, {}, {"pin_status": T0 + 2}))
    assert [event.pin_id for event, _ in report.behind] == ["p"]


@pytest.mark.parametrize(("known_v", "v"), [(T0, NOW + 2), (NOW + 2, NOW + 3), (NOW + 10**12, NOW + 10**12 + 1)], ids=["ahead", "equal", "far behind"])
def test_a_version_is_the_clock_s_but_always_above_the_record_s(house: House, known_v: int, v: int) -> None:
    house.apply(caption("p", "soup"))
    house.index.points["p"] = replace(house.record(), v=known_v), house.vector()
    assert house.outcome(caption("p", "pie", T0 + 1)) == Outcome("p", "text_changed", True, v)
    assert house.written[-1].expected_v == known_v
    assert house.record().v == v


def test_a_tombstone_s_version_is_above_the_record_s_too(house: House) -> None:
    house.apply(caption("p", "soup"))
    house.now = T0 - 10**9
    assert house.outcome(PinDeleted("p", T0 + 1)) == Outcome("p", "deleted", False, NOW + 2)
