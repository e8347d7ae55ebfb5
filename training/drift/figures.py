"""What a drift predictor may promise: thresholds, error bounds, coverage per kind of edit, and the plot. No fitting.

Also the two simple predictors that the learned one is compared with.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, spearmanr

from training.drift.cases import Cases

Floats = NDArray[np.float64]

FIRST, STEP = 500, 50
"""Thresholds are tried at these many skipped calibration edits, in this order, until the first that breaks the promise."""


def upper95(violations: int, trials: int) -> float:
    """One-sided upper 95 % limit of a rate (Clopper and Pearson 1934)."""
    return 1.0 if violations >= trials else float(beta.ppf(0.95, violations + 1, trials - violations))


def safe_threshold(predicted: Floats, harmful: NDArray[np.bool_], risk: float) -> float | None:
    """The largest threshold on a fixed ladder below which at most a share `risk` is harmful, with 95 % confidence.

    The ladder is climbed from few skipped edits to many and left at its first failure, so that the confidence holds for the
    threshold chosen although many were tried (fixed-sequence testing). None where the first rung already fails.
    """
    order = np.argsort(predicted, kind="stable")
    predicted, harmful = predicted[order], harmful[order]
    best = None
    for rung in range(FIRST, len(predicted), STEP):
        threshold = float(predicted[rung - 1])
        skipped = int(np.searchsorted(predicted, threshold, side="right"))
        if upper95(int(harmful[:skipped].sum()), skipped) > risk:
            break
        best = threshold
    return best


def figures(predicted: Floats, cases: Cases, threshold: float, bound: float) -> dict[str, Any]:
    """Violations among skipped edits with their upper limit, coverage of all edits and of truly cosmetic ones, rank agreement."""
    harmful, skipped = cases.harmful(bound), predicted <= threshold
    violations, count = int((skipped & harmful).sum()), int(skipped.sum())
    return {
        "edits": len(cases),
        "skipped": count,
        "coverage": count / max(len(cases), 1),
        "coverage_of_cosmetic": float(skipped[~harmful].mean()),
        "violations": violations,
        "violation_rate": violations / max(count, 1),
        "violation_upper95": upper95(violations, count),
        "largest_skipped_drift": float(cases.drift[skipped].max(initial=0.0)),
        "spearman": float(spearmanr(predicted, cases.drift)[0]),
    }


def by_kind(predicted: Floats, cases: Cases, threshold: float, bound: float) -> dict[str, dict[str, float]]:
    """For each kind of edit: how many, how many are truly cosmetic, how many are skipped, how many wrongly."""
    harmful, skipped = cases.harmful(bound), predicted <= threshold
    table = {}
    for kind in sorted(set(cases.kind.tolist())):
        rows = cases.kind == kind
        shares = {"cosmetic": float((~harmful[rows]).mean()), "skipped": float(skipped[rows].mean())}
        table[kind] = {"edits": int(rows.sum()), **shares, "violations": int((skipped & harmful & rows).sum())}
    return table


def token_distance(cases: Cases, weight: Floats) -> Floats:
    """Simple predictor 1: weight of the tokens that left or came, as a share of all tokens' weight."""
    return np.array([_multiset(Counter(old), Counter(new), weight) for old, new in cases.tokens])


def _multiset(old: Counter[int], new: Counter[int], weight: Floats) -> float:
    tokens = old.keys() | new.keys()
    return float(sum(weight[t] * abs(old[t] - new[t]) for t in tokens) / sum(weight[t] * max(old[t], new[t]) for t in tokens))


def mean_distance(cases: Cases, weight: Floats, embeddings: NDArray[np.float32], width: int = 64) -> Floats:
    """Simple predictor 2: cosine distance of weighted means of the input embeddings, reduced to `width` principal axes."""
    centred = embeddings - embeddings.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :width]
    table = (centred @ axes) * weight[:, None]

    def unit(tokens: tuple[int, ...]) -> Floats:
        total = table[list(tokens)].sum(axis=0)
        return np.asarray(total / np.linalg.norm(total))

    return np.array([1.0 - float(unit(old) @ unit(new)) for old, new in cases.tokens])


def idf_of(cases: Cases, vocabulary: int) -> Floats:
    """Smoothed inverse document frequency of each token over the texts before the edits."""
    counts = np.zeros(vocabulary)
    for old, _ in cases.tokens:
        counts[list(set(old))] += 1
    return np.log((len(cases) + 1) / (counts + 1)) + 1


def plot(path: Path, predicted: Floats, cases: Cases, threshold: float, bound: float) -> None:
    """Predicted against true drift of held-out edits, with the threshold and the bound, as a small PNG."""
    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # the backend must be chosen first

    figure, axes = pyplot.subplots(figsize=(6, 4.2), dpi=90)
    skipped, harmful = predicted <= threshold, cases.harmful(bound)
    groups = {"embedded": (~skipped, "#b0b0b0"), "skipped": (skipped & ~harmful, "#2b7bba"), "skipped, but meaningful": (skipped & harmful, "#c0392b")}
    for label, (rows, colour) in groups.items():
        axes.scatter(predicted[rows], np.maximum(cases.drift[rows], 1e-5), s=4, alpha=0.5, color=colour, label=f"{label} ({rows.sum()})")
    axes.axvline(threshold, color="black", linewidth=0.8)
    axes.axhline(bound, color="black", linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="predicted drift", ylabel="true drift (cosine distance)", title="Held-out edits: predicted and true drift")
    axes.legend(loc="lower right", fontsize=7, markerscale=3)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
