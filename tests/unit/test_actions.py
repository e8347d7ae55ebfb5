from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.actions import (
    ACTIONS,
    FORGOTTEN,
    KEPT_US,
    MOST_ACTIONS,
    OUTCOMES,
    REASONS,
    ROUNDS,
    UserActed,
    UserEvent,
    UserForgotten,
    decode,
    encode,
    history_row,
    merge,
    record,
    usable,
)
from pins.errors import InvalidEvent, Unavailable
from pins.features import FeatureRow, UserAction
from pins.wire import FUTURE_TOLERANCE_US, MAX_EVENT_BYTES, MAX_ID_CHARS
from tests.fakes import FakeFeatures
from tests.unit.samples import T0

NOW = T0 + 1_000_000
SENT = T0 + 500_000


def wire(**changes: Any) -> bytes:
    """A good action with these fields changed; `...` takes one away."""
    body = {"type": "user_action", "user_id": "u1", "pin_id": "p1", "action": "save", "event_time_us": T0} | changes
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def read(value: bytes | None, key: bytes | None = b"u1", sent: int = SENT) -> UserEvent:
    return decode(key, value, timestamp_us=sent, now_us=NOW)


def test_an_action_is_read() -> None:
    assert read(wire()) == UserActed("u1", "p1", "save", T0)
    assert read(wire(action="click", more="is ignored")) == UserActed("u1", "p1", "click", T0)
    assert read(wire(), key=None) == UserActed("u1", "p1", "save", T0)


def test_an_action_without_a_time_has_that_of_its_message() -> None:
    assert read(wire(event_time_us=...)) == UserActed("u1", "p1", "save", SENT)


@pytest.mark.parametrize(
    ("named", "taken"), [(SENT + 999, SENT + 999), (SENT + 1000, SENT + 999), (NOW, SENT + 999)], ids=["its millisecond", "the next", "later"]
)
def test_nobody_acts_after_the_message_was_sent(named: int, taken: int) -> None:
    acted = read(wire(event_time_us=named))
    assert acted.event_time_us == taken
    assert merge([], [acted, read(None)]) == (UserAction("", FORGOTTEN, SENT + 999),)


def test_a_null_value_forgets_the_user() -> None:
    assert read(None) == UserForgotten("u1", SENT + 999)


REFUSED = [
    pytest.param(b"u1", b"{", "not_json", "value starts with", id="no JSON"),
    pytest.param(b"u1", b"[]", "bad_shape", "got list", id="no object"),
    pytest.param(b"u1", wire(type="pin_updated"), "unknown_type", "use 'user_action'", id="a pin's event"),
    pytest.param(b"u1", wire(user_id=...), "bad_user_id", "as user_id", id="no user"),
    pytest.param(b"u1", wire(user_id=" "), "bad_user_id", "as user_id", id="a blank user"),
    pytest.param(b"u2", wire(), "bad_user_id", "use the user id as key", id="another key"),
    pytest.param(b"\xff", wire(), "bad_user_id", "not UTF-8", id="a key of no text"),
    pytest.param(None, None, "bad_user_id", "as user_id", id="nothing"),
    pytest.param(b"u1", wire(user_id="x" * (MAX_ID_CHARS + 1)), "bad_user_id", "257 characters", id="a long user"),
    pytest.param(b"u1", wire(pin_id=7), "bad_pin_id", "as pin_id", id="no pin"),
    pytest.param(b"u1", wire(action="like"), "bad_action", "use one of save, click", id="another action"),
    pytest.param(b"u1", wire(action=FORGOTTEN), "bad_action", "use one of save, click", id="the mark of a deletion"),
    pytest.param(b"u1", wire(action=["save"]), "bad_action", "use one of", id="a list of actions"),
    pytest.param(b"u1", wire(event_time_us="now"), "bad_time", "epoch microseconds", id="a time in words"),
    pytest.param(b"u1", wire(event_time_us=NOW + FUTURE_TOLERANCE_US + 1), "far_future", "300 s", id="far ahead"),
    pytest.param(b"u1", wire(more="x" * MAX_EVENT_BYTES), "too_large", "send at most 900000", id="too large"),
]


@pytest.mark.parametrize(("key", "value", "reason", "said"), REFUSED)
def test_what_is_no_action_says_why(key: bytes | None, value: bytes | None, reason: str, said: str) -> None:
    with pytest.raises(InvalidEvent, match=said) as refused:
        read(value, key)
    assert refused.value.reason == reason


def test_the_table_reaches_every_reason_of_its_own() -> None:
    assert {case.values[2] for case in REFUSED} >= set(REASONS)


@given(st.text(min_size=1, max_size=40).filter(str.strip), st.text(min_size=1, max_size=40).filter(str.strip), st.sampled_from(ACTIONS))
def test_what_is_encoded_is_read_back(user: str, pin: str, action: str) -> None:
    acted = UserActed(user, pin, action, T0)
    assert read(encode(acted), user.encode()) == acted


def act(pin_id: str, at: int, action: str = "save") -> UserActed:
    return UserActed("u", pin_id, action, T0 + at)


