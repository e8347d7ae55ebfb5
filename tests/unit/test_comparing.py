"""Comparing two models: against plain recomputation, against scipy, and the command on tiny models that differ in the words they know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin import comparing
from everpin.cli import app
from everpin.compared_texts import cxc_pins, cxc_queries, file_queries, sample_pins, sample_queries
from everpin.comparing import Encoded, Text, answers, compared, encoded, kolmogorov_smirnov, overlap, shift
from everpin.settings import settings
from pins.errors import ArtifactError, EverpinError
from pins.relevance import OrdinalHead
from tests.tiny_models import tiny_model, words

HEAD = OrdinalHead(8.0, (1.0, 2.0, 4.0, 6.0))
PINS = [Text(f"p{number:02}", f"pin {number}", "en", f"text {number}") for number in range(30)]
QUERIES = [Text(f"g{number % 5}", f"q{number}", "de" if number % 2 else "en", f"q{number}") for number in range(12)]


def unit(rows: int, seed: int, dimension: int = 8) -> Any:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def side(name: str, seed: int, pins: int = 30, queries: int = 12) -> Encoded:
    return Encoded(name, HEAD, unit(pins, seed), unit(queries, seed + 1))


@pytest.mark.parametrize("block", [2**24, 64])
def test_the_first_ten_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(comparing, "BLOCK", block)
    one = side("a", 1)
    found = answers(one)
    scores = one.queries @ one.pins.T
    np.testing.assert_array_equal(found.pins, np.argsort(-scores, axis=1)[:, :10])
    np.testing.assert_allclose(found.cosines, -np.sort(-scores, axis=1)[:, :10], rtol=1e-6)
    assert found.sampled.shape == (12, 30)


def test_pins_with_one_score_keep_their_order() -> None:
    same = np.tile(np.array([[1.0, 0.0]], np.float32), (30, 1))
    found = answers(Encoded("a", HEAD, same, same[:2]))
    assert found.pins.tolist() == [list(range(10))] * 2


def test_overlap_counts_what_both_found_in_any_order() -> None:
    old, new = np.array([[1, 2, 3, 4], [1, 2, 3, 4]]), np.array([[4, 3, 2, 1], [1, 2, 8, 9]])
    assert overlap(old, new).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("seed", range(5))
def test_kolmogorov_smirnov_is_scipys(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = np.round(draw.normal(size=200), 1), np.round(draw.normal(0.3, 1.2, size=150), 1)  # rounded: ties
    assert kolmogorov_smirnov(one, other) == pytest.approx(stats.ks_2samp(one, other).statistic)


def test_a_shift_is_seen_and_none_where_there_is_none() -> None:
    scores = np.linspace(0, 1, 101)
    same = shift(scores, scores)
    assert (same["mean"], same["sd"], same["ks"]) == (pytest.approx([0.5, 0.5]), pytest.approx([scores.std()] * 2), 0.0)
    assert shift(scores, scores + 2)["ks"] == 1.0


def test_a_model_and_itself_do_not_differ() -> None:
    same = answers(side("a", 1))
    found = compared(same, same, QUERIES, PINS)
    assert found["overlap@10"]["mean"] == 1.0
    assert found["overlap@10"]["histogram"] == {f"{share / 10:.1f}": 12 * (share == 10) for share in range(11)}
    assert {one["ks"] for kinds in found["scores"].values() for one in kinds.values()} == {0.0}
    assert all(change["old"] == change["new"] for change in found["changed"])


def test_the_queries_that_change_most_come_first() -> None:
    old, new = answers(side("a", 1)), answers(side("b", 3))
    found = compared(old, new, QUERIES, PINS, changed=4)
    shares = [change["overlap"] for change in found["changed"]]
    everything = sorted(overlap(old.pins, new.pins))
    assert shares == everything[:4]
    assert found["overlap@10"]["mean"] == pytest.approx(np.mean(everything))
    assert found["overlap@10"]["low"] <= found["overlap@10"]["mean"] <= found["overlap@10"]["high"]
    assert sum(found["overlap@10"]["histogram"].values()) == found["queries"] == 12
    assert found["overlap@10"]["languages"]["de"]["queries"] == 6
    first = found["changed"][0]
    row = [query.text for query in QUERIES].index(first["query"])
    assert [result["pin_id"] for result in first["new"]] == [PINS[place].name for place in new.pins[row]]
    assert first["new"][0]["relevance"] == pytest.approx(float(HEAD.expected(new.cosines[row][0])))
    tied = [change["relevance_gained"] for change in found["changed"] if change["overlap"] == shares[0]]
    assert [abs(gain) for gain in tied] == sorted((abs(gain) for gain in tied), reverse=True)


def test_fewer_pins_than_places_are_compared_whole() -> None:
    found = compared(answers(side("a", 1, pins=3)), answers(side("b", 3, pins=3)), QUERIES, PINS[:3])
    assert found["overlap@10"]["mean"] == 1.0


def test_a_progress_bar_hears_of_every_text(tmp_path: Path) -> None:
    encoder, heard = OnnxEncoder(open_artifact(tiny_model(tmp_path / "a"))), []
    found = encoded(encoder, QUERIES, PINS, heard.append)
    assert sum(heard) == len(QUERIES) + len(PINS)
    np.testing.assert_allclose(found.queries, encoder.encode([query.text for query in QUERIES]), atol=1e-6)


def test_the_sample_has_pins_and_the_queries_that_led_to_them() -> None:
    pins, queries = sample_pins(), sample_queries()
    assert len(pins) > 390
    assert all(pin.text and pin.title for pin in pins)
    assert len(queries) == len({query.text for query in queries}) > 1000
    assert {query.lang for query in queries} == {"en", "de", "es", "fr", "ja"}


def test_queries_of_a_file_may_be_text_or_json(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text('red chair\n\n  {"query": "Roter Stuhl", "lang": "de"}\n', encoding="utf-8")
    assert [(query.text, query.lang) for query in file_queries(tmp_path / "queries")] == [("red chair", "?"), ("Roter Stuhl", "de")]


@pytest.mark.parametrize(("text", "said"), [("\n", "holds no query"), ('{"text": 1}', "line 1: KeyError"), ("{", "line 1: JSONDecodeError")])
def test_a_file_without_queries_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "queries").write_text(text)
    with pytest.raises(EverpinError, match=said):
        file_queries(tmp_path / "queries")


def test_a_folder_or_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for read in (file_queries, cxc_pins, cxc_queries):
        with pytest.raises(EverpinError, match="cannot"):
            read(tmp_path / "none")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a live model, and one that does not know the word `sourdough`."""
    tiny_model(tmp_path / "models" / "old", "old-v1")
    tiny_model(tmp_path / "models" / "new", "new-v2", blind=("sourdough",), metrics={"levels_dev_accuracy": 0.6})
    monkeypatch.setenv("EVERPIN_MODEL", str(tmp_path / "models" / "old"))
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    yield tmp_path / "models"
    settings.cache_clear()


