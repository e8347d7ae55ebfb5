from __future__ import annotations

from dataclasses import replace

import pytest

from pins import changes
from pins.changes import REASONS, Action, Embed, IndexedPin, Remove, Skip, Touch, decide, fingerprint, surface_fields
from pins.features import PinFeatures
from pins.text import TEMPLATE_VERSION, PinText, render
from tests.fakes import FakeEncoder
from tests.unit.samples import T0, record

PIN = PinFeatures("p1", caption="a red chair by the sea", category="home", as_of={"pin_caption": T0})
RECASED = replace(PIN, caption="A RED chair by the sea")
NEAR = replace(PIN, caption="a red chair by the lake")
"""Drift 2/7 to PIN: one of its six words is another."""
FARTHER = replace(PIN, caption="a red chair by that lake")
"""Drift 2/7 to NEAR, 4/8 to PIN."""
OTHER = replace(PIN, caption="tomato soup")
GONE = replace(PIN, deleted=True)
EMPTY = replace(PIN, caption="")
MOVED = replace(PIN, category="garden")

RECORD = record(PIN)
TOMBSTONE = IndexedPin("p1", T0, dead=True, embedded=False, model_id="fake-v1", reason="deleted")
TEXTLESS = record(EMPTY, reason="no_text")
THEIRS = replace(RECORD, model_id="fake-v0")
OLD_TEMPLATE = replace(RECORD, template_version=TEMPLATE_VERSION + 1)
SEEN_NEAR = replace(RECORD, seen=fingerprint(render(NEAR).text))
"""PIN's text is embedded; NEAR was seen since, and moved the vector too little to matter."""
BOUND = 0.3


def table(name: str, pin: PinFeatures | None, known: IndexedPin | None, threshold: float | None, expected: Action) -> object:
    return pytest.param(pin, known, threshold, expected, id=name)


TABLE = [
    table("deleted, in the index", GONE, RECORD, None, Remove("deleted")),
    table("deleted, never in the index", GONE, None, None, Remove("deleted")),
    table("deleted, and a tombstone already", GONE, TOMBSTONE, None, Skip("deleted")),
    table("deleted, and another model's tombstone already", GONE, replace(TOMBSTONE, model_id="fake-v0"), None, Skip("deleted")),
    table("never there, in the index", None, RECORD, None, Remove("vanished")),
    table("never there, never in the index", None, None, None, Remove("deleted")),
    table("never there, and a tombstone already", None, TOMBSTONE, None, Skip("deleted")),
    table("deleted comes before another model", GONE, THEIRS, None, Remove("deleted")),
    table("deleted comes before no text", replace(EMPTY, deleted=True), TEXTLESS, None, Remove("deleted")),
    table("not in the index", PIN, None, None, Embed("new")),
    table("back after a tombstone", PIN, TOMBSTONE, None, Embed("new")),
    table("back after another model's tombstone", PIN, replace(TOMBSTONE, model_id="fake-v0"), None, Embed("new")),
    table("another model's vector of the same text", PIN, THEIRS, BOUND, Embed("model_changed")),
    table("another model's record without a vector", PIN, replace(TEXTLESS, model_id="fake-v0"), None, Embed("model_changed")),
    table("another template's vector", PIN, OLD_TEMPLATE, BOUND, Embed("template_changed")),
    table("another model comes before another template", PIN, replace(THEIRS, template_version=0), None, Embed("model_changed")),
    table("another model comes before a near text", NEAR, THEIRS, BOUND, Embed("model_changed")),
    table("nothing to embed, first seen", EMPTY, None, None, Touch("no_text")),
    table("nothing to embed any more", EMPTY, RECORD, BOUND, Touch("no_text")),
    table("nothing to embed, back after a tombstone", EMPTY, TOMBSTONE, None, Touch("no_text")),
    table("nothing to embed, another model's vector", EMPTY, THEIRS, None, Touch("no_text")),
    table("nothing to embed, another template's record", EMPTY, replace(TEXTLESS, template_version=0), None, Touch("no_text")),
    table("nothing to embed, but a vector of nothing", EMPTY, replace(TEXTLESS, embedded=True), None, Touch("no_text")),
    table("still nothing to embed", EMPTY, TEXTLESS, BOUND, Skip("unchanged")),
    table("still nothing to embed, other fields", replace(EMPTY, category="garden"), TEXTLESS, None, Touch("payload_only")),
    table("text again", PIN, TEXTLESS, 9.0, Embed("text_changed")),
    table("a record that lost its vector", PIN, replace(RECORD, embedded=False), 9.0, Embed("text_changed")),
    table("nothing changed", PIN, RECORD, BOUND, Skip("unchanged")),
    table("only counters and times changed", replace(PIN, save_count=9, like_count=9, as_of={"pin_caption": T0 + 9}), RECORD, None, Skip("unchanged")),
    table("other fields, same text", MOVED, RECORD, BOUND, Touch("payload_only", settled=True)),
    table("the text last seen, same fields", NEAR, SEEN_NEAR, BOUND, Skip("unchanged")),
    table("the text last seen, same fields, cosmetic off since", NEAR, SEEN_NEAR, None, Skip("unchanged")),
    table("the text last seen, other fields", replace(NEAR, category="garden"), SEEN_NEAR, BOUND, Touch("payload_only", settled=False)),
    table("back to the text that is embedded", PIN, SEEN_NEAR, BOUND, Skip("unchanged")),
    table("back to the text that is embedded, other fields", MOVED, SEEN_NEAR, BOUND, Touch("payload_only", settled=True)),
    table("a text the student cannot tell apart", RECASED, RECORD, None, Touch("same_tokens", settled=True)),
    table("a text the student cannot tell apart, other fields", replace(RECASED, category="garden"), RECORD, None, Touch("same_tokens", settled=True)),
    table("the same tokens come before a small drift", RECASED, RECORD, BOUND, Touch("same_tokens", settled=True)),
    table("a small drift", NEAR, RECORD, BOUND, Touch("cosmetic", settled=False)),
    table("a small drift, other fields", replace(NEAR, category="garden"), RECORD, BOUND, Touch("cosmetic", settled=False)),
    table("a drift just at the bound", NEAR, RECORD, 2 / 7, Touch("cosmetic", settled=False)),
    table("a drift just above the bound", NEAR, RECORD, 2 / 7 - 1e-9, Embed("text_changed")),
    table("a small drift, cosmetic off", NEAR, RECORD, None, Embed("text_changed")),
    table("a small drift, a bound of nothing", NEAR, RECORD, 0.0, Embed("text_changed")),
    table("near the text last seen, far from the text embedded", FARTHER, SEEN_NEAR, BOUND, Embed("text_changed")),
    table("another text", OTHER, RECORD, BOUND, Embed("text_changed")),
    table("back to the text that is embedded, after another was refused", PIN, replace(RECORD, refused="encoder_error"), BOUND, Touch("payload_only")),
    table("the text that was refused, again", OTHER, replace(RECORD, refused="encoder_error"), BOUND, Embed("text_changed")),
]  # fmt: skip


