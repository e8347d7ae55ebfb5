"""Measure a teacher, a student, BM25 or the live index on a data folder: the same shape as `everpin evaluate --json`, and more.

What each figure means stands in `training.measures.quality`; agreement of a teacher's labels with people in `training.measures.agreement`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from pins.errors import EverpinError
from pins.metrics import Difference
from training.data import DataError, RelevanceData, read
from training.measures import report
from training.measures.agreement import agreement
from training.measures.answers import answer
from training.measures.live_index import open_index
from training.measures.quality import Part, Quality, compare, measure, popularity_bands
from training.measures.scorers import Scorer, open_scorer

PARTIAL = 1
"""Exit code where judged pins have no vector in the index, as of `everpin evaluate`."""
LEAST_SAMPLES = 100
COLUMNS = {
    "ranking": ("ndcg@10", "ndcg@20", "p@8", "recall@100", "spearman"),
    "levels": ("accuracy", "within_one", "auroc@2+", "auroc@3+", "auroc@4+", "ece", "log_loss"),
}
TITLES = {"languages": "own pin included", "languages_without_own_pin": "own pin left out"}


def document(quality: Quality, data: RelevanceData, split: str, samples: int, seed: int) -> dict[str, Any]:
    """Everything that was measured, as JSON holds it. `languages` and `languages_without_own_pin` have the shape of `everpin evaluate`."""
    with_own, without = (_figures(quality.parts[name]) for name in TITLES)
    answers = quality.answers
    return {
        "model_id": quality.model_id,
        "queries": quality.queries,
        "missing_pins": answers.missing_pins,
        "languages": {lang: part for lang, part in with_own.items() if lang != "mean_other"},
        "languages_without_own_pin": {lang: part for lang, part in without.items() if lang != "mean_other"},
        "mean_other": with_own.get("mean_other"),
        "mean_other_without_own_pin": without.get("mean_other"),
        "bands": {band: _figures(parts) for band, parts in quality.bands.items()},
        "levels": {"measured": answers.levels is not None, "note": answers.note, "relevant_grade": quality.relevant_grade},
        "confusion": None if quality.confusion is None else quality.confusion.tolist(),
        "reliability": {name: {key: values.tolist() for key, values in asdict(curve).items()} for name, curve in quality.reliability.items()},
        "data": {"folder": data.folder.name, "digest": data.digest, "split": split, "pins": len(data.pins), "pairs": len(answers.pairs), "levels": data.levels},
        "bootstrap": {"samples": samples, "seed": seed, "unit": "group"},
        "lineage": dict(quality.lineage),
    }


def against(quality: Quality, baseline: Quality) -> dict[str, Any]:
    """The baseline's own figures, and the paired differences to it: model minus baseline, `ratio` model over baseline."""
    compared = {}
    for name in TITLES:
        first, second = quality.parts[name], baseline.parts[name]
        compared[name] = {
            lang: {figure: _difference(found, first[lang].figures[figure].value, second[lang].figures[figure].value) for figure, found in figures.items()}
            for lang, figures in compare(first, second).items()
        }
    return {
        "model_id": baseline.model_id,
        "lineage": dict(baseline.lineage),
        "figures": {name: _figures(baseline.parts[name]) for name in TITLES},
        "difference": compared,
    }


def _difference(found: Difference, value: float, baseline: float) -> dict[str, float | None]:
    return {**asdict(found), "ratio": value / baseline if baseline else None}


def _figures(parts: Mapping[str, Part]) -> dict[str, dict[str, Any]]:
    return {lang: {name: asdict(figure.interval()) for name, figure in part.figures.items()} | _counts(part) for lang, part in parts.items()}


