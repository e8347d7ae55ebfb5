from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest

from pins.lexical import terms_of_query
from pins.ports import Ask, Hit, Vector, Where
from pins.relevance import Level
from pins.retrieval.fusion import DENSE_WEIGHT, RRF_K, SPARSE_WEIGHT
from pins.retrieval.late import SentenceVectors
from pins.retrieval.rerank import LATE_DEPTH, LATE_WEIGHT, LEXICAL_WEIGHT
from pins.retrieval.search import Found, SearchOptions, search, with_matched_terms
from tests.fakes import FakeEncoder, FakeIndex
from tests.unit.space import at, ids, index_of, put

HEAD = FakeEncoder.ordinal_head


def texts(*titles: str) -> FakeIndex:
    return index_of({title: FakeEncoder().query(title) for title in titles})


class Pointing(FakeEncoder):
    """Every query points along the first axis."""

    def query(self, text: str) -> Vector:
        return at(0)


def placed(pins: Mapping[str, tuple[float, str]]) -> FakeIndex:
    """Pins at a cosine to the query of `Pointing`, each leaning its own way, with their texts."""
    index = FakeIndex()
    for axis, (pin_id, (cosine, text)) in enumerate(pins.items(), start=1):
        put(index, pin_id, at(0, cosine, beside=axis), text)
    return index


def ask(index: FakeIndex, query: str = "oak stool", late: SentenceVectors | None = None, **options: object) -> list[Found]:
    return search(query, Pointing(), index, SearchOptions(**options), late)  # type: ignore[arg-type]


def test_a_search_gives_the_nearest_pins_with_their_relevance() -> None:
    results = search("red chair", FakeEncoder(), texts("red chair", "blue chair", "tomato soup"))
    assert len(results) == 3
    best = results[0]
    assert (best.pin_id, best.hit.fields["title"], best.dense_rank, best.sparse_rank) == ("red chair", "title of red chair", 1, 1)
    assert best.cosine == pytest.approx(1.0)
    assert best.relevance == pytest.approx(float(HEAD.expected(1.0)))
    assert best.level is Level.HIGHLY_RELEVANT
    for result in results:
        assert result.level is HEAD.level(result.cosine)
        assert result.level_probabilities == pytest.approx(HEAD.probabilities(result.cosine).tolist(), abs=1e-6)
        assert (result.late_interaction, result.below_level, result.duplicates, result.matched_terms) == (None, False, (), ())


def test_a_search_holds_to_the_filters() -> None:
    index = texts("red chair", "blue chair", "tomato soup")
    for retrieval in ("hybrid", "dense", "sparse"):
        without = SearchOptions(where=Where(without=frozenset({"red chair"})), retrieval=retrieval)  # type: ignore[arg-type]
        assert "red chair" not in ids(search("red chair", FakeEncoder(), index, without))
        assert search("chair", FakeEncoder(), index, SearchOptions(where=Where(lang="de"), retrieval=retrieval)) == []  # type: ignore[arg-type]


def test_a_search_is_as_deep_as_asked_for_and_never_less_than_a_page() -> None:
    index = placed({f"p{n}": (0.9 - n / 10, "oak stool") for n in range(5)})
    assert ids(ask(index, limit=1, depth=3)) == ["p0", "p1", "p2"]
    assert ids(ask(index, limit=4, depth=3)) == ["p0", "p1", "p2", "p3"]


def test_vectors_of_another_model_are_never_searched() -> None:
    index = texts("red chair")
    index.model_id = "fake-v2"
    with pytest.raises(ValueError, match="the query encoder is fake-v1, the index holds fake-v2"):
        search("red chair", FakeEncoder(), index)


@pytest.mark.parametrize("text", ["", "  \n\u3000"])
def test_an_empty_query_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give at least one word"):
        search(text, FakeEncoder(), texts("red chair"))


