"""What an export is compared on before it may be written: its vectors and rankings beside those of the fp32 export, on a data folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder.onnx import OnnxEncoder
from pins.metrics import Interval, bootstrap, ndcg, rank
from pins.text import render
from training.data import DataError, Pairs, RelevanceData
from training.students.published import embed

K = 20
TOP = 10
SPLIT = "dev"
CALIBRATION_QUERIES, CALIBRATION_PINS = 400, 200

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a precision must keep. Cosines to the torch reference over the golden texts, and to the fp32 export over queries and pins.

    `top10`: least mean share of the first ten pins that both exports find; `ndcg_loss`: largest mean loss of nDCG@20.
    """

    golden_least: float
    golden_mean: float
    cosine_mean: float
    top10: float
    ndcg_loss: float


@dataclass(frozen=True, slots=True)
class Compared:
    """An export beside the fp32 export on one split. `difference`: nDCG@20 of the export minus that of fp32, paired, by group."""

    cosines: Vectors
    top10: float
    ndcg: float
    difference: Interval
    queries: int

    def metrics(self) -> dict[str, float]:
        """Figures for the manifest."""
        return {
            "check_cosine_min": float(self.cosines.min()),
            "check_cosine_mean": float(self.cosines.mean()),
            "check_top10_overlap": self.top10,
            "check_ndcg@20": self.ndcg,
            "check_ndcg@20_minus_fp32": self.difference.mean,
            "check_ndcg@20_minus_fp32_low": self.difference.low,
            "check_ndcg@20_minus_fp32_high": self.difference.high,
            "check_queries": self.queries,
        }

    def broken(self, promise: Promise) -> list[str]:
        """What the promise asks and the export does not keep, in words."""
        found = [
            (self.cosines.mean() < promise.cosine_mean, f"mean cosine to fp32 is {self.cosines.mean():.5f}, least {promise.cosine_mean}"),
            (self.top10 < promise.top10, f"the first ten pins agree with fp32 by {self.top10:.3f}, least {promise.top10}"),
            (self.difference.mean < -promise.ndcg_loss, f"nDCG@20 is {-self.difference.mean:.4f} below fp32, most {promise.ndcg_loss}"),
        ]
        return [words for fails, words in found if fails]


def calibration_texts(data: RelevanceData, seed: int) -> list[str]:
    """Train queries of all languages and rendered pins, drawn at random: what ranges of activations are taken from."""
    chance = np.random.default_rng(seed)
    queries = [query.text for query in data.queries if query.split != SPLIT]
    texts = [text for text in (render(pin).text for pin in data.pins) if text]
    return _drawn(queries, CALIBRATION_QUERIES, chance) + _drawn(texts, CALIBRATION_PINS, chance)


def _drawn(texts: Sequence[str], count: int, chance: np.random.Generator) -> list[str]:
    return [texts[row] for row in chance.permutation(len(texts))[:count]]


def compare(student: OnnxEncoder, exact: OnnxEncoder, data: RelevanceData) -> Compared:
    """Embed all pins and the judged queries of the dev split (all splits where there is none) with both. Raises DataError without a gain."""
    pairs = data.pairs(SPLIT if SPLIT in data.splits else "all")
    asked = np.unique(pairs.query)
    texts, queries = [render(pin).text for pin in data.pins], [data.queries[number].text for number in asked]
    pins = [embed(encoder, texts, "pins") for encoder in (student, exact)]
    vectors = [embed(encoder, queries, "queries") for encoder in (student, exact)]
    values = [_ndcg(data, pairs, asked, queried, stored) for queried, stored in zip(vectors, pins, strict=True)]
    told = ~np.isnan(values[1])
    if not told.any():
        raise DataError(f"{data.folder}: no judged query has a pin of grade 1 or more; a ranking cannot be compared on it")
    groups = [data.queries[number].group for number in asked[told]]
    cosines = np.concatenate([np.einsum("nd,nd->n", *vectors), np.einsum("nd,nd->n", *pins)])
    embedded = np.concatenate([np.any(vectors[1], axis=1), np.any(pins[1], axis=1)])
    return Compared(
        cosines=cosines[embedded],
        top10=overlap(*(queried @ stored.T for queried, stored in zip(vectors, pins, strict=True))),
        ndcg=float(values[0][told].mean()),
        difference=bootstrap((values[0] - values[1])[told].tolist(), groups),
        queries=int(told.sum()),
    )


def overlap(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Mean share of the ten best columns that two score matrices (queries, pins) have in common."""
    top = min(TOP, first.shape[1])
    best = [np.argsort(-scores, axis=1, kind="stable")[:, :top] for scores in (first, second)]
    return float(np.mean([len(set(one) & set(other)) / top for one, other in zip(*(rows.tolist() for rows in best), strict=True)]))


def _ndcg(data: RelevanceData, pairs: Pairs, asked: NDArray[np.int64], queries: Vectors, pins: Vectors) -> NDArray[np.float64]:
    """nDCG@20 of the judged candidates of each query, NaN for a query without a gain."""
    values = np.empty(len(asked))
    for row, number in enumerate(asked):
        own = pairs.where(pairs.query == number)
        ids = [data.pins[pin].pin_id for pin in own.pin]
        values[row] = ndcg(own.grade[rank(ids, pins[own.pin] @ queries[row], data.queries[number].query_id)], K)
    return values
