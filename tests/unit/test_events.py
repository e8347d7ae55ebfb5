from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pins.errors import InvalidEvent
from pins.events import (
    REASONS,
    PinDeleted,
    PinEvent,
    PinUpdated,
    by_pin,
    decode,
    encode,
)
from pins.features import COUNT, INT64_MAX, LATER_TEXT, NUMBERS, TEXT, TEXTS, TIMES, VIEWS, Column
from pins.wire import EARLIEST_US, FUTURE_TOLERANCE_US, MAX_EVENT_BYTES, MAX_ID_CHARS
from tests.unit.samples import T0, caption, row

NOW = T0 + 1_000_000
CAPTION = {"pin_caption": {"caption": "a red chair"}}


def wire(**changes: Any) -> bytes:
    """A good event with these fields changed; `...` takes one away."""
    body = {"type": "pin_updated", "pin_id": "p1", "event_time_us": T0} | changes
    return json.dumps({name: value for name, value in body.items() if value is not ...}).encode()


def read(value: bytes | None, key: bytes | None = None) -> PinEvent:
    return decode(key, value, timestamp_us=T0 + 7, now_us=NOW)


def carrying(view: str, **values: Any) -> bytes:
    return wire(features={view: row(view) | values})


def raw(features: str) -> bytes:
    return b'{"type":"pin_updated","pin_id":"p1","event_time_us":%d,"features":%s}' % (T0, features.encode())


