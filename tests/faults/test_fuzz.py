"""The short form of `tests.faults.fuzz`, and the same promises under hypothesis, which shrinks what breaks them."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pins.features import PinFeatures
from tests.faults.fuzz import check_decode, check_render, fuzz

EVENT_FIELDS = ("type", "pin_id", "event_time_us", "features", "features_as_of", "reembed")
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=20
)


def test_eight_thousand_inputs_break_nothing() -> None:
    tally = fuzz(8_000, seed=1, limit_ms=5000)
    assert not tally.broken
    assert tally.events > 400
    assert len(tally.refused) >= 7
    assert tally.rendered == 4_000


def test_the_same_seed_gives_the_same_inputs() -> None:
    first, second = (fuzz(500, seed=3, limit_ms=5000) for _ in range(2))
    assert (first.refused, first.events, first.textless) == (second.refused, second.events, second.textless)


@settings(max_examples=300, deadline=None)
@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=300))
def test_any_bytes_are_an_event_or_refused(key: bytes | None, value: bytes | None) -> None:
    check_decode(key, value)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys(EVENT_FIELDS, JSON)),
    st.sampled_from([None, "pin_updated", "pin_deleted"]),
)
def test_any_json_is_an_event_or_refused(body: dict[str, object], kind: str | None) -> None:
    check_decode(None, json.dumps(body | ({"type": kind, "pin_id": "p"} if kind else {})).encode("utf-8", "surrogatepass"))


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, ANY_TEXT, st.lists(ANY_TEXT, max_size=15), st.lists(st.tuples(ANY_TEXT, st.floats(allow_nan=False, allow_infinity=False)), max_size=25))
def test_any_strings_render(title: str, caption: str, boards: list[str], queries: list[tuple[str, float]]) -> None:
    pin = PinFeatures("p", title=title, caption=caption, board_titles=tuple(boards), engaged_queries=tuple(queries))
    check_render(pin, replace(pin, board_titles=tuple(reversed(boards)), engaged_queries=tuple(reversed(queries))))
