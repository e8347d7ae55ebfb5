"""What a bridge is fitted and measured on, and its figures against plain recomputation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everpin import bridge_texts, bridging
from everpin.bridge_texts import Material, halves, known_items, of_data, of_records, reads
from everpin.bridging import Both, Vectors, cost, fitted, levels, measured, nearest
from everpin.comparing import Text
from everpin.evaluation import Query
from pins.bridge import Map
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.metrics import ndcg
from pins.ports import Vector
from pins.retrieval.late import sentences


def units(*shape: int, seed: int = 0) -> Vector:
    raw = np.random.default_rng(seed).normal(size=shape)
    return np.asarray(raw / np.linalg.norm(raw, axis=-1, keepdims=True), np.float32)


def record(number: int, text: str | None = None, **changes: object) -> IndexedPin:
    text = f"first sentence of {number}. second one of {number}. short {number}" if text is None else text
    return IndexedPin(f"p{number}", 1, **({"dead": False, "embedded": True, "model_id": "m", "text": text, "fields": {"lang": "en"}} | changes))


def test_no_text_of_a_searched_pin_and_no_query_teaches() -> None:
    found = of_records(map(record, range(200)), [Text("x", "x", "?", "a logged query")], 10_000, seed=0)
    searched = {pin.text for pin in found.searched} | {sentence for pin in found.searched for sentence in sentences(pin.text)}
    assert found.judged == "known item"
    assert len(found.pins) + len(found.searched) == 200
    assert min(len(found.pins), len(found.searched)) > 70
    assert not searched & {text.text for text in (*found.pins, *found.asked)}
    assert "a logged query" in {text.text for text in found.asked}
    assert {query.text for query in found.queries} <= searched


def test_one_text_in_so_many_is_a_pin_and_a_smaller_draw_is_the_first_of_a_larger_one() -> None:
    large, small = (of_records(map(record, range(2_000)), [], texts, seed=3) for texts in (800, 100))
    assert (len(large.pins), len(large.asked)) == (200, 600)
    assert (len(small.pins), len(small.asked)) == (25, 75)
    assert large.pins[:25] == small.pins
    assert large.asked[:75] == small.asked
    assert of_records(map(record, range(2_000)), [], 100, seed=4).pins != small.pins


def test_a_large_collection_is_read_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_texts, "SEARCHED", 100)
    read: list[int] = []
    found = of_records((read.append(number) or record(number) for number in range(10**9)), [], 150, seed=0)
    assert len(read) == 300
    assert len(found.searched) == 100


def test_records_without_a_vector_or_a_name_take_no_part() -> None:
    gone = [record(900, dead=True), record(901, embedded=False), record(902, text=""), IndexedPin("", 1, False, True, "m", text="nameless")]
    found = of_records([*gone, *map(record, range(50))], [], 1_000, seed=0)
    assert {pin.name for pin in (*found.pins, *found.searched)} == {f"p{number}" for number in range(50)}


def test_equal_texts_are_on_one_side_only() -> None:
    pins = [Text(f"p{number}", "", "en", "the same text") for number in range(40)]
    taught, searched = halves(pins)
    assert taught == []
    assert 10 < len(searched) < 40


def test_a_pin_is_asked_for_by_a_sentence_of_its_own_that_says_something() -> None:
    pins = [Text("a", "", "de", "ein Stuhl. ein roter Stuhl im Garten"), Text("b", "", "en", "chair")]
    assert known_items(pins, seed=0) == [Query("a", "a", "de", "ein roter Stuhl im Garten", (("a", 1.0, "own"),))]


@pytest.mark.parametrize(
    ("lang", "text", "read"),
    [("en", "x", True), ("de", "the red chair", False), ("?", "der rote Stuhl in dem Haus", False), ("?", "the red chair", True), ("?", "pizza", True)],
)
def test_the_language_decides_what_the_old_model_reads(lang: str, text: str, read: bool) -> None:
    assert reads(("en",))(Text("", "", lang, text)) == read


def cxc(folder: Path, *, splits: bool) -> Path:
    split = (lambda n: {"split": "dev" if n % 2 else "train"}) if splits else (lambda n: {})
    tables = {
        "items": [{"item_id": f"p{n}", "lang": "en", "title": f"title of pin {n}"} for n in range(60)],
        "queries": [{"query_id": f"q{n}", "group": f"g{n}", "lang": "en", "query": f"query {n}"} | split(n) for n in range(60)],
        "judgements": [{"query_id": f"q{n}", "item_id": f"p{pin}", "grade": 4.0 * (pin == n), "source": "sis"} for n in range(60) for pin in (n, (n + 1) % 60)],
    }
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def test_train_queries_teach_and_dev_queries_with_an_answer_measure(tmp_path: Path) -> None:
    found = of_data(cxc(tmp_path, splits=True), [], 1_000, seed=0)
    searched = {pin.name for pin in found.searched}
    assert found.judged == "people"
    assert {query.query_id for query in found.queries} == {f"q{n}" for n in range(1, 60, 2) if f"p{n}" in searched}
    assert all({pin_id for pin_id, _, _ in query.candidates} <= searched for query in found.queries)
    taught = {text.text for text in found.asked}
    assert {f"query {n}" for n in range(0, 60, 2)} <= taught
    assert not {query.text for query in found.queries} & taught


def test_without_splits_every_query_measures_and_none_teaches(tmp_path: Path) -> None:
    found = of_data(cxc(tmp_path, splits=False), [], 1_000, seed=0)
    assert {int(query.query_id[1:]) % 2 for query in found.queries} == {0, 1}
    assert not any(text.text.startswith("query") for text in found.asked if text.name in {f"q{n}" for n in range(60)} & {q.query_id for q in found.queries})


def test_nothing_to_fit_or_measure_is_said() -> None:
    with pytest.raises(EverpinError, match=r"0 pins and 0 texts to fit a bridge on, 0 pins and 0 queries to measure it on"):
        of_records([], [], 100, seed=0)


QUERIES = tuple(Query(f"q{n}", f"g{n % 7}", "de" if n % 3 else "en", f"q{n}", ((f"p{n}", 4.0, "x"), (f"p{n + 1}", 2.0, "x"))) for n in range(24))


def vectors() -> Vectors:
    return Vectors(
        Both(units(60, 6, seed=1), units(60, 4, seed=2)), Both(units(80, 6, seed=3), units(80, 4, seed=4)), np.arange(80) % 2 == 0,
        Both(units(40, 6, seed=5), units(40, 4, seed=6)), Both(units(24, 6, seed=7), units(24, 4, seed=8)),
    )  # fmt: skip


def material() -> Material:
    return Material((), (), tuple(Text(f"p{n}", "", "en", "") for n in range(40)), QUERIES, "people")


def test_figures_are_those_of_plain_recomputation() -> None:
    map_, seen = Map(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)), vectors()
    figures = measured(map_, seen, material(), ("en",))
    scores = {
        "old": seen.queries.old @ seen.searched.old.T,
        "new": seen.queries.new @ seen.searched.new.T,
        "bridged": map_.apply(seen.queries.new) @ seen.searched.old.T,
    }
    means = {}
    for system, matrix in scores.items():
        grades = np.zeros((24, 40))
        grades[np.arange(24), np.arange(24)], grades[np.arange(24), np.arange(24) + 1] = 4, 2
        means[system] = [ndcg(row[np.argsort(-score)], 20) for row, score in zip(grades, matrix, strict=True)]
        assert figures["all"]["ndcg@20"][system]["mean"] == pytest.approx(np.mean(means[system]))
    kept = figures["all"]["kept"]
    assert kept["mean"] == pytest.approx(np.mean(means["bridged"]) / np.mean(means["new"]))
    assert kept["low"] < kept["mean"] < kept["high"]
    assert figures["read"] == figures["en"]
    assert figures["unread"]["bridged - old"]["mean"] == pytest.approx(np.mean([means["bridged"][n] - means["old"][n] for n in range(24) if n % 3]))
    first = [[set(np.argsort(-score)[:10]) for score in scores[system]] for system in ("new", "bridged")]
    assert figures["all"]["overlap@10"]["mean"] == pytest.approx(np.mean([len(one & other) / 10 for one, other in zip(*first, strict=True)]))


def test_a_perfect_bridge_keeps_all() -> None:
    seen = vectors()
    same = Vectors(seen.pins, seen.asked, seen.readable, Both(seen.searched.new, seen.searched.new), Both(seen.queries.new, seen.queries.new))
    figures = measured(Map(np.eye(6, dtype=np.float32)), same, material(), ("en", "de"))
    assert figures["all"]["kept"] == {"mean": pytest.approx(1.0), "low": pytest.approx(1.0), "high": pytest.approx(1.0)}
    assert figures["all"]["overlap@10"]["mean"] == 1.0
    assert set(figures) == {"all", "read", "de", "en"}


@pytest.mark.parametrize("block", [256, 5])
def test_the_nearest_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(bridging, "BLOCK", block)
    queries, pins = units(24, 6), units(40, 6, seed=1)
    np.testing.assert_array_equal(nearest(queries, pins, 7), np.argsort(-(queries @ pins.T), axis=1, kind="stable")[:, :7])
    assert nearest(queries[:0], pins, 7).shape == (0, 7)
    assert nearest(queries, pins[:3], 7).shape == (24, 3)


def test_the_rotation_is_fitted_on_what_the_old_model_reads_alone() -> None:
    seen = vectors()
    changed = seen.asked.old.copy()
    changed[~seen.readable] = units(40, 4, seed=99)
    other = Vectors(seen.pins, Both(seen.asked.new, changed), seen.readable, seen.searched, seen.queries)
    assert fitted("procrustes", seen).matrix.tobytes() == fitted("procrustes", other).matrix.tobytes()
    assert fitted("linear", seen).matrix.tobytes() == fitted("linear", other).matrix.tobytes()
    changed[seen.readable] = units(40, 4, seed=98)
    assert fitted("procrustes", seen).matrix.tobytes() != fitted("procrustes", other).matrix.tobytes()


def test_cosines_that_a_mapped_query_loses_are_given_back_to_its_levels() -> None:
    old = units(60, 6, seed=1)
    noisy = old + 0.5 * units(60, 6, seed=2)
    mapped = np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), np.float32)
    seen = vectors()
    near = Vectors(Both(old, old), Both(mapped, old), np.ones(60, bool), seen.searched, seen.queries)
    slope, intercept = levels(Map(np.eye(6, dtype=np.float32)), near)
    assert (mapped @ old.T).max() < 1.0  # while each text is itself a pin, of cosine 1
    shown = [np.sort(side @ old.T, axis=1)[:, -50:] for side in (mapped, old)]
    assert slope * shown[0].mean() + intercept == pytest.approx(shown[1].mean(), abs=1e-5)
    assert slope * shown[0].std() == pytest.approx(shown[1].std(), abs=1e-5)


def test_where_the_old_model_reads_no_text_levels_are_left_alone() -> None:
    seen = vectors()
    assert levels(Map(np.eye(6, 4, dtype=np.float32)), Vectors(seen.pins, seen.asked, np.zeros(80, bool), seen.searched, seen.queries)) == (1.0, 0.0)


def test_the_cost_of_a_query_is_told_in_microseconds() -> None:
    found = cost(Map(np.eye(6, dtype=np.float32)), units(9, 6), rounds=50)
    assert 0 < found["p50"] <= found["p99"] < 1e6
