"""Fit the ordinal head: from the cosine of a query and a pin to the five relevance levels.

A proportional-odds model (McCullagh 1980), P(level > k) = sigmoid(scale * cosine - thresholds[k]), fitted by maximum
likelihood on train queries and judged on dev queries, with intervals by bootstrap over query groups.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from embedder.artifact import read_manifest
from pins.manifest import Manifest
from pins.relevance import OrdinalHead
from pins.text import render
from training.data import Pairs, read
from training.folder import amend, write_json
from training.students.published import embed, open_student

REPORTS = Path(__file__).parent / "reports"
RESAMPLES = 1000

Floats = NDArray[np.float64]


def fit_head(cosines: Floats, grades: NDArray[np.int64]) -> OrdinalHead:
    """The maximum-likelihood head. Scale and threshold gaps are fitted as logarithms, so the head is valid at every step."""

    def loss(free: Floats) -> float:
        return log_loss(_head(free), cosines, grades)

    start = np.array([np.log(10.0), 2.0, *np.log([1.5, 1.5, 2.0])])
    found = minimize(loss, start, method="L-BFGS-B", options={"maxiter": 500})
    if not found.success:
        raise SystemExit(f"the ordinal head did not converge: {found.message}; are there at least a few pairs of every grade 0-4?")
    return _head(found.x)


def _head(free: Floats) -> OrdinalHead:
    gaps = np.exp(free[2:])
    return OrdinalHead(float(np.exp(free[0])), tuple(float(value) for value in free[1] + np.concatenate([[0.0], np.cumsum(gaps)])))


def log_loss(head: OrdinalHead, cosines: Floats, grades: NDArray[np.int64]) -> float:
    """Mean negative log likelihood, in nats."""
    likely = head.probabilities(cosines)[np.arange(len(grades)), grades]
    return float(-np.log(np.maximum(likely, 1e-12)).mean())


def scores(head: OrdinalHead, cosines: Floats, grades: NDArray[np.int64]) -> dict[str, Floats]:
    """Per pair: whether the most probable level is right or off by at most one, log loss, absolute error of the expected level."""
    probabilities = head.probabilities(cosines)
    level = probabilities.argmax(axis=1)
    likely = probabilities[np.arange(len(grades)), grades]
    return {
        "accuracy": (level == grades).astype(float),
        "within_one": (np.abs(level - grades) <= 1).astype(float),
        "log_loss": -np.log(np.maximum(likely, 1e-12)),
        "mean_absolute_error": np.abs(head.expected(cosines) - 1 - grades),
    }


def with_interval(values: Floats, groups: NDArray[np.str_]) -> list[float]:
    """[mean, 2.5 %, 97.5 %], by bootstrap over whole groups: pairs of one subject share their ratings."""
    _, place = np.unique(groups, return_inverse=True)
    total, count = np.bincount(place, values), np.bincount(place)
    draws = np.random.default_rng(0).integers(0, len(total), (RESAMPLES, len(total)))
    means = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    return [float(values.mean()), *map(float, np.quantile(means, [0.025, 0.975]))]


def judge(head: OrdinalHead, cosines: Floats, pairs: Pairs) -> dict[str, Any]:
    """Every figure with its interval, and the accuracy of always guessing the most frequent grade."""
    figures = {name: with_interval(values, pairs.group) for name, values in scores(head, cosines, pairs.grade).items()}
    counts = np.bincount(pairs.grade, minlength=5)
    return {"pairs": len(pairs), "groups": len(set(pairs.group)), **figures, "majority_accuracy": float(counts.max() / counts.sum())}


def calibrate(model: Path, pins_folder: Path, report: Path) -> Manifest:
    """Fit, judge, write the head into the manifest and the figures into the report."""
    student = open_student(model)
    data = read(pins_folder)
    spoken = {*read_manifest(model).languages, "en"} & {query.lang for query in data.queries}
    train, dev = data.pairs("train", spoken), data.pairs("dev", {"en"})
    pin_vectors = embed(student, [render(pin).text for pin in data.pins], "pins")
    query_vectors = embed(student, [query.text for query in data.queries], "queries")

    def cosines(pairs: Pairs) -> Floats:
        return np.asarray(np.einsum("nd,nd->n", query_vectors[pairs.query], pin_vectors[pairs.pin]), np.float64)

    head = fit_head(cosines(train), train.grade)
    others = dev.where(~dev.own)
    figures = {"dev": judge(head, cosines(dev), dev), "dev_without_own_pin": judge(head, cosines(others), others)}
    if foreign := spoken - {"en"}:
        figures["dev_other_languages"] = judge(head, cosines(pairs := data.pairs("dev", foreign)), pairs)
    body = {"model_id": student.model_id, "train_pairs": len(train), "languages": sorted(spoken), "scale": head.scale, "thresholds": head.thresholds, **figures}
    write_json(report, body)
    metrics = {f"levels_dev_{name}": figures["dev"][name][0] for name in ("accuracy", "within_one", "log_loss", "mean_absolute_error")}
    return amend(model, lambda _: None, lambda old: replace(old, ordinal_head=head, metrics={**old.metrics, **metrics}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.calibrate_levels",
        description="Fit a student's ordinal head (cosine -> five relevance levels) on the train queries of its languages and write it into its manifest.",
        epilog="Reports five-level accuracy, log loss and mean absolute error on dev queries, English ones and others, with 95 % intervals by group.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="model folder made by training.export; its manifest is rewritten")
    parser.add_argument("--pins", type=Path, required=True, metavar="DIR", help="folder with items, queries and judgements as parquet (cxc_pins)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the figures go (default: training/reports/levels-<model>.json)")
    args = parser.parse_args()
    manifest = calibrate(args.model, args.pins, args.report or REPORTS / f"levels-{args.model.name}.json")
    head = manifest.ordinal_head
    print(f"{args.model}: scale {head.scale:.3f}, thresholds {', '.join(f'{value:.3f}' for value in head.thresholds)}")
    print(", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items() if name.startswith("levels_")))


if __name__ == "__main__":
    main()
