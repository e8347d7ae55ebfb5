"""The harness itself: its schedules come from the seed alone, and its oracle sees every kind of fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.settings import SHIPPED_MODEL
from pins.changes import IndexedPin, fingerprint, surface_fields
from pins.events import decode
from pins.features import PinFeatures
from pins.ports import PointWrite
from pins.text import render
from tests.fakes import FakeIndex
from tests.faults.generator import counts, feature_rows, message, schedule
from tests.faults.injector import ZOMBIE_POINTS, plan
from tests.faults.oracle import FAULTS, Verdict, compare
from tests.faults.setting import Choice
from tests.faults.worker import POINTS, Fate

NOW_US = 1_764_000_000_000_000


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    assert schedule(7, 20, 40) == schedule(7, 20, 40)
    assert schedule(7, 20, 40) != schedule(8, 20, 40)


def test_a_schedule_holds_every_kind_of_event() -> None:
    held = counts(schedule(7, 60, 40))
    assert held["unique_pins"] == 300
    for kind in ("update", "hint", "late_features", "delete", "tombstone", "poison", "duplicates", "written_to_feast"):
        assert held[kind] > 10, kind


def test_each_view_of_a_pin_has_one_clock_of_distinct_milliseconds() -> None:
    rows: dict[tuple[str, str, int], object] = {}
    for step in schedule(3, 60, 40):
        assert step.event_us % 1000 == 0
        for view, row in step.rows.items():
            assert rows.setdefault((step.pin_id, view, step.event_us), row) == row


def test_what_a_hint_speaks_of_is_in_feast_before_the_hint_is_sent() -> None:
    written: set[tuple[str, int]] = set()
    for step in schedule(5, 60, 40):
        if step.kind == "feast":
            written.add((step.pin_id, step.event_us))
        if step.kind == "hint":
            assert (step.pin_id, step.event_us) in written


def test_good_messages_decode_and_poison_does_not() -> None:
    for step in schedule(2, 30, 40):
        if step.sends:
            key, value = message(step, NOW_US)
            if step.kind == "poison":
                with pytest.raises(Exception, match="_"):
                    decode(key, value, timestamp_us=NOW_US, now_us=NOW_US)
            else:
                assert decode(key, value, timestamp_us=NOW_US, now_us=NOW_US).pin_id == step.pin_id
        else:
            assert feature_rows(step, NOW_US)


def test_the_same_seed_gives_the_same_faults_and_every_point_its_share() -> None:
    made = plan(7, 120, 3, kills=200, pauses=5, deploys=2, outages=["kafka_kill", "qdrant_hang"])
    assert made == plan(7, 120, 3, kills=200, pauses=5, deploys=2, outages=["kafka_kill", "qdrant_hang"])
    for point in POINTS:
        assert sum(fault.point == point and fault.kind == "kill" for fault in made) >= 20
    assert {fault.point for fault in made if fault.kind == "pause"} == set(ZOMBIE_POINTS)
    assert {fault.slot for fault in made if fault.kind == "kill"} == {0, 1, 2}


def test_set_ups_that_cannot_work_are_refused() -> None:
    assert Choice.of(1) == Choice("embedded", "sqlite", "edge")
    assert Choice.of(3) == Choice("kafka", "redis", "server")
    with pytest.raises(ValueError, match="--broker kafka"):
        Choice.of(2, broker="embedded")
    with pytest.raises(ValueError, match="--index server"):
        Choice.of(2, index="edge")


def test_a_point_is_met_at_its_time_only() -> None:
    fate = Fate({"FAULT_POINT": "mid_write", "FAULT_AT": "3"})
    assert [fate.due("mid_write") for _ in range(4)] == ["", "", "kill", ""]
    assert fate.due("before_ack") == ""
    with pytest.raises(SystemExit, match="mid_flight"):
        Fate({"FAULT_POINT": "mid_flight"})


class Truth:
    """A feature store with these pins."""

    def __init__(self, *pins: PinFeatures) -> None:
        self.pins = {pin.pin_id: pin for pin in pins}

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        return {pin_id: self.pins[pin_id] for pin_id in pin_ids if pin_id in self.pins}


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(open_artifact(SHIPPED_MODEL), threads=1)


PIN = PinFeatures("p", title="a red chair", as_of={"pin_content": NOW_US})


def _indexed(encoder: OnnxEncoder, pin: PinFeatures = PIN, **changed: object) -> PointWrite:
    """What the index should hold of a pin, and what a fault made of it."""
    text = render(pin)
    now = fingerprint(text.text)
    record = IndexedPin(
        pin.pin_id, 5, dead=False, embedded=True, model_id=encoder.model_id, text=text.text, fingerprint=now, seen=now, fields=surface_fields(pin, text)
    )
    return PointWrite(replace(record, **changed), None, encoder.query(text.text))  # type: ignore[arg-type]  # any field


def _verdict(encoder: OnnxEncoder, truth: PinFeatures | None, *writes: PointWrite) -> Verdict:
    index = FakeIndex()
    index.write(writes)
    return compare({"p"}, Truth(*([truth] if truth else [])), index, encoder)  # type: ignore[arg-type]  # only `of` is asked


def test_the_oracle_is_content_with_what_is_right(encoder: OnnxEncoder) -> None:
    assert _verdict(encoder, PIN, _indexed(encoder)).equal
    gone = PointWrite(IndexedPin("p", 5, dead=True, embedded=False, model_id=encoder.model_id), None)
    assert _verdict(encoder, replace(PIN, deleted=True), gone).equal


def test_the_oracle_sees_every_fault(encoder: OnnxEncoder) -> None:
    right = _indexed(encoder)
    other = replace(PIN, title="a bowl of soup")
    tombstone = PointWrite(IndexedPin("p", 5, dead=True, embedded=False, model_id=encoder.model_id), None)
    cases: dict[str, tuple[PinFeatures | None, list[PointWrite]]] = {
        "missing": (PIN, []),
        "lost": (PIN, [tombstone]),
        "stale": (other, [right]),
        "stale_fields": (replace(PIN, category="food"), [right]),
        "resurrected": (replace(PIN, deleted=True), [right]),
        "wrong_model": (PIN, [_indexed(encoder, model_id="another")]),
        "wrong_vector": (PIN, [replace(right, vector=encoder.query("a bowl of soup"))]),
        "wrong_cosmetic": (other, [_indexed(encoder, seen=fingerprint(render(other).text))]),
        "foreign": (PIN, [right, _indexed(encoder, replace(PIN, pin_id="nobody's"))]),
    }
    assert set(cases) == set(FAULTS)
    for fault, (truth, writes) in cases.items():
        assert _verdict(encoder, truth, *writes).faults[fault], fault