def compare(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["model", "compare", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def write_cxc(home: Path, titles: list[str], queries: list[str]) -> Path:
    """A folder of the cxc layout; query n is judged to be of pin n."""
    places = range(len(queries))
    tables = {
        "items": [{"item_id": f"p{number}", "lang": "en", "title": title} for number, title in enumerate(titles)],
        "queries": [{"query_id": f"q{n}", "group": f"g{n}", "lang": "en", "query": queries[n], "split": "dev"} for n in places],
        "judgements": [
            {"query_id": f"q{n}", "item_id": f"p{pin}", "grade": 4.0 if pin == n else 0.0, "source": "sis"} for n in places for pin in range(len(titles))
        ],
    }
    folder = home / "cxc"
    folder.mkdir()
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = ["sourdough bread for beginners", "red chair in a white room", "herbs on a balcony", "wool", "small bathroom storage ideas", "steam iron pipe"]
    return write_cxc(tmp_path, texts, ["sourdough", "red chair"])


def test_judgements_give_figures_side_by_side(models: Path, folder: Path) -> None:
    code, text = compare("old-v1", "new-v2", "--data", str(folder), "--json")
    document = json.loads(text)
    assert (code, document["models"], document["pins"], document["queries"]) == (0, ["old-v1", "new-v2"], 6, 2)
    old, new = document["figures"]["languages"]["en"]["ndcg@20"]
    assert old["mean"] == 1.0
    assert new["low"] < new["mean"] < 1.0  # one of two queries is lost
    apart = document["new - old"]["en"]["ndcg@20"]
    assert apart["mean"] == pytest.approx(new["mean"] - old["mean"])
    assert apart["low"] < apart["mean"] < apart["high"] == 0.0
    assert document["manifest"]["levels_dev_accuracy"] == [0.5, 0.6]
    assert document["manifest"]["model_megabytes"] == [0.01, None]


def test_the_query_that_a_model_is_blind_to_changes_most(models: Path, tmp_path: Path) -> None:
    others = [word for word in words() if word not in ("sourdough", "red")]
    titles = [f"sourdough {one} {other}" for one, other in zip(others[:12], others[12:24], strict=True)]
    titles += [f"red {word}" for word in others[24:36]] + others[36:48]
    (tmp_path / "queries.txt").write_text("red\nsourdough\n")
    document = json.loads(
        compare("old-v1", str(models / "new"), "--data", str(write_cxc(tmp_path, titles, ["red"])), "--queries", str(tmp_path / "queries.txt"), "--json")[1]
    )
    first, second = document["changed"]
    assert (first["query"], second["query"]) == ("sourdough", "red")
    assert all("sourdough" in result["title"] for result in first["old"])
    assert not all("sourdough" in result["title"] for result in first["new"])
    assert first["overlap"] < second["overlap"] == 1.0
    assert abs(first["relevance_gained"]) > 0.05
    assert second["relevance_gained"] == pytest.approx(0.0, abs=1e-4)


def test_a_person_is_shown_tables(models: Path, folder: Path) -> None:
    code, text = compare("old-v1", "new-v2", "--data", str(folder))
    assert code == 0
    for said in ("ndcg@20", "figure of the manifest", "Shift of scores", "expected relevance", "sourdough (en)", "Only 6 pins", "new - old", "paired"):
        assert said in text


def test_an_unknown_model_is_named(models: Path) -> None:
    with pytest.raises(ArtifactError, match="'none' is neither a model folder nor one of the models here"):
        compare("old-v1", "none")
