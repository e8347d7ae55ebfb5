"""A student from a tiny random base: vocabulary, alignment, relevance, levels; what is left out stays out. Needs the `training` extra."""

import json
from dataclasses import replace

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytest.importorskip("datasets", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from sentence_transformers import SentenceTransformer  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402
from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: E402

from pins.relevance import OrdinalHead  # noqa: E402
from pins.text import render  # noqa: E402
from training.corpora import read_parallel, same_picture  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.students.config import Corpus, StudentConfig, load  # noqa: E402
from training.students.distill import Aligned, ByLength, Relevant, Schedule, learn  # noqa: E402
from training.students.model import principal_axes, static_student  # noqa: E402
from training.students.vocabulary import SPECIAL, Vocabulary, _learnt, initial_embeddings  # noqa: E402
from training.train_student import gather, human_candidates, made_targets, train  # noqa: E402

THINGS = {"dog": "hund", "cat": "katze", "tree": "baum", "house": "haus", "boat": "boot", "bird": "vogel", "fish": "fisch", "street": "strasse"}
PLACES = {"garden": "garten", "water": "wasser", "city": "stadt", "field": "feld", "night": "nacht", "snow": "schnee"}
WORDS = ["a", "in", "the", ",", ".", *THINGS, *PLACES]


def _write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A random BERT of two layers that knows the English words."""
    folder = tmp_path_factory.mktemp("base")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *dict.fromkeys([*WORDS, *letters]), *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(1)
    BertModel(
        BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    ).save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """48 pins, a query each in English and German, 400 parallel sentences in German and in Esperanto, which is left out."""
    home = tmp_path_factory.mktemp("data")
    scenes = [(thing, place) for thing in THINGS for place in PLACES]
    _write(home / "graded/items.parquet", [{"item_id": f"p{n}", "title": f"a {t} in the {p}", "caption": f"the {p}, a {t}"} for n, (t, p) in enumerate(scenes)])
    queries, judged = [], []
    for n, (thing, place) in enumerate(scenes):
        split = "dev" if n % 6 == 5 else "train"
        for lang, text in (("en", f"{thing} in the {place}"), ("de", f"{THINGS[thing]} im {PLACES[place]}"), ("eo", "hundo")):
            queries.append({"query_id": f"q{n}-{lang}", "query": text, "lang": lang, "group": f"g{n}", "split": split})
            for other in range(n - 6, n + 7):
                m = other % len(scenes)
                same = (scenes[m][0] == thing) + (scenes[m][1] == place)
                raw = (0.4, 2.6, 5.0)[same]
                judged.append(
                    {"query_id": f"q{n}-{lang}", "item_id": f"p{m}", "grade": min(4, int(raw + 0.5)), "raw": raw, "source": "own" if m == n else "sis"}
                )
    grades = {"q0-en": (1, 1.2), "q1-en": (2, 2.2)}
    for row in judged:
        if row["query_id"] in grades and row["source"] == "sis" and row["raw"] < 1:
            row["grade"], row["raw"] = grades[row["query_id"]]
    _write(home / "graded/queries.parquet", queries)
    _write(home / "graded/judgements.parquet", judged)
    pairs = [{"en": f"a {t} in the {p} .", "xx": f"ein {THINGS[t]} im {PLACES[p]} .", "source": "good"} for t, p in scenes] * 8
    _write(home / "parallel/de.parquet", [*pairs, {"en": "a dog", "xx": "geheim", "source": "secret"}])
    _write(home / "parallel/eo.parquet", [{**row, "xx": row["xx"].replace("ein", "unu")} for row in pairs])
    _write(home / "captions/queries_en.parquet", [{"text": f"{t} in the {p}", "lang": "en", "source": "good"} for t, p in scenes])
    (home / "sources.json").write_text(json.dumps({"good": {"cls": "open"}, "secret": {"cls": "research"}}))
    return home


@pytest.fixture(scope="module")
def config(base):
    return StudentConfig(
        "toy-v1", base=str(base), layers=2, vocabulary=200, max_tokens=32, languages=("de", "eo"), left_out=("eo",), dimensions=(32, 16),
        corpus=Corpus(anchors=40, sentences=400), static=Schedule(60, batch=32, learning_rate=0.05), align=Schedule(30, batch=16, learning_rate=1e-3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(config, home, tmp_path_factory):
    place = tmp_path_factory.mktemp("out")
    return train(config, home, home / "graded", place / "student", place / "work", None, 7), place / "work"


def _cosine(student, one, other):
    a, b = student.encode([one, other], normalize_embeddings=True)
    return float(a @ b)


def test_a_german_text_comes_to_lie_where_its_english_lies(trained):
    student = SentenceTransformer(str(trained[0]), device="cpu")
    german, english = (
        student.encode(texts, normalize_embeddings=True)
        for texts in ([f"ein {THINGS[t]} im garten ." for t in THINGS], [f"a {t} in the garden ." for t in THINGS])
    )
    nearest = (german @ english.T).argmax(axis=1)
    assert (nearest == np.arange(len(THINGS))).sum() >= 6


def test_the_folder_says_what_it_was_made_of(trained):
    about = json.loads((trained[0] / "student.json").read_text())
    head = OrdinalHead(about["ordinal_head"]["scale"], tuple(about["ordinal_head"]["thresholds"]))
    assert head.expected(0.9) > head.expected(0.1)
    assert about["languages"] == ["en", "de"]
    assert about["matryoshka"] == [32, 16]
    assert about["lineage"]["licence_classes"] == ["open"]
    assert about["lineage"]["config"]["left_out"] == ["eo"]
    assert about["lineage"]["seed"] == 7


def test_a_second_run_gives_the_same_student(trained, config, home, tmp_path):
    again = train(config, home, home / "graded", tmp_path / "student", tmp_path / "work", None, 7)
    texts = ["ein hund im garten .", "a cat in the snow ."]
    vectors = [SentenceTransformer(str(folder), device="cpu").encode(texts) for folder in (trained[0], again)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


def test_a_checkpoint_of_another_recipe_is_none_of_this_runs(trained, config, home, tmp_path):
    recipe = replace(config, align=Schedule(30, batch=16, learning_rate=5e-3))
    after, alone = (
        train(recipe, home, home / "graded", tmp_path / name, work, None, 7) for name, work in (("after", trained[1]), ("alone", tmp_path / "work"))
    )
    vectors = [SentenceTransformer(str(folder), device="cpu").encode(["ein hund im garten ."]) for folder in (after, alone)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-4)


def test_a_static_student_is_a_table(config, home, tmp_path):
    folder = train(replace(config, kind="static", model_id="toy-static"), home, home / "graded", tmp_path / "student", tmp_path / "work", None, 7)
    student = SentenceTransformer(str(folder), device="cpu")
    assert _cosine(student, "hund", "dog") > _cosine(student, "hund", "snow")


def test_labels_move_a_static_student_too(config, home, tmp_path):
    made = {}
    for relevance in ("none", "both"):
        recipe = replace(config, kind="static", model_id=f"static-{relevance}", relevance=relevance, align=Schedule(60, batch=32, learning_rate=0.01))
        folder = train(recipe, home, home / "graded", tmp_path / relevance, tmp_path / "work", None, 7)
        student = SentenceTransformer(str(folder), device="cpu")
        made[relevance] = _cosine(student, "dog in the garden", "a dog in the garden. the garden, a dog")
    assert made["both"] != pytest.approx(made["none"], abs=1e-3)


def test_a_pin_lies_between_its_whole_text_and_its_fields(config, home, tmp_path):
    material = gather(config, home, read(home / "graded"), 7)
    plain, half, fields = (made_targets(replace(config, fields=share), material, tmp_path) for share in (0.0, 0.5, 1.0))
    text = render(material.data.pins[0]).text
    parts = text.split(". ")
    assert len(parts) == 2
    kept = {"plain": plain, "half": half, "fields": fields}
    at = {name: targets.vectors[targets.rows([text])[0]].astype(np.float32) for name, targets in kept.items()}
    base = SentenceTransformer(config.base, device="cpu").encode(parts, normalize_embeddings=True) @ plain.axes
    centroid = base.mean(axis=0)
    np.testing.assert_allclose(at["fields"], centroid / np.linalg.norm(centroid), atol=2e-3)
    between = at["plain"] + at["fields"]
    np.testing.assert_allclose(at["half"], between / np.linalg.norm(between), atol=2e-3)
    others = sorted(set(material.anchors) - {render(pin).text for pin in material.data.pins})
    assert others
    np.testing.assert_array_equal(plain.vectors[plain.rows(others)], fields.vectors[fields.rows(others)])


def test_the_same_texts_give_the_same_tokens():
    """The trainer below breaks ties by chance: 400 texts of words that are all equally frequent."""
    words = ["hund", "katze", "garten", "schnee", "baum", "haus", "ein", "im", "am", "meer"]
    texts = [" ".join(np.random.default_rng(number).choice(words, 5)) for number in range(400)]
    assert len({tuple(_learnt(texts, 200)) for _ in range(4)}) == 1


def test_research_text_and_left_out_languages_are_not_read(home, config):
    pairs = read_parallel(home, config.taught)
    assert "geheim" not in pairs.texts
    assert set(pairs.lang.tolist()) == {"de"}
    assert "geheim" in read_parallel(home, ("de",), ("open", "research")).texts
    assert set(same_picture(read(home / "graded"), config.taught).lang.tolist()) == {"de"}


def test_no_pair_shows_a_pin_of_a_dev_query(home):
    data = read(home / "graded")
    pairs = same_picture(data, ("de",))
    dev = {data.pins[pin].title for pin in data.dev_pins}
    assert dev
    assert not dev & set(pairs.english)


def test_a_raw_grade_is_shared_between_its_two_levels(home):
    found = human_candidates(read(home / "graded"), ("en",), 16, 7)
    row = found.texts.index("dog in the garden")
    there = found.pins[row] >= 0
    np.testing.assert_allclose(found.levels[row][there].sum(axis=1), 1.0, atol=1e-6)
    assert any(np.allclose(levels, [0, 0, 0.4, 0.6, 0], atol=1e-6) for levels in found.levels[row][there]), "raw 2.6"


def test_axes_keep_every_cosine_and_put_the_most_first():
    chance = np.random.default_rng(0)
    vectors = np.asarray(chance.normal(size=(500, 8)) * np.array([1, 9, 1, 3, 1, 1, 1, 1]), np.float32)
    axes = principal_axes(vectors)
    np.testing.assert_allclose(axes.T @ axes, np.eye(8), atol=1e-5)
    energy = np.square(vectors @ axes).sum(axis=0)
    assert list(energy) == sorted(energy, reverse=True)


def test_a_new_token_starts_where_its_english_neighbours_are():
    vocabulary = Vocabulary((*SPECIAL, "dog", "cat", "hund"), np.array([0, 1, 2, 3, 4, 5, 6, -1]))
    old = np.arange(7 * 4, dtype=np.float32).reshape(7, 4)
    static = np.zeros((8, 2), np.float32)
    static[5], static[6], static[7] = (1, 0), (0, 1), (1, 0.01)
    made = initial_embeddings(vocabulary, old, static)
    np.testing.assert_array_equal(made[:7], old)
    np.testing.assert_allclose(made[7], old[5], atol=0.01)


def test_batches_hold_every_text_once_and_texts_of_like_length(home):
    from datasets import Dataset

    texts = ["x" * (1 + n % 50) for n in range(1000)]
    sampler = ByLength(Dataset.from_dict({"text": texts}), 16, False, seed=3)
    batches = list(sampler)
    assert sorted(row for batch in batches for row in batch) == list(range(1000))
    assert len(batches) == len(sampler)
    assert np.mean([max(len(texts[row]) for row in batch) - min(len(texts[row]) for row in batch) for batch in batches]) < 5
    assert list(ByLength(Dataset.from_dict({"text": texts}), 16, False, seed=3)) == batches


@pytest.mark.parametrize("kind", ["kl", "margin_mse", "both"])
def test_each_relevance_loss_falls_and_its_levels_sum_to_one(kind, trained, home, tmp_path):
    data = read(home / "graded")
    student = SentenceTransformer(str(trained[0]), device="cpu")
    found = human_candidates(data, ("en", "de"), 8, 7)
    pins = student.encode([pin.title for pin in data.pins], normalize_embeddings=True)
    loss = Relevant(student, pins, found.pins, found.levels, kind, OrdinalHead(5.0, (0.5, 1.0, 2.0, 3.0)), 0.1, 0.05)
    torch.testing.assert_close(loss.probabilities(torch.linspace(-1, 1, 9)).sum(-1), torch.ones(9))
    features, labels = [student.preprocess(found.texts)], torch.arange(len(found.texts))
    before = float(loss(features, labels))
    learn(student, {"relevance": found.texts}, {"relevance": loss}, Schedule(30, batch=16, learning_rate=3e-3), tmp_path, 7)
    assert float(loss([student.preprocess(found.texts)], labels)) < before


def test_equal_targets_are_no_negatives_of_each_other():
    student = static_student(Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]")), 4, 7)
    targets = np.eye(4, dtype=np.float16)
    loss = Aligned(student, targets, np.array([0, 0]), 1.0, 0.05)
    alone = Aligned(student, targets, np.array([0, 0]), 0.0, 0.05)
    features, labels = [student.preprocess(["a", "a"])], torch.tensor([0, 1])
    assert float(loss(features, labels)) == pytest.approx(float(alone([student.preprocess(["a", "a"])], labels)), abs=1e-5)


def test_a_loss_that_is_no_number_ends_the_run(trained, home, tmp_path):
    student = SentenceTransformer(str(trained[0]), device="cpu")
    loss = Aligned(student, np.full((2, 32), np.nan, np.float16), np.zeros(64, np.int64), 0.1, 0.05)
    with pytest.raises(DataError, match="the loss is nan"):
        learn(student, {"align": ["a dog"] * 64}, {"align": loss}, Schedule(20, batch=8), tmp_path, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('model_id = "x"\nlayer = 3', "did you mean 'layers'"),
        ('model_id = "x"\nkind = "magic"', "use transformer or static"),
        ('model_id = "x"\nleft_out = ["xx"]', "are not among languages"),
        ('model_id = "x"\nrelevance = "hinge"', "use none, kl"),
        ('model_id = "x"\nfields = 1.5', "fields is 1.5; it is a share"),
        ('model_id = "x"\n[corpus]\nclasses = ["stolen"]', "unknown licence classes"),
        ("model_id = ", "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(text, message, tmp_path):
    path = tmp_path / "student.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load(path)
