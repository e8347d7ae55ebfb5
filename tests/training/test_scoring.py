"""Ways to score, compared: MaxSim by hand and against Qdrant, parts of pins and queries, teachers that are refused, the command on toys."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytest.importorskip("bm25s", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's and transformers' own imports

from qdrant_client import QdrantClient, models  # noqa: E402  # after the skip

from pins.text import render  # noqa: E402
from tests.training.label_toys import encode, write_data  # noqa: E402
from tests.training.teacher_toys import FEATURES, cross_encoder, recipe  # noqa: E402
from tests.training.tiny_students import HEAD, write_student  # noqa: E402
from training import scoring  # noqa: E402
from training.data import DataError, Pairs, read  # noqa: E402
from training.measures.late_interaction import LateScorer, Ragged, max_sim, pin_parts, query_parts  # noqa: E402
from training.measures.scorers import VectorScorer  # noqa: E402
from training.scoring import likeness, main, parser  # noqa: E402
from training.teachers.features import Encoder, Lexicon, MatchFeatures  # noqa: E402
from training.teachers.teacher import PairFeatures, build, save_teacher  # noqa: E402

LETTERS = ["abcdefghijklmnopqrstuvwxyz", "写真赤い椅子", "0123456789"]


# MaxSim.


def test_max_sim_by_hand():
    query = np.array([[1, 0], [0, 1]], np.float32)
    pins = np.array([[0.6, 0.8], [1, 0], [0, -1], [0.8, 0.6], [0, 1]], np.float32)
    found = max_sim(query, pins, np.array([0, 2, 3]))
    assert found == pytest.approx([1 + 0.8, 0 - 1, 0.8 + 1]), "pins of two, one and two vectors: the best for each axis, summed"
    assert found.dtype == np.float64
    assert max_sim(query[:1], pins, np.array([0, 2, 3])) == pytest.approx([1, 0, 0.8])


def test_a_pin_of_negative_similarities_is_not_raised_by_what_others_hold():
    """Padding with zeros would: a ragged pin has nothing but its own vectors."""
    pins = np.array([[-1, 0], [1, 0], [1, 0], [-0.6, 0.8]], np.float32)
    assert max_sim(np.array([[1, 0]], np.float32), pins, np.array([0, 1, 3])) == pytest.approx([-1, 1, -0.6])


def test_ragged_groups_are_taken_in_any_order_and_more_than_once():
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    vectors, starts = Ragged(rows, np.array([1, 3, 2])).take(np.array([2, 0, 2, 1]))
    assert vectors.tolist() == rows[[4, 5, 0, 4, 5, 1, 2, 3]].tolist()
    assert starts.tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("distance", [models.Distance.DOT, models.Distance.COSINE])
def test_max_sim_is_qdrants(distance):
    random = np.random.default_rng(3)
    sizes = random.integers(1, 6, 40)
    pins, query = random.normal(size=(sizes.sum(), 8)).astype(np.float32), random.normal(size=(4, 8)).astype(np.float32)
    starts = np.cumsum(sizes) - sizes
    client = QdrantClient(":memory:")
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection("pins", vectors_config=models.VectorParams(size=8, distance=distance, multivector_config=several))
    points = [models.PointStruct(id=number, vector=part.tolist()) for number, part in enumerate(np.split(pins, starts[1:]))]
    client.upsert("pins", points)
    answered = client.query_points("pins", query=query.tolist(), limit=40).points
    client.close()
    if distance == models.Distance.COSINE:
        pins, query = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (pins, query))
    found = max_sim(query, pins, starts)
    assert [point.id for point in answered] == np.argsort(-found).tolist()
    assert [point.score for point in answered] == pytest.approx(np.sort(found)[::-1], abs=1e-5)


# Parts.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a red chair", ["a red chair"]),
        ("a red chair. in a room", ["a red chair. in a room", "a red chair", "in a room"]),
        ("same. same. other", ["same. same. other", "same", "other"]),
        ("", [""]),
    ],
)
def test_a_pin_is_its_text_and_its_fields(text, parts):
    assert pin_parts(text) == parts


@pytest.mark.parametrize(
    ("query", "windows"),
    [
        ("chair", []),
        ("", []),
        ("a b c d e f", []),
        ("a b c d e f g", ["a b c d e f", "b c d e f g"]),
        ("a b c d e f g h i", ["a b c d e f", "d e f g h i"]),
        ("a, b  c d e f g h i j!", ["a, b  c d e f", "d e f g h i", "e f g h i j!"]),
        ("赤い椅子のある部屋の写真", []),
        ("赤い椅子のある部屋の写真。", []),
        ("一二三四五六七八九十百千万億", ["一二三四五六七八九十百千", "三四五六七八九十百千万億"]),
        ("iPhone を持つ人", []),
        ("one two 三四五六七八九十 three four", ["one two 三四五六七八九十", "三四五六七八九十 three four"]),
    ],
)
def test_windows_of_queries(query, windows):
    assert query_parts(query) == [query, *windows]


# The late scorer.


def pairs_of(rows):
    query, pin = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return Pairs(query, pin, query * 0, query.astype(np.float32), query.astype(str), query.astype(str), query.astype(str))


def words():
    return VectorScorer("words-v1", encode, None, {})


QUERIES = ["red chair", "one two three four five six seven eight", "dog"]
TEXTS = ["red chair. a room with long curtains and many old books", "red books. chair of curtains", "a dog", "dog. cat. bird. one two three", ""]
ROWS = [(2, 3), (0, 0), (0, 1), (1, 3), (0, 2), (2, 2), (1, 0), (2, 4)]


@pytest.mark.parametrize("windows", [False, True])
def test_a_pair_scores_what_its_own_vectors_say(windows):
    """Pair by pair in plain loops, in any order of pairs and with pins of one to five vectors."""
    expected = [
        sum(max(float(encode([part])[0] @ encode([other])[0]) for other in pin_parts(TEXTS[pin])) for part in parts)
        for query, pin in ROWS
        for parts in [query_parts(QUERIES[query]) if windows else [QUERIES[query]]]
    ]
    scored = LateScorer(words(), windows, "words-v1").score(QUERIES, TEXTS, pairs_of(ROWS))
    assert scored.scores == pytest.approx(expected, abs=1e-5)
    assert scored.levels is None


def test_a_field_that_says_it_all_beats_a_whole_text_that_is_near():
    """The first pin's field is the query; its other field turns the whole away from it, so that one vector orders the pins wrongly."""
    queries, texts, pairs = ["red chair"], ["red chair. a room with long curtains and many old books", "red chair dog cat"], pairs_of([(0, 0), (0, 1)])
    dot = words().score(queries, texts, pairs).scores
    late = LateScorer(words(), False, "words-v1").score(queries, texts, pairs).scores
    assert dot[0] < dot[1]
    assert late[0] > late[1]
    assert late[0] == pytest.approx(1, abs=1e-5)


