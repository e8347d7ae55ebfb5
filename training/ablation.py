"""Which fields of a pin's text earn their place: nDCG@20 of a student and a teacher with fields added one by one.

The data has human captions and no boards, no engaged queries and no links. So the boards, and one of two sets of engaged queries,
are generated (`training.drift.edits`); the other set are texts that people rated as fitting the pin, which is as near as the data comes
to queries that led to it. `extra`, a fourth human caption, stands where a link's description would. Every figure and label says
which fields are generated: such a step shows that the pipeline measures them, not what real ones would be worth.

Nothing that is judged may stand in the pin's text: texts equal to a query of the folder, and texts of the pins that dev queries were
written for, never become engaged queries. A model that was trained on the ratings knows the rest; compare models that were not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pins.features import PinFeatures
from pins.metrics import resample
from pins.text import TEMPLATE_VERSION, clean
from training.data import DataError, Pairs, RelevanceData, fields_kept, read
from training.drift.edits import Corpus, furnished
from training.folder import write_json
from training.measures.answers import Answers, answer
from training.measures.quality import MAIN, RELEVANT_GRADE, Figure, per_query
from training.measures.scorers import Scorer, open_scorer

METRIC = "ndcg@20"
LEAST_RAW = 3.5
"""A text with this human rating or more, of 5, fits the pin: 99.8 % of texts about the pin's own photo have it."""
PARTS = {"languages": "own pin included", "languages_without_own_pin": "own pin left out"}
SHOWN = {"en": "English", "mean_other": "mean of the other languages"}
COLOURS = ("#2b7bba", "#c0392b")

Queries = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Pins with some fields. `after` is the step that this one adds a field to; `generated` are those of its fields that no person wrote."""

    name: str
    fields: tuple[str, ...]
    after: str = ""
    engaged: str = ""
    generated: tuple[str, ...] = ()


CAPTION, TITLE, DESCRIPTION, LINK = ("caption",), ("title",), ("description",), ("link_title", "link_description")
HUMAN = CAPTION + TITLE + DESCRIPTION
BOARDS, QUERIES = ("board_titles",), ("engaged_queries",)
STEPS = (
    Step("caption", CAPTION),
    Step("+ title", CAPTION + TITLE, "caption"),
    Step("+ description", HUMAN, "+ title"),
    Step("+ boards (generated)", HUMAN + BOARDS, "+ description", "", BOARDS),
    Step("+ queries (generated)", HUMAN + BOARDS + QUERIES, "+ boards (generated)", "generated", BOARDS + QUERIES),
    Step("+ link, queries generated", HUMAN + BOARDS + QUERIES + LINK, "+ queries (generated)", "generated", BOARDS + QUERIES),
    Step("+ queries (rated by people)", HUMAN + BOARDS + QUERIES, "+ boards (generated)", "rated", BOARDS),
    Step("+ link, queries rated", HUMAN + BOARDS + QUERIES + LINK, "+ queries (rated by people)", "rated", BOARDS),
    Step("nothing generated: caption, title, description, link", HUMAN + LINK, "+ description"),
    Step("the same + queries (rated by people)", HUMAN + LINK + QUERIES, "nothing generated: caption, title, description, link", "rated"),
)
"""The published order of fields (arXiv 2410.17152), twice where there are two sets of engaged queries, and once without anything generated."""


@dataclass(frozen=True)
class Furniture:
    """What the data lacks, one entry per pin: generated boards, generated and rated engaged queries."""

    boards: Sequence[tuple[str, ...]]
    generated: Sequence[Queries]
    rated: Sequence[Queries]

    def pins(self, data: RelevanceData, step: Step) -> list[PinFeatures]:
        """The pins of a step."""
        queries = {"": self.rated, "generated": self.generated, "rated": self.rated}[step.engaged]
        dressed = (replace(pin, board_titles=boards, engaged_queries=asked) for pin, boards, asked in zip(data.pins, self.boards, queries, strict=True))
        return [fields_kept(pin, step.fields) for pin in dressed]


def furnish(data: RelevanceData, texts: Sequence[str], seed: int) -> Furniture:
    """Boards and engaged queries for every pin; `texts` are search queries of which each pin gets some that share words with it."""
    asked = _forbidden(data, with_dev_texts=False)
    free = [text for text in texts if clean(text).casefold() not in asked]
    if not free:
        raise DataError("no text to generate engaged queries from: every one equals a query of the data folder; give other --queries")
    corpus = Corpus(data.pins, free)
    made = [furnished(Random(f"{seed} {pin.pin_id}"), pin, corpus) for pin in tqdm(data.pins, desc="furnish", unit="pin")]
    return Furniture([pin.board_titles for pin in made], [pin.engaged_queries for pin in made], rated_queries(data))


def rated_queries(data: RelevanceData) -> list[Queries]:
    """Per pin the texts that people rated 3.5 or more with it, and the rating; none that equals a query or is of a dev query's own pin."""
    forbidden = _forbidden(data, with_dev_texts=True)
    found: dict[int, dict[str, float]] = {}
    for rating in data.direct:
        if rating.raw >= LEAST_RAW and clean(rating.text).casefold() not in forbidden:
            found.setdefault(rating.pin, {})[rating.text] = rating.raw
    return [tuple(found.get(place, {}).items()) for place in range(len(data.pins))]


