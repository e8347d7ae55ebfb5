"""The scaling curve: how good a student becomes with more of the teacher's labels. Trains one student a point, measures, draws.

The labels of a point are the first whole queries of the folder, so each point holds those before it; the folder's order is a
random sample. What is measured stands in `training.measures.quality`; intervals are 95 %, by bootstrap over query groups, and `gain` is
the paired difference to the point before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib as mpl
import numpy as np

from training.data import DataError, RelevanceData, read
from training.folder import write_json
from training.label import Labels, read_labels
from training.measures.answers import answer
from training.measures.quality import Figure, measure, popularity_bands
from training.measures.scorers import open_scorer

LEAST_POINTS = 4
SAMPLES = 1000
"""Bootstrap samples of an interval."""
MAIN = "ndcg@20"
"""The figure that a language's name alone stands for."""
KEPT = (MAIN, "ndcg@10", "recall@100", "accuracy", "spearman")
"""Figures that the report holds, for every language."""
PARTS = {"en": "english", "mean_other": "others"}
"""Names of the two parts that are drawn; `others` is the mean over the other languages."""
DRAWN = {
    "nDCG@20": {"english": "English", "others": "mean of the other languages"},
    "five-level accuracy": {"english accuracy": "English", "others accuracy": "mean of the other languages"},
}
"""Panels of the plot: measures and how they are called in it."""
COLOURS = ("#2b7bba", "#c0392b")

Fit = Callable[[Labels], Path]
"""Trains a student on labels and returns its folder."""
Measure = Callable[[Path], Mapping[str, Figure]]
"""Figures of the student in a folder, named by `measure_name`, all from the same bootstrap draws."""


def curve(labels: Labels, points: Sequence[int], fit: Fit, measured_by: Measure, report: Callable[[list[dict[str, Any]]], None]) -> list[dict[str, Any]]:
    """Train and measure a student for each number of labels, in order. `report` hears of the points after each. Raises DataError."""
    check_points(points, len(labels))
    done: list[dict[str, Any]] = []
    before: Mapping[str, Figure] = {}
    for most in points:
        some, start = first_labels(labels, most), perf_counter()
        measured = measured_by(fit(some))
        point: dict[str, Any] = {"labels": len(some), "queries": len(np.unique(some.query)), "seconds": perf_counter() - start}
        point["measures"] = {name: asdict(figure.interval()) for name, figure in measured.items()}
        point["gain"] = {name: asdict(figure.minus(before[name])) for name, figure in measured.items() if name in before}
        done.append(point)
        before = measured
        report(done)
    return done


def check_points(points: Sequence[int], rows: int) -> None:
    """Raise DataError unless there are at least four growing points that the labels reach."""
    if len(points) < LEAST_POINTS or list(points) != sorted(set(points)) or points[0] < 1:
        raise DataError(f"--points {','.join(map(str, points))}: a curve needs at least {LEAST_POINTS} different numbers of labels, the smallest first")
    if points[-1] > rows:
        raise DataError(f"--points asks for {points[-1]} labels, the folder holds {rows}; label more, or ask for at most {rows}")


def first_labels(labels: Labels, most: int) -> Labels:
    """The labels of as many whole queries, in stored order, as fit into `most` rows, and of one at least."""
    order = labels.query[np.sort(np.unique(labels.query, return_index=True)[1])]
    rows = np.bincount(labels.query)[order].cumsum()
    count = max(1, int(np.searchsorted(rows, most, side="right")))
    return labels.where(np.isin(labels.query, order[:count]))


def on_dev(data: RelevanceData, seed: int) -> Measure:
    """Figures on the dev split, of anything that `training.measures.scorers` opens."""
    pairs, langs = data.pairs("dev"), [pin.lang for pin in data.pins]
    bands = popularity_bands(data, pairs)

    def measured(model: Path) -> dict[str, Figure]:
        scorer = open_scorer(model, langs)
        parts = measure(scorer, data, answer(scorer, data, pairs), bands, SAMPLES, seed).parts["languages"]
        return {measure_name(lang, name): part.figures[name] for lang, part in parts.items() for name in KEPT if name in part.figures}

    return measured


def measure_name(lang: str, figure: str) -> str:
    """`english` for English nDCG@20, `others accuracy` for the mean accuracy of the other languages, `de`, `de recall@100`."""
    part = PARTS.get(lang, lang)
    return part if figure == MAIN else f"{part} {figure}"


