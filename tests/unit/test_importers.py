from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everpin.importers import BATCH, READERS, BadRow, PinRow, batches, count_rows, parse_row, read_cxc, read_events, read_jsonl, read_parquet
from pins.errors import EverpinError
from pins.events import PinDeleted, PinUpdated, encode
from pins.features import VIEWS
from tests.unit.samples import T0

Write = Callable[..., Path]


@pytest.fixture
def lines(tmp_path: Path) -> Write:
    def write(*rows: Any) -> Path:
        path = tmp_path / "pins.jsonl"
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows))
        return path

    return write


@pytest.fixture
def parquet(tmp_path: Path) -> Write:
    def write(name: str = "pins.parquet", **columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    return write


BAD = [
    pytest.param(b"{'pin_id': 'p1'}", "(line)", "not JSON", '{"pin_id": "p1", "title": "Red chair"}', id="Python instead of JSON"),
    pytest.param(b'{"pin_id": "caf\xe9"}', "(line)", "not JSON", "one JSON object per line", id="Latin-1"),
    pytest.param(["p1"], "(line)", "expected an object, got list", '{"pin_id": "p1", "title": "Red chair"}', id="a list"),
    pytest.param(b"null", "(line)", "expected an object, got NoneType", "an object such as", id="null"),
    pytest.param({"title": "Red chair"}, "pin_id", "Field required", "the pin's id, stable for ever", id="no pin id"),
    pytest.param({"pin_id": None}, "pin_id", "Field required", "the pin's id", id="null as pin id"),
    pytest.param({"pin_id": ""}, "pin_id", "at least 1 character, got ''", "the pin's id", id="an empty pin id"),
    pytest.param({"pin_id": "x" * 257}, "pin_id", "at most 256 characters", "the pin's id", id="a pin id too long"),
    pytest.param({"pin_id": 7}, "pin_id", "valid string, got 7", "the pin's id", id="a number as pin id"),
    pytest.param({"pin_id": "p\ud800"}, "pin_id", "valid string", "the pin's id", id="a lone surrogate in the pin id"),
    pytest.param({"pin_id": "p", "tittle": "x"}, "tittle", "unknown field", "did you mean 'title'?", id="a field misspelt"),
    pytest.param({"pin_id": "p", "zzz": "x"}, "zzz", "unknown field", "one of pin_id, title, description", id="a field from elsewhere"),
    pytest.param({"pin_id": "p", "title": 7}, "title", "valid string, got 7", "title as the author wrote it", id="a number as title"),
    pytest.param({"pin_id": "p", "board_titles": "Soups"}, "board_titles", "valid list, got 'Soups'", "titles of boards", id="a string where a list belongs"),
    pytest.param({"pin_id": "p", "board_titles": ["Soups", 7]}, "board_titles", "valid string, got 7", "titles of boards", id="a number among board titles"),
    pytest.param({"pin_id": "p", "engaged_queries": {"soup": "often"}}, "engaged_queries", "got 'often'", "a list counts 1 each", id="a word as count"),
    pytest.param({"pin_id": "p", "engaged_queries": [["soup", 2]]}, "engaged_queries", "valid dictionary", "with their counts", id="pairs of queries"),
    pytest.param({"pin_id": "p", "created_at": "last week"}, "created_at", "got 'last week'", "ISO 8601", id="a time in words"),
    pytest.param({"pin_id": "p", "save_count": -1}, "save_count", "greater than or equal to 0, got -1", "number of saves", id="less than no saves"),
    pytest.param({"pin_id": "p", "like_count": 1.5}, "like_count", "got 1.5", "number of likes", id="half a like"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "field", "problem", "instead"), BAD)
def test_a_bad_row_says_its_line_field_and_cure_and_stops_no_other(lines: Write, row: Any, field: str, problem: str, instead: str) -> None:
    first, bad, last = read_jsonl(lines({"pin_id": "p1"}, row, {"pin_id": "p3"}))
    assert (first, last) == (PinRow(pin_id="p1"), PinRow(pin_id="p3"))
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.field) == (2, field)
    assert problem in bad.problem
    assert instead in bad.instead
    assert len(bad.problem) < 250


def test_empty_lines_are_passed_over_and_still_counted_in_line_numbers(lines: Write) -> None:
    path = lines(b"", {"pin_id": "p1"}, b"  ", b"oops", b"")
    good, bad = read_jsonl(path)
    assert good == PinRow(pin_id="p1")
    assert isinstance(bad, BadRow)
    assert bad.line == 4
    assert count_rows("jsonl", path) == 2