def _forbidden(data: RelevanceData, with_dev_texts: bool) -> set[str]:
    """Texts, as they compare, that may not stand in a pin's text as engaged queries."""
    own = [data.pins[pin] for pin in data.dev_pins] if with_dev_texts else []
    texts = [query.text for query in data.queries] + [text for pin in own for text in (pin.title, pin.description, pin.caption, pin.link_description) if text]
    return {clean(text).casefold() for text in texts}


def ablate(
    scorers: Mapping[str, Scorer],
    data: RelevanceData,
    pairs: Pairs,
    furniture: Furniture,
    report: Callable[[list[dict[str, Any]]], None],
    seed: int,
    samples: int,
) -> None:
    """Measure every step with every scorer; `report` hears of all steps so far after each. Gains are paired with the step that a step adds to."""
    done: list[dict[str, Any]] = []
    measured: dict[str, dict[str, dict[str, dict[str, Figure]]]] = {}
    for step in STEPS:
        pins = furniture.pins(data, step)
        measured[step.name], systems = {}, {}
        for name, scorer in scorers.items():
            now = figures(data, answer(scorer, replace(data, pins=pins), pairs, search=False), samples, seed)
            before = measured.get(step.after, {}).get(name, {})
            measured[step.name][name] = now
            systems[name] = {part: _languages(now[part], before.get(part, {})) for part in PARTS}
        done.append({**asdict(step), "judged_pins_with": _coverage([pins[place] for place in np.unique(pairs.pin)]), "systems": systems})
        report(done)


def figures(data: RelevanceData, answers: Answers, samples: int, seed: int) -> dict[str, dict[str, Figure]]:
    """nDCG@20 per language and as `mean_other`, with and without the own pin; the same draws for every step and system."""
    relevant = min(RELEVANT_GRADE, data.levels - 1)
    return {part: _by_language(data, kept, relevant, samples, seed) for part, kept in zip(PARTS, (answers, answers.where(~answers.pairs.own)), strict=True)}


def _by_language(data: RelevanceData, answers: Answers, relevant: int, samples: int, seed: int) -> dict[str, Figure]:
    table = per_query(data, answers, relevant)
    languages = sorted(set(table.lang.tolist()))
    drawn = {lang: resample(table.group[table.lang == lang], samples, seed) for lang in languages}
    others = [lang for lang in languages if lang != MAIN]
    found = {}
    for lang in languages:
        rows = table.where(table.lang == lang)
        found[lang] = Figure(float(rows.values[METRIC].mean()), drawn[lang].means(rows.values[METRIC], rows.group))
    if len(others) > 1:
        every = resample(table.group[np.isin(table.lang, others)], samples, seed)
        means = [every.means(table.values[METRIC][table.lang == lang], table.group[table.lang == lang]) for lang in others]
        found["mean_other"] = Figure(float(np.mean([found[lang].value for lang in others])), np.mean(means, axis=0))
    return found


