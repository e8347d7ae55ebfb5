from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.errors import InvalidEvent
from pins.experiments.exposures import (
    ACTIONS,
    CANDIDATE,
    CONTROL,
    INTERLEAVED,
    LONG_CLICK_MS,
    MAX_DWELL_MS,
    MAX_SHOWN,
    REASONS,
    SURFACES,
    TEAMS,
    ExperimentEvent,
    Exposure,
    Outcome,
    decode,
    encode,
    unit_name,
)
from pins.wire import FUTURE_TOLERANCE_US
from tests.unit.samples import T0

NOW = T0 + 1_000_000
EXPOSURE: dict[str, Any] = {
    "type": "exposure", "experiment": "l6-v2", "unit": "u", "arm": CANDIDATE, "surface": "search", "request_id": "r1",
    "model_ids": ["l6-v2"], "shown": ["p1", "p2"], "share": 0.05, "at_us": T0,
}  # fmt: skip
OUTCOME: dict[str, Any] = {
    "type": "outcome", "experiment": "l6-v2", "unit": "u", "request_id": "r1", "pin_id": "p1", "action": "click", "dwell_ms": 12_000, "at_us": T0,
}  # fmt: skip


def wire(body: dict[str, Any], **changes: Any) -> bytes:
    """A good event with these fields changed; `...` takes one away."""
    return json.dumps({name: value for name, value in (body | changes).items() if value is not ...}).encode()


def read(value: bytes | None, key: bytes | None = b"r1") -> ExperimentEvent:
    return decode(key, value, now_us=NOW)


def test_an_exposure_is_read() -> None:
    assert read(wire(EXPOSURE)) == Exposure("l6-v2", "u", CANDIDATE, "search", "r1", ("l6-v2",), ("p1", "p2"), T0, share=0.05)
    assert read(wire(EXPOSURE, share=..., more="is ignored"), key=None) == Exposure("l6-v2", "u", CANDIDATE, "search", "r1", ("l6-v2",), ("p1", "p2"), T0)


def test_an_interleaved_exposure_has_two_models_and_teams() -> None:
    event = read(wire(EXPOSURE, arm=INTERLEAVED, model_ids=["l6-v1", "l6-v2"], teams=[CANDIDATE, CONTROL], share=...))
    assert event == Exposure("l6-v2", "u", INTERLEAVED, "search", "r1", ("l6-v1", "l6-v2"), ("p1", "p2"), T0, (CANDIDATE, CONTROL))


def test_an_interleaved_answer_without_pins_needs_no_teams() -> None:
    event = read(wire(EXPOSURE, arm=INTERLEAVED, model_ids=["l6-v1", "l6-v2"], shown=[], share=...))
    assert isinstance(event, Exposure)
    assert (event.shown, event.teams) == ((), ())


def test_an_outcome_is_read() -> None:
    assert read(wire(OUTCOME)) == Outcome("l6-v2", "u", "r1", "p1", "click", T0, 12_000)
    assert read(wire(OUTCOME, dwell_ms=...)) == Outcome("l6-v2", "u", "r1", "p1", "click", T0)


@pytest.mark.parametrize(
    ("action", "dwell_ms", "kind"),
    [
        ("click", None, "click"), ("click", LONG_CLICK_MS - 1, "click"), ("click", LONG_CLICK_MS, "long_click"),
        ("save", LONG_CLICK_MS, "save"), ("long_click", None, "long_click"), ("hide", 0, "hide"),
    ],
)  # fmt: skip
def test_a_long_stay_makes_a_long_click(action: str, dwell_ms: int | None, kind: str) -> None:
    assert Outcome("x", "u", "r", "p", action, T0, dwell_ms).kind == kind