def test_a_pin_of_one_field_and_a_short_query_score_their_cosine():
    pairs = pairs_of([(0, 2), (2, 2)])
    for windows in (False, True):
        late = LateScorer(words(), windows, "words-v1").score(QUERIES, TEXTS, pairs)
        assert late.scores == pytest.approx(words().score(QUERIES, TEXTS, pairs).scores, abs=1e-6)


# The command.


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "cxc_pins")


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    described = {"ordinal_head": HEAD, "lineage": {"teacher": "t1"}}
    return write_student(tmp_path_factory.mktemp("students") / "tiny", LETTERS, described=described)


def write_teacher(folder, data, encoder):
    """A teacher of kind features as it is before its first step: what it answers is arbitrary, and the same each time."""
    torch.manual_seed(0)
    lexicon = Lexicon.fit([render(pin).text for pin in read(data).pins])
    features = PairFeatures(MatchFeatures(FEATURES, Encoder(str(encoder), "cpu"), lexicon), None)
    save_teacher(folder, build(recipe("features", encoder=encoder), features), {})
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, folder, student):
    return write_teacher(tmp_path_factory.mktemp("teachers") / "match", folder, student)


def run(capsys, *arguments):
    main([*map(str, arguments), "--samples", "100", "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_ways_are_measured_on_the_same_pairs(folder, student, teacher, capsys, monkeypatch):
    seen = []
    plain = scoring.answer
    monkeypatch.setattr(scoring, "answer", lambda scorer, data, pairs, search: seen.append(pairs) or plain(scorer, data, pairs, search))
    found = run(capsys, student, "--data", folder, "--match", teacher)
    assert [way["way"] for way in found["ways"]] == ["dot", "match features", "late, one vector", "late, windows"]
    dev = read(folder).pairs("dev")
    assert all(one is seen[0] for one in seen)
    assert len(seen) == 4
    assert (seen[0].query == dev.query).all()
    assert (seen[0].pin == dev.pin).all()
    assert {(way["queries"], way["pairs"]) for way in found["ways"]} == {(36, len(dev))}
    assert found["data"]["split"] == "dev"
    for part in ("languages", "languages_without_own_pin"):
        counts = [{lang: figures["queries"] for lang, figures in way[part].items()} for way in found["ways"]]
        assert all(one == counts[0] for one in counts)
        assert set(counts[0]) == {"de", "en", "ja", "mean_other"}


def test_dot_is_what_training_evaluate_finds_and_differences_are_differences(folder, student, capsys):
    from training.evaluate import main as evaluate

    found = run(capsys, student, "--data", folder)
    dot, late, _ = found["ways"]
    evaluate([str(student), "--data", str(folder), "--samples", "100", "--json"])
    expected = json.loads(capsys.readouterr().out)
    assert dot["languages"]["en"]["ndcg@20"] == pytest.approx(expected["languages"]["en"]["ndcg@20"])
    assert dot["languages"]["mean_other"]["ndcg@10"] == pytest.approx(expected["mean_other"]["ndcg@10"])
    assert "minus_dot" not in dot
    apart = late["minus_dot"]["languages_without_own_pin"]["en"]["ndcg@20"]
    assert apart["mean"] == pytest.approx(
        late["languages_without_own_pin"]["en"]["ndcg@20"]["mean"] - dot["languages_without_own_pin"]["en"]["ndcg@20"]["mean"]
    )
    assert apart["low"] <= apart["mean"] <= apart["high"]


def test_costs_are_counted(folder, student, teacher, capsys):
    costs = {way["way"]: way["cost"] for way in run(capsys, student, "--data", folder, "--match", teacher)["ways"]}
    assert {name: cost["vectors_per_pin"] for name, cost in costs.items()} == {"dot": 1, "match features": 3, "late, one vector": 3, "late, windows": 3}
    assert [cost["bytes_per_pin"] for cost in costs.values()] == [128, 384, 384, 384], "32 numbers of 4 bytes, a text of two fields"
    assert costs["late, one vector"]["vectors_per_query"] == costs["dot"]["vectors_per_query"] == 1
    assert costs["late, windows"]["vectors_per_query"] == 1, "no toy query has more than six words"
    assert all(cost["cpu_seconds_per_1000_pairs"] >= 0 for cost in costs.values())


def test_a_teacher_of_this_encoder_is_said_to_be_one(folder, student, teacher, capsys):
    (note,) = run(capsys, student, "--data", folder, "--match", teacher)["notes"]
    assert "was made with this encoder, vectors of one pin have a mean cosine of 1.0000" in note


def test_a_teacher_of_another_encoder_is_warned_of(folder, student, tmp_path, capsys):
    other = write_student(tmp_path / "other", LETTERS, seed=5)
    (note,) = run(capsys, student, "--data", folder, "--match", write_teacher(tmp_path / "match", folder, other))["notes"]
    assert note.startswith("WARNING: toy-")
    assert "was made with another encoder than tiny" in note


def test_a_cut_vector_is_of_the_same_model():
    vectors = encode(["red chair", "a dog"])
    cut = vectors[:, :16] / np.linalg.norm(vectors[:, :16], axis=1, keepdims=True)
    assert "made with this encoder" in likeness(cut, vectors, "t", "m")
    assert "WARNING" in likeness(encode(["lamp", "boat"]), vectors, "t", "m")


def test_without_a_teacher_it_is_said_how_to_make_one(folder, student, tmp_path, capsys):
    main([str(student), "--data", str(folder), "--samples", "100", "--out", str(tmp_path / "scoring.json")])
    said = capsys.readouterr().out
    assert "training/configs/teacher-features.toml" in said
    assert "python -m training.train_teacher --config COPY.toml --data" in said
    assert json.loads((tmp_path / "scoring.json").read_text())["model_id"] == "tiny"
    assert [way["way"] for way in json.loads((tmp_path / "scoring.json").read_text())["ways"]] == ["dot", "late, one vector", "late, windows"]


def test_people_get_tables(folder, student, teacher, capsys):
    main([str(student), "--data", str(folder), "--samples", "100", "--match", str(teacher)])
    said = capsys.readouterr().out
    for part in ("own pin included", "own pin left out", "match features", "late, windows", "mean_other", "minus dot", "what each way costs", " p 0."):
        assert part in said


def test_help_teaches():
    said = parser().format_help()
    for part in ("MaxSim", "features.encoder", "example:", "95 % intervals", "--match TEACHER"):
        assert part in said


def test_a_teacher_of_another_kind_is_refused(folder, student, tmp_path):
    from tests.training.teacher_toys import bert

    save_teacher(tmp_path / "cross", build(cross_encoder(bert(tmp_path / "base")), PairFeatures(None, None)), {})
    with pytest.raises(DataError, match="is a teacher of kind 'cross_encoder', and only kind 'features'"):
        main([str(student), "--data", str(folder), "--match", str(tmp_path / "cross")])


@pytest.mark.parametrize("text", [None, "{", "[1]", "{}"])
def test_what_is_no_teacher_is_refused(folder, student, tmp_path, text):
    if text is not None:
        (tmp_path / "teacher.json").write_text(text)
    with pytest.raises(DataError, match=r"is no teacher folder|is a teacher of kind None"):
        main([str(student), "--data", str(folder), "--match", str(tmp_path)])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bm25"], "bm25 makes no vectors of its own"),
        (["nowhere"], "nowhere is no model"),
        (["bm25", "--samples", "10"], "at least 100 bootstrap samples"),
        (["bm25", "--out", "nowhere/scoring.json"], "give a file in a folder that exists"),
    ],
)
def test_a_wrong_command_is_refused_with_a_reason(folder, arguments, said):
    with pytest.raises(DataError, match=said):
        main([*arguments, "--data", str(folder)])


def test_a_folder_without_a_test_set_is_refused(student, tmp_path):
    for name, rows in {
        "items": [{"item_id": "a", "title": "red chair"}, {"item_id": "b", "title": "a dog"}],
        "queries": [{"query_id": "q", "query": "chair"}],
        "judgements": [{"query_id": "q", "item_id": "a", "grade": 1}, {"query_id": "q", "item_id": "b", "grade": 0}],
    }.items():
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=r"no query's split is 'dev'; write it into the split column of queries\.parquet"):
        main([str(student), "--data", str(tmp_path)])