@pytest.mark.parametrize(("retrieval", "asked"), [("hybrid", ["vector", "terms"]), ("dense", ["vector"]), ("sparse", ["terms"])])
def test_every_search_is_one_round_trip(retrieval: str, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    index, trips = texts("red chair"), []
    answer = index.ask

    def kept(asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        trips.append(["terms" if one.vector is None else "vector" for one in asks])
        return answer(asks)

    monkeypatch.setattr(index, "ask", kept)
    ask(index, retrieval=retrieval)
    assert trips == [asked]


def test_hybrid_finds_what_only_the_words_or_only_the_vectors_find() -> None:
    index = placed({"near": (0.9, "a seat"), "nearer": (0.95, "a chair"), "named": (0.1, "the oak stool")})
    assert ids(ask(index, retrieval="sparse")) == ["named"]
    assert ids(ask(index, retrieval="dense", depth=1, limit=1)) == ["nearer"]
    found = {result.pin_id: result for result in ask(index, rerank="none")}
    assert {pin_id: (r.dense_rank, r.sparse_rank) for pin_id, r in found.items()} == {"nearer": (1, None), "near": (2, None), "named": (3, 1)}
    assert [found[pin_id].bm25 is None for pin_id in ("nearer", "near", "named")] == [True, True, False]


def test_what_only_the_words_found_is_judged_by_its_vector() -> None:
    index = placed({"near": (0.9, "a seat"), "named": (0.2, "the oak stool")})
    words_only = ask(index, retrieval="sparse")
    assert ids(words_only) == ["named"]
    assert (words_only[0].dense_rank, words_only[0].level) == (None, HEAD.level(0.2))
    assert words_only[0].cosine == pytest.approx(0.2, abs=1e-6)
    assert words_only[0].relevance == pytest.approx(float(HEAD.expected(0.2)), rel=1e-5)


def test_ranks_are_fused_reciprocally() -> None:
    index = placed({"first": (0.9, "oak"), "second": (0.8, "oak stool"), "third": (0.7, "soup")})
    found = {result.pin_id: result for result in ask(index, rerank="none")}
    assert (found["first"].sparse_rank, found["second"].sparse_rank) == (2, 1)
    assert found["first"].fused == pytest.approx(DENSE_WEIGHT / (RRF_K + 1) + SPARSE_WEIGHT / (RRF_K + 2))
    assert found["third"].fused == pytest.approx(DENSE_WEIGHT / (RRF_K + 3))
    assert [result.score for result in found.values()] == [result.fused for result in found.values()]


def test_without_reranking_one_ranking_keeps_its_own_order() -> None:
    index = placed({"b": (0.9, "oak"), "a": (0.8, "oak stool"), "c": (0.7, "oak stool oak stool stool")})
    assert ids(ask(index, retrieval="dense", rerank="none")) == ["b", "a", "c"]
    sparse = ask(index, retrieval="sparse", rerank="none")
    assert [result.bm25 for result in sparse] == sorted((result.bm25 or 0 for result in sparse), reverse=True)
    assert ids(sparse)[-1] == "b"
    assert {result.dense_rank for result in sparse} == {None}


def test_reranking_adds_what_the_words_are_worth_per_term_to_the_expected_relevance() -> None:
    index = placed({"near": (0.6, "soup"), "named": (0.59, "the oak stool"), "else": (0.2, "oak")})
    found = {result.pin_id: result for result in ask(index)}
    assert list(found) == ["named", "near", "else"]
    assert found["near"].score == pytest.approx(found["near"].relevance)
    assert found["named"].relevance < found["near"].relevance
    assert found["named"].bm25 is not None
    assert found["named"].score == pytest.approx(found["named"].relevance + LEXICAL_WEIGHT * found["named"].bm25 / 2)
    longer = {result.pin_id: result for result in ask(index, "oak stool von einem sehr alten meister")}
    assert longer["named"].bm25 == found["named"].bm25
    assert longer["named"].score == pytest.approx(longer["named"].relevance + LEXICAL_WEIGHT * found["named"].bm25 / 7)


def test_a_query_without_words_is_answered_by_its_vector() -> None:
    index = placed({"a": (0.9, "soup"), "b": (0.8, "stew")})
    assert terms_of_query("🌵!").ids == ()
    assert ids(ask(index, "🌵!")) == ["a", "b"]
    assert ask(index, "🌵!", retrieval="sparse") == []


def test_ties_are_in_the_order_of_the_ids() -> None:
    assert ids(ask(placed({"b": (0.5, ""), "a": (0.5, ""), "c": (0.5, "")}))) == ["a", "b", "c"]


def test_results_below_a_level_are_cut_or_marked() -> None:
    index = placed({"good": (0.9, "x"), "fair": (0.3, "x"), "bad": (-0.9, "x")})
    levels = {result.pin_id: result.level for result in ask(index)}
    assert levels["good"] > levels["fair"] > levels["bad"] == Level.HIGHLY_IRRELEVANT
    assert ids(ask(index, min_level=levels["fair"])) == ["good", "fair"]
    assert ids(ask(index, min_level=levels["fair"] + 1)) == ["good"]
    marked = ask(index, min_level=levels["fair"], below="mark")
    assert [(result.pin_id, result.below_level) for result in marked] == [("good", False), ("fair", False), ("bad", True)]


def copies() -> FakeIndex:
    index = placed({"a": (0.9, ""), "b": (0.5, "")})
    put(index, "copy of a", at(0, 0.899, beside=1))
    put(index, "copy of b", at(0, 0.499, beside=2))
    put(index, "z copy of a", at(0, 0.898, beside=1))
    return index


def test_near_duplicates_are_folded_and_named() -> None:
    assert [(result.pin_id, result.duplicates) for result in ask(copies())] == [("a", ("copy of a", "z copy of a")), ("b", ("copy of b",))]
    assert ids(ask(copies(), fold=False)) == ["a", "copy of a", "z copy of a", "b", "copy of b"]


def test_a_near_duplicate_below_the_level_goes_unnamed_where_it_is_cut() -> None:
    edge = float(next(cosine for cosine in np.linspace(-1, 1, 100_001) if HEAD.level(float(cosine)) is Level.HIGHLY_RELEVANT))
    index = placed({"above": (edge + 0.001, "")})
    put(index, "below", at(0, edge - 0.001, beside=1))
    assert [(result.pin_id, result.duplicates) for result in ask(index, min_level=5)] == [("above", ())]
    assert [(result.pin_id, result.duplicates) for result in ask(index, min_level=5, below="mark")] == [("above", ("below",))]


def test_diversity_puts_unlike_pins_first() -> None:
    index = FakeIndex()
    for pin_id, vector in {"a": at(0, 0.9, beside=1), "like a": at(0, 0.8, beside=1), "other": at(0, 0.7, beside=2)}.items():
        put(index, pin_id, vector)
    assert ids(ask(index)) == ["a", "like a", "other"]
    assert ids(ask(index, diversity=0.8)) == ["a", "other", "like a"]


def test_a_hit_without_its_vector_cannot_be_judged_and_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    index = placed({"a": (0.9, "oak"), "b": (0.8, "oak")})
    answer = index.ask
    bare = {"a"}
    monkeypatch.setattr(
        index, "ask", lambda asks: [[Hit(h.pin_id, h.score, h.fields, h.v, None if h.pin_id in bare else h.vector) for h in hits] for hits in answer(asks)]
    )
    assert ids(ask(index)) == ["b"]


def test_the_words_that_matched_are_told_of_a_page() -> None:
    index = placed({"both": (0.9, "An oak stool."), "one": (0.8, "stool by a window"), "none": (0.7, "soup")})
    page = ask(index, "Oak stool, OAK!")
    explained = with_matched_terms(page, "Oak stool, OAK!", index)
    assert [(result.pin_id, result.matched_terms) for result in explained] == [("both", ("oak", "stool")), ("one", ("stool",)), ("none", ())]
    del index.points["both"]
    assert with_matched_terms(page, "oak", index)[0].matched_terms == ()


def sentence_vectors(index: FakeIndex, capacity: int = 2000) -> tuple[SentenceVectors, list[str]]:
    encoded: list[str] = []

    def encode(some: Sequence[str]) -> Vector:
        encoded.extend(some)
        return np.stack([at(0) if sentence == "on the point" else at(0, 0.1, beside=5) for sentence in some])

    return SentenceVectors(encode, capacity), encoded


def test_late_interaction_lifts_a_pin_with_one_sentence_that_is_on_the_point() -> None:
    index = placed({"even": (0.5, "so so. so so"), "sharp": (0.45, "elsewhere. on the point"), "blank": (0.4, " ")})
    late, encoded = sentence_vectors(index)
    assert ids(ask(index)) == ["even", "sharp", "blank"]
    found = {result.pin_id: result for result in ask(index, "x", late, rerank="late_interaction")}
    assert list(found) == ["sharp", "even", "blank"]
    assert found["sharp"].late_interaction == pytest.approx(1.0)
    assert found["sharp"].score == pytest.approx(float(HEAD.expected((1 - LATE_WEIGHT) * 0.45 + LATE_WEIGHT)), rel=1e-5)
    assert found["sharp"].relevance == pytest.approx(float(HEAD.expected(0.45)), rel=1e-5)
    assert found["blank"].late_interaction is None
    assert found["blank"].score == pytest.approx(found["blank"].relevance)
    assert encoded == ["so so", "so so", "elsewhere", "on the point"]


def test_sentences_are_encoded_once_until_their_pin_changes() -> None:
    index = placed({"p": (0.5, "one. two"), "q": (0.4, "three")})
    late, encoded = sentence_vectors(index)
    for _ in range(2):
        ask(index, "x", late, rerank="late_interaction")
    assert encoded == ["one", "two", "three"]
    put(index, "p", at(0, 0.5), "on the point")
    assert ask(index, "x", late, rerank="late_interaction")[0].late_interaction == pytest.approx(1.0)
    assert encoded == ["one", "two", "three", "on the point"]


def test_sentences_longest_unused_are_forgotten_first() -> None:
    index = placed({"p": (0.5, "one"), "q": (0.4, "two"), "r": (0.3, "three")})
    late, encoded = sentence_vectors(index, capacity=2)
    hits = {hit.pin_id: hit for hit in index.search(at(0), 3)}
    for pin_id in ("p", "q", "p", "r", "p", "q"):
        late.max_sim(at(0), [hits[pin_id]], index)
    assert encoded == ["one", "two", "three", "two"]
    assert np.isfinite(late.max_sim(at(0), list(hits.values()), index)).all(), "what does not fit is used all the same"


def test_a_pin_that_changed_since_it_was_found_keeps_its_cosine() -> None:
    index = placed({"p": (0.5, "one"), "q": (0.4, "two"), "gone": (0.3, "three")})
    hits = index.search(at(0), 3)
    put(index, "p", at(0, 0.5), "on the point")
    del index.points["gone"]
    late, encoded = sentence_vectors(index)
    assert np.isnan(late.max_sim(at(0), hits, index)).tolist() == [True, False, True]
    assert encoded == ["two"]
    assert np.isnan(late.max_sim(at(0), hits[:1], index)).all()
    assert encoded == ["two"]


def test_late_interaction_looks_at_the_best_only() -> None:
    index = FakeIndex()
    for number in range(LATE_DEPTH + 3):
        put(index, f"p{number:03}", at(0, 0.9 - number / 100, beside=1 + number % 6), "on the point" if number >= LATE_DEPTH else "so so")
    late, _ = sentence_vectors(index)
    found = ask(index, "x", late, rerank="late_interaction", fold=False)
    assert ids(found) == sorted(ids(found))
    assert [result.late_interaction is None for result in found] == [False] * LATE_DEPTH + [True] * 3
    assert ids(ask(index, "x", late, rerank="late_interaction", fold=False, diversity=0.01))[0] == "p000"


def test_late_interaction_of_nothing_is_nothing() -> None:
    late, encoded = sentence_vectors(FakeIndex())
    assert ask(FakeIndex(), "x", late, rerank="late_interaction") == []
    assert encoded == []


def test_late_interaction_needs_an_encoder_of_sentences() -> None:
    with pytest.raises(ValueError, match="pass `late`, or choose rerank='relevance'"):
        ask(FakeIndex(), rerank="late_interaction")


def test_stages_are_timed_in_order() -> None:
    entered: list[str] = []

    def stage(name: str) -> AbstractContextManager[None]:
        entered.append(name)
        return nullcontext()

    search("red chair", FakeEncoder(), texts("red chair"), stage=stage)
    assert entered == ["encode", "retrieve", "rerank", "fold"]
