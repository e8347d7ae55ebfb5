"""Training rows know nothing that came later: Feast's join as of each row, the gap before engagement, and planted leaks that are refused."""

import shutil
from datetime import UTC, datetime, timedelta

import pytest

REASON = "needs the worker and training extras: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("feature_repo.definitions", reason=REASON)  # before feast: it says why

import pandas as pd  # noqa: E402  # after the skip
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from feast import FeatureStore  # noqa: E402

from pins.features import VIEWS, PinFeatures  # noqa: E402
from streams.features import FeastFeatures  # noqa: E402
from training.data import DataError  # noqa: E402
from training.history import point_in_time  # noqa: E402
from training.history.point_in_time import DAY_US, Limits, Row, check_no_leak, join, open_repository, read_rows  # noqa: E402

START = datetime(2024, 3, 1, 12, tzinfo=UTC)
T = int(START.timestamp()) * 1_000_000
WINDOW = (T + 100 * DAY_US, T + 107 * DAY_US)


def day(number: float) -> int:
    return T + int(number * DAY_US)


def version(pin_id, number, written=None, **values):
    """One row of a history: event time on a day, written there and then unless told otherwise."""
    stamps = {"event_timestamp": START + timedelta(days=number), "created": START + timedelta(days=number if written is None else written)}
    return {"pin_id": pin_id, **stamps, **values}


def content(pin_id, number, title):
    blank = dict.fromkeys(("description", "link_title", "link_description", "link_url", "image_url", "category"))
    return version(pin_id, number, title=title, lang="en", created_at_us=day(-400), **blank)


def engaged(pin_id, number, *queries, written=None):
    return version(pin_id, number, written, engaged_queries=list(queries), engaged_counts=[1.0] * len(queries), save_count=None, like_count=None)


HISTORY = {
    "pin_content": [content("p", -30, "a chair"), content("p", 20, "a red chair"), content("p", 40.5, "a red chair, sold"), content("late", 60, "came late")],
    "pin_caption": [  # from before there was a caption_model; two versions of one time, the one written last counts
        version("p", 0, 3, caption="a chair, corrected"),
        version("p", 0, 0, caption="a char"),
        version("p", 39, caption="a chair by the sea"),
    ],
    "pin_boards": [version("q", 5, board_titles=["soups", "soups"])],
    "pin_engagement": [engaged("p", 5, "red chair"), engaged("p", 30, "red chair", "sea chair"), engaged("p", 95, "garden chair")],
    "pin_status": [version("gone", 1, deleted=0), version("gone", 8, deleted=1)],
}


def write_history(home, **views):
    for view, rows in (HISTORY | views).items():
        path = home / "offline" / f"{view}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if rows is not None:
            pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def applied(tmp_path_factory):
    """A feature repository as a worker leaves it."""
    home = tmp_path_factory.mktemp("feast")
    FeastFeatures(home).close()
    return home


@pytest.fixture
def home(applied, tmp_path):
    shutil.copytree(applied, tmp_path / "feast")
    write_history(tmp_path / "feast")
    return tmp_path / "feast"


def test_every_view_is_joined_as_of_the_row_and_engagement_a_gap_earlier(home):
    asked = [
        ("red chair", "p", day(40)),
        ("red chair", "p", day(41)),
        ("soup", "q", day(40)),
        ("late", "late", day(40)),
        ("gone", "gone", day(9)),
        ("x", "nobody", day(9)),
    ]
    rows = join(asked, open_repository(home), Limits())
    assert [(row.query, row.item_id, row.at_us) for row in rows] == asked
    first = PinFeatures("p", title="a red chair", caption="a chair by the sea", engaged_queries=(("red chair", 1.0),), lang="en", created_at_us=day(-400))
    assert rows[0].pin == PinFeatures(**as_dict(first), as_of={"pin_content": day(20), "pin_caption": day(39), "pin_engagement": day(5)})
    assert rows[1].pin.title == "a red chair, sold"
    assert rows[1].pin.as_of == {"pin_content": day(40.5), "pin_caption": day(39), "pin_engagement": day(5)}
    assert (rows[2].pin.board_titles, rows[2].pin.as_of) == (("soups", "soups"), {"pin_boards": day(5)})
    assert rows[3].pin == PinFeatures("late"), "its only row came later; the row must not vanish either, as it does from Feast's answer"
    assert rows[4].pin.deleted
    assert rows[5].pin == PinFeatures("nobody")
    check_no_leak(rows, Limits())


def as_dict(pin):
    return {name: getattr(pin, name) for name in pin.__slots__ if name not in ("as_of",)}


