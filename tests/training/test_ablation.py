"""The ablation of pin fields: what each step holds, what is generated and said to be, what may not stand in a pin's text."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("matplotlib", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

from pins.text import render  # noqa: E402  # after the skip
from training import ablation  # noqa: E402
from training.ablation import METRIC, STEPS, ablate, furnish, rated_queries, some_queries  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.measures.scorers import Scored, open_scorer  # noqa: E402

MODEL = Path(__file__).parents[2] / "everpin/models/minilm-l6-v1"
THINGS = ["chair", "soup", "dog", "tree", "lamp", "boat", "tent", "kite", "drum", "vase", "rug", "cake"]
SEARCHES = [f"{word} {kind}" for word in THINGS for kind in ("ideas", "for a garden", "photo", "in winter")]


def toy(folder):
    """Twelve pins whose title alone tells what they show; a query in two languages for each, and ratings of texts."""
    items = [
        {
            "item_id": thing,
            "lang": "en",
            "title": f"a {thing}",
            "description": f"bought {number} years ago",
            "caption": "a thing",
            "extra": f"the {thing} again",
        }
        for number, thing in enumerate(THINGS)
    ]
    queries = [
        {"query_id": f"{thing}-{lang}", "group": thing, "lang": lang, "query": f"{thing}{also}", "split": "dev" if number < 9 else "train"}
        for number, thing in enumerate(THINGS)
        for lang, also in (("en", ""), ("de", " da"), ("tr", " var"))
    ]
    judged = [
        {"query_id": query["query_id"], "item_id": thing, "source": "own" if thing == query["group"] else "sis"}
        | {"grade": 4 if thing == query["group"] else (THINGS.index(thing) + shift) % 3}
        for shift, query in enumerate(queries)
        for thing in THINGS
    ]
    extra = [
        {"text": "somewhere to sit", "item_id": "chair", "grade": 4, "raw": 4.1},
        {"text": "somewhere to stand", "item_id": "chair", "grade": 2, "raw": 2.4},
        {"text": "Soup", "item_id": "chair", "grade": 4, "raw": 5.0},  # equals a query
        {"text": "a dog", "item_id": "chair", "grade": 4, "raw": 5.0},  # the title of a dev query's own pin
        {"text": "a rug", "item_id": "chair", "grade": 4, "raw": 3.5},  # of a train query's own pin
    ]
    folder.mkdir(parents=True)
    for name, rows in {"items": items, "queries": queries, "judgements": judged, "extra_text_pairs": extra}.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read(toy(tmp_path_factory.mktemp("toy") / "toy"), levels=5)


class Words:
    """Scores by shared words, and remembers every text it was shown."""

    model_id = "words"

    def __init__(self):
        self.lineage, self.seen = {"kind": "words"}, []

    def score(self, queries, texts, pairs):
        self.seen.append(list(texts))
        words = [set(text.replace(".", " ").replace(",", " ").split()) for text in texts]
        shared = [len(set(queries[query].split()) & words[pin]) for query, pin in zip(pairs.query, pairs.pin, strict=True)]
        return Scored(np.array(shared, np.float64), None)


def run(data, seed=7, scorers=None):
    scorers, reports = scorers or {"student": Words()}, []
    ablate(scorers, data, data.pairs("dev"), furnish(data, SEARCHES, seed), lambda steps: reports.append(json.loads(json.dumps(steps))), seed, 50)
    return scorers, reports


def test_every_step_adds_its_field_and_says_what_is_generated(data):
    scorers, reports = run(data)
    assert [len(steps) for steps in reports] == list(range(1, len(STEPS) + 1))
    steps = {step["name"]: step for step in reports[-1]}
    seen = dict(zip(steps, scorers["student"].seen, strict=True))
    assert seen["caption"] == ["a thing"] * 12
    assert seen["+ title"][0] == "a chair. a thing"
    assert seen["nothing generated: caption, title, description, link"] == [render(pin).text for pin in data.pins]
    assert seen["+ queries (rated by people)"][0].count("somewhere to sit") == 1
    for step in steps.values():
        assert set(step["generated"]) <= set(step["fields"])
        assert ("board_titles" in step["fields"]) == ("board_titles" in step["generated"]), "all boards are generated"
        assert ("generated" in step["name"]) == bool(step["generated"]) or step["engaged"] == "rated" or step["name"].startswith("nothing")
        if step["engaged"] == "generated":
            assert "engaged_queries" in step["generated"]
    assert steps["caption"]["judged_pins_with"] == {"caption": 1.0}
    assert 0 < steps["+ boards (generated)"]["judged_pins_with"]["board_titles"] <= 1
    assert steps["+ queries (rated by people)"]["judged_pins_with"]["engaged_queries"] == pytest.approx(1 / 12)


def test_figures_and_paired_gains(data):
    steps = {step["name"]: step["systems"]["student"] for step in run(data)[1][-1]}
    caption, title = steps["caption"]["languages"], steps["+ title"]["languages"]
    assert title["en"][METRIC]["mean"] == pytest.approx(1.0, abs=0.1)
    assert title["en"][METRIC]["mean"] > caption["en"][METRIC]["mean"] + 0.1
    assert title["en"]["gain"]["mean"] == pytest.approx(title["en"][METRIC]["mean"] - caption["en"][METRIC]["mean"])
    assert title["en"]["gain"]["low"] > 0
    assert "gain" not in caption["en"]
    others = [title[lang][METRIC]["mean"] for lang in ("de", "tr")]
    assert title["mean_other"][METRIC]["mean"] == pytest.approx(np.mean(others))
    assert title["en"][METRIC]["low"] <= title["en"][METRIC]["mean"] <= title["en"][METRIC]["high"]
    assert steps["+ title"]["languages_without_own_pin"]["en"][METRIC]["mean"] < title["en"][METRIC]["mean"]


def test_the_same_seed_gives_the_same_figures_and_another_other_boards(data):
    (first, one), (second, two), (other, _) = run(data), run(data), run(data, seed=8)
    assert one == two
    assert first["student"].seen == second["student"].seen
    assert first["student"].seen[3] != other["student"].seen[3]


def test_nothing_judged_becomes_an_engaged_query(data):
    assert [text for text, _ in rated_queries(data)[0]] == ["somewhere to sit", "a rug"]
    assert rated_queries(data)[1:] == [()] * 11
    asked = [query.text for query in data.queries]
    made = furnish(data, [*SEARCHES, *(text.upper() for text in asked)], 7)
    generated = {text.casefold() for queries in made.generated for text, _ in queries}
    assert generated
    assert not generated & set(asked)
    with pytest.raises(DataError, match="no text to generate engaged queries from"):
        furnish(data, asked, 7)


def test_queries_are_drawn_by_whole_groups(data):
    pairs = data.pairs("dev")
    some = some_queries(pairs, 3, 7)
    assert len(set(some.group)) == 3
    assert len(some) == 3 * 3 * 12
    assert some_queries(pairs, 3, 7).query.tolist() == some.query.tolist()
    assert some_queries(pairs, 99, 7) is pairs


def test_the_command_writes_figures_and_a_plot(data, tmp_path, monkeypatch, capsys):
    pq.write_table(pa.table({"text": SEARCHES}), tmp_path / "queries.parquet")
    teacher = tmp_path / "teacher"
    teacher.mkdir()
    monkeypatch.setattr(ablation, "open_scorer", lambda folder: Words() if folder == teacher else open_scorer(folder))
    words = [
        "--student",
        MODEL,
        "--teacher",
        teacher,
        "--data",
        data.folder,
        "--queries",
        tmp_path / "queries.parquet",
        "--out",
        tmp_path / "out",
        "--samples",
        20,
    ]
    monkeypatch.setattr("sys.argv", ["ablation", *map(str, words)])
    ablation.main()
    body = json.loads((tmp_path / "out/ablation-minilm-l6-v1.json").read_text())
    assert list(body["systems"]) == ["student", "teacher"]
    assert body["systems"]["student"]["model_id"] == "minilm-l6-v1"
    assert body["data"]["digest"] == data.digest
    assert [step["name"] for step in body["steps"]] == [step.name for step in STEPS]
    assert body["steps"][1]["systems"]["student"]["languages"]["en"][METRIC]["mean"] > 0.9
    assert "GENERATED" in body["fields"]["board_titles"]
    assert (tmp_path / "out/ablation-minilm-l6-v1.png").read_bytes()[:4] == b"\x89PNG"
    assert "+ title: student en" in capsys.readouterr().out


@pytest.mark.parametrize("body", [None, pa.table({"words": ["a"]}), pa.table({"text": [""]})])
def test_searches_that_cannot_be_used_are_refused(data, tmp_path, monkeypatch, body):
    if body is not None:
        pq.write_table(body, tmp_path / "queries.parquet")
    monkeypatch.setattr("sys.argv", ["ablation", "--student", str(MODEL), "--data", str(data.folder), "--queries", str(tmp_path / "queries.parquet")])
    monkeypatch.setattr(ablation, "open_scorer", lambda folder: SimpleNamespace(model_id="x", lineage={}))
    with pytest.raises(DataError, match="give Parquet with a column text of search queries"):
        ablation.main()


def test_a_student_that_is_no_folder_is_refused(data, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ablation", "--student", "bm25", "--data", str(data.folder)])
    with pytest.raises(DataError, match="bm25 is no model folder"):
        ablation.main()