@pytest.mark.parametrize(("pin", "known", "threshold", "expected"), TABLE)
def test_what_becomes_of_a_pin(pin: PinFeatures | None, known: IndexedPin | None, threshold: float | None, expected: Action) -> None:
    text = render(pin) if pin else PinText("")
    assert decide(pin, text, known, FakeEncoder(threshold)) == expected


def test_the_table_reaches_every_outcome_but_the_one_of_a_lost_race() -> None:
    assert {case.values[3].reason for case in TABLE} == set(REASONS) - {"stale", "reembedded"}  # type: ignore[attr-defined]


def test_small_changes_cannot_add_up_unseen() -> None:
    words, known, student = PIN.caption.split(), RECORD, FakeEncoder(BOUND)
    before, actions = RECORD.text, []
    for place in range(len(words)):
        words[place] = f"new{place}"
        pin = replace(PIN, caption=" ".join(words))
        text = render(pin)
        assert student.drift(before, text.text) <= BOUND, "each change alone is small"
        actions.append(decide(pin, text, known, student))
        before = text.text
        known = replace(known, seen=fingerprint(text.text)) if isinstance(actions[-1], Touch) else record(pin)
    assert actions == 3 * [Touch("cosmetic", settled=False), Embed("text_changed")]


def test_a_student_is_asked_for_a_drift_only_where_it_matters() -> None:
    class Unasked(FakeEncoder):
        def drift(self, before: str, after: str) -> float:
            raise AssertionError

    for pin, known in ((PIN, RECORD), (RECASED, RECORD), (MOVED, RECORD), (EMPTY, RECORD), (PIN, None), (PIN, TEXTLESS), (GONE, RECORD)):
        decide(pin, render(pin), known, Unasked(BOUND))
    decide(OTHER, render(OTHER), RECORD, Unasked(None))


def test_a_fingerprint_stands_for_the_text_and_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint("a red chair")
    assert before == fingerprint("a red chair") != fingerprint("a red chair ")
    assert len(bytes.fromhex(before)) == 16
    monkeypatch.setattr(changes, "TEMPLATE_VERSION", TEMPLATE_VERSION + 1)
    assert fingerprint("a red chair") != before


def test_the_payload_is_what_surfaces_show_and_no_counter() -> None:
    pin = replace(PIN, title="<b>Chair</b>", lang="en", created_at_us=T0, image_url="i", link_url="l", save_count=3, board_titles=("Beach", "beach"))
    assert surface_fields(pin, render(pin)) == {
        "title": "Chair", "category": "home", "lang": "en", "boards": ["Beach"], "created_at_us": T0, "image_url": "i", "link_url": "l",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pin", "known", "expected"),
    [
        (PIN, RECORD, Embed("reembedded")),
        (PIN, None, Embed("new")),
        (PIN, THEIRS, Embed("model_changed")),
        (OTHER, RECORD, Embed("reembedded")),
        (EMPTY, TEXTLESS, Skip("unchanged")),
        (GONE, RECORD, Remove("deleted")),
    ],
)
def test_what_becomes_of_a_pin_that_somebody_wants_embedded_again(pin: PinFeatures, known: IndexedPin | None, expected: Action) -> None:
    assert decide(pin, render(pin), known, FakeEncoder(BOUND), reembed=True) == expected
