"""compare(): one row per kind, and the promise that it and the worker never disagree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.changes import REASONS, IndexedPin, fingerprint
from pins.erasure import blank_rows, has_content
from pins.events import PinDeleted, PinUpdated
from pins.features import VIEWS, PinFeatures
from pins.reconcile import FORCED, KINDS, OF_REASON, compare, draw
from pins.text import TEMPLATE_VERSION, PinText, render
from tests.fakes import FakeEncoder
from tests.unit.house import House, same
from tests.unit.samples import T0, caption, content, record

PIN = PinFeatures("p", title="Chair", caption="a red chair by the sea", as_of={"pin_caption": T0})
RECORD = record(PIN)
GONE = replace(PIN, deleted=True)
EMPTY = PinFeatures("p", as_of={"pin_caption": T0})
TOMBSTONE = IndexedPin("p", T0, dead=True, embedded=False, model_id="fake-v1", reason="deleted")
RETITLED = replace(PIN, title="CHAIR")
"""The student cannot tell it from PIN; people can."""

CASES: dict[str, tuple[PinFeatures | None, IndexedPin | None, str | None]] = {
    "as it should be": (PIN, RECORD, None),
    "not there": (PIN, None, "missing"),
    "only a tombstone": (PIN, TOMBSTONE, "missing"),
    "nothing to embed, and no record of it": (EMPTY, None, "missing"),
    "nothing to embed, and so recorded": (EMPTY, record(EMPTY), None),
    "nothing to embed any more": (EMPTY, RECORD, "stale_text"),
    "nothing to embed, in another model's record": (EMPTY, replace(record(EMPTY), model_id="other"), "wrong_model"),
    "another text": (replace(PIN, caption="soup"), RECORD, "stale_text"),
    "recorded as without a vector": (PIN, replace(RECORD, embedded=False), "stale_text"),
    "another category": (replace(PIN, category="home"), RECORD, "stale_fields"),
    "another case of letters in the text": (replace(PIN, caption="A red chair by the sea"), RECORD, None),
    "another case of letters in the title": (RETITLED, RECORD, "stale_fields"),
    "a small change, within the student's bound": (replace(PIN, caption="a red chair by the lake"), RECORD, None),
    "a small change seen before": (PIN, replace(RECORD, text="x", fingerprint=fingerprint("x"), seen=RECORD.fingerprint), None),
    "another model": (PIN, replace(RECORD, model_id="other"), "wrong_model"),
    "another template": (PIN, replace(RECORD, template_version=TEMPLATE_VERSION + 1), "wrong_template"),
    "deleted and served": (GONE, RECORD, "dead_but_served"),
    "deleted, with a tombstone": (GONE, TOMBSTONE, None),
    "deleted, and its tombstone swept": (GONE, None, None),
    "never there and served": (None, RECORD, "orphan"),
    "never there, with a tombstone": (None, TOMBSTONE, None),
    "never there at all": (None, None, None),
    "no version": (PIN, replace(RECORD, v=0), "damaged"),
    "no fields, so of no model": (PIN, replace(RECORD, model_id="", fields={}), "damaged"),
    "a text that is not the one fingerprinted": (PIN, replace(RECORD, text="else"), "damaged"),
    "refused": (replace(PIN, caption="soup"), replace(RECORD, refused="encoder_error"), "refused"),
    "refused once, and well again": (PIN, replace(RECORD, refused="encoder_error"), "refused"),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_kind(name: str) -> None:
    pin, known, expected = CASES[name]
    assert compare(pin, render(pin) if pin else PinText(""), known, FakeEncoder(0.3)) == expected


def test_every_kind_is_listed_and_has_a_case() -> None:
    assert {kind for _, _, kind in CASES.values()} == {None, *KINDS} - {"wrong_vector"}
    assert set(OF_REASON) <= set(REASONS)
    assert {*OF_REASON.values(), *FORCED} <= set(KINDS)


DAMAGE: list[Callable[[IndexedPin], IndexedPin]] = [
    lambda known: known,
    lambda known: replace(known, v=0),
    lambda known: replace(known, model_id="", fields={}),
    lambda known: replace(known, model_id="other"),
    lambda known: replace(known, template_version=0),
    lambda known: replace(known, text="something else"),
    lambda known: replace(known, fields={}),
    lambda known: replace(known, embedded=False),
    lambda known: replace(known, fingerprint="x", seen="x"),
    lambda known: TOMBSTONE,
    lambda known: replace(known, refused="encoder_error"),
]
WORDS = st.lists(st.sampled_from(["red", "RED", "chair", "sea"]), max_size=3).map(" ".join)


@given(
    st.lists(st.one_of(WORDS.map(lambda w: caption("p", w)), WORDS.map(lambda w: content("p", title=w)), st.just(PinDeleted("p", T0))), min_size=1),
    st.sampled_from(DAMAGE),
    st.booleans(),
    st.booleans(),
)
def test_compare_and_the_worker_agree(events: list[PinUpdated | PinDeleted], damage: Callable[[IndexedPin], IndexedPin], lost: bool, vanished: bool) -> None:
    """After the worker there is no difference; after any damage, one refresh of the kind found leaves none."""
    house = House(0.3)

    def kind() -> str | None:
        pin = house.features.of(["p"]).get("p")
        known = house.index.known(["p"]).get("p")
        return compare(pin, render(pin) if pin else PinText(""), known, house.encoder)

    for event in events:
        house.apply(event)
    assert kind() is None
    known, vector = house.index.points["p"]
    house.index.points["p"] = damage(known), vector
    if lost:
        house.index.points.clear()
    if vanished:
        house.features.rows.clear()
    found = kind()
    before = dict(house.index.points)
    report = house.apply(PinUpdated("p", T0, reembed=found in FORCED))
    if found is None and house.index.points != before:
        assert {outcome.reason for outcome in report.outcomes} <= {"same_tokens", "cosmetic", "deleted"}
    assert kind() is None
    stored = house.index.points.get("p")
    if stored and stored[0].embedded and found:
        assert same(stored[1], stored[0].text)


def test_a_draw_depends_on_pin_and_seed_alone_and_is_even() -> None:
    draws = [draw(f"pin-{n}", 7) for n in range(10_000)]
    assert draws == [draw(f"pin-{n}", 7) for n in range(10_000)]
    assert draws != [draw(f"pin-{n}", 8) for n in range(10_000)]
    assert all(0 <= number < 1 for number in draws)
    assert sum(number < 0.1 for number in draws) == pytest.approx(1000, abs=100)


def test_blank_rows_leave_nothing_and_outrank_what_is_stored() -> None:
    house = House()
    house.apply(content("p", T0 + 9, title="Secret"), caption("p", "words", T0))
    house.apply(PinDeleted("p", T0 + 20))
    pin = house.features.of(["p"])["p"]
    assert has_content(pin)
    rows = blank_rows(pin, T0 + 5)
    assert {row.view for row in rows} == set(VIEWS) - {"pin_status"}
    house.features.write(rows)
    erased = house.features.of(["p"])["p"]
    assert not has_content(erased)
    assert erased.deleted
    assert erased.as_of["pin_content"] == T0 + 10
    assert erased.as_of["pin_caption"] == T0 + 5
    house.apply(caption("p", "late words", T0 + 4))
    assert not has_content(house.features.of(["p"])["p"])
