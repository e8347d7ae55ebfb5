"""Which queries may be labelled: no held-out query, no repeat, no closed licence; and how they are stratified."""

import json
from itertools import pairwise

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)

from tests.training.label_toys import PINS, SOURCES, write_data, write_log, write_sources  # noqa: E402  # after the skip
from training.data import DataError, read  # noqa: E402
from training.labels.candidates import Asked  # noqa: E402
from training.labels.queries import LabelQuery, Wanted, choose, gather, licence_classes, normalised, popularity  # noqa: E402

CLASSES = {name: entry["cls"] for name, entry in SOURCES.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read(write_data(tmp_path_factory.mktemp("data") / "toy"))


def log(tmp_path, *rows, name="log"):
    """Rows (text, lang, source) or (text, lang, source, count)."""
    return write_log(tmp_path / f"{name}.parquet", [dict(zip(("text", "lang", "source", "count"), row, strict=False)) for row in rows])


def query(text, lang="en", count=0, query_id=None):
    return LabelQuery(text, lang, Asked(text, lang), "weblog", query_id, count)


def test_train_queries_come_with_their_judged_pins_and_dev_queries_do_not_come(data):
    pool = gather(data, [], {}, Wanted())
    assert len(pool.queries) == 48 * 3
    dev = {query.text for query in data.queries if query.split == "dev"}
    assert not dev & {query.text for query in pool.queries}
    first = next(query for query in pool.queries if query.query_id == "q1en")
    assert first.asked.own == (1,)
    dev_pins = set(data.dev_pins.tolist())
    assert set(first.asked.judged) == {(1 + 7 * step) % 60 for step in range(1, 6)} - dev_pins


@pytest.mark.parametrize("disguise", ["one red chair alone", "  ONE  red-chair, alone!", "ＯＮＥ red chair alone", "写真 0 赤い椅子", "写真0赤い椅子"])
def test_a_text_that_equals_a_dev_query_is_never_labelled(data, tmp_path, disguise):
    assert normalised(disguise) in {normalised(query.text) for query in data.queries if query.split == "dev"}
    pool = gather(data, [log(tmp_path, (disguise, "en", "weblog"), ("a fine day", "en", "weblog"))], CLASSES, Wanted())
    assert pool.dropped["equal to a held-out query"] == 1
    assert [query.text for query in pool.queries if query.logged] == ["a fine day"]


def test_english_that_equals_a_dev_query_is_never_read_by_the_teacher(data, tmp_path):
    rows = [{"en": "One red chair alone.", "xx": "bir sandalye", "source": "weblog"}, {"en": "a day", "xx": "bir gün", "source": "weblog"}]
    path = write_log(tmp_path / "tr.parquet", rows)
    pool = gather(data, [path], CLASSES, Wanted(through_english=True))
    assert [(query.text, query.asked.text) for query in pool.queries if query.logged] == [("bir gün", "a day")]
    assert pool.dropped["equal to a held-out query"] == 1


def test_licence_classes_are_kept_apart(data, tmp_path):
    path = log(tmp_path, ("one", "en", "weblog"), ("two", "en", "wiki"), ("three", "en", "papers"))

    def taken(wanted):
        return [query.text for query in gather(data, [path], CLASSES, wanted).queries if query.logged]

    assert taken(Wanted()) == ["one", "two"]
    assert taken(Wanted(licences=("open",))) == ["one"]
    assert taken(Wanted(licences=("open", "sa", "research"))) == ["one", "two", "three"]
    assert taken(Wanted(sources=("wiki",))) == ["two"]
    assert gather(data, [path], CLASSES, Wanted()).dropped == {"licence class research": 1}


def test_a_source_without_a_licence_class_is_refused(data, tmp_path):
    with pytest.raises(DataError, match="no licence class for source 'elsewhere'"):
        gather(data, [log(tmp_path, ("one", "en", "elsewhere"))], CLASSES, Wanted())


def test_misspelt_choices_are_refused(data, tmp_path):
    with pytest.raises(DataError, match="opne is no licence class; choose from open, sa, research"):
        Wanted(licences=("opne",))
    with pytest.raises(DataError, match="weblgo is in no list of sources"):
        gather(data, [log(tmp_path, ("one", "en", "weblog"))], CLASSES, Wanted(sources=("weblgo",)))


def test_repeats_are_labelled_once_and_their_counts_added(data, tmp_path):
    path = log(tmp_path, ("Blue Lamp", "en", "weblog", 3), ("blue lamp", "en", "wiki", 4), ("blue lamp", "de", "weblog", 5), ("...", "en", "weblog", 9))
    pool = gather(data, [path], CLASSES, Wanted(train_queries=False))
    assert [(query.text, query.lang, query.count) for query in pool.queries] == [("Blue Lamp", "en", 7), ("blue lamp", "de", 5)]
    assert pool.dropped == {"no letter or digit": 1, "repeated": 1}


def test_languages_can_be_left_out(data):
    pool = gather(data, [], {}, Wanted(languages=("en", "ja")))
    assert {query.lang for query in pool.queries} == {"en", "ja"}
    assert pool.dropped == {"other language": 48}


def test_the_teacher_reads_the_english_query_of_the_group(data):
    pool = gather(data, [], {}, Wanted(through_english=True))
    german = next(query for query in pool.queries if query.query_id == "q1de")
    assert (german.lang, german.asked.lang, german.asked.text) == ("de", "en", f"one {PINS[1]} alone")
    assert german.text.startswith("ein ")


def test_through_english_leaves_out_what_has_none(data, tmp_path):
    texts = log(tmp_path, ("was ist das", "de", "weblog"), ("guten Tag", "de", "weblog"), ("hello you", "en", "weblog"))
    aligned = write_log(tmp_path / "de.parquet", [{"en": "good day", "xx": "Guten Tag!", "source": "wiki"}])
    pool = gather(data, [texts, aligned], CLASSES, Wanted(through_english=True, train_queries=False))
    assert [(query.text, query.asked.text) for query in pool.queries] == [("guten Tag", "good day"), ("hello you", "hello you")]
    assert pool.dropped["without an English side"] == 1


def test_nothing_left_is_an_error(data, tmp_path):
    with pytest.raises(DataError, match=r"no query is left.*research"):
        gather(data, [log(tmp_path, ("one", "en", "papers"))], CLASSES, Wanted(train_queries=False))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"words": "one"}], "needs text, lang, source"),
        ([{"text": "one", "lang": "en", "source": "weblog", "count": -1}], "count -1"),
        ([{"text": "one", "lang": "en", "source": "weblog", "count": 0.5}], "count 0.5"),
    ],
)
def test_a_log_of_another_layout_is_refused(data, tmp_path, rows, told):
    with pytest.raises(DataError, match=told):
        gather(data, [write_log(tmp_path / "log.parquet", rows)], CLASSES, Wanted())


