"""Fusion, folding and diversity: the parts that search and related pins share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pins.ports import Hit
from pins.relevance import Level, OrdinalHead, most_probable
from pins.retrieval.diversity import fold_duplicates, mmr, unfolded
from pins.retrieval.fusion import DENSE_WEIGHT, RRF_K, SPARSE_WEIGHT, candidates, reciprocal
from pins.retrieval.language import guess_language
from pins.retrieval.late import MAX_SENTENCES, sentences
from tests.unit.space import at


def hit(pin_id: str, score: float, axis: int = 0) -> Hit:
    return Hit(pin_id, score, {}, 1, at(axis))


def test_a_pin_of_two_rankings_is_one_candidate_with_both_ranks() -> None:
    found = candidates(at(0), [hit("a", 1.0), hit("b", 0.0, 1)], [hit("c", 4.0, 2), hit("a", 3.0)])
    assert found.pin_ids.tolist() == ["a", "b", "c"]
    assert found.dense_ranks.tolist() == [1, 2, 0]
    assert found.sparse_ranks.tolist() == [2, 0, 1]
    assert found.bm25.tolist() == [3.0, 0.0, 4.0]
    assert found.cosines.tolist() == [1.0, 0.0, 0.0]
    expected = [DENSE_WEIGHT / (RRF_K + 1) + SPARSE_WEIGHT / (RRF_K + 2), DENSE_WEIGHT / (RRF_K + 2), SPARSE_WEIGHT / (RRF_K + 1)]
    assert found.fused == pytest.approx(expected)


def test_no_hits_are_no_candidates() -> None:
    found = candidates(at(0), [], [])
    assert (len(found.hits), found.vectors.shape, found.fused.shape) == (0, (0, 8), (0,))


def test_the_worth_of_a_rank_falls_with_it() -> None:
    assert reciprocal(np.array([1, 2, 0]), 0.5) == pytest.approx([0.5 / 61, 0.5 / 62, 0.0])


def test_folding_keeps_the_first_and_names_the_others_in_order() -> None:
    vectors = np.stack([at(0, 0.9), at(1), at(0, 0.899), at(1, 0.999), at(0, 0.898)])
    folded = fold_duplicates(vectors, [4, 1, 0, 3, 2])
    assert (folded.kept, folded.duplicates, folded.of_shown) == ([4, 1], [[0, 2], [3]], [])


def test_folding_leaves_out_what_is_shown_already_and_what_is_not_in_the_order() -> None:
    vectors = np.stack([at(0), at(1), at(1, 0.999), at(0, 0.999)])
    folded = fold_duplicates(vectors, [3, 1, 0], shown=at(0)[None])
    assert (folded.kept, folded.duplicates, folded.of_shown) == ([1], [[]], [3, 0])
    assert unfolded([2, 0]).kept == [2, 0]


@given(st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_every_place_is_kept_or_named_once(size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = np.stack([at(int(random.integers(2)), float(random.choice([1.0, 0.999, 0.5]))) for _ in range(size)]) if size else np.zeros((0, 8), np.float32)
    order = random.permutation(size).tolist()
    folded = fold_duplicates(vectors, order, shown=at(0)[None])
    assert sorted([*folded.kept, *folded.of_shown, *(place for places in folded.duplicates for place in places)]) == list(range(size))


def test_diversity_0_is_the_order_of_the_scores() -> None:
    assert mmr([0.1, 0.9, 0.5], np.stack([at(0)] * 3), 0.0).tolist() == [1, 2, 0]
    assert mmr([], np.zeros((0, 8), np.float32), 0.5).tolist() == []
    assert mmr([0.3], at(0)[None], 0.5).tolist() == [0]


def test_diversity_takes_what_is_least_like_what_was_taken() -> None:
    vectors = np.stack([at(0), at(0, 0.9, beside=1), at(0, 0.5, beside=2), at(3)])
    scores = [1.0, 0.9, 0.8, 0.0]
    assert mmr(scores, vectors, 0.01).tolist() == [0, 1, 2, 3]
    assert mmr(scores, vectors, 0.4).tolist() == [0, 2, 1, 3]
    assert mmr(scores, vectors, 1.0).tolist() == [0, 3, 2, 1]
    assert mmr([0.5, 0.5, 0.5, 0.5], vectors, 0.5).tolist() == [0, 3, 2, 1]


@given(st.integers(2, 8), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_diversity_shows_everything_once_best_first(size: int, diversity: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(size, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = random.normal(size=size)
    places = mmr(scores, vectors, diversity).tolist()
    assert sorted(places) == list(range(size))
    assert places[0] == int(np.argmax(scores))


def test_sentences_are_those_that_a_pins_text_was_joined_of() -> None:
    assert sentences("Oak stool. A stool by a window. Small balconies, Home") == ["Oak stool", "A stool by a window", "Small balconies, Home"]
    assert sentences("  ") == []
    assert len(sentences(". ".join(["word"] * 50))) == MAX_SENTENCES


def test_the_most_probable_of_equal_levels_is_the_higher() -> None:
    assert most_probable(np.array([[0.4, 0.1, 0.0, 0.1, 0.4], [0.1, 0.5, 0.2, 0.1, 0.1]])).tolist() == [5, 2]
    head = OrdinalHead(8.0, (-1.0, 1.0, 3.0, 5.0))
    assert [head.level(cosine) for cosine in (-1.0, 0.0, 1.0)] == [Level(int(most_probable(head.probabilities(cosine)))) for cosine in (-1.0, 0.0, 1.0)]


@given(st.text(max_size=40))
def test_any_text_has_a_language_or_none(text: str) -> None:
    assert guess_language(text) in {None, "en", "de", "es", "id", "tr", "ja", "zh", "ru"}