def _counts(part: Part) -> dict[str, int]:
    return {"queries": part.queries} | ({"pairs": part.pairs} if part.pairs else {})


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Read, ask and measure what the command line says. Raises DataError."""
    data = read(args.data, args.levels)
    split = args.split or ("dev" if "dev" in data.splits else "all")
    pairs = data.pairs(split, args.languages.split(",") if args.languages else None)
    langs = [pin.lang for pin in data.pins]
    scorer = open_scorer(args.model, langs, args.dimension, data.folder.name)
    if args.vectors:
        scorer = open_index(scorer, args.vectors, [pin.pin_id for pin in data.pins])
    bands = popularity_bands(data, pairs)

    def measured(one: Scorer) -> Quality:
        return measure(one, data, answer(one, data, pairs, search=not args.no_search), bands, args.samples, args.seed)

    quality = measured(scorer)
    body = document(quality, data, split, args.samples, args.seed)
    if args.baseline:
        body["baseline"] = against(quality, measured(open_scorer(args.baseline, langs, dataset=data.folder.name)))
    if args.teacher:
        teacher = open_scorer(args.teacher, langs, dataset=data.folder.name)
        levels = answer(teacher, data, pairs, search=False).levels
        found = agreement(data, quality.answers, levels, quality.relevant_grade, args.samples, args.seed)
        body["judge"] = {"teacher_id": teacher.model_id, "languages": {lang: asdict(one) for lang, one in found.items()}}
    return body


def show(body: Mapping[str, Any], console: Console) -> None:
    """Tables for people."""
    for part, title in TITLES.items():
        rows = {**body[part], **({"mean_other": body[mean]} if body[mean := part.replace("languages", "mean_other")] else {})}
        for kind, columns in COLUMNS.items():
            _table(console, f"{body['model_id']}, {kind}, {title}", rows, columns)
        if "baseline" in body:
            names = f"{body['model_id']} minus {body['baseline']['model_id']}"
            _table(console, f"{names}, {title}", body["baseline"]["difference"][part], (*COLUMNS["ranking"], "accuracy"))
    for lang, one in body.get("judge", {}).get("languages", {}).items():
        tau = ", ".join(f"{name} {_cell(value)}" for name, value in one["kendall_tau"].items()) or "none, no query has a gain under both"
        console.print(f"{lang}: teacher's labels exact {_cell(one['exact'])}, within one {_cell(one['within_one'])}; Kendall tau of queries: {tau}")
    if body["levels"]["note"]:
        console.print(f"No level metrics: {body['levels']['note']}.")


def _table(console: Console, title: str, rows: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> None:
    shown = [name for name in columns if any(name in figures for figures in rows.values())]
    if shown:
        table = Table(Column("language", no_wrap=True), "queries", *shown, title=title)
        for lang, figures in rows.items():
            table.add_row(lang, str(figures.get("queries", "")), *(_cell(figures.get(name)) for name in shown))
        console.print(table)


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    p = f" p {value['p']:.3f}" if "p" in value else ""
    return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]{p}"


def parser() -> argparse.ArgumentParser:
    """Command line."""
    made = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Measure how well a system ranks and grades the judged pairs of a data folder, per language, with 95 % intervals by query group. "
        "MODEL is a published student (manifest.json), a torch student, a teacher (teacher.json; it answers with the head of the folder's name, if it has "
        "one), or bm25.",
        epilog="--json prints the shape of `everpin evaluate --json` and more. For the live index: everpin export FILE --vectors, then --vectors FILE "
        "with the folder of the live model as MODEL. --report DIR writes report.html and evaluation.json. What the figures mean: training/measures/quality.py.",
    )
    made.add_argument("model", metavar="MODEL", help="model folder, or bm25")
    made.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with items, queries and judgements as parquet")
    made.add_argument("--split", help="a value of the queries' split column, or all (default: dev where there is one, else all)")
    made.add_argument("--languages", help="comma-separated languages of queries (default: every one)")
    made.add_argument("--levels", type=int, help="levels of the folder's scale (default: known by its name, else its highest grade and one)")
    made.add_argument("--baseline", metavar="MODEL2", help="another model on the same pairs: its figures, and paired differences to it")
    made.add_argument("--teacher", metavar="DIR", help="a teacher whose labels are compared with the human grades, query by query")
    made.add_argument("--vectors", type=Path, metavar="FILE", help="pins' vectors of the live index, from everpin export FILE --vectors")
    made.add_argument("--dimension", type=int, metavar="N", help="score with the first N numbers of each vector (Matryoshka)")
    made.add_argument("--no-search", action="store_true", help="leave out recall@100, which needs a vector of every pin")
    made.add_argument("--samples", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    made.add_argument("--seed", type=int, default=7, help="of the bootstrap (default: 7; 0 draws the intervals of `everpin evaluate`)")
    made.add_argument("--json", action="store_true", help="print one JSON document and nothing else on standard output")
    made.add_argument("--report", type=Path, metavar="DIR", help="write report.html, which needs nothing beside it, and evaluation.json")
    made.add_argument("--scaling", type=Path, metavar="FILE", help="JSON of training.scaling, drawn into the report")
    made.add_argument("--ablation", type=Path, metavar="FILE", help="JSON of training.ablation, drawn into the report")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    args = parser().parse_args(arguments)
    if (args.scaling or args.ablation) and not args.report:
        raise DataError("--scaling and --ablation are drawn into a report; say where with --report DIR")
    if args.samples < LEAST_SAMPLES:
        raise DataError(f"--samples {args.samples}: a 95 % interval needs at least {LEAST_SAMPLES} bootstrap samples")
    try:
        body = evaluate(args)
    except EverpinError as error:
        raise DataError(str(error)) from error
    if args.report:
        print(f"report: {report.write(args.report, body, args.scaling, args.ablation)}", file=sys.stderr)
    if args.json:
        print(json.dumps(body, ensure_ascii=False, indent=2))
    else:
        show(body, Console())
    if body["missing_pins"]:
        print(f"{body['missing_pins']} judged pins have no {'vector' if args.vectors else 'text'} and ranked last", file=sys.stderr)
        if args.vectors:
            raise SystemExit(PARTIAL)


if __name__ == "__main__":
    main()
