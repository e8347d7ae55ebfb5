"""Candidates: what BM25 and the index find, the proportions, and that chance is fixed by seed and text alone."""

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
Stemmer = pytest.importorskip("Stemmer", reason=REASON)

from tests.training.label_toys import PINS, catalogue, encode, write_data  # noqa: E402  # after the skip
from training.data import DataError, read  # noqa: E402
from training.labels import candidates  # noqa: E402
from training.labels.candidates import Asked, Bm25, Catalogue, Mix, terms, top  # noqa: E402
from training.labels.plan import read_mix  # noqa: E402


@pytest.fixture(scope="module")
def pins(tmp_path_factory):
    return catalogue(read(write_data(tmp_path_factory.mktemp("data") / "toy")))


@pytest.mark.parametrize(
    ("text", "lang", "expected"),
    [
        ("The Chairs, running in it", "en", ["chair", "run"]),
        ("Running chairs", "?", ["run", "chair"]),
        ("Die Stühle in der Küche", "de", ["die", "stühle", "in", "der", "küche"]),
        ("赤い椅子", "ja", ["赤い", "い椅", "椅子"]),
        ("猫", "zh", ["猫"]),
        ("BMW赤い", "ja", ["bmw", "赤い"]),
        ("ﬁne ＣＡＦＥ 42", "en", ["fine", "cafe", "42"]),
        ("?! ...", "en", []),
    ],
)
def test_terms(text, lang, expected):
    assert terms(text, lang, Stemmer.Stemmer("english")) == expected


def test_bm25_scores_are_the_published_formula():
    texts = ["red chair", "red red dress in a garden", "boat"]
    scores = Bm25(texts, ["en"] * 3).scores("the red garden", "en")
    words, mean = [["red", "chair"], ["red", "red", "dress", "garden"], ["boat"]], 7 / 3
    for place, pin in enumerate(words):
        expected = 0.0
        for term in ("red", "garden"):
            holding = sum(term in other for other in words)
            idf = np.log(1 + (3 - holding + 0.5) / (holding + 0.5))
            often = pin.count(term)
            expected += idf * often / (often + 1.2 * (1 - 0.75 + 0.75 * len(pin) / mean))
        assert scores[place] == pytest.approx(expected, rel=1e-5)


def test_bm25_of_pins_without_words_finds_nothing():
    assert Bm25(["", "!"], ["en", "en"]).scores("red chair", "en").tolist() == [0.0, 0.0]


def test_equal_scores_keep_the_order_of_pins():
    assert top(np.array([0.0, 1.0, 1.0, 2.0, 1.0]), 3).tolist() == [3, 1, 2]
    assert top(np.array([-np.inf, 1.0, -np.inf]), 3).tolist() == [1]
    assert top(np.array([1.0, 2.0]), 9).tolist() == [1, 0]


@pytest.mark.parametrize("per_query", [1, 7, 32, 100])
@pytest.mark.parametrize("judged", [True, False])
def test_quotas_add_up_in_proportion(per_query, judged):
    mix = Mix()
    quotas = mix.quotas(per_query, judged)
    total = 32 if judged else 20
    assert sum(quotas.values()) == per_query
    assert all(abs(quotas[kind] - per_query * getattr(mix, kind) / total) < 1 for kind in ("bm25", "index", "hard", "random"))
    assert judged or quotas["judged"] == 0


def test_a_query_gets_as_many_different_pins_as_asked_with_its_own_first(pins):
    asked = [Asked(f"one {text} alone", "en", own=(number,), judged=tuple((number + step) % 60 for step in range(1, 6))) for number, text in enumerate(PINS)]
    found = pins.candidates(asked, 16, seed=7)
    assert np.bincount(found.asked).tolist() == [16] * len(asked)
    for number in range(len(asked)):
        rows = found.asked == number
        assert len(set(found.pin[rows])) == 16
        assert (found.pin[rows][0], found.source[rows][0]) == (number, "judged")
        assert (found.source[rows] == "judged").sum() == 6
        assert (found.source[rows] == "random").sum() == 2


def test_bm25_and_index_propose_what_shares_words(pins):
    found = pins.candidates([Asked("red dress", "en")], 8, seed=7)
    by = {source: [PINS[pin] for pin in found.pin[found.source == source]] for source in ("bm25", "index")}
    assert by["bm25"][0] == "red dress"
    assert all("red" in text or "dress" in text for text in (*by["bm25"][:2], *by["index"][:2]))


def test_hard_negatives_come_from_the_middle_ranks_only():
    texts = [f"word{'x' * number}" for number in range(300)]
    angle = np.linspace(0, 1, 300)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    pins = Catalogue(texts, ["de"] * 300, vectors, lambda some: np.array([[1.0, 0.0]] * len(some), np.float32), Mix(0, 0, 0, 1, 0))
    found = pins.candidates([Asked(f"query {number}", "de") for number in range(40)], 16, seed=7)
    assert found.pin.min() >= 19
    assert found.pin.max() <= 199
    assert set(found.source) == {"index"}
    assert len(np.unique(found.pin)) > 150, "every query drew the same ones"


def test_what_bm25_cannot_fill_goes_to_the_index(pins):
    found = pins.candidates([Asked("赤い椅子", "ja")], 8, seed=7)
    assert len(found) == 8
    assert "bm25" not in found.source


def test_a_small_catalogue_gives_all_its_pins(pins):
    found = pins.candidates([Asked("red dress", "en", own=(3,), judged=(4,))], 200, seed=7)
    assert sorted(found.pin.tolist()) == list(range(60))


def test_candidates_depend_on_seed_and_text_and_nothing_else(pins, monkeypatch):
    asked = [Asked(f"one {text}", "en", judged=(0, 1, 2, 3, 4, 5, 6, 7)) for text in PINS[:12]]
    once, again = pins.candidates(asked, 12, 7), pins.candidates(asked[::-1], 12, 7)
    assert [once.pin[once.asked == place].tolist() for place in range(12)] == [again.pin[again.asked == 11 - place].tolist() for place in range(12)]
    other = pins.candidates(asked, 12, 8)
    assert other.pin.tolist() != once.pin.tolist()
    monkeypatch.setattr(candidates, "BLOCK_SCORES", 120)
    assert pins.candidates(asked, 12, 7).pin.tolist() == once.pin.tolist()


def test_the_number_of_pins_found(pins):
    assert pins.found([Asked("red", "en"), Asked("red dress", "en"), Asked("zebra", "en"), Asked("photos", "en")]).tolist() == [10, 15, 0, 60]


@pytest.mark.parametrize(
    ("bad", "told"), [({"judged": -1}, "whole parts"), ({"bm25": 0, "index": 0, "hard": 0, "random": 0}, "above 0"), ({"hard_from": 300}, "hard_from")]
)
def test_a_mix_that_makes_no_sense_is_refused(bad, told):
    with pytest.raises(DataError, match=told):
        Mix(**bad)


def test_a_mix_is_read_from_toml(tmp_path):
    path = tmp_path / "mix.toml"
    path.write_text("judged = 0\nrandom = 20\n")
    assert read_mix(path) == Mix(judged=0, random=20)
    path.write_text("jugded = 0\n")
    with pytest.raises(DataError, match="jugded"):
        read_mix(path)


def test_vectors_of_other_pins_are_refused():
    with pytest.raises(ValueError, match="not of the same pins"):
        Catalogue(["a", "b"], ["en", "en"], encode(["a"]), encode)