def test_the_gap_and_the_window_bound_engagement(home):
    store = open_repository(home)

    def engagement(*times, **limits):
        return [row.pin.as_of.get("pin_engagement") for row in join([("a", "p", at) for at in times], store, Limits(**limits))]

    assert engagement(day(46), day(44), day(112)) == [day(30), day(5), day(95)]
    assert engagement(day(44), gap_us=0) == [day(30)]
    assert engagement(day(44), gap_us=40 * DAY_US) == [None]
    assert engagement(day(104), window=WINDOW) == [day(30)], "inside the window the gap is counted from the window's start"


def test_a_version_written_later_wins_a_tie_and_has_no_later_date(home):
    row = join([("a", "p", day(2))], open_repository(home), Limits())[0]
    assert row.pin.as_of["pin_caption"] == day(0)
    assert row.written_us["pin_caption"] == day(3)


def rows_file(path, **columns):
    table = {"query": ["red chair", "soup"], "item_id": ["p", "nobody"], "at_us": [day(40), day(40)], "grade": [4, 0], **columns}
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)
    return path


def run(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["point_in_time", *map(str, words)])
    point_in_time.main()


def test_the_command_writes_text_and_times_beside_every_row(home, tmp_path, monkeypatch, capsys):
    levels = pa.array([[0.0, 0.0, 0.1, 0.2, 0.7]] * 2, pa.list_(pa.float32(), 5))
    rows, out = rows_file(tmp_path / "rows.parquet", levels=levels), tmp_path / "out.parquet"
    run(monkeypatch, "--rows", rows, "--repo", home, "--out", out, "--window", "2024-03-22", "2024-05-01T12:00:00+02:00")
    table = pq.read_table(tmp_path / "out.parquet")
    (row,) = table.to_pylist()
    assert (row["query"], row["item_id"], row["at_us"], row["grade"], row["part"]) == ("red chair", "p", day(40), 4, "evaluation")
    assert row["text"] == "a red chair. a chair by the sea. red chair"
    assert {view: row[f"{view}_us"] for view in VIEWS} == {
        "pin_content": day(20), "pin_caption": day(39), "pin_boards": None, "pin_engagement": day(5), "pin_status": None,
    }  # fmt: skip
    assert table.schema.field("levels").type == levels.type
    told = capsys.readouterr().out
    assert "1 of 2 rows joined" in told
    assert "left out: 1 no features" in told


def known(pin_id="p", query="red chair", at=40, queries=(), written=None, **as_of):
    pin = PinFeatures(pin_id, title="a chair", engaged_queries=tuple((text, 1.0) for text in queries), as_of=as_of)
    return Row(query, pin_id, day(at), pin, written or as_of)


BACKDATED = known(queries=["Red  CHAIR"], written={"pin_engagement": day(30)}, pin_engagement=day(5))


@pytest.mark.parametrize(
    ("row", "limits", "told"),
    [
        (known(pin_content=day(41)), Limits(), r"row 1 .*red chair.*'p', judged 2024-04-10T.*pin_content is of 2024-04-11T12:00:00Z, allowed is 2024-04-1"),
        (known(pin_caption=day(40) + 1), Limits(), "view pin_caption is of"),
        (known(pin_engagement=day(26)), Limits(), "view pin_engagement is of 2024-03-27T12:00:00Z, allowed is 2024-03-26"),
        (known(pin_engagement=day(40)), Limits(gap_us=40 * DAY_US), "view pin_engagement"),
        (known(at=104, pin_engagement=day(86)), Limits(window=WINDOW), r"view pin_engagement is of .*, allowed is 2024-05-25"),
        (known(at=107, pin_content=day(1)), Limits(window=WINDOW), "the evaluation window ends at 2024-06-16T12:00:00Z"),
        (BACKDATED, Limits(), r"was written at 2024-03-31.*hold the row's own query"),
    ],
)  # fmt: skip
def test_a_row_that_knows_too_much_is_refused(row, limits, told):
    with pytest.raises(DataError, match=told):
        check_no_leak([known(), row], limits)


@pytest.mark.parametrize(
    ("row", "limits"),
    [
        (known(pin_content=day(40), pin_engagement=day(25)), Limits()),
        (known(pin_engagement=day(40)), Limits(gap_us=0)),
        (known(at=104, pin_content=day(103), pin_engagement=day(85)), Limits(window=WINDOW)),
        (known(queries=["red chair"], pin_engagement=day(5)), Limits()),
        (known(queries=["sea chair"], written={"pin_engagement": day(30)}, pin_engagement=day(5)), Limits()),
        (known(pin_content=day(39), written={"pin_content": day(50)}), Limits()),
    ],
)
def test_what_could_be_known_passes(row, limits):
    check_no_leak([row], limits)