def _languages(now: Mapping[str, Figure], before: Mapping[str, Figure]) -> dict[str, dict[str, Any]]:
    return {
        lang: {METRIC: asdict(figure.interval())} | ({"gain": asdict(figure.minus(before[lang]))} if lang in before else {}) for lang, figure in now.items()
    }


def _coverage(pins: Sequence[PinFeatures]) -> dict[str, float]:
    """Share of pins in which a field says something; fields that are empty everywhere are left out."""
    names = ("caption", "title", "description", "board_titles", "engaged_queries", "link_title", "link_description")
    shares = {name: sum(bool(getattr(pin, name)) for pin in pins) / len(pins) for name in names}
    return {name: share for name, share in shares.items() if share}


def some_queries(pairs: Pairs, most: int, seed: int) -> Pairs:
    """The pairs of at most so many groups of queries, drawn by `seed`: a teacher reads every pair of every step."""
    groups = np.unique(pairs.group)
    if len(groups) <= most:
        return pairs
    return pairs.where(np.isin(pairs.group, np.random.default_rng(seed).choice(groups, most, replace=False)))


def draw(path: Path, body: Mapping[str, Any]) -> None:
    """The steps as a PNG: one panel per system, one row per step, a point with its interval for English and for the other languages."""
    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # the backend must be chosen first

    steps, systems = body["steps"], body["systems"]
    figure, panels = pyplot.subplots(1, len(systems), figsize=(3.4 + 4 * len(systems), 1.6 + 0.42 * len(STEPS)), dpi=90, sharey=True, squeeze=False)
    for axes, (system, about) in zip(panels[0], systems.items(), strict=True):
        for number, ((lang, label), colour) in enumerate(zip(SHOWN.items(), COLOURS, strict=True)):
            found = [(place, step["systems"][system]["languages"].get(lang)) for place, step in enumerate(steps)]
            rows = [(place + 0.16 * (2 * number - 1), value[METRIC]) for place, value in found if value]
            if rows:
                means, low, high = (np.array([value[key] for _, value in rows]) for key in ("mean", "low", "high"))
                reach = np.maximum([means - low, high - means], 0)
                axes.errorbar(means, [place for place, _ in rows], xerr=reach, fmt="o", markersize=4, capsize=3, color=colour, label=label)
        axes.set(title=f"{system}: {about['model_id']}", xlabel=f"nDCG@20 on {body['data']['split']}, own pin included")
        axes.grid(axis="x", alpha=0.3)
    names = [step["name"] if not step["generated"] or "generated" in step["name"] else f"{step['name']}, boards generated" for step in steps]
    panels[0][0].set_yticks(range(len(steps)), names)
    panels[0][0].set_ylim(len(steps) - 0.5, -0.5)
    figure.suptitle("Fields of the pin's text, added one by one", fontsize=11)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="upper right", fontsize=8, frameon=False)
    figure.text(0.01, 0.01, "Generated: boards, and queries where the row says so. Link: a human caption stands in for it.", fontsize=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _texts(path: Path) -> list[str]:
    try:
        texts = [text for text in pq.read_table(path, columns=["text"]).column("text").to_pylist() if text]
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}; give Parquet with a column text of search queries") from error
    if not texts:
        raise DataError(f"{path} holds no text; give Parquet with a column text of search queries")
    return texts


