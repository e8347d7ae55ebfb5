"""Three ways to score (query, pin) pairs with one bi-encoder, on one test set: is a dearer one worth what it costs?

| way | score | what a pin keeps |
|---|---|---|
| dot | cosine of the query's and the pin's vector: the order that Qdrant gives | one vector |
| match features | expected level, by a small network on `training.teachers.features`: cosines, BM25, coverage | its text, and the next way's vectors |
| late, one vector | the best cosine of the query and any of the pin's vectors | a vector of its whole text and of each field |
| late, windows | MaxSim: the same, summed over the whole query and windows of it (`training.measures.late_interaction`) | the same |

The ways are compared and never mixed: each ranks the same judged pairs alone. Figures are those of `training.measures.quality`, the
differences are paired, and both come from the same bootstrap draws of whole groups.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from pins.errors import EverpinError
from pins.text import render
from training.data import DataError, Pairs, RelevanceData, read
from training.folder import write_json
from training.measures.answers import answer
from training.measures.late_interaction import STRIDE, WINDOW, LateScorer, pin_parts, query_parts
from training.measures.quality import Part, Quality, compare, measure
from training.measures.scorers import Scorer, TeacherScorer, Vectors, VectorScorer, open_scorer, shortened
from training.teachers.features import CACHED, MatchFeatures

SPLIT = "dev"
METRICS = ("ndcg@20", "ndcg@10")
PARTS = {"languages": "own pin included", "languages_without_own_pin": "own pin left out"}
LEAST_SAMPLES = 100
TIMED, PASSES = 4096, 3
"""Pairs that are scored again to take the time, and how often: the fastest pass counts."""
PROBES = 64
"""Pins whose vectors tell whether the features were made with the same model."""
SAME = 0.98
"""Least mean cosine of two models' vectors of one text that is taken for one model: int8 weights stay above it. A few steps of training may too."""
WIDTH = 170
"""Columns of the table where the output is no terminal."""