def test_a_history_is_in_order_and_holds_each_action_once() -> None:
    history = merge([], [act("b", 2), act("a", 1), act("b", 2), act("b", 2, "click")])
    assert history == (UserAction("a", "save", T0 + 1), UserAction("b", "click", T0 + 2), UserAction("b", "save", T0 + 2))
    assert merge(history, [act("a", 1)]) == history


def test_a_history_is_bounded() -> None:
    assert [a.time_us - T0 for a in merge([], [act("p", n) for n in range(MOST_ACTIONS + 5)])] == list(range(5, MOST_ACTIONS + 5))
    assert [a.pin_id for a in merge([], [act("old", -1), act("kept", 0), act("new", KEPT_US)])] == ["kept", "new"]


def test_what_is_forgotten_does_not_come_back_and_later_actions_stay() -> None:
    before, after, forgotten = act("before", 1), act("after", 3), UserForgotten("u", T0 + 2)
    history = merge([], [before, forgotten, after])
    assert history == (UserAction("", FORGOTTEN, T0 + 2), UserAction("after", "save", T0 + 3))
    assert usable(history) == [UserAction("after", "save", T0 + 3)]
    assert merge(history, [before]) == history
    assert merge(history, [UserForgotten("u", T0 + 1)]) == history
    assert merge(history, [UserForgotten("u", T0 + 3)]) == (UserAction("", FORGOTTEN, T0 + 3),)


def test_the_mark_of_a_deletion_goes_when_nothing_before_it_would_be_kept() -> None:
    history = merge([], [UserForgotten("u", T0), act("new", KEPT_US + 1)])
    assert history == (UserAction("new", "save", T0 + KEPT_US + 1),)
    assert merge(history, [act("before", 0)]) == history


TIMES = st.integers(0, 12).map(lambda n: n * KEPT_US // 9)
EVENTS = st.lists(st.one_of(st.builds(act, st.sampled_from("abc"), TIMES), TIMES.map(lambda at: UserForgotten("u", T0 + at))), max_size=12)


@given(EVENTS, st.data())
def test_a_history_is_the_same_however_its_events_come(events: list[UserEvent], data: st.DataObject) -> None:
    """In any order, some of them twice, in any batches."""
    again = data.draw(st.permutations(events + data.draw(st.lists(st.sampled_from(events), max_size=3) if events else st.just([]))))
    history: tuple[UserAction, ...] = ()
    while again:
        size = data.draw(st.integers(1, len(again)))
        history, again = merge(history, again[:size]), again[size:]
    assert history == merge([], events)


def test_a_history_is_a_row_of_its_view() -> None:
    row = history_row("u", [UserAction("p", "save", T0)], T0 + 5)
    assert row == FeatureRow("user_history", "u", T0 + 5, {"pin_ids": ["p"], "actions": ["save"], "action_times_us": [T0]})


def test_events_are_recorded_per_user_and_counted() -> None:
    store = FakeFeatures()
    other = UserActed("other", "p", "save", T0)
    assert record([act("a", 1), act("a", 1), act("b", 2), other], store, NOW) == {"added": 3, "unchanged": 1}
    assert [a.pin_id for a in store.history("u")] == ["a", "b"]
    assert store.histories(["u"])["u"].as_of == NOW
    assert record([act("a", 1), UserForgotten("other", T0), UserActed("other", "q", "click", T0)], store, NOW) == {"unchanged": 2, "forgotten": 1}
    assert list(store.history("other")) == []
    assert set(OUTCOMES) == {"added", "unchanged", "forgotten"}
    assert record([], store, NOW) == {}


def test_what_changes_nothing_writes_nothing_and_every_write_is_newer() -> None:
    store = FakeFeatures()
    record([act("a", 1)], store, NOW)
    record([act("a", 1)], store, NOW + 9)
    assert store.histories(["u"])["u"].as_of == NOW
    record([act("b", 1)], store, NOW - 9)
    assert store.histories(["u"])["u"].as_of == NOW + 1, "a clock that is slow does not make a write an older one"


def test_a_lost_race_is_merged_anew() -> None:
    store, rival = FakeFeatures(), [act("rival", 3), act("rival", 4)]

    def race() -> None:
        if rival:
            event = rival.pop()
            stored = store.histories(["u"])["u"]
            store.write([history_row("u", merge(stored.actions, [event]), (stored.as_of or NOW) + 1)])

    store.on_replace = race
    assert record([act("mine", 1), UserActed("other", "p", "save", T0)], store, NOW) == {"added": 2}
    assert [a.pin_id for a in store.history("u")] == ["mine", "rival", "rival"]


def test_a_race_that_is_lost_for_ever_is_put_off() -> None:
    store, tries = FakeFeatures(), []

    def race() -> None:
        tries.append(1)
        store.write([history_row("u", [], NOW + len(tries))])

    store.on_replace = race
    with pytest.raises(Unavailable, match=f"1 histories were changed by somebody else {ROUNDS} times in a row"):
        record([act("mine", 1)], store, NOW)
    assert len(tries) == ROUNDS
