"""Data folders as training reads them: what is refused and how that is said, what a split holds, what leaks from dev into train."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pins.features import PinFeatures
from training.data import LEVELS, DataError, digest, fields_kept, read

ITEMS = [
    {"item_id": "a", "lang": "en", "title": "a red chair", "description": "", "caption": "a chair by the sea", "category": "home", "extra": "made of oak"},
    {"item_id": "b", "lang": "en", "title": "a bowl of soup", "description": None, "caption": "soup", "category": None, "extra": None},
    {"item_id": "c", "lang": "de", "title": "ein Hund", "description": "ein Hund im Schnee", "caption": "", "category": "pets", "extra": ""},
]
QUERIES = [
    {"query_id": "q1", "group": "g1", "lang": "en", "query": "red chair", "split": "train"},
    {"query_id": "q2", "group": "g2", "lang": "en", "query": "hot soup", "split": "dev"},
    {"query_id": "q3", "group": "g2", "lang": "de", "query": "heiße Suppe", "split": "dev"},
    {"query_id": "q4", "group": "g3", "lang": "de", "query": "Hund im Schnee", "split": "train"},
]
JUDGED = [
    {"query_id": "q1", "item_id": "a", "grade": 4, "raw": 4.6, "source": "sits_own"},
    {"query_id": "q1", "item_id": "b", "grade": 1, "raw": 1.2, "source": "sis"},  # b is a dev query's own pin: the reverse of a dev row
    {"query_id": "q1", "item_id": "c", "grade": 0, "raw": 0.2, "source": "sis"},
    {"query_id": "q2", "item_id": "b", "grade": 4, "raw": 5.0, "source": "sits_own"},
    {"query_id": "q2", "item_id": "a", "grade": 1, "raw": 1.2, "source": "sis"},
    {"query_id": "q3", "item_id": "b", "grade": 4, "raw": 5.0, "source": "own"},
    {"query_id": "q4", "item_id": "c", "grade": 3, "raw": 3.4, "source": "own"},
]
EXTRA = [
    {"text": "a chair on a beach", "item_id": "a", "grade": 3, "raw": 3.1},
    {"text": "a meal", "item_id": "b", "grade": 2, "raw": 2.0},  # touches a dev pin by its item
    {"text": "soup", "item_id": "a", "grade": 0, "raw": 0.0},  # touches a dev pin by its text
]
TABLES = {"items": ITEMS, "queries": QUERIES, "judgements": JUDGED, "extra_text_pairs": EXTRA}


@pytest.fixture
def folder(tmp_path):
    """Writes a folder of this layout; a table given by name replaces the good one, None leaves it out."""

    def write(name="toy", **tables):
        made = tmp_path / name
        made.mkdir(exist_ok=True)
        for table, rows in (TABLES | tables).items():
            if rows is not None:
                pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), made / f"{table}.parquet")
        return made

    return write


def changed(rows, place, **values):
    return [*rows[:place], rows[place] | values, *rows[place + 1 :]]


def without(rows, *columns):
    return [{name: value for name, value in row.items() if name not in columns} for row in rows]


def test_a_folder_is_read_as_it_is(folder):
    data = read(folder())
    assert data.pins[0] == PinFeatures("a", title="a red chair", caption="a chair by the sea", link_description="made of oak", category="home", lang="en")
    assert data.pins[1] == PinFeatures("b", title="a bowl of soup", caption="soup", lang="en")
    assert [(query.query_id, query.group, query.lang, query.text, query.split) for query in data.queries] == [tuple(row.values()) for row in QUERIES]
    assert (data.levels, data.splits, len(data.judged)) == (5, ["dev", "train"], 7)
    assert data.judged.grade.tolist() == [row["grade"] for row in JUDGED]
    np.testing.assert_allclose(data.judged.raw, [row["raw"] for row in JUDGED], rtol=1e-6)
    assert [data.queries[query].query_id for query in data.judged.query] == [row["query_id"] for row in JUDGED]
    assert [data.pins[pin].pin_id for pin in data.judged.pin] == [row["item_id"] for row in JUDGED]
    assert data.judged.own.tolist() == [True, False, False, True, False, True, True]
    assert [(rating.text, rating.pin, rating.grade) for rating in data.direct] == [("a chair on a beach", 0, 3), ("a meal", 1, 2), ("soup", 0, 0)]


def test_what_a_folder_may_leave_out(folder):
    judged = without(JUDGED, "raw", "source")
    bare = {"items": [{"item_id": row["item_id"]} for row in ITEMS], "queries": without(QUERIES, "group", "lang", "split"), "extra_text_pairs": None}
    data = read(folder(judgements=judged, **bare))
    assert data.pins[0] == PinFeatures("a")
    assert (data.queries[0].group, data.queries[0].lang, data.queries[0].split, data.splits) == ("q1", "?", "all", ["all"])
    assert all(map(math.isnan, data.judged.raw))
    assert not data.judged.own.any()
    assert data.direct == []


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"judgements": changed(JUDGED, 1, query_id="q9")}, "1 unknown query_id, first 'q9'"),
        ({"judgements": changed(JUDGED, 1, item_id="z")}, "1 unknown item_id, first 'z'"),
        ({"extra_text_pairs": changed(EXTRA, 0, item_id="z")}, "1 unknown item_id, first 'z'"),
        ({"judgements": changed(JUDGED, 2, grade=5)}, "grade 5 of item 'c' is off the scale of whole grades 0 to 4"),
        ({"judgements": changed(JUDGED, 2, grade=-1)}, "grade -1 of item 'c' is off the scale"),
        ({"judgements": [row | {"grade": 2.5} for row in JUDGED]}, "grade 2.5 of item 'a' is off the scale"),
        ({"judgements": [row | {"grade": math.nan} for row in JUDGED]}, "grade nan of item 'a' is off the scale"),
        ({"judgements": [row | {"grade": "good"} for row in JUDGED]}, "grade 'good' of item 'a' is off the scale"),
        ({"extra_text_pairs": changed(EXTRA, 0, grade=7)}, "grade 7 of item 'a' is off the scale"),
        ({"judgements": [row | {"grade": 3} for row in JUDGED], "extra_text_pairs": None}, "every judgement has grade 3; a single class teaches nothing"),
        ({"judgements": changed(JUDGED, 0, grade=None)}, "column grade holds nulls"),
        ({"judgements": changed(JUDGED, 0, item_id=None)}, "column item_id holds nulls"),
        ({"queries": changed(QUERIES, 0, query=None)}, "column query holds nulls"),
        ({"queries": without(QUERIES, "query")}, "has no column query; it has query_id, group, lang, split"),
        ({"judgements": without(JUDGED, "grade", "item_id")}, "has no column item_id, grade"),
        ({"extra_text_pairs": without(EXTRA, "text")}, "has no column text"),
        ({"items": [*ITEMS, ITEMS[0]]}, "item_id 'a' occurs twice"),
        ({"queries": [*QUERIES, QUERIES[3]]}, "query_id 'q4' occurs twice"),
        ({"judgements": pa.Table.from_pylist(JUDGED).slice(0, 0)}, "no rows"),
        ({"items": [row | {"title": 7} for row in ITEMS]}, "title is int64; ids and texts must be strings"),
        ({"queries": [row | {"query": 1.5} for row in QUERIES]}, "query is double; ids and texts must be strings"),
        ({"items": None}, "does not exist; give the folder that holds items.parquet"),
    ],
)
def test_bad_data_is_refused_with_what_to_change(folder, tables, told):
    with pytest.raises(DataError) as refused:
        read(folder(**tables))
    assert told in str(refused.value)
    assert "toy" in str(refused.value)


def test_a_broken_file_is_named(folder):
    made = folder()
    whole = (made / "queries.parquet").read_bytes()
    for broken in (b"query_id,query\nq1,red chair\n", whole[: len(whole) // 2], b""):
        (made / "queries.parquet").write_bytes(broken)
        with pytest.raises(DataError, match=r"queries\.parquet cannot be read as Parquet: .*; copy it again"):
            read(made)


def test_repeated_strings_may_be_stored_once(folder):
    table = pa.Table.from_pylist(QUERIES)
    assert read(folder(queries=table.set_column(2, "lang", table["lang"].dictionary_encode()))).queries[2].lang == "de"


def test_each_folder_keeps_its_own_scale(folder):
    three = [row | {"grade": min(row["grade"], 2)} for row in JUDGED]
    assert read(folder("of_my_own", judgements=three, extra_text_pairs=None)).levels == 3
    assert read(folder("of_my_own", judgements=three, extra_text_pairs=None), levels=5).levels == 5
    assert LEVELS["cxc_pins"] == 5
    assert read(folder("cxc_pins", judgements=three, extra_text_pairs=None)).levels == 5
    assert read(folder("commons", judgements=three, extra_text_pairs=None)).levels == 3
    with pytest.raises(DataError, match="off the scale of whole grades 0 to 2"):
        read(folder("commons", extra_text_pairs=None))
    with pytest.raises(DataError, match="9 levels; grades need 2 to 5 levels"):
        read(folder(), levels=9)


def test_a_split_that_is_not_there_and_one_without_rows(folder):
    data = read(folder())
    with pytest.raises(DataError, match="has no split 'test'; it has dev, train and all"):
        data.pairs("test")
    with pytest.raises(DataError, match=r"split 'dev' of .*toy has no judgement in \['ja'\]"):
        data.pairs("dev", {"ja"})
    unjudged = [*QUERIES, {"query_id": "q5", "group": "g5", "lang": "en", "query": "a tree", "split": "test"}]
    with pytest.raises(DataError, match=r"split 'test' of .*toy has no judgement"):
        read(folder(queries=unjudged)).pairs("test")


def test_rows_of_a_dev_query_s_own_pin_leave_train(folder):
    data = read(folder())
    assert data.dev_pins.tolist() == [1]
    train, dev = data.pairs("train"), data.pairs("dev")
    assert [(data.queries[query].query_id, data.pins[pin].pin_id) for query, pin in zip(train.query, train.pin, strict=True)] == [
        ("q1", "a"),
        ("q1", "c"),
        ("q4", "c"),
    ]
    assert len(dev) == 3
    assert len(data.pairs("all")) == 7
    assert not set(train.group) & set(dev.group)
    assert len(data.pairs("dev", {"de"})) == 1
    assert set(data.pairs("train", ["de"]).lang) == {"de"}


def test_without_own_pins_in_dev_nothing_leaves_train(folder):
    rated = [row | {"source": "sis"} for row in JUDGED]
    assert len(read(folder(judgements=rated)).pairs("train")) == 4


def test_direct_ratings_that_touch_a_dev_pin_leave_training(folder):
    data = read(folder())
    assert len(data.direct) == 3
    assert [rating.text for rating in data.direct_for_training()] == ["a chair on a beach"]


def test_rows_are_chosen_by_mask_or_place(folder):
    judged = read(folder()).judged
    assert judged.where(judged.own).grade.tolist() == [4, 4, 4, 3]
    assert judged.where(np.array([6, 0])).source.tolist() == ["own", "sits_own"]


def test_the_digest_names_the_files_and_their_bytes(folder):
    made = folder()
    first = digest(made)
    assert first == read(made).digest == digest(made)
    (made / "notes.txt").write_text("not data")
    assert digest(made) == first
    folder(judgements=changed(JUDGED, 0, grade=3))
    assert digest(made) != first
    folder()
    assert digest(made) == first
    (made / "extra_text_pairs.parquet").rename(made / "other.parquet")
    assert digest(made) != first


def test_an_ablation_keeps_the_named_fields_and_what_is_no_text():
    texts = {name: name for name in ("title", "description", "caption", "link_title", "link_description", "link_url", "image_url", "category", "caption_model")}
    pin = PinFeatures("p", **texts, board_titles=("board",), engaged_queries=(("query", 2.0),), lang="en", created_at_us=5, save_count=1, as_of={"v": 1})
    bare = fields_kept(pin, ())
    assert bare == replace(pin, title="", description="", caption="", board_titles=(), engaged_queries=(), link_title="", link_description="")
    assert fields_kept(pin, ("caption", "engaged_queries")) == replace(bare, caption="caption", engaged_queries=(("query", 2.0),))
    every = ("title", "description", "caption", "board_titles", "engaged_queries", "link_title", "link_description")
    assert fields_kept(pin, every) == pin
