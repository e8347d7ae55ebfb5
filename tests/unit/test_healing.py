"""Comparing, sweeping and exporting on fakes: what counts as a difference, what is erased, what is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

import everpin.reconciling
from everpin.commands.healing import _share, seconds
from everpin.exports.one_file import export
from everpin.healing import conditions, matching
from everpin.reconciling import Difference, Scope, Stores, Tally, differences, recheck, share_of
from everpin.sweeping import sweep
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.events import PinDeleted
from pins.features import FeatureRow, PinFeatures
from tests.unit.house import House
from tests.unit.samples import T0, caption, content

NOW = T0 + 10_000


def filled(count: int = 30) -> tuple[House, Stores]:
    house = House()
    house.apply(*(caption(f"p{n}", f"a chair number {n}") for n in range(count)))
    return house, Stores(house.features, house.index, house.encoder)


def found(stores: Stores, **scope: object) -> tuple[dict[str, str], Tally]:
    tally = Tally()
    return {one.pin_id: one.kind for one in differences(stores, Scope(**{"settle_s": 0, "batch": 7, **scope}), tally)}, tally  # type: ignore[arg-type]


def change(house: House, pin_id: str, **changes: object) -> None:
    record, vector = house.index.points[pin_id]
    house.index.points[pin_id] = replace(record, **changes), vector  # type: ignore[arg-type]


def test_nothing_differs_after_the_worker() -> None:
    _, stores = filled()
    kinds, tally = found(stores, vectors=10)
    assert kinds == {}
    assert (tally.compared, tally.records, tally.vectors, tally.nameless) == (30, 30, 10, 0)


def test_every_kind_is_found() -> None:
    house, stores = filled()
    house.index.points.pop("p0")
    change(house, "p1", model_id="other")
    change(house, "p2", fingerprint="x", seen="x", text="x")
    change(house, "p3", fields={})
    change(house, "p4", v=0)
    change(house, "p5", refused="encoder_error")
    change(house, "p6", template_version=0)
    house.features.write([replace(house.features.rows["pin_caption", "p7"], event_time_us=NOW, values={"caption": "a lamp"})])
    house.apply(PinDeleted("p8", T0 + 5))
    house.index.points["p8"] = house.index.points["p9"]
    house.index.points["ghost"] = replace(house.record("p9"), pin_id="ghost"), house.vector("p9")
    house.index.points["p10"] = house.record("p10"), house.vector("p11")
    house.index.points["?"] = replace(house.record("p9"), pin_id=""), house.vector("p9")
    kinds, tally = found(stores, vectors=100)
    assert kinds == {
        "p0": "missing",
        "p1": "wrong_model",
        "p2": "damaged",
        "p3": "stale_fields",
        "p4": "damaged",
        "p5": "refused",
        "p6": "wrong_template",
        "p7": "stale_text",
        "p8": "dead_but_served",
        "ghost": "orphan",
        "p10": "wrong_vector",
    }
    assert tally.nameless == 1
    assert tally.kinds["damaged"] == 2
    assert tally.examples["damaged"] == ["p2", "p4"]


def test_a_missing_vector_is_a_wrong_one() -> None:
    house, stores = filled(3)
    house.index.points["p1"] = house.record("p1"), None
    assert found(stores, vectors=3)[0] == {"p1": "wrong_vector"}


def test_what_the_stream_mends_meanwhile_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    house, stores = filled()
    house.features.write([replace(house.features.rows["pin_caption", f"p{n}"], event_time_us=NOW, values={"caption": "a lamp"}) for n in range(9)])
    slept = []

    def meanwhile(s: float) -> None:
        slept.append(s)
        house.apply(*(caption(f"p{n}", "a lamp", NOW) for n in range(8)))

    monkeypatch.setattr(everpin.reconciling, "time", SimpleNamespace(monotonic=monotonic, sleep=meanwhile))
    assert found(stores, settle_s=2.0)[0] == {"p8": "stale_text"}
    assert 1.5 < slept[0] <= 2.0


def test_the_pins_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    house, stores = filled(200)
    house.index.points.clear()
    most = 0
    sleep = everpin.reconciling._SecondLook.add

    def watched(self: everpin.reconciling._SecondLook, pin_id: str) -> None:
        nonlocal most
        sleep(self, pin_id)
        most = max(most, len(self._waiting))

    monkeypatch.setattr(everpin.reconciling, "MOST_WAITING", 20)
    monkeypatch.setattr(everpin.reconciling._SecondLook, "add", watched)
    kinds, _ = found(stores, settle_s=0.001)
    assert kinds == {f"p{n}": "missing" for n in range(200)}
    assert most <= 20 + 7


def test_one_pin_that_cannot_be_judged_does_not_stop_the_others() -> None:
    house, stores = filled(5)
    change(house, "p1", text="x", fingerprint="y", seen="y", embedded=False)
    change(house, "p2", model_id="other")

    class Breaking(type(house.encoder)):  # type: ignore[misc]
        def same_tokens(self, before: str, after: str) -> bool:
            raise RuntimeError("a defect")

    house.features.write([replace(house.features.rows["pin_caption", "p3"], event_time_us=NOW, values={"caption": "a lamp"})])
    assert found(replace(stores, encoder=Breaking()))[0] == {"p1": "stale_text", "p2": "wrong_model", "p3": "refused"}


def test_the_same_seed_draws_the_same_pins_from_both_sides() -> None:
    house, stores = filled(300)
    house.index.points.update({f"ghost{n}": (replace(house.record("p1"), pin_id=f"ghost{n}"), None) for n in range(300)})
    share = share_of(house.features, 30, seed=5, batch=11)
    first, tally = found(stores, share=share, seed=5)
    assert tally.compared == 30
    assert 5 < len(first) < 80
    assert found(stores, share=share, seed=5)[0] == first
    assert found(stores, share=share, seed=6)[0] != first
    assert share_of(house.features, 300, 5) <= 1.0
    assert found(stores, share=share_of(house.features, 300, 5), seed=5)[1].compared == 300
    assert share_of(house.features, 301, 5) == 1.0
    assert _share("12.5%", house.features, 0) == 0.125
    for wrong in ("x", "0", "101%", "1.5", "-3"):
        with pytest.raises(EverpinError, match="--sample"):
            _share(wrong, house.features, 0)


def test_a_recheck_looks_at_exactly_those_it_is_given() -> None:
    house, stores = filled()
    house.index.points.pop("p1")
    house.index.points.pop("p2")
    house.index.points["p3"] = house.record("p3"), house.vector("p4")
    left = recheck(stores, Scope(settle_s=0), [Difference("p1", "missing"), Difference("p3", "wrong_vector"), Difference("p5", "missing")])
    assert sorted((one.pin_id, one.kind) for one in left) == [("p1", "missing"), ("p3", "wrong_vector")]


def test_where_chooses_live_pins() -> None:
    house, stores = filled(4)
    change(house, "p0", fields={"lang": "de", "boards": ["garden"]}, refused="bad_vector")
    change(house, "p1", fields={"lang": "de", "boards": []}, reason="cosmetic")
    house.apply(PinDeleted("p2", T0 + 5))

    def chosen(*where: str) -> list[str]:
        return [pin_id for ids in matching(stores, conditions(where)) for pin_id in ids]

    assert chosen("lang=de") == ["p0", "p1"]
    assert chosen("lang=de", "reason=cosmetic") == ["p1"]
    assert chosen("board=garden") == chosen("refused=*") == chosen("refused=bad_vector") == ["p0"]
    assert chosen("model=fake-v1") == ["p0", "p1", "p3"]
    for wrong in ("lang", "size=3"):
        with pytest.raises(EverpinError, match="--where"):
            chosen(wrong)


def test_a_sweep_erases_what_was_deleted_before_the_hold_and_nothing_else() -> None:
    house, _ = filled(4)
    house.now = NOW
    house.apply(content("p0", T0 + 1, title="Secret"), PinDeleted("p0", T0 + 5))
    house.apply(PinDeleted("p1", T0 + 50))
    dry = sweep(house.features, house.index, T0 + 20, lambda: NOW, dry_run=True)
    assert (dry.deleted, dry.erased, dry.tombstones) == (1, 1, 0)
    assert house.features.of(["p0"])["p0"].title == "Secret"
    report = sweep(house.features, house.index, T0 + 20, lambda: NOW)
    assert (report.deleted, report.erased, report.tombstones) == (1, 1, 0)
    assert (report.too_young, report.complete) == (1, False), "its tombstone was written within the hold: its bytes are still in the index"
    assert house.features.of(["p0"])["p0"].title == ""
    assert house.features.of(["p1"])["p1"].caption == "a chair number 1"
    assert house.record("p0").dead
    last = sweep(house.features, house.index, NOW + 100, lambda: NOW + 100)
    assert (last.tombstones, last.complete) == (2, True)
    assert not {"p0", "p1"} & house.index.points.keys()
    assert {"p2", "p3"} <= house.index.points.keys()
    assert sweep(house.features, house.index, NOW + 100, lambda: NOW + 100).erased == 0


def test_an_older_event_after_the_sweep_brings_nothing_back() -> None:
    house, _ = filled(1)
    house.apply(PinDeleted("p0", T0 + 5))
    sweep(house.features, house.index, NOW, lambda: NOW)
    assert house.index.points == {}
    house.apply(caption("p0", "a chair again", T0 + 4), content("p0", T0 + 6, title="late"))
    assert house.record("p0").dead
    assert not house.record("p0").text
    assert house.features.of(["p0"])["p0"].title == ""


def test_a_sweep_says_what_is_still_served_and_what_it_could_not_erase() -> None:
    house, stores = filled(2)
    house.features.write([FeatureRow("pin_status", "p0", T0 + 5, {"deleted": 1})])
    report = sweep(house.features, house.index, NOW, lambda: NOW)
    assert (report.still_served, report.examples, report.complete) == (1, ["p0"], False)

    class Stubborn(type(house.features)):  # type: ignore[misc]
        def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
            return {pin_id: replace(pin, title="again") for pin_id, pin in super().of(pin_ids).items()}

    stubborn = Stubborn()
    stubborn.rows = house.features.rows
    assert sweep(stubborn, stores.index, NOW, lambda: NOW).not_erased == ["p0"]


@pytest.mark.parametrize(("words", "expected"), [("24h", 86400), ("30m", 1800), ("7d", 604800), ("90", 90), ("1.5s", 1.5)])
def test_durations(words: str, expected: float) -> None:
    assert seconds(words) == expected
    with pytest.raises(EverpinError, match="--hold"):
        seconds(words + "x")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("vectors", [False, True])
def test_an_export_holds_the_live_pins_and_no_deleted_one(suffix: str, vectors: bool, tmp_path: Path) -> None:
    house, _ = filled(5)
    house.apply(PinDeleted("p1", T0 + 5), caption("p2", "", T0 + 9))
    house.index.points["?"] = replace(house.record("p3"), pin_id=""), house.vector("p3")
    path = tmp_path / f"pins.{suffix}"
    report = export(house.index, path, vectors=vectors)
    assert (report.pins, report.textless, report.left_out) == (4, 1, 2)
    rows = [json.loads(line) for line in path.read_text().splitlines()] if suffix == "jsonl" else pq.read_table(path).to_pylist()
    assert [row["pin_id"] for row in rows] == ["p0", "p2", "p3", "p4"]
    assert rows[0]["text"] == "a chair number 0"
    assert rows[0]["fields"]["boards"] == []
    assert set(rows[0]) == {"pin_id", "text", "fields", "model_id", "v"} | ({"vector"} if vectors else set())
    if vectors:
        np.testing.assert_allclose(rows[0]["vector"], house.vector("p0"), atol=1e-6)
        assert rows[1]["vector"] is None
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_export_is_whole_or_not_there(tmp_path: Path) -> None:
    house, _ = filled(1)
    with pytest.raises(EverpinError, match=r"\.jsonl or \.parquet"):
        export(house.index, tmp_path / "pins.csv", vectors=False)
    with pytest.raises(EverpinError, match="name a file"):
        export(house.index, tmp_path / "no" / "pins.jsonl", vectors=False)

    class Dying(type(house.index)):  # type: ignore[misc]
        def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, np.ndarray]:
            raise EverpinError("gone")

    dying = Dying()
    dying.points = {"p": (IndexedPin("p", 1, dead=False, embedded=True, model_id="m"), None)}
    with pytest.raises(EverpinError, match="gone"):
        export(dying, tmp_path / "pins.jsonl", vectors=True)
    assert list(tmp_path.iterdir()) == []
