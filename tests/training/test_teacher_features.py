"""Match features: BM25 and coverage against values worked out by hand, cosines per sentence, vectors computed once."""

from math import log

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from tests.training.teacher_toys import bert  # noqa: E402  # after the skip
from training.teachers.config import FEATURES  # noqa: E402
from training.teachers.features import Encoder, Lexicon, MatchFeatures, sentences, terms  # noqa: E402

TEXTS = ["red cats run. a blue dog", "a red house", "green birds fly. an old tree. a car"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cats are running", ("cat", "run")),
        ("", ()),
        ("ein rotes Haus", ("ein", "rote", "haus")),
        ("赤い猫", ("赤", "い", "猫")),
        ("iPhone15 – ok", ("iphone15", "ok")),
    ],
)
def test_terms(text, found):
    assert terms(text) == found


@pytest.mark.parametrize(
    ("text", "parts"),
    [("one. two. three", ["one", "two", "three"]), ("one", ["one"]), ("", [""]), (". ", [". "]), ("v1.5 is out. yes", ["v1.5 is out", "yes"])],
)
def test_sentences(text, parts):
    assert sentences(text) == parts


def test_bm25_and_coverage_by_hand():
    lexicon = Lexicon.fit(TEXTS)
    assert (lexicon.texts, lexicon.frequency["red"], lexicon.frequency["dog"]) == (3, 2, 1)
    assert lexicon.mean_length == pytest.approx((5 + 2 + 6) / 3)
    red, dog = log(1 + 1.5 / 2.5), log(1 + 2.5 / 1.5)
    assert (lexicon.idf("red"), lexicon.idf("dog"), lexicon.idf("never")) == pytest.approx((red, dog, log(1 + 3.5 / 0.5)))
    found = lexicon.match("red dogs", TEXTS[0])
    norm = 1.2 * (0.25 + 0.75 * 5 / (13 / 3))
    assert found["bm25"] == pytest.approx(1 / (1 + norm))
    assert found["coverage"] == pytest.approx(1.0)
    assert found["sentence_coverage"] == pytest.approx(dog / (red + dog))
    assert found["precision"] == pytest.approx(dog / (dog + lexicon.idf("blue")))
    assert (found["query_length"], found["text_length"], found["sentences"]) == pytest.approx((log(3), log(6), 2))


@pytest.mark.parametrize(("query", "text"), [("", "a red house"), ("red", ""), ("the of", "the of"), ("", "")])
def test_empty_texts_match_nothing(query, text):
    found = Lexicon.fit(TEXTS).match(query, text)
    assert found["bm25"] == found["coverage"] == found["precision"] == 0.0
    assert all(np.isfinite(value) for value in found.values())


def test_a_lexicon_comes_back_as_it_was_written(tmp_path):
    lexicon = Lexicon.fit([*TEXTS, "赤い猫"])
    lexicon.write(tmp_path / "lexicon.json")
    assert Lexicon.open(tmp_path / "lexicon.json") == lexicon


class Known:
    """Unit vectors at set angles, so that every cosine is known."""

    def __init__(self):
        self.angles = {"q": 0.0, "near. far. square": 0.1, "near": 0.2, "far": 1.0, "square": np.pi / 2, "only": 0.5}

    def vectors(self, texts, progress=False):
        return np.array([[np.cos(self.angles[text]), np.sin(self.angles[text])] for text in texts], np.float32)


def test_cosines_of_the_whole_and_of_each_sentence():
    match = MatchFeatures(FEATURES[:5], Known(), Lexicon.fit(TEXTS))
    rows = match.matrix(["q", "q"], ["near. far. square", "only"])
    parts = np.cos([0.2, 1.0, np.pi / 2])
    assert rows[0] == pytest.approx([np.cos(0.1), parts[0], parts[1], parts.mean(), parts[2]], abs=1e-6)
    assert rows[1] == pytest.approx([np.cos(0.5)] * 5, abs=1e-6)


def test_only_the_named_features_in_the_named_order():
    match = MatchFeatures(("sentences", "cosine", "bm25"), Known(), Lexicon.fit(TEXTS))
    assert match.matrix(["q"], ["near. far. square"])[0] == pytest.approx([3.0, np.cos(0.1), 0.0], abs=1e-6)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder(str(bert(tmp_path_factory.mktemp("encoder"))), "cpu")


def test_a_text_is_encoded_once(encoder, monkeypatch):
    asked = []
    plain = encoder.model.encode
    monkeypatch.setattr(encoder.model, "encode", lambda texts, **rest: asked.extend(texts) or plain(texts, **rest))
    first = encoder.vectors(["red cat", "blue dog", "red cat"])
    again = encoder.vectors(["blue dog", "old tree"])
    assert asked == ["red cat", "blue dog", "old tree"]
    assert np.linalg.norm(first, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (first[1] == again[0]).all()


def test_kept_vectors_are_bounded(encoder, monkeypatch):
    monkeypatch.setattr("training.teachers.features.CACHED", 2)
    wide = encoder.vectors(["red", "blue", "green", "old"])
    assert len(encoder._kept) == 2
    assert encoder.vectors(["red", "blue", "green", "old"]) == pytest.approx(wide, abs=1e-5)


def test_more_pairs_than_fit_at_once(encoder, monkeypatch):
    match = MatchFeatures(FEATURES, encoder, Lexicon.fit(TEXTS))
    queries, texts = ["red cat", "old tree", "blue dog"], ["red dog. old cat", "blue tree", "cat. dog. bird"]
    whole = match.matrix(queries, texts)
    monkeypatch.setattr("training.teachers.features.CHUNK", 2)
    assert match.matrix(queries, texts) == pytest.approx(whole, abs=1e-6)


def test_the_digest_tells_weights_apart(encoder, tmp_path):
    other = Encoder(str(bert(tmp_path / "same")), "cpu")
    assert encoder.digest() == other.digest()
    next(other.model.parameters()).data[0, 0] += 1
    assert encoder.digest() != other.digest()
