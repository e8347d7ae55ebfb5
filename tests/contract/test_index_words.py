"""The contract of `ask`: several searches in one round trip, by vector and by BM25, the same on every engine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pins.lexical import terms_of_query, terms_of_text
from pins.ports import Ask, Hit, PinIndex, PointWrite, Terms, Where
from tests.contract.records import DIMENSION, put, record, vector
from tests.fakes import FakeIndex

TEXTS = {
    "chair": "A red chair by a window",
    "chairs": "red red chair and another chair, all of them chairs for a garden in summer",
    "soup": "Tomato soup with basil",
    "garden": "A garden of herbs on a balcony",
    "bento": "\u6625\u306e\u5f01\u5f53\u306e\u4f5c\u308a\u65b9",
}


def fill(index: PinIndex) -> None:
    for seed, (pin_id, text) in enumerate(TEXTS.items()):
        put(index, pin_id, seed=seed, text=text, fields={"lang": "en" if text.isascii() else "ja", "boards": ["b"], "created_at_us": seed})


def by_words(index: PinIndex, text: str, limit: int = 10, where: Where = Where()) -> list[Hit]:
    (found,) = index.ask([Ask(limit, terms=terms_of_query(text), where=where)])
    return list(found)


def test_words_find_pins_by_bm25_with_their_vectors(index: PinIndex) -> None:
    fill(index)
    hits = by_words(index, "red chair")
    weights = dict(zip(terms_of_text(TEXTS["chair"]).ids, terms_of_text(TEXTS["chair"]).weights, strict=True))
    idf = math.log(1 + (5 - 2 + 0.5) / (2 + 0.5))
    expected = sum(weights[term] * idf for term in terms_of_query("red chair").ids)
    assert {hit.pin_id: hit.score for hit in hits}["chair"] == pytest.approx(expected, rel=1e-5)
    assert [hit.pin_id for hit in hits] == ["chairs", "chair"]
    for hit in hits:
        assert hit.vector is not None
        np.testing.assert_allclose(hit.vector, vector(list(TEXTS).index(hit.pin_id)), atol=1e-6)
        assert (hit.fields["lang"], hit.v) == ("en", 1)


@pytest.mark.parametrize("query", ["a red chair in the garden", "Basil, BALCONY or window?", "\u5f01\u5f53", "herbs herbs herbs"])
def test_every_engine_scores_as_the_formula_does(index: PinIndex, query: str) -> None:
    reference = FakeIndex()
    fill(index)
    fill(reference)
    mine, theirs = by_words(index, query), by_words(reference, query)
    assert [hit.pin_id for hit in mine] == [hit.pin_id for hit in theirs]
    assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], rel=1e-5)
    assert theirs


def test_words_that_no_pin_has_and_no_words_find_nothing(index: PinIndex) -> None:
    fill(index)
    asks = [Ask(5, terms=terms_of_query("quetzalcoatl")), Ask(5, vector(2)), Ask(5, terms=terms_of_query(" ?! ")), Ask(5, terms=Terms((), ()))]
    unknown, dense, none, empty = index.ask(asks)
    assert (list(unknown), list(none), list(empty)) == ([], [], [])
    assert dense[0].pin_id == "soup"
    assert [list(found) for found in index.ask([])] == []


def test_one_round_trip_answers_each_search_for_itself(index: PinIndex) -> None:
    fill(index)
    dense, words, other = index.ask([Ask(2, vector(3)), Ask(1, terms=terms_of_query("chair")), Ask(3, vector(0), where=Where(lang="ja"))])
    assert [hit.pin_id for hit in dense] == [hit.pin_id for hit in index.search(vector(3), 2)]
    assert dense[0].score == pytest.approx(1.0, abs=1e-5)
    assert [hit.pin_id for hit in words] == ["chairs"]
    assert [hit.pin_id for hit in other] == ["bento"]


def test_filters_hold_for_words_too(index: PinIndex) -> None:
    fill(index)
    assert [hit.pin_id for hit in by_words(index, "garden", where=Where(without=frozenset({"chairs"})))] == ["garden"]
    assert [hit.pin_id for hit in by_words(index, "red chair", where=Where(created_since_us=1))] == ["chairs"]
    assert by_words(index, "garden", where=Where(lang="ja")) == []
    assert {hit.pin_id for hit in by_words(index, "a", where=Where(board="b", lang="en"))} == {"chair", "chairs", "garden"}


def test_equal_scores_are_ordered_by_pin_id(index: PinIndex) -> None:
    for pin_id in ("c", "a", "b"):
        put(index, pin_id, seed=4, text="the same words")
    assert [hit.pin_id for hit in by_words(index, "same")] == ["a", "b", "c"]


def test_words_follow_the_text_where_the_vector_is_kept(index: PinIndex) -> None:
    fill(index)
    assert index.write([PointWrite(record("soup", 2, text="Pumpkin soup"), 1, keep_vector=True)]) == {"soup"}
    assert by_words(index, "tomato") == []
    (hit,) = by_words(index, "pumpkin")
    assert (hit.pin_id, hit.v) == ("soup", 2)
    np.testing.assert_allclose(hit.vector, vector(2), atol=1e-6)


def test_what_is_written_after_it_was_found_is_shown_anew(index: PinIndex) -> None:
    fill(index)
    assert by_words(index, "tomato")[0].fields["lang"] == "en"
    index.write([PointWrite(record("soup", 2, text="Tomato soup", fields={"lang": "it"}, refused="encoder_error"), 1, vector(9))])
    (hit,) = by_words(index, "tomato")
    assert (hit.v, hit.fields, hit.refused) == (2, {"lang": "it"}, "encoder_error")
    np.testing.assert_allclose(hit.vector, vector(9), atol=1e-6)


def test_a_pin_that_is_gone_or_has_no_text_has_no_words_and_counts_in_no_frequency(index: PinIndex) -> None:
    fill(index)
    put(index, "late", text="tomato tomato")
    index.write([PointWrite(record("late", 2, dead=True, embedded=False, text=""), 1)])
    index.write([PointWrite(record("textless", 1, embedded=False, text=""), None)])
    (hit,) = by_words(index, "tomato")
    assert hit.pin_id == "soup"
    weights = dict(zip(terms_of_text(TEXTS["soup"]).ids, terms_of_text(TEXTS["soup"]).weights, strict=True))
    assert hit.score == pytest.approx(weights[terms_of_query("tomato").ids[0]] * math.log(1 + 4.5 / 1.5), rel=1e-5)


def test_a_text_of_the_largest_ids_is_kept_whole(index: PinIndex) -> None:
    fill(index)
    assert max(terms_of_text(" ".join(f"w{n}" for n in range(3000))).ids) > 2**31
    put(index, "long", seed=8, text=" ".join(f"w{n}" for n in range(3000)))
    for n in (0, 1500, 2999):
        assert [hit.pin_id for hit in by_words(index, f"w{n}")] == ["long"]


def test_a_search_by_both_or_by_nothing_is_refused(index: PinIndex) -> None:
    for ask in (Ask(3), Ask(3, vector(1), terms_of_query("a"))):
        with pytest.raises(ValueError, match="exactly one"):
            index.ask([ask])


def test_hundreds_of_searches_at_once(index: PinIndex) -> None:
    fill(index)
    found = index.ask([Ask(1, vector(n % 5)) for n in range(300)])
    assert [answer[0].pin_id for answer in found] == [list(TEXTS)[n % 5] for n in range(300)]
    assert all(answer[0].vector is not None and answer[0].vector.shape == (DIMENSION,) for answer in found)
