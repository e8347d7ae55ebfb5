from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.lexical import AVERAGE_WORDS, K1, B, term_id, terms_of_query, terms_of_text, words
from pins.text import clean

ANY_TEXT = st.text(max_size=80)
LETTERS = st.text(st.sampled_from("abcäßİéぼ東京タワーの हिन्दी안녕 ーไทย.,!"), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red chair, by the window!", ["a", "red", "chair", "by", "the", "window"]),
        ("DON'T snake_case 10x10 3.5mm", ["don", "t", "snake", "case", "10x10", "3", "5mm"]),
        ("Straße STRASSE Ünïcode cafe\u0301", ["strasse", "strasse", "ünïcode", "café"]),
        ("ＡＢＣ ﬁsh ²", ["abc", "fish", "2"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("犬", ["犬"]),
        ("赤い・椅子 red椅子chair", ["赤い", "椅子", "red", "椅子", "chair"]),
        ("ﾀﾜｰ", ["タワ", "ワー"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("हिन्दी में पढ़ें", ["हिन्दी", "में", "पढ़ें"]),
        ("안녕 세계", ["안녕", "세계"]),
        ("bal\u00adcony soft\u200bware", ["balcony", "software"]),
        ("🪴 ?! — …", []),
        ("", []),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


@pytest.mark.parametrize(("word", "expected"), [("chair", 0x841645EC), ("東京", 0xBD8AA045), ("", 0x1271CF25)])
def test_ids_are_the_same_in_every_process_and_release(word: str, expected: int) -> None:
    assert term_id(word) == expected


def test_a_text_is_weighted_as_bm25_saturates_and_a_query_weighs_one() -> None:
    text = "red red chair" + " filler" * 10
    terms = terms_of_text(text)
    norm = K1 * (1 - B + B * 13 / AVERAGE_WORDS)
    weights = dict(zip(terms.ids, terms.weights, strict=True))
    for word, count in (("red", 2), ("chair", 1), ("filler", 10)):
        assert weights[term_id(word)] == pytest.approx(count * (K1 + 1) / (count + norm))
    assert max(weights.values()) < K1 + 1
    assert terms_of_query("red chair, red!").weights == (1.0, 1.0)
    assert set(terms_of_query("red chair").ids) == {term_id("red"), term_id("chair")}


def test_the_same_words_weigh_less_in_a_longer_text() -> None:
    short, long = terms_of_text("red chair"), terms_of_text("red chair " + "and more " * 40)
    assert dict(zip(short.ids, short.weights, strict=True))[term_id("red")] > dict(zip(long.ids, long.weights, strict=True))[term_id("red")]


def test_words_of_one_id_share_a_term(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = dict(zip(terms_of_text("red red chair").ids, terms_of_text("red red chair").weights, strict=True))
    monkeypatch.setattr("pins.lexical.term_id", lambda word: 7)
    together = terms_of_text("red red chair")
    assert together.ids == (7,)
    assert together.weights == (pytest.approx(sum(apart.values())),)
    assert terms_of_query("red chair").ids == (7,)


@given(ANY_TEXT | LETTERS)
def test_terms_are_what_an_index_takes(text: str) -> None:
    for terms in (terms_of_text(text), terms_of_query(text)):
        assert list(terms.ids) == sorted(set(terms.ids))
        assert all(0 <= term < 2**32 for term in terms.ids)
        assert len(terms.weights) == len(terms.ids)
        assert all(0 < weight < np.inf for weight in terms.weights)
    assert terms_of_text(text).ids == terms_of_query(text).ids


@given(ANY_TEXT | LETTERS)
def test_a_text_composed_or_not_and_its_words_read_the_same(text: str) -> None:
    found = words(text)
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text)) == found
    assert words(" ".join(found)) == found


@given(LETTERS)
def test_cleaning_a_text_takes_no_word_away(text: str) -> None:
    assert Counter(words(clean(text))) == Counter(words(text))