def by_train_student(config: Path, data: Path, work: Path, about: Mapping[str, Any], seed: int) -> Fit:
    """Train with `training.train_student`, a folder a point under `work`; a student that is there from the same inputs is kept.
    Raises DataError for a student that learns nothing from labels.

    Vocabulary and targets are shared by the points, and fewer labels are shown more often: points differ in labels, not in work.
    The only place that knows how a student is trained.
    """
    from training.students.config import load  # noqa: PLC0415  # torch, and only this fit needs it
    from training.train_student import train  # noqa: PLC0415

    recipe = load(config)
    if recipe.relevance == "none":
        raise DataError(f"{config}: a student with relevance 'none' learns nothing from labels; give another --config")
    queries: int = about["queries"]
    inputs = sha256(json.dumps([about, recipe.as_json(), seed], sort_keys=True).encode()).hexdigest()[:8]

    def fit(labels: Labels) -> Path:
        name = f"{recipe.model_id}-{len(labels)}-{inputs}"  # in the student's own name too: a checkpoint of one point is none of another's
        if not (work / name / "student.json").exists():
            repeats = recipe.corpus.relevance * max(1, queries // len(np.unique(labels.query)))  # every point sees as many texts
            part = replace(recipe, model_id=name, corpus=replace(recipe.corpus, relevance=repeats))
            train(part, data.parent, data, work / name, work / "shared", labels, seed)
        return work / name

    return fit


def draw(path: Path, body: Mapping[str, Any]) -> None:
    """The curves as a PNG: labels on a logarithmic axis, intervals as bars, other models as dashed lines."""
    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # the backend must be chosen first

    figure, panels = pyplot.subplots(1, len(DRAWN), figsize=(5 * len(DRAWN), 4.2), dpi=90)
    for axes, (title, measures) in zip(panels, DRAWN.items(), strict=True):
        for colour, (name, label) in zip(COLOURS, measures.items(), strict=True):
            _draw_line(axes, name, label, colour, body)
        axes.set(xscale="log", xlabel="labels of the teacher", ylabel=f"{title} on dev")
        if axes.has_data():
            axes.legend(loc="lower right", fontsize=8)
    figure.suptitle(f"{body['student']}: quality against labels")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)


def _draw_line(axes: Any, name: str, label: str, colour: str, body: Mapping[str, Any]) -> None:
    points = [(point["labels"], point["measures"][name]) for point in body["points"] if name in point["measures"]]
    if not points:
        return
    means, low, high = (np.array([value[key] for _, value in points]) for key in ("mean", "low", "high"))
    reach = np.maximum([means - low, high - means], 0)
    axes.errorbar([labels for labels, _ in points], means, reach, marker="o", markersize=4, capsize=3, color=colour, label=label)
    for model, measures in body["beside"].items():
        if name in measures:
            axes.axhline(measures[name]["mean"], color=colour, linewidth=0.8, linestyle="--")
            axes.annotate(model, (0.01, measures[name]["mean"]), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")


def main() -> None:
    """Command line."""
    args = _parser().parse_args()
    labels, data = read_labels(args.labels, unfinished=args.unfinished), read(args.data)
    labels.pins(data)
    check_points(args.points, len(labels))
    measured_by = on_dev(data, args.seed)
    body: dict[str, Any] = {"student": args.config.stem, "teacher_id": labels.teacher_id, "data_digest": data.digest, "seed": args.seed}
    body["licence_classes"] = labels.about["licence_classes"]
    body["beside"] = {model.name: {name: asdict(figure.interval()) for name, figure in measured_by(model).items()} for model in args.beside}

    def report(points: list[dict[str, Any]]) -> None:
        body["points"] = points
        write_json(args.out, body)
        draw(args.out.with_suffix(".png"), body)
        drawn = {name: value for name, value in points[-1]["measures"].items() if any(name in measures for measures in DRAWN.values())}
        told = [f"{name} {value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]" for name, value in drawn.items()]
        print(f"{points[-1]['labels']} labels: {', '.join(told)}")

    curve(labels, args.points, by_train_student(args.config, args.data, args.work, labels.about, args.seed), measured_by, report)
    print(f"{args.out} and {args.out.with_suffix('.png')}")


def _numbers(words: str) -> list[int]:
    return [int(word) for word in words.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.scaling",
        description="Train the same student on growing numbers of labels, measure each on the dev split, and draw the curve with 95 % intervals.",
        epilog="The report is written after every point; given again, the command keeps the students that are in --work.",
    )
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="labels made by python -m training.label")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the folder the labels were made for; parallel/, captions/ and sources.json beside it"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="configuration of python -m training.train_student")
    parser.add_argument("--points", type=_numbers, default=[1000, 4000, 16000, 64000], help="numbers of labels (default: 1000,4000,16000,64000)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="report to write, ending .json; the plot goes beside it as .png")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder for the students")
    parser.add_argument("--beside", type=Path, nargs="+", default=[], metavar="DIR", help="other models to draw as lines: the teacher, the base")
    parser.add_argument("--unfinished", action="store_true", help="take the labels of a run that was interrupted")
    parser.add_argument("--seed", type=int, default=7, help="seed of every training (default: 7)")
    return parser


if __name__ == "__main__":
    main()