def main() -> None:
    """Command line."""
    args = _arguments()
    data = read(args.data)
    pairs = some_queries(data.pairs(args.split, args.languages.split(",") if args.languages else None), args.most_groups, args.seed)
    scorers = {name: _opened(model) for name, model in (("student", args.student), ("teacher", args.teacher)) if model}
    furniture = furnish(data, _texts(args.queries or args.data.parent / "captions/queries_en.parquet"), args.seed)
    path = args.out / f"ablation-{args.student.resolve().name}.json"
    body: dict[str, Any] = {
        "metric": METRIC,
        "data": {"folder": data.folder.name, "digest": data.digest, "split": args.split, "pairs": len(pairs), "groups": len(np.unique(pairs.group))},
        "template_version": TEMPLATE_VERSION,
        "bootstrap": {"samples": args.samples, "seed": args.seed, "unit": "group"},
        "fields": _about(data, furniture),
        "systems": {name: {"model_id": scorer.model_id, "lineage": dict(scorer.lineage)} for name, scorer in scorers.items()},
    }

    def report(steps: list[dict[str, Any]]) -> None:
        body["steps"] = steps
        write_json(path, body)
        draw(path.with_suffix(".png"), body)
        print(_line(steps[-1]))

    ablate(scorers, data, pairs, furniture, report, args.seed, args.samples)
    print(f"{path} and {path.with_suffix('.png')}")


def _opened(model: Path) -> Scorer:
    if not model.is_dir():  # BM25, which has a name and no folder, would search the texts of the first step throughout
        raise DataError(f"{model} is no model folder")
    return open_scorer(model)


def _about(data: RelevanceData, furniture: Furniture) -> dict[str, Any]:
    """What each field is on this data, for whoever reads the figures."""
    texts, pins = sum(map(len, furniture.rated)), sum(map(bool, furniture.rated))
    rated = f"{texts} texts that people rated {LEAST_RAW} or more with the pin, for {pins} of {len(data.pins)} pins"
    return {
        "title, description, caption": "as in the data folder",
        "link_description": "the folder's column extra, which stands where a link's description would",
        "board_titles": "GENERATED from words of captions that share a word with the pin (training.drift.edits)",
        "engaged_queries, generated": "GENERATED: search queries of another source that share a word with the pin (training.drift.edits)",
        "engaged_queries, rated": f"{rated}; none equals a query or is of a dev query's own pin; they must not have trained the model",
    }


def _line(step: Mapping[str, Any]) -> str:
    told = []
    for system, parts in step["systems"].items():
        for lang, value in parts["languages"].items():
            if lang in SHOWN:
                gain = f", {value['gain']['mean']:+.4f} [{value['gain']['low']:+.4f}, {value['gain']['high']:+.4f}]" if "gain" in value else ""
                told.append(f"{system} {lang} {value[METRIC]['mean']:.4f} [{value[METRIC]['low']:.4f}, {value[METRIC]['high']:.4f}]{gain}")
    return f"{step['name']}: {'; '.join(told)}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation",
        description="Add the fields of the pin's text one by one and measure a student, and a teacher, after each; 95 % intervals by query group.",
        epilog="The JSON and the plot are written after every step; training.evaluate shows them in its report.",
    )
    parser.add_argument("--student", type=Path, required=True, metavar="DIR", help="model folder of a student, published or torch")
    parser.add_argument("--teacher", type=Path, metavar="DIR", help="model folder of a teacher")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with items, queries and judgements (cxc_pins)")
    parser.add_argument(
        "--queries", type=Path, metavar="FILE", help="Parquet with a column text: search queries (default: captions/queries_en.parquet beside DIR)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "reports", metavar="DIR", help="folder for the JSON and the PNG (default: %(default)s)"
    )
    parser.add_argument("--split", default="dev", help="train, dev or all (default: %(default)s)")
    parser.add_argument("--languages", default="", help="only these, such as en,de (default: all)")
    parser.add_argument("--most-groups", type=int, default=10**9, help="measure on so many groups of queries, for slow teachers (default: all)")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="of generated fields and of the bootstrap (default: %(default)s)")
    args = parser.parse_args()
    if args.most_groups < 2 or args.samples < 2:
        parser.error("--most-groups and --samples must be 2 or more")
    return args


if __name__ == "__main__":
    main()
