"""The report: one page that needs nothing beside it, says its numbers in words, and shows what the JSON holds."""

import json
import re
from html.parser import HTMLParser

import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("bm25s", reason=REASON)
pytest.importorskip("matplotlib", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of matplotlib's own imports

from training.data import DataError  # noqa: E402
from training.measures import plots as report_plots  # noqa: E402  # after the skip
from training.measures.report import main, page, write  # noqa: E402

EMPTY = {"points": [{"labels": 1, "measures": {}}], "beside": [], "metric": "ndcg@20", "steps": [], "systems": {"student": {"model_id": "s"}}}
"""The outline of a curve and of an ablation, and nothing in it."""


def value(mean):
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}


def figures(mean):
    names = ("ndcg@10", "ndcg@20", "p@8", "recall@100", "accuracy", "within_one", "auroc@3+", "ece", "log_loss", "spearman")
    return {name: value(mean) for name in names} | {"queries": 40, "pairs": 600}


def difference(mean):
    return {"ndcg@20": {**value(mean), "p": 0.004, "ratio": 1.1}}


@pytest.fixture
def body():
    return made_body()


@pytest.fixture
def scaling():
    return made_scaling()


@pytest.fixture(scope="module")
def text():
    """The page of the whole evaluation, with a scaling curve: drawn once, read by many."""
    return page(made_body(), made_scaling())


def made_body():
    languages = {"en": figures(0.9), "de": figures(0.7), "ja": figures(0.6)}
    return {
        "model_id": "student <v2>",
        "queries": 120,
        "missing_pins": 0,
        "languages": languages,
        "languages_without_own_pin": {"en": figures(0.8)},
        "mean_other": figures(0.65),
        "mean_other_without_own_pin": None,
        "bands": {band: {"en": figures(mean), "mean_other": figures(mean / 2)} for band, mean in (("head", 0.9), ("torso", 0.8), ("tail", 0.7))},
        "levels": {"measured": True, "note": "", "relevant_grade": 3},
        "confusion": [[8, 2], [1, 9]],
        "reliability": {"most probable level": {"predicted": [0.25, 0.75], "observed": [0.2, 0.8], "pairs": [10, 30]}},
        "data": {"folder": "cxc_pins", "digest": "abc", "split": "dev", "pins": 5000, "pairs": 1800, "levels": 5},
        "bootstrap": {"samples": 1000, "seed": 7, "unit": "group"},
        "lineage": {"kind": "torch student", "teacher": "t & co", "licence_classes": ["open", "sa"]},
        "baseline": {
            "model_id": "minilm",
            "lineage": {},
            "figures": {"languages": {"en": figures(0.88), "de": figures(0.4)}, "languages_without_own_pin": {}},
            "difference": {"languages": {"en": difference(0.02), "mean_other": difference(0.2)}, "languages_without_own_pin": {}},
        },
        "judge": {
            "teacher_id": "t1",
            "languages": {"en": {"queries": 40, "exact": value(0.5), "within_one": value(0.9), "kendall_tau": {"ndcg@20": value(0.55)}}},
        },
    }


def made_scaling():
    points = [
        {"labels": labels, "measures": {"english": value(0.8 + step / 50), "others": value(0.5 + step / 20)}}
        for step, labels in enumerate((1000, 4000, 16000, 64000))
    ]
    return {"points": points, "beside": {"base": {"english": value(0.92)}}}


@pytest.fixture
def ablation():
    def step(name, english, other, generated=()):
        languages = {"en": {"ndcg@20": value(english)}} | ({} if other is None else {"mean_other": {"ndcg@20": value(other)}})
        return {"name": name, "generated": list(generated), "systems": {"student": {"languages": languages}, "teacher": {"languages": languages}}}

    steps = [step("caption", 0.8, 0.5), step("+ title", 0.85, None), step("+ queries (rated by people)", 0.9, 0.6, ["board_titles"])]
    return {"metric": "ndcg@20", "steps": steps, "systems": {"student": {"model_id": "student <v2>"}, "teacher": {"model_id": "t1"}}}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and words outside style and drawings."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "path", "use"}:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"style", "svg"} & set(self._open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_fetches_nothing(text):
    seen = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "base"} & {tag for tag, _ in seen.tags}
    loaded = [said for _, attributes in seen.tags for name, said in attributes.items() if name in {"src", "href", "xlink:href", "data", "srcset"}]
    assert all(said.startswith("#") for said in loaded), "references lead inside the page only"
    assert not re.search(r"@import|url\((?!#)", text)


def test_every_drawing_says_its_numbers(text):
    drawings = Page(text).of("svg")
    assert len(drawings) == 4
    assert all(drawing["role"] == "img" for drawing in drawings)
    said = " ".join(drawing["aria-label"] for drawing in drawings)
    for number in ("en student <v2> 0.900 (0.850 to 0.950), minilm 0.880", "ja student <v2> 0.600", "predicted 0.25, observed 0.20", "64000 labels 0.860"):
        assert number in said