def test_a_planted_feature_from_after_the_judgement_is_refused(home, tmp_path, monkeypatch):
    """A join that takes the newest row instead of the row of the time: the values are those of the day after the judgement."""
    honest = FeatureStore.get_historical_features

    def newest(self, entity_df, features):
        job = honest(self, entity_df.assign(event_timestamp=entity_df["event_timestamp"] + pd.Timedelta(days=1)), features)
        frame = job.to_df()
        frame["event_timestamp"] -= pd.Timedelta(days=1)
        job.to_df = lambda: frame
        return job

    monkeypatch.setattr(FeatureStore, "get_historical_features", newest)
    with pytest.raises(
        DataError, match=r"row of view pin_content to pin 'p' that its history does not hold as of 2024-04-10T12:00:00Z \(the newest allowed is of 2024-03-21"
    ):
        run(monkeypatch, "--rows", rows_file(tmp_path / "rows.parquet"), "--repo", home, "--out", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_folder_that_cannot_be_written_is_told(home, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        run(monkeypatch, "--rows", rows_file(tmp_path / "rows.parquet"), "--repo", home, "--out", tmp_path / "file" / "out.parquet")


def test_a_planted_engaged_query_from_inside_the_gap_is_refused(home, tmp_path, monkeypatch):
    """Written ten days before the judgement, dated twenty: the counts of the gap under an older date."""
    write_history(home, pin_engagement=[engaged("p", 20, "garden chair", "Red chair ", written=30)])
    with pytest.raises(DataError, match=r"row 0 .*red chair.*pin_engagement, dated 2024-03-21T12:00:00Z, was written at 2024-03-31T12:00:00Z, inside the gap"):
        run(monkeypatch, "--rows", rows_file(tmp_path / "rows.parquet"), "--repo", home, "--out", tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    run(monkeypatch, "--rows", rows_file(tmp_path / "rows.parquet"), "--repo", home, "--out", tmp_path / "out.parquet", "--gap-days", 5)
    assert pq.read_table(tmp_path / "out.parquet")["pin_engagement_us"].to_pylist() == [day(20)]


def test_a_history_that_is_missing_or_broken_is_told(home, monkeypatch, capsys):
    write_history(home, pin_boards=None)
    rows = join([("soup", "q", day(40)), ("x", "p", day(40))], open_repository(home), Limits())
    assert rows[0].pin == PinFeatures("q")
    assert "view pin_boards has no history" in capsys.readouterr().out
    write_history(home, **dict.fromkeys(VIEWS))
    with pytest.raises(DataError, match="holds no history of these pins"):
        join([("x", "p", day(40))], open_repository(home), Limits())
    write_history(home)
    (home / "offline/pin_content.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"the history of view pin_content, .* cannot be read"):
        join([("x", "p", day(40))], open_repository(home), Limits())


def test_a_row_of_a_history_without_a_time_is_refused(home):
    undated = version("p", 0, caption="when was that?") | {"event_timestamp": None}
    write_history(home, pin_caption=[version("p", 0, caption="dated"), undated])
    with pytest.raises(DataError, match=r"pin_caption.*cannot be read.*1 rows have no event_timestamp"):
        join([("x", "p", day(40))], open_repository(home), Limits())


def test_missing_strings_of_a_list_are_passed_over(home):
    write_history(home, pin_boards=[version("p", 5, board_titles=["sea", None])])
    assert join([("x", "p", day(40))], open_repository(home), Limits())[0].pin.board_titles == ("sea", "")


def test_a_folder_that_is_no_feature_repository_is_refused(applied, tmp_path):
    with pytest.raises(DataError, match=r"no feature repository: .*feature_store\.yaml"):
        open_repository(tmp_path)
    (tmp_path / "feature_store.yaml").write_text("just words")
    with pytest.raises(DataError, match="no feature repository"):
        open_repository(tmp_path)
    shutil.copy(applied / "feature_store.yaml", tmp_path)
    with pytest.raises(DataError, match="has no view pin_boards"):
        open_repository(tmp_path)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"at_us": None}, "needs the columns query, item_id, at_us"),
        ({"grade": None}, "and grade or levels; it has query, item_id, at_us"),
        ({"query": ["a", None]}, "nulls in query, item_id or at_us"),
        ({"query": [], "item_id": [], "at_us": [], "grade": []}, "has no rows"),
        ({"at_us": ["2024", "2025"]}, "at_us is string; times are integers in epoch microseconds"),
        ({"at_us": [day(1), day(1) // 1000]}, "row 1: at_us .* is before 2001"),
        ({"at_us": [day(1) * 1000, day(1)]}, "row 0: at_us .* is not yet"),
    ],
)
def test_rows_that_cannot_be_joined_are_refused(tmp_path, columns, told):
    with pytest.raises(DataError, match=told):
        read_rows(rows_file(tmp_path / "rows.parquet", **columns))


def test_a_file_of_rows_that_is_none_is_refused(tmp_path):
    (tmp_path / "rows.parquet").write_text("query,item_id")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_rows(tmp_path / "absent.parquet")