def test_a_log_that_is_no_parquet_is_refused(data, tmp_path):
    path = tmp_path / "log.parquet"
    path.write_text("text,lang\n")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        gather(data, [path], CLASSES, Wanted())


def test_sources_are_read_and_checked(tmp_path):
    assert licence_classes(write_sources(tmp_path / "sources.json")) == CLASSES
    (tmp_path / "bad.json").write_text(json.dumps({"weblog": "open"}))
    for name in ("bad.json", "missing.json"):
        with pytest.raises(DataError, match="no list of sources"):
            licence_classes(tmp_path / name)


def test_bands_by_traffic():
    """Counts 60, 30, 20, 10: the first query makes half of the traffic, the next two 5/12 of it."""
    counts = [60, 30, 20, 10]
    bands = popularity([query(f"q{count}", count=count) for count in counts], np.zeros(4, np.int64))
    assert bands.tolist() == ["head", "torso", "tail", "tail"]


def test_bands_by_pins_found_are_per_language():
    queries = [query(f"{lang}{number}", lang) for lang in ("en", "de") for number in range(6)]
    found = np.array([60, 50, 40, 30, 20, 10, 6, 5, 4, 3, 2, 0])
    assert popularity(queries, found).tolist() == ["head", "head", "torso", "torso", "tail", "tail", *["head", "head", "torso", "tail", "tail", "tail"]]


@pytest.mark.parametrize(("count", "found", "band"), [(5, 0, "torso"), (0, 9, "torso"), (0, 0, "tail")])
def test_equal_queries_share_a_band(count, found, band):
    assert set(popularity([query(f"q{number}", count=count) for number in range(9)], np.full(9, found))) == {band}


def test_a_limit_takes_as_many_of_each_language_and_band():
    queries = [query(f"{lang} {number}", lang, query_id="q") for lang, many in (("en", 900), ("de", 90), ("tr", 9)) for number in range(many)]
    bands = np.array(["head", "torso", "tail"])[np.arange(len(queries)) % 3]
    chosen = choose(queries, bands, 129, seed=7)
    assert len(set(chosen)) == 129
    counted = {
        (lang, band): sum(queries[place].lang == lang and bands[place] == band for place in chosen) for lang in ("en", "de", "tr") for band in set(bands)
    }
    assert all(counted["tr", band] == 3 for band in set(bands))
    assert all(counted[lang, band] == 20 for lang in ("en", "de") for band in set(bands))


def test_a_smaller_limit_is_part_of_a_larger_one_and_the_order_is_a_sample():
    queries = [query(f"{lang} {number}", lang) for lang in ("en", "de") for number in range(400)]
    bands = np.array(["head", "tail"])[np.arange(800) % 2]
    small, large = (choose(queries, bands, limit, seed=7) for limit in (100, 800))
    assert set(small) < set(large)
    assert 35 < sum(queries[place].lang == "de" for place in large[:100]) < 65
    assert choose(queries, bands, 100, seed=7) == small
    assert choose(queries, bands, 100, seed=8) != small


def test_the_folders_own_queries_come_before_those_of_logs():
    queries = [query(f"log {number}") for number in range(50)] + [query(f"own {number}", query_id=f"q{number}") for number in range(10)]
    chosen = choose(queries, np.full(60, "head"), 20, seed=7)
    assert set(range(50, 60)) < set(chosen)


def test_queries_that_read_alike_lie_side_by_side(data):
    pool = gather(data, [], {}, Wanted(through_english=True))
    order = [pool.queries[place].asked.text for place in choose(pool.queries, np.full(len(pool.queries), "head"), None, seed=7)]
    assert sum(first != second for first, second in pairwise(order)) == len(set(order)) - 1