def test_drawings_take_the_colours_of_the_page_and_its_width(text):
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    for drawing in drawings:
        assert "currentColor" in drawing
        assert "viewBox" in drawing
        assert not re.search(r'<svg[^>]* (width|height)="', drawing)
        assert not re.search("#0[0-9]0[0-9]0[0-9]|#1[0-9]1[0-9]1[0-9]", drawing), "a stand-in colour was left"
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    assert all(f"--series-{number}:" in text for number in (1, 2, 3))


def test_the_page_shows_what_was_measured(text):
    said = Page(text).text
    for part in (
        "student <v2> on cxc_pins, dev",
        "120 queries, 1800 judged pairs, 5000 pins",
        "Own pin included",
        "mean other 40 0.650 0.600 to 0.700",
        "Minus minilm",
        "0.020 -0.030 to 0.070, p 0.004",
        "grade 0 80% 8 20% 2",
        "en, tail",
        "Labels of t1 against people",
        "tau ndcg@20",
        "More labels",
        "teacher t & co",
        "data digest of this evaluation abc",
    ):
        assert part in said, part


def test_a_page_of_a_bare_evaluation_leaves_out_what_there_is_not(body):
    for name in ("baseline", "judge"):
        del body[name]
    for part in ("languages", "languages_without_own_pin"):
        body[part] = {"en": {"ndcg@20": value(0.5), "queries": 3}}
    body |= {"mean_other": None, "bands": {}, "levels": {"measured": False, "note": "bm25 gives scores & no levels", "relevant_grade": 3}, "missing_pins": 4}
    seen = Page(page(body | {"reliability": {}, "confusion": None}))
    assert "No level metrics: bm25 gives scores & no levels." in seen.text
    assert "4 judged pins could not be found" in seen.text
    assert len(seen.of("svg")) == 1
    for part in ("Minus", "Head, torso, tail", "Most probable level", "Labels of", "More labels", "recall@100 by language"):
        assert part not in seen.text


def test_accuracy_is_drawn_against_labels_where_it_was_measured(body, scaling):
    for point in scaling["points"]:
        point["measures"]["english accuracy"] = value(0.45 + point["labels"] / 1e6)
    drawing = Page(page(body, scaling)).of("svg")[-1]["aria-label"]
    assert drawing.startswith("five-level accuracy on dev against labels of the teacher. English: 1000 labels 0.451")
    assert "mean other" not in drawing


def test_an_ablation_is_drawn_for_each_system_and_says_what_is_generated(body, ablation):
    seen = Page(page(body, ablation=ablation))
    student, teacher = (drawing["aria-label"] for drawing in seen.of("svg")[-2:])
    assert "Fields of the pin's text" in seen.text
    assert student.startswith("ndcg@20 of the student student <v2>")
    assert teacher.startswith("ndcg@20 of the teacher t1")
    assert "+ title: English 0.850 (0.800 to 0.900); + queries (rated by people), boards generated: English 0.900" in student


def test_a_model_beside_itself_is_named_apart(body):
    body["baseline"]["model_id"] = body["model_id"]
    assert "student <v2> (baseline) 0.880" in Page(page(body)).of("svg")[0]["aria-label"]


def test_the_same_evaluation_gives_the_same_page(text):
    assert page(made_body(), made_scaling()) == text


def test_an_interval_that_misses_its_mean_is_drawn():
    odd = {"mean": 0.5, "low": 0.51, "high": 0.6}
    assert "<svg" in report_plots.lines("odd", "odd", ("x", "y"), {"a": [(1, odd), (10, value(0.5))]}, {})


def test_the_folder_holds_the_page_and_its_numbers(body, tmp_path):
    path = write(tmp_path / "deep/out", body)
    assert path.read_text(encoding="utf-8") == page(body)
    assert json.loads((tmp_path / "deep/out/evaluation.json").read_text())["languages"]["en"]["ndcg@20"]["mean"] == 0.9


def test_the_command_draws_a_page_again(body, scaling, tmp_path, capsys):
    (tmp_path / "evaluation.json").write_text(json.dumps(body))
    (tmp_path / "curve.json").write_text(json.dumps(scaling))
    main([str(tmp_path / "evaluation.json"), "--out", str(tmp_path / "out"), "--scaling", str(tmp_path / "curve.json")])
    assert "More labels" in (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "cannot be read as JSON"), ("[]", "must hold a JSON object"), ('{"model_id": "x"}', "is no evaluation: it has no bands, data, languages")],
)
def test_a_file_that_is_no_evaluation_is_refused(tmp_path, text, said):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(DataError, match=said):
        main([str(tmp_path / "evaluation.json"), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("curve", [{}, {"points": [{"labels": 1}], "beside": {}}, {"points": 3, "beside": {}}, {"points": [], "beside": {}}, EMPTY])
@pytest.mark.parametrize("kind", ["scaling", "ablation"])
def test_a_curve_of_another_shape_is_refused_and_nothing_is_written(body, tmp_path, curve, kind):
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    with pytest.raises(DataError, match=f"the {kind}( curve)? cannot be drawn"):
        write(tmp_path / "out", body, **{kind: tmp_path / "curve.json"})
    assert not (tmp_path / "out").exists()
