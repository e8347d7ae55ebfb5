"""Calibrate the cosmetic-change predictor of a student: which edits may keep their vector, and how often that is wrong.

In order: make edits of real pins, embed both sides with the exported student, fit the predictor on two fifths of the pins,
choose the threshold on three tenths, judge on the other three tenths, and write drift.npz, the manifest's bound and a report.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedder.artifact import DRIFT, MODEL
from embedder.drift import DriftPredictor
from embedder.onnx import OnnxEncoder
from pins.manifest import DriftBound, Manifest
from training.data import read
from training.drift.cases import Cases, load_sample, make_cases
from training.drift.edits import Corpus, furnished
from training.drift.figures import by_kind, figures, idf_of, mean_distance, plot, safe_threshold, token_distance
from training.drift.model import Arrays, fit, input_embeddings
from training.drift.words import COLOURS, NEGATIONS
from training.folder import amend, write_json
from training.students.published import open_student, token_ids

REPORTS = Path(__file__).parent / "reports"
BOUND, RISK = 0.02, 0.01
FIT, CALIBRATE, HELD_OUT = range(4), range(4, 7), range(7, 10)
"""Last digits of a pin's number in each part: no pin is in two of them."""
NAME = "token-sums-v1"

Floats = NDArray[np.float64]


def calibrate(model: Path, pins_folder: Path, queries_file: Path, sample: Path | None, report: Path, pins: int, per_pin: int) -> dict[str, Any]:
    """Run the whole calibration; returns the report. Raises SystemExit when no threshold keeps the promise."""
    student = open_student(model)
    cases, corpus = _cases(student, pins_folder, queries_file, pins, per_pin)
    parts = {name: cases.where(np.isin(cases.pin % 10, digits)) for name, digits in (("fit", FIT), ("calibration", CALIBRATE), ("held_out", HELD_OUT))}
    embeddings = input_embeddings(model / MODEL)
    arrays = fit(embeddings, parts["fit"].tokens, parts["fit"].drift, never_cosmetic(student))
    predicted = {name: predict(arrays, part) for name, part in parts.items()}
    threshold = safe_threshold(predicted["calibration"], parts["calibration"].harmful(BOUND), RISK)
    if threshold is None:
        raise SystemExit(f"no threshold keeps {RISK:.0%} of skipped edits below drift {BOUND}; nothing was written. Try more --max-pins")
    body: dict[str, Any] = {"model_id": student.model_id, "predictor": NAME, "threshold": threshold, "bound": BOUND, "risk": RISK}
    body |= {name: figures(predicted[name], part, threshold, BOUND) for name, part in parts.items()}
    body["held_out_by_kind"] = by_kind(predicted["held_out"], parts["held_out"], threshold, BOUND)
    if sample is not None:
        elsewhere = make_cases(student, load_sample(sample), corpus, per_pin * 2, seed=2)
        judged = predict(arrays, elsewhere)
        body["sample"] = figures(judged, elsewhere, threshold, BOUND)
        body["sample_by_kind"] = by_kind(judged, elsewhere, threshold, BOUND)
    body["simple_predictors"] = _simple(parts, embeddings)
    write_json(report.with_suffix(".json"), body)
    plot(report.with_suffix(".png"), predicted["held_out"], parts["held_out"], threshold, BOUND)
    _publish(model, arrays, body)
    return body


def never_cosmetic(student: OnnxEncoder) -> set[int]:
    """Ids of colours and negations that are one token of this student."""
    ids = [token_ids(student, word)[1:-1] for word in (*COLOURS, *NEGATIONS)]
    return {tokens[0] for tokens in ids if len(tokens) == 1}


def predict(arrays: Arrays, cases: Cases) -> Floats:
    """What the runtime would predict for each edit."""
    predictor = DriftPredictor.from_arrays(**arrays)
    return np.array([predictor.predict(*pair) for pair in cases.tokens])


def _cases(student: OnnxEncoder, folder: Path, queries_file: Path, pins: int, per_pin: int) -> tuple[Cases, Corpus]:
    rng = Random(0)
    catalogue = read(folder).pins
    corpus = Corpus(catalogue, pq.read_table(queries_file).column("text").to_pylist())
    rng.shuffle(catalogue)
    return make_cases(student, [furnished(rng, pin, corpus) for pin in catalogue[:pins]], corpus, per_pin, seed=1), corpus


def _simple(parts: dict[str, Cases], embeddings: NDArray[np.float32]) -> dict[str, Any]:
    """The same protocol for the two simple predictors: threshold on calibration edits, judged on held-out ones."""
    idf = idf_of(parts["fit"], len(embeddings))
    chosen, judged = parts["calibration"], parts["held_out"]
    pairs = {
        "token_multiset_idf": (token_distance(chosen, idf), token_distance(judged, idf)),
        "input_embedding_mean_idf": (mean_distance(chosen, idf, embeddings), mean_distance(judged, idf, embeddings)),
    }
    table = {}
    for name, (first, second) in pairs.items():
        threshold = safe_threshold(first, chosen.harmful(BOUND), RISK)
        table[name] = {"threshold": threshold, **figures(second, judged, -1.0 if threshold is None else threshold, BOUND)}
    return table


def _publish(model: Path, arrays: Arrays, body: dict[str, Any]) -> Manifest:
    chosen = body["calibration"]
    names = ("coverage", "edits", "violation_rate", "violation_upper95")
    bound = DriftBound(predictor=NAME, threshold=body["threshold"], bound=BOUND, risk=RISK, **{name: chosen[name] for name in names})
    metrics = {f"drift_held_out_{name}": float(body["held_out"][name]) for name in ("coverage", "coverage_of_cosmetic", "violation_rate", "violation_upper95")}

    def add(folder: Path) -> None:
        np.savez_compressed(folder / DRIFT, allow_pickle=False, **arrays)

    return amend(model, add, lambda old: replace(old, drift=bound, metrics={**old.metrics, **metrics}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.calibrate_drift",
        description="Fit the predictor of cosmetic edits for a student, choose its threshold, and write drift.npz and the bound into the model folder.",
        epilog=f"The promise: of the edits that keep their vector, at most {RISK:.0%} would have moved it by more than cosine distance {BOUND} "
        "(upper 95 % limit). Colour changes and negations count as broken promises however little the vector moves. "
        "About ten minutes on two cores with the default numbers; --max-pins 1500 --edits 6 gives a rough answer in two.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="model folder made by training.export; it is rewritten as a whole")
    parser.add_argument("--pins", type=Path, required=True, metavar="DIR", help="folder with items.parquet (cxc_pins): the pins that are edited")
    parser.add_argument("--queries", type=Path, required=True, metavar="FILE", help="parquet with a text column: search queries that pins get engagement from")
    parser.add_argument("--sample", type=Path, metavar="FILE", help="pins.jsonl of another catalogue, judged separately (everpin/sample/pins.jsonl)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="report, no ending; .json and .png are written (default: training/reports/drift-<model>)")
    parser.add_argument("--max-pins", type=int, default=5000, metavar="N", help="pins to edit (default: 5000)")
    parser.add_argument("--edits", type=int, default=8, metavar="N", help="kinds of edit tried per pin (default: 8)")
    args = parser.parse_args()
    report = args.report or REPORTS / f"drift-{args.model.name}"
    body = calibrate(args.model, args.pins, args.queries, args.sample, report, args.max_pins, args.edits)
    for part in ("calibration", "held_out", "sample"):
        if part in body:
            print(f"{part}: " + ", ".join(f"{name} {value:.4g}" for name, value in body[part].items()))


if __name__ == "__main__":
    main()