REFUSED = [
    pytest.param(None, b"\xff\xfe", "not_json", "starts with", id="bytes that are not text"),
    pytest.param(None, b"", "not_json", "starts with b''", id="an empty value"),
    pytest.param(None, b'{"type": "pin_upd', "not_json", "pin_upd", id="half an event"),
    pytest.param(None, b"pin-updated p1", "not_json", "pin-updated p1", id="another format"),
    pytest.param(None, b'{"pin_id": "caf\xe9"}', "not_json", "caf", id="Latin-1"),
    pytest.param(None, b"[" * 100_000, "not_json", "recursion", id="brackets without end"),
    pytest.param(None, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "not_json", "recursion", id="objects without end"),
    pytest.param(None, b'{"event_time_us": ' + b"9" * 5000 + b"}", "not_json", "digits", id="a number of 5,000 digits"),
    pytest.param(None, b'["pin_updated"]', "bad_shape", "list", id="a list"),
    pytest.param(None, b'"pin_updated"', "bad_shape", "str", id="a string"),
    pytest.param(None, b"42", "bad_shape", "int", id="a number"),
    pytest.param(None, b"null", "bad_shape", "NoneType", id="null in JSON"),
    pytest.param(None, wire(type="pin_saved"), "unknown_type", "'pin_saved'; use 'pin_updated'", id="an unknown type"),
    pytest.param(None, wire(type=...), "unknown_type", "None", id="no type"),
    pytest.param(None, wire(type=["pin_updated"]), "unknown_type", "pin_updated", id="a type that is a list"),
    pytest.param(None, wire(type="x" * 100_000), "unknown_type", "'xxx", id="a type of 100,000 characters"),
    pytest.param(None, wire(pin_id=...), "bad_pin_id", "None", id="no pin id"),
    pytest.param(None, wire(pin_id=""), "bad_pin_id", "''", id="an empty pin id"),
    pytest.param(None, wire(pin_id=" \t\u3000"), "bad_pin_id", "non-empty", id="a blank pin id"),
    pytest.param(None, wire(pin_id=12), "bad_pin_id", "12", id="a number as pin id"),
    pytest.param(None, wire(pin_id=None), "bad_pin_id", "None", id="null as pin id"),
    pytest.param(None, wire(pin_id=["p1"]), "bad_pin_id", "p1", id="a list as pin id"),
    pytest.param(None, wire(pin_id="x" * 10_000), "bad_pin_id", "10000 characters", id="a pin id of 10,000 characters"),
    pytest.param(None, wire(pin_id="x" * (MAX_ID_CHARS + 1)), "bad_pin_id", "257 characters", id="a pin id one too long"),
    pytest.param(None, wire(pin_id="p\ud800"), "bad_pin_id", "lone surrogate", id="a lone surrogate in the pin id"),
    pytest.param(None, b'{"type":"pin_deleted","pin_id":"p\xed\xa0\x80"}', "bad_pin_id", "lone surrogate", id="a lone surrogate as raw bytes"),
    pytest.param(b"p2", wire(), "bad_pin_id", "use the pin id as key", id="another pin's key"),
    pytest.param(b"\xff\xfe", wire(), "bad_pin_id", "not UTF-8", id="a key that is not UTF-8"),
    pytest.param(None, None, "bad_pin_id", "None", id="a tombstone without key"),
    pytest.param(b"", None, "bad_pin_id", "''", id="a tombstone with an empty key"),
    pytest.param(b"\xff", None, "bad_pin_id", "not UTF-8", id="a tombstone whose key is not UTF-8"),
    pytest.param(b"x" * 300, None, "bad_pin_id", "300 characters", id="a tombstone whose key is too long"),
    pytest.param(None, wire(event_time_us=T0 // 1_000_000), "bad_time", "epoch microseconds", id="a time in seconds"),
    pytest.param(None, wire(event_time_us=T0 // 1_000), "bad_time", "epoch microseconds", id="a time in milliseconds"),
    pytest.param(None, wire(event_time_us=EARLIEST_US - 1), "bad_time", "epoch microseconds", id="a time just too early"),
    pytest.param(None, wire(event_time_us=-T0), "bad_time", "epoch microseconds", id="a time before 1970"),
    pytest.param(None, wire(event_time_us=True), "bad_time", "True", id="true as time"),
    pytest.param(None, wire(event_time_us=float(T0)), "bad_time", "1764000000000000.0", id="a float as time"),
    pytest.param(None, wire(event_time_us=math.nan), "bad_time", "nan", id="NaN as time"),
    pytest.param(None, wire(event_time_us=str(T0)), "bad_time", "'1764", id="a string as time"),
    pytest.param(None, wire(event_time_us=None), "bad_time", "None", id="null as time"),
    pytest.param(None, wire(event_time_us=T0 * 1000), "far_future", "accepted", id="a time in nanoseconds"),
    pytest.param(None, wire(event_time_us=NOW + FUTURE_TOLERANCE_US + 1), "far_future", "300 s is accepted", id="a time just too far ahead"),
    pytest.param(None, wire(event_time_us=10**400), "far_future", "accepted", id="a time of 400 digits"),
    pytest.param(None, wire(type="pin_deleted", event_time_us=T0 * 2), "far_future", "ahead", id="a delete from the far future"),
    pytest.param(None, wire(features_as_of={"pin_caption": T0 // 1_000}), "bad_time", "epoch microseconds", id="an announced time in milliseconds"),
    pytest.param(None, wire(features_as_of={"pin_caption": T0 * 2}), "far_future", "ahead", id="an announced time from the far future"),
    pytest.param(None, wire(features_as_of={"pin_caption": True}), "bad_time", "True", id="true as announced time"),
    pytest.param(None, wire(features_as_of=[T0]), "bad_features", "must map views", id="announced times in a list"),
    pytest.param(None, wire(features_as_of={"pin_color": T0}), "bad_features", "pin_color", id="an announced view that does not exist"),
    pytest.param(None, wire(reembed="yes"), "bad_shape", "reembed must be true or false, got 'yes'", id="a word where a flag belongs"),
    pytest.param(None, wire(reembed=1), "bad_shape", "got 1", id="a number where a flag belongs"),
    pytest.param(None, wire(features=["pin_caption"]), "bad_features", "object of views, got list", id="carried views in a list"),
    pytest.param(None, wire(features={"pin_color": {"red": 1}}), "bad_features", "unknown view 'pin_color'", id="a view that does not exist"),
    pytest.param(None, wire(features={"user_history": {"pin_ids": []}}), "bad_features", "unknown view 'user_history'", id="a user's view"),
    pytest.param(None, wire(features={"pin_caption": "a red chair"}), "bad_features", "got 'str'", id="a value where a row belongs"),
    pytest.param(None, wire(features={"pin_caption": {}}), "bad_features", "columns ['caption'] and at will ['caption_model']", id="a missing column"),
    pytest.param(None, wire(features={"pin_caption": {"caption_model": "blip"}}), "bad_features", "got ['caption_model']", id="a column at will alone"),
    pytest.param(None, wire(features={"pin_boards": {}}), "bad_features", "exactly the columns ['board_titles'] (a row", id="a missing column, none at will"),
    pytest.param(None, carrying("pin_caption", caption_model=7), "bad_features", "pin_caption.caption_model must be a string", id="a number as caption model"),
    pytest.param(None, wire(features={"pin_caption": {"caption": "x", "color": "red"}}), "bad_features", "['caption', 'color']", id="an extra column"),
    pytest.param(None, carrying("pin_content", title=7), "bad_features", "pin_content.title must be a string or null, got 7", id="a number as title"),
    pytest.param(None, carrying("pin_content", created_at_us="today"), "bad_features", "an integer or null, got 'today'", id="a word as time of creation"),
    pytest.param(None, carrying("pin_content", created_at_us=2**63), "bad_features", "an integer or null", id="an integer beyond 64 bits"),
    pytest.param(None, carrying("pin_content", created_at_us=-(10**300)), "bad_features", "an integer or null", id="an integer of 300 digits"),
    pytest.param(None, carrying("pin_status", deleted=True), "bad_features", "an integer or null, got True", id="true as an integer"),
    pytest.param(None, carrying("pin_engagement", save_count=1.5), "bad_features", "pin_engagement.save_count", id="half a save"),
    pytest.param(None, carrying("pin_boards", board_titles="soups"), "bad_features", "a list of strings, got 'soups'", id="a string where a list belongs"),
    pytest.param(None, carrying("pin_boards", board_titles=["soups", None]), "bad_features", "a list of strings", id="null among strings"),
    pytest.param(None, carrying("pin_engagement", engaged_counts=[1.0, math.nan]), "bad_features", "finite numbers", id="NaN among counts"),
    pytest.param(None, raw('{"pin_engagement":{"engaged_queries":[],"engaged_counts":[1e999],"save_count":null,"like_count":null}}'),
                 "bad_features", "finite numbers", id="an infinite count"),
    pytest.param(None, carrying("pin_engagement", engaged_counts=[2**63]), "bad_features", "finite numbers", id="a count beyond 64 bits"),
    pytest.param(None, carrying("pin_engagement", engaged_counts=[True]), "bad_features", "finite numbers", id="true as a count"),
    pytest.param(None, wire(features={"pin_caption": {"caption": "x" * MAX_EVENT_BYTES}}), "too_large", "send at most 900000", id="more than a megabyte"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "reason", "words"), REFUSED)
def test_what_is_no_event_is_refused_with_a_reason_and_words_to_act_on(key: bytes | None, value: bytes | None, reason: str, words: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        read(value, key)
    assert caught.value.reason == reason
    assert words in caught.value.detail
    assert str(caught.value) == f"{reason}: {caught.value.detail}"
    assert len(caught.value.detail) < 1000


def test_the_table_reaches_every_reason_there_is() -> None:
    assert {case.values[2] for case in REFUSED} == set(REASONS)


@pytest.mark.parametrize("depth", [*range(100, 1000, 25), *range(900, 1001)])
def test_no_depth_of_nesting_stops_the_reader(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    for value in (raw(nested), raw(f'{{"pin_caption":{{"caption":{nested}}}}}'), wire(type="x").replace(b'"x"', nested.encode())):
        with pytest.raises(InvalidEvent):
            read(value)


@pytest.mark.parametrize("key", [None, b"", b"p1"])
def test_an_update_is_read_with_or_without_its_key(key: bytes | None) -> None:
    assert read(wire(), key) == PinUpdated("p1", T0)


def test_an_update_carries_views_and_announced_times() -> None:
    announced = {"pin_caption": T0 - 5, "pin_boards": NOW + FUTURE_TOLERANCE_US}
    assert read(wire(features=CAPTION, features_as_of=announced)) == PinUpdated("p1", T0, CAPTION, announced)


def test_null_stands_for_no_views_and_no_announced_times() -> None:
    assert read(wire(features=None, features_as_of=None)) == PinUpdated("p1", T0, {}, {})


def test_the_broker_s_time_stands_in_for_a_missing_one() -> None:
    assert read(wire(event_time_us=...)).event_time_us == T0 + 7


@pytest.mark.parametrize("at", [EARLIEST_US, NOW, NOW + FUTURE_TOLERANCE_US], ids=["2001", "now", "five minutes ahead"])
def test_times_up_to_the_tolerance_are_taken(at: int) -> None:
    assert read(wire(event_time_us=at)).event_time_us == at


def test_a_delete_event_and_a_tombstone_mean_the_same() -> None:
    assert read(wire(type="pin_deleted")) == PinDeleted("p1", T0)
    assert read(None, b"p1") == PinDeleted("p1", T0 + 7)


def test_a_tombstone_without_a_usable_time_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="bad_time"):
        decode(b"p1", None, timestamp_us=-1, now_us=NOW)


def test_unknown_fields_of_an_event_are_passed_over() -> None:
    assert read(wire(trace_id="abc", schema=2)) == PinUpdated("p1", T0)


def test_the_longest_pin_id_and_the_largest_event_are_taken() -> None:
    assert read(wire(pin_id="é" * MAX_ID_CHARS)).pin_id == "é" * MAX_ID_CHARS
    filler = MAX_EVENT_BYTES - len(wire(features={"pin_caption": {"caption": ""}}))
    largest = wire(features={"pin_caption": {"caption": "x" * filler}})
    assert len(largest) == MAX_EVENT_BYTES
    assert read(largest).pin_id == "p1"


@pytest.mark.parametrize("value", [INT64_MAX, -INT64_MAX, 0, None])
def test_counts_of_64_bits_are_taken(value: int | None) -> None:
    event = read(carrying("pin_engagement", save_count=value))
    assert isinstance(event, PinUpdated)
    assert event.features["pin_engagement"]["save_count"] == value


ODD = st.sampled_from([*VIEWS, "p1", "\ud800", T0, T0 * 2, 10**400, -(2**63)])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from([*VIEWS, "caption", "deleted"]), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["pin_updated", "pin_deleted"])
BODIES = st.fixed_dictionaries(
    {"type": TYPES | JSON, "pin_id": st.just("p1") | JSON}, optional={"event_time_us": st.just(T0) | JSON, "features": JSON, "features_as_of": JSON}
)


def reason_or_event(value: bytes | None, key: bytes | None) -> str | PinEvent:
    try:
        return read(value, key)
    except InvalidEvent as error:
        return error.reason


@given(BODIES | JSON, st.none() | st.binary(max_size=4) | st.just(b"p1"))
@example({"type": "pin_updated", "pin_id": "p1", "features_as_of": {"pin_caption": 10**400}}, None)
def test_whatever_json_arrives_is_an_event_or_is_refused(body: Any, key: bytes | None) -> None:
    found = reason_or_event(json.dumps(body).encode(), key)
    if isinstance(found, str):
        assert found in REASONS
    else:
        assert found.pin_id.encode()
        assert EARLIEST_US <= found.event_time_us <= NOW + FUTURE_TOLERANCE_US


@given(st.none() | st.binary(), st.none() | st.binary())
def test_whatever_bytes_arrive_are_an_event_or_are_refused(value: bytes | None, key: bytes | None) -> None:
    found = reason_or_event(value, key)
    assert found in REASONS or (isinstance(found, PinDeleted) and value is None)


KINDS: list[tuple[Column, st.SearchStrategy[Any]]] = [
    (TEXT, st.none() | st.text(max_size=20)),
    (LATER_TEXT, st.none() | st.text(max_size=20)),
    (COUNT, st.none() | st.integers(-INT64_MAX, INT64_MAX)),
    (TEXTS, st.lists(st.text(max_size=10), max_size=4)),
    (NUMBERS, st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-INT64_MAX, INT64_MAX), max_size=4)),
    (TIMES, st.lists(st.integers(0, INT64_MAX), max_size=4)),
]
TIMES_US = st.integers(EARLIEST_US, NOW + FUTURE_TOLERANCE_US)
PIN_IDS = st.text(min_size=1, max_size=MAX_ID_CHARS).filter(str.strip)
ROWS = {
    view: st.fixed_dictionaries(
        {name: drawn for name, (drawn, at_will) in values.items() if not at_will},
        optional={name: drawn for name, (drawn, at_will) in values.items() if at_will},
    )
    for view, values in (
        (view, {name: (next(drawn for kind, drawn in KINDS if kind is column), column.optional) for name, column in columns.items()})
        for view, columns in VIEWS.items()
    )
}
ANNOUNCED = st.dictionaries(st.sampled_from(list(VIEWS)), TIMES_US)
UPDATES = st.builds(PinUpdated, PIN_IDS, TIMES_US, st.fixed_dictionaries({}, optional=ROWS), ANNOUNCED, st.booleans())
DELETES = st.builds(PinDeleted, PIN_IDS, TIMES_US)


@given(UPDATES | DELETES)
def test_an_event_survives_its_wire_form(event: PinEvent) -> None:
    assert decode(event.pin_id.encode(), encode(event), timestamp_us=0, now_us=NOW) == event


def test_the_wire_form_is_short_and_readable() -> None:
    assert encode(PinUpdated("pin é", T0)) == f'{{"type":"pin_updated","pin_id":"pin é","event_time_us":{T0}}}'.encode()
    assert encode(PinDeleted("p1", T0)) == f'{{"type":"pin_deleted","pin_id":"p1","event_time_us":{T0}}}'.encode()


def test_events_are_grouped_by_pin_in_the_order_of_their_first() -> None:
    first, second, other = caption("b", "x"), caption("b", "y", T0 + 1), PinDeleted("a", T0)
    assert by_pin([first, other, second]) == {"b": [first, second], "a": [other]}
    assert list(by_pin([first, other, second])) == ["b", "a"]
    assert by_pin([]) == {}