Parts = Callable[[str], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to score. `pins` and `queries`: the texts that it has vectors of, `dimension` numbers each."""

    name: str
    scorer: Scorer
    pins: Parts
    queries: Parts
    dimension: int


def whole(text: str) -> list[str]:
    """A text that has one vector."""
    return [text]


def score(args: argparse.Namespace) -> dict[str, Any]:
    """Read, score in every way and measure, as the command line says. Raises DataError."""
    student = open_student(args.model)
    match = open_match(args.match, args.data) if args.match else None
    data = read(args.data)
    if SPLIT not in data.splits:
        raise DataError(f"{args.data} has no test set: no query's split is {SPLIT!r}; write it into the split column of queries.parquet")
    pairs = data.pairs(SPLIT)
    ways, notes = prepare(student, match, data, pairs, args)
    qualities = [_measured(way, data, pairs, args.samples, args.seed) for way in tqdm(ways, "ways", unit="way")]
    return {
        "model_id": student.model_id,
        "lineage": dict(student.lineage),
        "data": {"folder": data.folder.name, "digest": data.digest, "split": SPLIT, "pairs": len(pairs), "pins": len(np.unique(pairs.pin))},
        "missing_pins": qualities[0].answers.missing_pins,
        "bootstrap": {"samples": args.samples, "seed": args.seed, "unit": "group"},
        "windows": {"words": WINDOW, "stride": STRIDE},
        "ways": [described(way, quality, qualities[0], data, pairs) for way, quality in zip(ways, qualities, strict=True)],
        "notes": notes,
    }


def open_student(model: str) -> VectorScorer:
    """The bi-encoder. Raises DataError where MODEL makes no vectors."""
    scorer = open_scorer(model)
    if not isinstance(scorer, VectorScorer):
        raise DataError(f"{model} makes no vectors of its own; give the folder of a published student (manifest.json) or of a torch student (student.json)")
    return scorer


def open_match(folder: Path, data: Path) -> TeacherScorer:
    """The match features' teacher. Raises DataError where the folder is none, before anything is loaded."""
    try:
        about = json.loads((folder / "teacher.json").read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"--match {folder} is no teacher folder: {error}; python -m training.train_teacher writes one") from error
    kind = about.get("kind") if isinstance(about, dict) else None
    if kind != "features":
        raise DataError(f"--match {folder} is a teacher of kind {kind!r}, and only kind 'features' is what a bi-encoder and BM25 know; give one of those")
    scorer = open_scorer(folder, dataset=data.resolve().name)
    assert isinstance(scorer, TeacherScorer)  # it holds teacher.json
    return scorer


def prepare(student: VectorScorer, match: TeacherScorer | None, data: RelevanceData, pairs: Pairs, args: argparse.Namespace) -> tuple[list[Way], list[str]]:
    """The ways, with every vector they need made once, and what a reader must know of them."""
    queries = [data.queries[number].text for number in np.unique(pairs.query)]
    texts = [render(data.pins[number]).text for number in np.unique(pairs.pin)]
    pieces = [part for text in texts for part in pin_parts(text)]
    dimension = student.vectors([*pieces, *(part for query in queries for part in query_parts(query))]).shape[1]
    late = [(f"late, {name}", LateScorer(student, windows, student.model_id)) for name, windows in (("one vector", False), ("windows", True))]
    ways = [Way("dot", student, whole, whole, dimension), *(Way(name, scorer, pin_parts, scorer.query_parts, dimension) for name, scorer in late)]
    if match is None:
        return ways, [how_to_match(args)]
    features: MatchFeatures = match.teacher.features.match
    width = features.encoder.vectors([*texts, *queries, *pieces][:CACHED], progress=True).shape[1]
    ways.insert(1, Way("match features", match, pin_parts, whole, width))
    probes = texts[:PROBES]
    return ways, [likeness(student.vectors(probes), features.encoder.vectors(probes), match.model_id, student.model_id)]


def how_to_match(args: argparse.Namespace) -> str:
    """What makes the way that is left out."""
    return (
        "match features are left out, for want of --match. Copy training/configs/teacher-features.toml, set features.encoder in it to the torch folder "
        f"of this student, then: python -m training.train_teacher --config COPY.toml --data {args.data} --out DIR, and give --match DIR"
    )


def likeness(vectors: Vectors, others: Vectors, teacher: str, model_id: str) -> str:
    """How alike the student's and the teacher's vectors of the same texts are, float32 (texts, dimension) each; a warning if they are not.

    The longer vectors are cut to the shorter ones' length, so a Matryoshka student is the model that it was cut from.
    """
    dimension = min(vectors.shape[1], others.shape[1])
    alike = float(np.einsum("nd,nd->n", shortened(vectors, dimension), shortened(others, dimension)).mean())
    said = f"vectors of one pin have a mean cosine of {alike:.4f}"
    if alike >= SAME:
        return f"match features: {teacher} was made with this encoder, {said}"
    return (
        f"WARNING: {teacher} was made with another encoder than {model_id}: {said}. Its row compares two models, not two ways; "
        "train it with features.encoder set to this student"
    )


def _measured(way: Way, data: RelevanceData, pairs: Pairs, samples: int, seed: int) -> Quality:
    """Order only: levels are left out, since not every way has them."""
    answers = replace(answer(way.scorer, data, pairs, search=False), levels=None, note="")
    return measure(way.scorer, data, answers, np.full(len(data.queries), ""), samples, seed)


def described(way: Way, quality: Quality, dot: Quality, data: RelevanceData, pairs: Pairs) -> dict[str, Any]:
    """One way as JSON holds it: figures, paired differences to `dot`, and what it costs."""
    texts = [render(data.pins[number]).text for number in np.unique(pairs.pin)]
    queries = [data.queries[number].text for number in np.unique(pairs.query)]
    per_pin = float(np.mean([len(way.pins(text)) for text in texts]))
    body: dict[str, Any] = {
        "way": way.name,
        "model_id": way.scorer.model_id,
        "queries": quality.queries,
        "pairs": len(quality.answers.pairs),
        "cost": {
            "vectors_per_pin": per_pin,
            "bytes_per_pin": per_pin * way.dimension * np.dtype(np.float32).itemsize,
            "vectors_per_query": float(np.mean([len(way.queries(query)) for query in queries])),
            "cpu_seconds_per_1000_pairs": seconds(way.scorer, data, pairs),
        },
        **{name: {lang: _figures(part) for lang, part in quality.parts[name].items()} for name in PARTS},
    }
    if quality is not dot:
        body["minus_dot"] = {name: _differences(quality.parts[name], dot.parts[name]) for name in PARTS}
    return body


def seconds(scorer: Scorer, data: RelevanceData, pairs: Pairs) -> float:
    """CPU seconds for 1,000 pairs whose vectors are known: the work of all threads, whatever else the machine does."""
    some = pairs.where(np.arange(min(TIMED, len(pairs))))
    queries, texts = [query.text for query in data.queries], [render(pin).text for pin in data.pins]
    taken: list[float] = []
    for _ in range(PASSES):
        began = time.process_time()
        scorer.score(queries, texts, some)
        taken.append(time.process_time() - began)
    return min(taken) / len(some) * 1000


def _figures(part: Part) -> dict[str, Any]:
    return {"queries": part.queries, **{name: asdict(part.figures[name].interval()) for name in METRICS}}


def _differences(first: Mapping[str, Part], second: Mapping[str, Part]) -> dict[str, Any]:
    return {lang: {name: asdict(found[name]) for name in METRICS} for lang, found in compare(first, second).items()}


def show(body: Mapping[str, Any], console: Console) -> None:
    """Tables for people."""
    data, bootstrap = body["data"], body["bootstrap"]
    console.print(
        f"{body['model_id']} on the {data['split']} split of {data['folder']}: {data['pairs']} pairs, {data['pins']} pins; "
        f"95 % intervals of {bootstrap['samples']} bootstrap samples of whole groups"
    )
    for part, title in PARTS.items():
        if any(way[part] for way in body["ways"]):
            console.print(_ranking(body["ways"], part, title))
    table = Table("way", "vectors per pin", "bytes per pin", "vectors per query", "CPU s per 1,000 pairs", title="what each way costs")
    for way in body["ways"]:
        cost = way["cost"]
        table.add_row(
            way["way"],
            f"{cost['vectors_per_pin']:.2f}",
            f"{cost['bytes_per_pin']:,.0f}",
            f"{cost['vectors_per_query']:.2f}",
            f"{cost['cpu_seconds_per_1000_pairs']:.4f}",
        )
    console.print(table)
    for note in body["notes"]:
        console.print(note, markup=False, soft_wrap=True)


def _ranking(ways: Sequence[Mapping[str, Any]], part: str, title: str) -> Table:
    table = Table("language", "queries", "way", "nDCG@20", "minus dot", "nDCG@10", "minus dot", title=title)
    for lang in ways[0][part]:
        for way in ways:
            first, figures, apart = way is ways[0], way[part][lang], way.get("minus_dot", {}).get(part, {}).get(lang, {})
            cells = [text for name in METRICS for text in (_cell(figures[name]), _cell(apart.get(name), "+"))]
            table.add_row(lang if first else "", str(figures["queries"]) if first else "", way["way"], *cells, end_section=way is ways[-1])
    return table


def _cell(value: Mapping[str, float] | None, sign: str = "") -> str:
    if value is None:
        return ""
    p = f" p {value['p']:.3f}" if "p" in value else ""
    return f"{value['mean']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]{p}"


def parser() -> argparse.ArgumentParser:
    """Command line."""
    made = argparse.ArgumentParser(
        prog="python -m training.scoring",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Compare ways to score (query, pin) pairs with one bi-encoder, on the dev split of a data folder:

  dot               cosine of the query's vector and the pin's one vector: the order that Qdrant gives
  match features    a small network on that cosine, the cosines of the pin's fields, BM25, word coverage (--match)
  late, one vector  the nearest of the pin's vectors (whole text, each field) to the query's vector
  late, windows     the same for the whole query and each window of six words of it, summed (MaxSim)

Every way ranks the same judged pairs. Per language: nDCG@20 and nDCG@10 with and without the query's own pin, 95 % intervals by
bootstrap over query groups, and the paired difference to dot with its interval; then what each way stores and computes.""",
        epilog="""\
example:
  python -m training.scoring everpin/models/minilm-l6-v1 --data ../shared/data/cxc_pins

A teacher for --match: copy training/configs/teacher-features.toml, set features.encoder to the torch folder of the student, then
  python -m training.train_teacher --config COPY.toml --data DIR --out TEACHER
It learns from the train split, which the other ways do not: say so beside its figures.""",
    )
    made.add_argument("model", metavar="MODEL", help="folder of a bi-encoder: published student (manifest.json) or torch student (student.json)")
    made.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with items, queries and judgements as parquet; its dev split is the test set"
    )
    made.add_argument("--match", type=Path, metavar="TEACHER", help="teacher of kind features whose encoder is MODEL (default: that way is left out)")
    made.add_argument("--samples", type=int, default=1000, metavar="N", help="bootstrap samples (default: 1000)")
    made.add_argument("--seed", type=int, default=7, help="of the bootstrap (default: 7)")
    made.add_argument("--json", action="store_true", help="print one JSON document and nothing else on standard output")
    made.add_argument("--out", type=Path, metavar="FILE.json", help="write the JSON document to this file too")
    return made


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    args = parser().parse_args(arguments)
    if args.samples < LEAST_SAMPLES:
        raise DataError(f"--samples {args.samples}: a 95 % interval needs at least {LEAST_SAMPLES} bootstrap samples")
    if args.out and (args.out.is_dir() or not args.out.parent.is_dir()):
        raise DataError(f"--out {args.out}: give a file in a folder that exists, such as scoring.json")
    try:
        body = score(args)
    except EverpinError as error:
        raise DataError(str(error)) from error
    if args.out:
        write_json(args.out, body)
    if args.json:
        print(json.dumps(body, ensure_ascii=False, indent=2))
    else:
        show(body, Console(width=None if sys.stdout.isatty() else WIDTH))
    if body["missing_pins"]:
        print(f"{body['missing_pins']} judged pins have no text and ranked last", file=sys.stderr)


if __name__ == "__main__":
    main()