def test_a_byte_order_mark_is_no_fault_of_the_row(lines: Write) -> None:
    assert list(read_jsonl(lines(b'\xef\xbb\xbf{"pin_id": "p1"}'))) == [PinRow(pin_id="p1")]


def test_null_means_absent() -> None:
    assert parse_row(1, {"pin_id": "p1", "title": None, "board_titles": None, "engaged_queries": None, "save_count": None}) == PinRow(pin_id="p1")
    assert PinRow(pin_id="p1", board_titles=None, engaged_queries=None) == PinRow(pin_id="p1")  # type: ignore[arg-type]


def test_a_list_of_queries_counts_one_each() -> None:
    row = parse_row(1, {"pin_id": "p1", "engaged_queries": ["soup", "stew"]})
    assert isinstance(row, PinRow)
    assert row.engaged_queries == {"soup": 1.0, "stew": 1.0}


FULL = {
    "pin_id": "p1", "title": "Soup", "description": "d", "caption": "c", "caption_model": "cm", "board_titles": ["b", "b"],
    "engaged_queries": {"soup": 2.5, "stew": 1}, "link_title": "lt", "link_description": "ld", "link_url": "lu",
    "image_url": "iu", "category": "food", "lang": "en",
    "created_at": "2024-03-01T12:00:00+02:00", "save_count": 3, "like_count": 4,
}  # fmt: skip