REFUSED = [
    pytest.param(None, "bad_shape", "without a value", id="no value"),
    pytest.param(b"{", "not_json", "starts with", id="no JSON"),
    pytest.param(wire(EXPOSURE, type="click"), "unknown_type", "use 'exposure' or 'outcome'", id="another type"),
    pytest.param(wire(EXPOSURE, request_id=...), "bad_request_id", "letters", id="no request"),
    pytest.param(wire(EXPOSURE, request_id="r2"), "bad_request_id", "use the request id as key", id="another key"),
    pytest.param(wire(EXPOSURE, experiment="a b"), "bad_experiment", "'a b'", id="a name with a space"),
    pytest.param(wire(EXPOSURE, experiment="x" * 101), "bad_experiment", "1 to 100", id="a long name"),
    pytest.param(wire(EXPOSURE, unit=""), "bad_unit", "printable", id="no unit"),
    pytest.param(wire(EXPOSURE, unit=7), "bad_unit", "printable", id="a number as unit"),
    pytest.param(wire(EXPOSURE, unit="\ud800"), "bad_unit", "printable", id="a surrogate as unit"),
    pytest.param(wire(EXPOSURE, arm="third"), "bad_arm", "control, candidate, interleaved", id="another arm"),
    pytest.param(wire(EXPOSURE, arm=None), "bad_arm", "control", id="no arm"),
    pytest.param(wire(EXPOSURE, surface="map"), "bad_surface", "search, related, feed", id="another surface"),
    pytest.param(wire(EXPOSURE, model_ids=[]), "bad_models", "names 1 model", id="no model"),
    pytest.param(wire(EXPOSURE, model_ids=["a", "b"]), "bad_models", "names 1 model", id="two models"),
    pytest.param(wire(EXPOSURE, model_ids=[""]), "bad_models", "names 1 model", id="an empty model"),
    pytest.param(wire(EXPOSURE, model_ids="a"), "bad_models", "names 1 model", id="a model that is no list"),
    pytest.param(wire(EXPOSURE, shown="p1"), "bad_shown", "at most 100", id="pins that are no list"),
    pytest.param(wire(EXPOSURE, shown=[f"p{n}" for n in range(MAX_SHOWN + 1)]), "bad_shown", "at most 100", id="too many pins"),
    pytest.param(wire(EXPOSURE, shown=["p1", "p1"]), "bad_shown", "twice", id="a pin twice"),
    pytest.param(wire(EXPOSURE, shown=["p1", 2]), "bad_pin_id", "non-empty", id="a pin that is a number"),
    pytest.param(wire(EXPOSURE, teams=[CONTROL, CONTROL]), "bad_arm", "only interleaved", id="teams of one arm"),
    pytest.param(wire(EXPOSURE, arm=INTERLEAVED, model_ids=["a", "b"]), "bad_arm", "each of the 2", id="no teams"),
    pytest.param(wire(EXPOSURE, arm=INTERLEAVED, model_ids=["a", "b"], teams=[CONTROL]), "bad_arm", "each of the 2", id="too few teams"),
    pytest.param(wire(EXPOSURE, arm=INTERLEAVED, model_ids=["a", "b"], teams=[CONTROL, "x"]), "bad_arm", "'x'", id="another team"),
    pytest.param(wire(EXPOSURE, share=0), "bad_share", "above 0", id="no share"),
    pytest.param(wire(EXPOSURE, share=1), "bad_share", "below 1", id="the whole share"),
    pytest.param(wire(EXPOSURE, share=True), "bad_share", "True", id="true as share"),
    pytest.param(wire(EXPOSURE, share=float("nan")), "bad_share", "nan", id="NaN as share"),
    pytest.param(wire(EXPOSURE, at_us=12), "bad_time", "epoch microseconds", id="seconds"),
    pytest.param(wire(EXPOSURE, at_us=NOW + FUTURE_TOLERANCE_US + 1), "far_future", "ahead", id="the future"),
    pytest.param(wire(OUTCOME, pin_id=...), "bad_pin_id", "non-empty", id="no pin"),
    pytest.param(wire(OUTCOME, action="adore"), "bad_action", "click, long_click, save, hide", id="another action"),
    pytest.param(wire(OUTCOME, dwell_ms=-1), "bad_dwell", "whole milliseconds", id="a negative stay"),
    pytest.param(wire(OUTCOME, dwell_ms=MAX_DWELL_MS + 1), "bad_dwell", "whole milliseconds", id="a stay of more than a day"),
    pytest.param(wire(OUTCOME, dwell_ms=1.5), "bad_dwell", "whole milliseconds", id="half a millisecond"),
    pytest.param(wire(OUTCOME, dwell_ms=True), "bad_dwell", "whole milliseconds", id="true as stay"),
]


@pytest.mark.parametrize(("value", "reason", "words"), REFUSED)
def test_a_bad_event_is_refused_with_what_to_send_instead(value: bytes | None, reason: str, words: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        read(value)
    assert refused.value.reason == reason
    assert words in refused.value.detail


def test_every_reason_is_met() -> None:
    assert {param.values[1] for param in REFUSED} >= set(REASONS)


plain = st.text("abcXYZ019._-", min_size=1, max_size=64)
pin_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
times = st.integers(T0 - 10**14, NOW)
units = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=40)


@st.composite
def exposures(draw: st.DrawFn) -> Exposure:
    shown = tuple(draw(st.lists(pin_ids, max_size=6, unique=True)))
    interleaved = draw(st.booleans())
    models = tuple(draw(st.lists(plain, min_size=1 + interleaved, max_size=1 + interleaved)))
    arm = INTERLEAVED if interleaved else draw(st.sampled_from(TEAMS))
    teams = tuple(draw(st.sampled_from(TEAMS)) for _ in shown) if interleaved else ()
    share = draw(st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True))
    return Exposure(draw(plain), draw(units), arm, draw(st.sampled_from(SURFACES)), draw(plain), models, shown, draw(times), teams, share)


outcomes = st.builds(
    Outcome, experiment=plain, unit=units, request_id=plain, pin_id=pin_ids, action=st.sampled_from(ACTIONS), at_us=times,
    dwell_ms=st.none() | st.integers(0, MAX_DWELL_MS),
)  # fmt: skip


@given(exposures() | outcomes)
def test_what_is_encoded_is_read_back(event: ExperimentEvent) -> None:
    assert decode(event.request_id.encode(), encode(event), now_us=NOW) == event


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers() | st.text(), lambda some: st.lists(some) | st.dictionaries(st.text(), some)).map(
    lambda body: json.dumps(body).encode()))  # fmt: skip
def test_anything_else_is_refused_and_nothing_worse(value: bytes) -> None:
    with pytest.raises(InvalidEvent):
        read(value, None)


def test_a_unit_has_another_name_in_every_experiment() -> None:
    assert unit_name("ann", "x") == unit_name("ann", "x")
    assert len({unit_name(unit, experiment) for unit in ("ann", "bob", "\ud800") for experiment in ("x", "y")}) == 6
    assert "ann" not in unit_name("ann", "x")
