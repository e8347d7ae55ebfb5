"""Scorers: every kind of model folder gives the scores and levels that its own library gives; wrong folders are refused."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytest.importorskip("bm25s", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's and transformers' own imports

from everpin.exports.one_file import export  # noqa: E402  # after the skip
from pins.changes import IndexedPin  # noqa: E402
from pins.ports import PointWrite  # noqa: E402
from pins.relevance import OrdinalHead  # noqa: E402
from tests.fakes import FakeIndex  # noqa: E402
from tests.training.label_toys import CountingTeacher, encode  # noqa: E402
from tests.training.tiny_students import HEAD, WIDTH, letter_tokenizer, write_student  # noqa: E402
from training.data import DataError, Pairs  # noqa: E402
from training.measures.live_index import open_index  # noqa: E402
from training.measures.scorers import Retriever, VectorScorer, open_scorer  # noqa: E402
from training.source import Reference, resolve  # noqa: E402

MINILM = Path(__file__).parents[2] / "everpin/models/minilm-l6-v1"
QUERIES = ["red chairs", "a blue dress", "red chairs", "roter Stuhl"]
LANGS = ["en", "en", "en", "de"]
TEXTS = ["red chair in a room", "blue dress", "a dog", "", "Stuhl und Tisch"]
ROWS = [(0, 0), (0, 1), (1, 1), (2, 0), (3, 4), (3, 0)]


def pairs(rows=ROWS, langs=LANGS):
    query, pin = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    blank = np.zeros(len(rows))
    return Pairs(query, pin, blank.astype(np.int64), blank.astype(np.float32), query.astype(str), np.array(langs)[query], np.array([""] * len(rows)))


class Counting:
    """The word-counting student; `seen` keeps every text it embedded."""

    def __init__(self):
        self.seen = []

    def __call__(self, texts):
        self.seen += texts
        return encode(texts)


def student(dimension=None, head=None, encoder=None):
    return VectorScorer("words-v1", encoder or Counting(), head, {}, dimension)


def test_a_pair_scores_the_cosine_of_its_vectors():
    made = student()
    expected = [encode([QUERIES[query]])[0] @ encode([TEXTS[pin]])[0] for query, pin in ROWS]
    assert made.score(QUERIES, TEXTS, pairs()).scores == pytest.approx(np.array(expected, np.float64), abs=1e-6)
    assert made.score(QUERIES, TEXTS, pairs()).levels is None


def test_each_distinct_text_is_embedded_once_in_all_calls():
    encoder = Counting()
    made = student(encoder=encoder)
    made.score(QUERIES, TEXTS, pairs())
    made.score(QUERIES, TEXTS, pairs())
    made.against_all(QUERIES, LANGS, TEXTS)
    assert sorted(encoder.seen) == sorted({*QUERIES, *TEXTS})


def test_pairs_beyond_what_is_gathered_at_once_score_the_same(monkeypatch):
    whole = student().score(QUERIES, TEXTS, pairs()).scores
    monkeypatch.setattr("training.measures.scorers.GATHERED", 4)
    assert student().score(QUERIES, TEXTS, pairs()).scores == pytest.approx(whole)


def test_levels_are_those_of_the_ordinal_head():
    head = OrdinalHead(HEAD["scale"], tuple(HEAD["thresholds"]))
    scored = student(head=head).score(QUERIES, TEXTS, pairs())
    assert scored.levels == pytest.approx(head.probabilities(scored.scores))


def test_a_shorter_vector_is_the_first_numbers_made_unit_again():
    short = student(16).vectors(["red chair"])
    cut = encode(["red chair"])[:, :16]
    assert short == pytest.approx(cut / np.linalg.norm(cut))
    with pytest.raises(DataError, match="vectors have 64 numbers; a dimension of 65"):
        student(65).vectors(["red chair"])


def test_all_pins_are_searched_and_a_pin_without_text_is_not_found():
    scores = student().against_all(QUERIES, LANGS, TEXTS)
    assert scores.shape == (4, 5)
    assert np.isneginf(scores[:, 3]).all()
    assert scores[0, 1] == pytest.approx(student().score(QUERIES, TEXTS, pairs()).scores[1], abs=1e-6)


def test_bm25_stems_english_and_leaves_other_languages_alone():
    bm25 = open_scorer("bm25", ["en", "en", "en", "en", "de"])
    assert isinstance(bm25, Retriever)
    scored = bm25.score(QUERIES, TEXTS, pairs())
    assert scored.levels is None
    assert scored.scores[0] > 0, "chairs finds chair"
    assert scored.scores[1] == 0
    assert scored.scores[4] > 0
    assert scored.scores[5] == 0
    found = np.isfinite(bm25.against_all(QUERIES, LANGS, TEXTS))
    assert found.tolist() == [[True, False, False, False, False], [False, True, False, False, False], [True, False, False, False, False], [False] * 4 + [True]]


def test_words_that_two_languages_share_meet_unstemmed():
    bm25 = open_scorer("bm25", ["en"])
    scored = bm25.score(["tennis auf dem Rasen", "tennis"], ["two people playing tennis"], pairs([(0, 0), (1, 0)], ["de", "en"]))
    assert (scored.scores > 0).all(), "English alone would know the pin's word as tenni"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_torch_student_embeds_as_its_folder_says(tmp_path, pooling):
    folder = write_student(tmp_path / "Tiny", [*QUERIES, *TEXTS], pooling, {"ordinal_head": HEAD, "lineage": {"teacher": "t1"}})
    made = open_scorer(folder)
    assert made.vectors(TEXTS) == pytest.approx(Reference(resolve(str(folder))).embed(TEXTS), abs=1e-5)
    assert made.model_id == "tiny"
    assert made.lineage == {"kind": "torch student", "teacher": "t1"}
    assert made.score(QUERIES, TEXTS, pairs()).levels.sum(axis=1) == pytest.approx(1)


def test_a_torch_student_without_a_head_gives_no_levels(tmp_path):
    made = open_scorer(write_student(tmp_path / "tiny", [*QUERIES, *TEXTS]))
    assert made.score(QUERIES, TEXTS, pairs()).levels is None


def test_a_static_student_is_the_mean_of_its_token_vectors(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(1)
    table = StaticEmbedding(letter_tokenizer([*QUERIES, *TEXTS]), embedding_dim=WIDTH)
    SentenceTransformer(modules=[table]).save_pretrained(str(tmp_path / "static"))
    vector = open_scorer(tmp_path / "static").vectors(["dog"])[0]
    ids = table.tokenizer.encode("dog", add_special_tokens=False).ids
    mean = table.embedding.weight.detach().numpy()[ids].mean(axis=0)
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_a_published_student_is_asked_through_its_own_encoder():
    made = open_scorer(MINILM)
    vectors = made.vectors(["red chair", "a dog"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    scored = made.score(QUERIES, TEXTS, pairs())
    assert scored.scores[0] > scored.scores[1], "a chair is nearer to chairs than a dress is"
    assert scored.levels.shape == (6, 5)
    assert made.model_id == "minilm-l6-v1"
    assert made.lineage["kind"] == "published student"


def test_a_teachers_score_is_its_expected_level(tmp_path, monkeypatch):
    (tmp_path / "teacher.json").write_text(json.dumps({"teacher_id": "counting-1", "base": "none"}))
    teacher = CountingTeacher()
    monkeypatch.setitem(sys.modules, "training.teachers.teacher", SimpleNamespace(open_teacher=lambda folder: teacher))
    made = open_scorer(tmp_path)
    scored = made.score(QUERIES, TEXTS, pairs())
    assert teacher.asked[0] == (QUERIES[0], TEXTS[0])
    assert scored.scores == pytest.approx(scored.levels @ [1, 2, 3, 4, 5])
    assert (made.model_id, made.lineage["base"]) == ("counting-1", "none")
    assert not isinstance(made, Retriever)


def test_a_teacher_answers_with_the_head_of_the_data_set_and_else_with_its_main_one(tmp_path):
    from tests.training.teacher_toys import bert, cross_encoder
    from training.teachers.teacher import PairFeatures, build, save_teacher

    config = cross_encoder(bert(tmp_path / "base"), heads={"cxc_pins": 5, "commons": 3})
    save_teacher(tmp_path / "teacher", build(config, PairFeatures(None, None)), {})
    for dataset, levels in ((None, 5), ("elsewhere", 5), ("commons", 3)):
        made = open_scorer(tmp_path / "teacher", dataset=dataset)
        scored = made.score(["red cat", "blue dog"], ["red cat. runs", "a boat"], pairs([(0, 0), (0, 1), (1, 1)], ["en", "en"]))
        assert scored.levels.shape == (3, levels)
        assert scored.levels.sum(axis=1) == pytest.approx(1)
        assert scored.scores == pytest.approx(scored.levels @ np.arange(1, levels + 1))
        assert made.model_id.startswith("toy-")


def test_what_is_no_model_is_refused_with_what_would_be_one(tmp_path):
    with pytest.raises(DataError, match=r"is no model: give 'bm25', or a folder that holds one of manifest\.json, teacher\.json"):
        open_scorer(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("manifest.json", "{", "cannot be used"),
        ("teacher.json", "[1]", "must hold a JSON object"),
        ("teacher.json", "{", "is not JSON"),
        ("modules.json", "[]", "cannot be loaded"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        open_scorer(tmp_path)


@pytest.mark.parametrize("head", [{"scale": -1, "thresholds": [1, 2, 3, 4]}, {"scale": 1}, {"scale": 1, "thresholds": [1, 2]}, {"scale": 1, "thresholds": 3}])
def test_a_head_that_cannot_order_levels_is_refused(tmp_path, head):
    with pytest.raises(DataError, match="ordinal head cannot be used"):
        open_scorer(write_student(tmp_path / "tiny", TEXTS, described={"ordinal_head": head}))


# The live index.

PIN_IDS = ["p0", "p1", "p2", "p3", "p4"]


def exported(tmp_path, suffix, vectors=True, model_id="words-v1", texts=TEXTS):
    """What `everpin export` writes of an index that holds the first three pins, and the third without a vector."""
    index = FakeIndex()
    for pin_id, text in zip(PIN_IDS[:3], texts, strict=False):
        vector = None if pin_id == "p2" else encode([text])[0]
        index.write([PointWrite(IndexedPin(pin_id, 1, dead=False, embedded=vector is not None, model_id=model_id, text=f"a\u2028{text}"), None, vector)])
    path = tmp_path / f"pins{suffix}"
    export(index, path, vectors=vectors)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_the_vectors_of_an_index_are_scored_and_what_it_lacks_ranks_last(tmp_path, suffix):
    head = OrdinalHead(HEAD["scale"], tuple(HEAD["thresholds"]))
    made = open_index(student(head=head), exported(tmp_path, suffix), PIN_IDS)
    assert made.present.tolist() == [True, True, False, False, False]
    scored, expected = made.score(QUERIES, TEXTS, pairs()), student(head=head).score(QUERIES, TEXTS, pairs())
    assert scored.scores[:4] == pytest.approx(expected.scores[:4], abs=1e-6)
    assert np.isneginf(scored.scores[4])
    assert scored.levels[4] == pytest.approx(head.probabilities(-1.0))
    assert np.isneginf(made.against_all(QUERIES, LANGS, TEXTS)[:, 2:]).all()
    assert (made.model_id, made.lineage) == ("words-v1", {"vectors": "live index"})
    assert isinstance(made, Retriever)


def test_the_texts_of_an_index_are_not_embedded_again(tmp_path):
    encoder = Counting()
    made = open_index(student(encoder=encoder), exported(tmp_path, ".jsonl"), PIN_IDS)
    made.score(QUERIES, TEXTS, pairs())
    assert not set(TEXTS[:3]) & set(encoder.seen)


def test_an_index_is_searched_with_shorter_vectors_too(tmp_path):
    made = open_index(student(16), exported(tmp_path, ".jsonl"), PIN_IDS)
    assert made.score(QUERIES, TEXTS, pairs()).scores[:4] == pytest.approx(student(16).score(QUERIES, TEXTS, pairs()).scores[:4], abs=1e-6)


def test_an_index_of_another_student_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds vectors of other-v2, the model is words-v1; vectors of two models never meet"):
        open_index(student(), exported(tmp_path, ".jsonl", model_id="other-v2"), PIN_IDS)
    with pytest.raises(DataError, match="bm25 makes no vectors"):
        open_index(open_scorer("bm25", []), exported(tmp_path, ".jsonl"), PIN_IDS)


def test_an_export_without_vectors_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"row without pin_id, vector or model_id; make it with: everpin export pins\.jsonl --vectors"):
        open_index(student(), exported(tmp_path, ".jsonl", vectors=False), PIN_IDS)


def test_an_export_of_other_pins_is_refused(tmp_path):
    with pytest.raises(DataError, match="has a vector for none of the 1 pins"):
        open_index(student(), exported(tmp_path, ".jsonl"), ["other"])


@pytest.mark.parametrize("vector", [[1.0, 0.0], [float("nan")] * 64])
def test_a_vector_that_the_student_cannot_have_written_is_refused(tmp_path, vector):
    path = tmp_path / "pins.jsonl"
    path.write_text(json.dumps({"pin_id": "p0", "model_id": "words-v1", "vector": vector}) + "\n")
    with pytest.raises(DataError, match="the vector of 'p0' is not of 64 finite numbers"):
        open_index(student(), path, PIN_IDS)


@pytest.mark.parametrize(("name", "text"), [("pins.jsonl", "{"), ("pins.parquet", "no parquet"), ("gone.jsonl", None)])
def test_a_file_that_is_no_export_is_refused(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="cannot be read"):
        open_index(student(), tmp_path / name, PIN_IDS)