def test_a_row_becomes_one_whole_row_of_each_view() -> None:
    row = parse_row(1, FULL)
    assert isinstance(row, PinRow)
    rows = row.rows(T0)
    assert {made.view: made.values for made in rows} == {
        "pin_content": {
            "title": "Soup", "description": "d", "link_title": "lt", "link_description": "ld", "link_url": "lu", "image_url": "iu", "category": "food",
            "lang": "en", "created_at_us": int(datetime(2024, 3, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000,
        },
        "pin_caption": {"caption": "c", "caption_model": "cm"},
        "pin_boards": {"board_titles": ["b", "b"]},
        "pin_engagement": {"engaged_queries": ["soup", "stew"], "engaged_counts": [2.5, 1.0], "save_count": 3, "like_count": 4},
    }  # fmt: skip
    assert all((made.key, made.event_time_us) == ("p1", T0) for made in rows)


def test_every_row_of_a_view_is_one_that_an_event_may_carry() -> None:
    for made in (PinRow(pin_id="p1"), PinRow.model_validate(FULL)):
        for row in made.rows(T0):
            assert row.values.keys() == VIEWS[row.view].keys()
            assert all(column.accepts(row.values[name]) for name, column in VIEWS[row.view].items())


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is not UTC."""
    monkeypatch.setenv("TZ", "EST5EDT")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_a_time_without_an_offset_is_utc() -> None:
    made = PinRow.model_validate({"pin_id": "p1", "created_at": "2024-03-01T10:00:00"}).rows(T0)[0]
    assert made.values["created_at_us"] == int(datetime(2024, 3, 1, 10, tzinfo=UTC).timestamp()) * 1_000_000


def test_parquet_maps_and_lists_are_read(parquet: Write) -> None:
    path = parquet(
        pin_id=["p1", "p2", "p3"],
        title=["Soup", None, "Stew"],
        board_titles=pa.array([["a", "b"], None, []]),
        engaged_queries=pa.array([[("soup", 2.5), ("stew", 1.0)], None, []], pa.map_(pa.string(), pa.float64())),
        created_at=pa.array([T0, None, T0], pa.timestamp("us", tz="UTC")),
        save_count=[3, None, 0],
    )
    rows = list(read_parquet(path))
    assert [row.pin_id for row in rows if isinstance(row, PinRow)] == ["p1", "p2", "p3"]
    first, second, third = (row for row in rows if isinstance(row, PinRow))
    assert (first.title, first.board_titles, first.engaged_queries, first.save_count) == ("Soup", ["a", "b"], {"soup": 2.5, "stew": 1.0}, 3)
    assert first.rows(T0)[0].values["created_at_us"] == T0
    assert second == PinRow(pin_id="p2")
    assert (third.board_titles, third.engaged_queries, third.save_count) == ([], {}, 0)
    assert count_rows("parquet", path) == 3


def test_parquet_lists_of_queries_count_one_each(parquet: Write) -> None:
    (row,) = read_parquet(parquet(pin_id=["p1"], engaged_queries=pa.array([["soup", "stew"]])))
    assert isinstance(row, PinRow)
    assert row.engaged_queries == {"soup": 1.0, "stew": 1.0}


def test_a_bad_row_of_parquet_is_named_by_its_number(parquet: Write) -> None:
    rows = list(read_parquet(parquet(pin_id=["p1"] * BATCH + ["", "p3"], save_count=[1] * BATCH + [2, -1])))
    assert [(row.line, row.field) for row in rows if isinstance(row, BadRow)] == [(BATCH + 1, "pin_id"), (BATCH + 2, "save_count")]


def test_parquet_columns_must_be_those_of_a_pin(parquet: Write) -> None:
    (row,) = read_parquet(parquet(id=["p1"]))
    assert isinstance(row, BadRow)
    assert (row.line, row.field) == (1, "pin_id")


def test_the_cxc_layout_is_read_with_its_own_names(parquet: Write) -> None:
    path = parquet(
        "items.parquet", item_id=["i1", ""], lang=["en", "de"], title=["Soup", "x"], description=["d", None], caption=["c", None], category=["food", None],
        extra=["from the page", None], split=["dev", "dev"], grade=[1, 2],
    )  # fmt: skip
    good, bad = read_cxc(path.parent)
    assert good == PinRow(pin_id="i1", lang="en", title="Soup", description="d", caption="c", category="food", link_description="from the page")
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.field) == (2, "pin_id")
    assert count_rows("cxc", path.parent) == 2


@pytest.mark.parametrize("kind", READERS)
def test_a_file_that_cannot_be_read_is_named(kind: str, tmp_path: Path) -> None:
    with pytest.raises(EverpinError, match=f"cannot read {tmp_path / 'none'}"):
        count_rows(kind, tmp_path / "none")


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "pins.parquet").write_text("pin_id,title")
    with pytest.raises(EverpinError, match=r"cannot read .*pins\.parquet"):
        count_rows("parquet", tmp_path / "pins.parquet")


def test_events_are_read_as_they_are_and_bad_ones_are_told(lines: Write) -> None:
    captioned = PinUpdated("p1", T0, {"pin_caption": {"caption": "a red chair", "caption_model": "blip"}})
    undated = {"type": "pin_updated", "pin_id": "p4"}
    rows = [encode(captioned), b"", encode(PinDeleted("p2", T0)), {"type": "pin_made", "pin_id": "p3"}, b"not json", undated, encode(PinUpdated("p5", T0 * 2))]
    read = list(read_events(lines(*rows), T0 + 7))
    assert [row for row in read if not isinstance(row, BadRow)] == [captioned, PinDeleted("p2", T0), PinUpdated("p4", T0 + 7)]
    assert [(row.line, row.problem.split(":")[0]) for row in read if isinstance(row, BadRow)] == [(4, "unknown_type"), (5, "not_json"), (7, "far_future")]


def test_rows_are_taken_in_batches_as_they_come() -> None:
    taken: list[int] = []

    def rows() -> Iterator[PinRow]:
        for number in range(5):
            taken.append(number)
            yield PinRow(pin_id=f"p{number}")

    made: Iterable[list[PinRow | BadRow]] = batches(rows(), 2)
    assert [row.pin_id for row in next(iter(made)) if isinstance(row, PinRow)] == ["p0", "p1"]
    assert taken == [0, 1]
    assert [len(batch) for batch in batches(rows(), 2)] == [2, 2, 1]
    assert list(batches([])) == []


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"pin_id": " "}, "pin_id"),
        ({"pin_id": "p", "engaged_queries": {"soup": float("nan")}}, "engaged_queries"),
        ({"pin_id": "p", "engaged_queries": [1, 2]}, "engaged_queries"),
        ({"pin_id": "p", "engaged_queries": 0}, "engaged_queries"),
        ({"pin_id": "p", "save_count": 2**63}, "save_count"),
    ],
)
def test_values_that_the_stores_cannot_hold_are_refused_at_the_door(row: dict[str, object], field: str) -> None:
    bad = parse_row(4, row)
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.field) == (4, field)
    assert bad.instead


def test_a_line_nested_too_deeply_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "deep.jsonl"
    file.write_text("[" * 200_000 + "\n" + '{"pin_id": "good"}\n')
    bad, good = list(read_jsonl(file))
    assert isinstance(bad, BadRow)
    assert isinstance(good, PinRow)
