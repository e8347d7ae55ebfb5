"""Evaluation on toy folders: the shape and figures of `everpin evaluate`, the further figures, comparisons, and folders of other layouts."""

import numpy as np
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("Stemmer", reason=REASON)
matplotlib = pytest.importorskip("matplotlib", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib's own imports

from everpin.evaluation import evaluate as everpin_evaluate  # noqa: E402  # after the skip
from everpin.evaluation import read_queries  # noqa: E402
from pins import level_metrics  # noqa: E402
from pins.changes import IndexedPin  # noqa: E402
from pins.metrics import ndcg, paired_bootstrap, rank  # noqa: E402
from pins.ports import PointWrite  # noqa: E402
from pins.text import render  # noqa: E402
from tests.fakes import FakeEncoder, FakeIndex  # noqa: E402
from tests.training.evaluate_toys import run, student, write  # noqa: E402
from tests.training.label_toys import encode, write_data  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.evaluate import against, document  # noqa: E402
from training.measures.agreement import agreement  # noqa: E402
from training.measures.answers import answer  # noqa: E402
from training.measures.quality import measure, per_query, popularity_bands  # noqa: E402
from training.measures.scorers import Scored, VectorScorer, open_scorer  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def data(folder):
    return read(folder, 5)


def measured(scorer, data, split="dev", seed=0, **more):
    pairs = data.pairs(split)
    return measure(scorer, data, answer(scorer, data, pairs, **more), popularity_bands(data, pairs), 200, seed)


def body_of(scorer, data, split="dev", **more):
    return document(measured(scorer, data, split, **more), data, split, 200, 0)


class Given:
    """A system that answers what the test says: the same levels and scores for every pair, or one per pair."""

    def __init__(self, scores, levels=None, model_id="given"):
        self.model_id, self.lineage, self.scores, self.levels = model_id, {}, scores, levels

    def score(self, queries, texts, pairs):
        return Scored(np.broadcast_to(self.scores, len(pairs)).astype(float), self.levels)


def test_everpin_evaluate_finds_the_same(folder, data):
    """One encoder, the vectors once in an index and once made here: every shared figure agrees, intervals too."""
    encoder, index = FakeEncoder(), FakeIndex()
    index.write(
        [PointWrite(IndexedPin(pin.pin_id, 1, dead=False, embedded=True, model_id="fake-v1"), None, encoder.query(render(pin).text)) for pin in data.pins]
    )
    expected = everpin_evaluate(read_queries(folder, "dev"), encoder, index)
    pairs = data.pairs("dev")
    scorer = VectorScorer("fake-v1", encoder.encode, encoder.ordinal_head, {})
    found = document(measure(scorer, data, answer(scorer, data, pairs), popularity_bands(data, pairs), 1000, 0), data, "dev", 1000, 0)
    for key in ("model_id", "queries", "missing_pins"):
        assert found[key] == expected[key]
    for part in ("languages", "languages_without_own_pin"):
        assert found[part].keys() == expected[part].keys()
        for lang, metrics in expected[part].items():
            for name, value in metrics.items():
                assert found[part][lang][name] == pytest.approx(value, abs=1e-9)


def test_a_language_tells_all_it_can(data):
    english = body_of(student(), data)["languages"]["en"]
    assert set(english) == {
        *("ndcg@10", "ndcg@20", "p@8", "recall@100", "accuracy", "within_one", "log_loss", "ece", "auroc@2+", "auroc@3+", "auroc@4+", "spearman"),
        *("queries", "pairs"),
    }
    assert (english["queries"], english["pairs"]) == (12, 72)
    for name, value in english.items():
        if isinstance(value, dict):
            assert value["low"] <= value["high"], name
            assert value["low"] - 1e-9 <= value["mean"] <= value["high"] + 1e-9 or name == "ece", "only the calibration error has a biased bootstrap"


def test_pair_figures_are_those_of_the_pairs_of_the_language(data):
    pairs = data.pairs("dev", {"en"})
    scored = student().score([query.text for query in data.queries], [render(pin).text for pin in data.pins], pairs)
    english = body_of(student(), data)["languages"]["en"]
    assert english["accuracy"]["mean"] == pytest.approx(level_metrics.accuracy(scored.levels, pairs.grade).mean())
    assert english["log_loss"]["mean"] == pytest.approx(level_metrics.log_loss(scored.levels, pairs.grade).mean())
    assert english["ece"]["mean"] == pytest.approx(float(level_metrics.calibration_error(scored.levels, pairs.grade)))
    assert english["spearman"]["mean"] == pytest.approx(float(level_metrics.spearman(scored.scores, pairs.grade)))
    assert english["auroc@3+"]["mean"] == pytest.approx(float(level_metrics.auroc(pairs.grade >= 3, scored.scores)))


def test_the_own_pin_is_left_out_of_the_second_part(data):
    found = body_of(student(), data)
    assert found["languages"]["en"]["pairs"] == 72
    assert found["languages_without_own_pin"]["en"]["pairs"] == 60
    assert found["languages"]["en"]["ndcg@20"]["mean"] > found["languages_without_own_pin"]["en"]["ndcg@20"]["mean"], "the own pin shares all words"


def test_recall_is_the_mean_share_of_relevant_pins_among_the_first_of_all(data, monkeypatch):
    monkeypatch.setattr("training.measures.answers.FOUND_AMONG", 5)
    pairs, shares = data.pairs("dev", {"en"}), []
    texts = [render(pin).text for pin in data.pins]
    for number in np.unique(pairs.query):
        cosines = encode(texts) @ encode([data.queries[number].text])[0]
        first = set(np.argsort(-cosines)[:5].tolist())
        relevant = pairs.pin[(pairs.query == number) & (pairs.grade >= 3)]
        shares.append(np.mean([pin in first for pin in relevant]))
    assert body_of(student(), data)["languages"]["en"]["recall@100"]["mean"] == pytest.approx(np.mean(shares))


def test_recall_does_not_depend_on_how_many_queries_are_searched_at_once(data, monkeypatch):
    monkeypatch.setattr("training.measures.answers.FOUND_AMONG", 5)
    whole = body_of(student(), data)["languages"]
    monkeypatch.setattr("training.measures.answers.BLOCK", 200)
    assert body_of(student(), data)["languages"] == whole


def test_a_system_that_reads_pairs_has_no_recall_and_neither_has_a_run_without_search(data):
    assert "recall@100" not in body_of(Given(0.5), data)["languages"]["en"]
    assert "recall@100" not in body_of(student(), data, search=False)["languages"]["en"]


def test_the_mean_of_other_languages_is_their_plain_mean_without_english(data):
    found = body_of(student(), data)
    others = [found["languages"][lang] for lang in ("de", "ja")]
    for name in ("ndcg@20", "recall@100", "accuracy", "auroc@3+"):
        assert found["mean_other"][name]["mean"] == pytest.approx(np.mean([figures[name]["mean"] for figures in others]))
        assert found["mean_other"][name]["low"] <= found["mean_other"][name]["mean"] <= found["mean_other"][name]["high"]
    assert found["mean_other"]["queries"] == 24
    assert found["mean_other_without_own_pin"]["pairs"] == 120


def test_one_other_language_has_no_mean(data):
    pairs = data.pairs("dev", {"en", "de"})
    scorer = student()
    quality = measure(scorer, data, answer(scorer, data, pairs), popularity_bands(data, pairs), 200, 0)
    assert document(quality, data, "dev", 200, 0)["mean_other"] is None


def test_a_system_compared_with_itself_does_not_differ(data):
    found = against(measured(student(), data), measured(student(), data))
    assert found["difference"]["languages"]["en"]["ndcg@20"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0, "ratio": 1.0}


def test_the_difference_to_a_baseline_is_the_paired_bootstrap_of_queries(data):
    first, second = measured(student(), data), measured(Given(0.5, model_id="flat"), data)
    found = against(first, second)
    values = [per_query(data, quality.answers, 3) for quality in (first, second)]
    english = values[0].lang == "en"
    expected = paired_bootstrap(*(rows.values["ndcg@20"][english].tolist() for rows in values), values[0].group[english].tolist(), 200, 0)
    difference = found["difference"]["languages"]["en"]["ndcg@20"]
    assert (difference["mean"], difference["low"], difference["high"], difference["p"]) == pytest.approx(
        (expected.mean, expected.low, expected.high, expected.p)
    )
    assert difference["ratio"] == pytest.approx(values[0].values["ndcg@20"][english].mean() / values[1].values["ndcg@20"][english].mean())
    assert found["difference"]["languages"]["mean_other"]["ndcg@20"]["p"] <= 1
    assert "recall@100" not in found["difference"]["languages"]["en"], "the baseline searches nothing"
    assert found["figures"]["languages"]["en"]["ndcg@20"]["mean"] == pytest.approx(values[1].values["ndcg@20"][english].mean())


def test_bands_are_thirds_by_shared_words_and_languages_follow_their_english_query(data):
    pairs = data.pairs("dev")
    bands = popularity_bands(data, pairs)
    asked = set(np.unique(pairs.query).tolist())
    assert {str(bands[number]) for number in range(len(data.queries)) if number not in asked} == {""}
    by_group = {query.group: str(band) for query, band in zip(data.queries, bands, strict=True) if band and query.lang == "en"}
    assert set(by_group.values()) == {"head", "torso"}, "the queries without a word that all pins hold are alike: they share the middle band"
    assert all(band == by_group[query.group] for query, band in zip(data.queries, bands, strict=True) if band)
    assert {by_group[query.group] for query in data.queries if "photo" in query.text and query.group in by_group} == {"head"}


def test_each_band_holds_the_figures_of_its_own_queries(data):
    quality = measured(student(), data)
    bands, rows = popularity_bands(data, data.pairs("dev")), per_query(data, quality.answers, 3)
    found = document(quality, data, "dev", 200, 0)["bands"]
    assert sum(found[band].get("en", {"queries": 0})["queries"] for band in found) == 12
    for band, parts in found.items():
        for lang, figures in parts.items():
            if lang != "mean_other":
                own = (bands[rows.query] == band) & (rows.lang == lang)
                assert figures["ndcg@20"]["mean"] == pytest.approx(rows.values["ndcg@20"][own].mean())


def test_a_teacher_that_labels_as_people_do_agrees_in_everything(data):
    quality = measured(student(), data)
    found = agreement(data, quality.answers, np.eye(5)[quality.answers.pairs.grade], 3, 200)["en"]
    assert found.exact.mean == found.within_one.mean == 1.0
    for name in ("ndcg@20", "p@8", "sdcg@25"):
        assert found.kendall_tau[name].mean == pytest.approx(1.0)
        assert found.spearman[name].mean == pytest.approx(1.0)
        assert found.difference[name].mean == 0.0


def test_a_teacher_that_grades_upside_down_turns_the_order_of_queries(data):
    quality = measured(student(), data)
    found = agreement(data, quality.answers, np.eye(5)[4 - quality.answers.pairs.grade], 3, 200)["en"]
    assert found.kendall_tau["sdcg@25"].mean < -0.5
    assert found.exact.mean == pytest.approx((quality.answers.pairs.grade[quality.answers.pairs.lang == "en"] == 2).mean())
    assert found.difference["ndcg@20"].mean < 0


def test_a_teacher_of_another_scale_cannot_judge(data):
    with pytest.raises(DataError, match="teacher's levels are not the 5 levels of toy"):
        agreement(data, measured(student(), data).answers, None, 3)


def test_levels_of_another_scale_are_not_measured_and_that_is_said(folder):
    three = read(folder)  # the highest grade is 4, so 5 levels: cut it to 4 by hand
    shorter = write(
        folder.parent / "short",
        items=pq.read_table(folder / "items.parquet").to_pylist(),
        queries=pq.read_table(folder / "queries.parquet").to_pylist(),
        judgements=[{**row, "grade": min(row["grade"], 2)} for row in pq.read_table(folder / "judgements.parquet").to_pylist()],
    )
    assert three.levels == 5
    found = body_of(student(), read(shorter))
    assert found["levels"] == {"measured": False, "note": "words-v1 knows 5 levels, short has 3", "relevant_grade": 2}
    assert found["confusion"] is None
    assert found["reliability"] == {}
    assert {"accuracy", "ece", "auroc@3+"}.isdisjoint(found["languages"]["en"])
    assert {"auroc@2+", "spearman", "p@8"} <= found["languages"]["en"].keys()
    assert found["languages"]["en"]["p@8"]["mean"] > 0, "the highest grade counts as relevant"


def test_a_system_without_levels_says_so(data):
    found = body_of(open_scorer("bm25", [pin.lang for pin in data.pins]), data)
    assert found["levels"]["note"] == "bm25 gives scores and no levels"
    assert "accuracy" not in found["languages"]["en"]


def test_confusion_and_reliability_count_every_pair(data):
    found = body_of(student(), data)
    assert np.sum(found["confusion"]) == found["data"]["pairs"] == 216
    assert list(found["reliability"]) == ["most probable level", "grade 3 or more"]
    assert sum(found["reliability"]["grade 3 or more"]["pairs"]) == 216


def test_a_pin_without_text_ranks_last_and_is_counted(tmp_path):
    folder = write(
        tmp_path / "gap",
        items=[{"item_id": "a", "title": "red chair"}, {"item_id": "b", "title": ""}, {"item_id": "c", "title": "dog"}],
        queries=[{"query_id": "q", "query": "chair"}],
        judgements=[
            {"query_id": "q", "item_id": "a", "grade": 1},
            {"query_id": "q", "item_id": "b", "grade": 4},
            {"query_id": "q", "item_id": "c", "grade": 0},
        ],
    )
    found = body_of(student(), read(folder), "all")
    assert found["missing_pins"] == 1
    assert found["languages"]["?"]["ndcg@20"]["mean"] == pytest.approx(ndcg([1, 0, 4], 20))
    assert found["languages"]["?"]["recall@100"]["mean"] == 0.0


def test_a_folder_of_bare_columns_is_measured_whole(tmp_path, capsys):
    folder = write(
        tmp_path / "bare",
        items=[{"item_id": "a", "title": "red chair"}, {"item_id": "b", "title": "blue dress"}],
        queries=[{"query_id": "q", "query": "chair"}, {"query_id": "r", "query": "nothing"}],
        judgements=[
            {"query_id": "q", "item_id": "a", "grade": 2},
            {"query_id": "q", "item_id": "b", "grade": 0},
            {"query_id": "r", "item_id": "b", "grade": 0},
        ],
    )
    found = run(capsys, "bm25", "--data", folder)
    assert found["data"]["split"] == "all"
    assert found["queries"] == 2
    assert found["languages"]["?"]["queries"] == 1, "a query without a gain says nothing of rankings"
    assert found["languages"]["?"]["ndcg@10"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert found["languages"]["?"]["pairs"] == 3


def test_a_folder_of_own_pins_only_has_no_second_part(tmp_path, capsys):
    folder = write(
        tmp_path / "own",
        items=[{"item_id": "a", "title": "red chair"}, {"item_id": "b", "title": "blue dress"}],
        queries=[{"query_id": "q", "query": "chair", "lang": "en", "split": "dev"}],
        judgements=[{"query_id": "q", "item_id": "a", "grade": 4, "source": "own"}, {"query_id": "q", "item_id": "b", "grade": 2, "source": "own"}],
    )
    found = run(capsys, "bm25", "--data", folder)
    assert found["languages"]["en"]["queries"] == 1
    assert found["languages_without_own_pin"] == {}


def test_answers_that_are_no_numbers_are_refused(data):
    with pytest.raises(DataError, match="given answers with NaN"):
        answer(Given(float("nan")), data, data.pairs("dev"))
    with pytest.raises(DataError, match="given answers with NaN"):
        answer(Given(0.5, np.full((216, 5), np.nan)), data, data.pairs("dev"))


def test_ranks_break_ties_by_hash_as_everpin_does(data):
    quality = measured(Given(0.5), data)
    query = int(quality.answers.pairs.query[0])
    rows = quality.answers.pairs.query == query
    names = [data.pins[pin].pin_id for pin in quality.answers.pairs.pin[rows]]
    grades = quality.answers.pairs.grade[rows][rank(names, np.zeros(rows.sum()), data.queries[query].query_id)]
    table = per_query(data, quality.answers, 3)
    assert table.values["ndcg@20"][table.query == query] == pytest.approx([ndcg(grades, 20)])
