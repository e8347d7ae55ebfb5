"""Pins of an export: the newest row of each view, and that an export never undoes what the stream wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backfill import offline
from backfill.blocks import Block
from backfill.offline import features, newest
from pins.errors import EverpinError
from pins.events import PinDeleted, PinUpdated
from pins.features import VIEWS, FeatureRow
from tests.unit.house import House, rival
from tests.unit.samples import T0
from tests.unit.test_backfill import HouseParts, titles, worker

DAY_US = 86_400_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def export(folder: Path, view: str, rows: list[dict[str, Any]]) -> None:
    """A view's history as pandas and Feast write it."""
    (folder / "offline").mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([dict.fromkeys(VIEWS[view]) | row for row in rows])
    frame.to_parquet(folder / "offline" / f"{view}.parquet")


def content(pin_id: str, title: str, at_us: int, created_us: int | None = None, **more: Any) -> dict[str, Any]:
    return {"pin_id": pin_id, "event_timestamp": at(at_us), "created": at(created_us or at_us), "title": title, **more}


@pytest.mark.parametrize("part_rows", [500_000, 2])
def test_the_newest_row_of_each_view_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_rows: int) -> None:
    monkeypatch.setattr(offline, "PART_ROWS", part_rows)
    export(
        tmp_path,
        "pin_content",
        [
            content("a", "second", T0 + 2),
            content("a", "first", T0 + 1),
            content("b", "written earlier", T0, T0 + 1),
            content("b", "written later", T0, T0 + 2, created_at_us=T0 - DAY_US, lang="en"),
        ],
    )
    export(tmp_path, "pin_status", [{"pin_id": "c", "event_timestamp": at(T0 + 5), "created": None, "deleted": 1}])
    found = {pin_id: features(pin_id, snapshot) for pin_id, snapshot in newest(tmp_path, tmp_path)}
    assert sorted(found) == ["a", "b", "c"]
    assert (found["a"].title, found["a"].as_of) == ("second", {"pin_content": T0 + 2})
    assert (found["b"].title, found["b"].lang, found["b"].created_at_us) == ("written later", "en", T0 - DAY_US)
    assert found["c"].deleted
    assert found["c"].as_of == {"pin_status": T0 + 5}


def test_lists_and_integers_with_gaps_read_back_as_their_view_keeps_them(tmp_path: Path) -> None:
    rows = [
        {"pin_id": "a", "event_timestamp": at(T0), "engaged_queries": ["red", "chair"], "engaged_counts": [2.0, 1.0], "save_count": 3},
        {"pin_id": "b", "event_timestamp": at(T0), "engaged_queries": None, "engaged_counts": None},
    ]
    export(tmp_path, "pin_engagement", rows)
    found = {pin_id: features(pin_id, snapshot) for pin_id, snapshot in newest(tmp_path / "offline", tmp_path)}
    assert found["a"].engaged_queries == (("red", 2.0), ("chair", 1.0))
    assert (found["a"].save_count, found["b"].save_count, found["b"].engaged_queries) == (3, 0, ())


def test_what_is_no_export_is_said(tmp_path: Path) -> None:
    with pytest.raises(EverpinError, match=r"pin_content\.parquet"):
        list(newest(tmp_path, tmp_path))
    (tmp_path / "pin_content.parquet").write_text("nothing")
    with pytest.raises(EverpinError, match="docs/backfill"):
        list(newest(tmp_path, tmp_path))
    pd.DataFrame({"pin_id": ["a"], "event_timestamp": ["yesterday"]}).to_parquet(tmp_path / "pin_content.parquet")
    with pytest.raises(EverpinError, match="epoch microseconds"):
        list(newest(tmp_path, tmp_path))


def snapshot(title: str, at_us: int = T0) -> str:
    return f'{{"pin_content":[{at_us},{{"title":"{title}"}}]}}'


def test_an_export_gives_the_text_of_pins_that_nobody_wrote_yet(house: House) -> None:
    mine, _ = worker(HouseParts(house))
    house.features.write(titles("b", at_us=T0 + 9))
    house.apply(PinUpdated("b", T0 + 9))
    report = mine.work(Block(0, ["a", "b"], [snapshot("exported a"), snapshot("exported b")]))
    assert report.outcomes == {"new": 1, "unchanged": 1}
    assert "exported a" in house.record("a").text
    assert "title of b" in house.record("b").text


def test_an_export_never_brings_a_deleted_pin_back(house: House) -> None:
    mine, _ = worker(HouseParts(house))
    house.features.write(titles("a"))
    house.apply(PinDeleted("a", T0 + 5))
    assert mine.work(Block(0, ["a"], [snapshot("a lives")])).outcomes == {"deleted": 1}
    assert house.record("a").dead


@pytest.mark.parametrize("deleted", [False, True])
def test_an_export_that_loses_a_race_to_the_stream_is_decided_on_the_online_store(house: House, deleted: bool) -> None:
    mine, _ = worker(HouseParts(house))
    house.features.write(titles("a", at_us=T0 + 9))
    if deleted:
        house.features.write([FeatureRow("pin_status", "a", T0 + 10, {"deleted": 1})])
    rival(house, [PinUpdated("a", T0 + 9)])
    report = mine.work(Block(0, ["a"], [snapshot("an old title")]))
    assert report.outcomes == ({"deleted": 1} if deleted else {"stale": 1})
    assert house.record("a").dead == deleted
    assert "old" not in house.record("a").text
