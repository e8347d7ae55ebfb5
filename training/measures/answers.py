"""What a system says of graded pairs, asked once: scores, levels, and whether each pin is among the first 100 of all pins.

Figures are made from these in `training.measures.quality`; nothing here knows a metric but the place in the whole index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pins.metrics import BLOCK, Floats, in_first
from pins.text import render
from training.data import DataError, Pairs, RelevanceData
from training.measures.live_index import IndexScorer
from training.measures.scorers import Retriever, Scorer, VectorScorer, rows_by_query

FOUND_AMONG = 100


@dataclass(frozen=True, slots=True)
class Answers:
    """What one system says of n pairs.

    `scores`: float64 (n,). `levels`: probabilities of the folder's levels, float64 (n, levels), or None. `found`: float64 (n,), the
    chance that the pair's pin is among the first 100 of all pins for its query, or None. `missing_pins`: judged pins that the system
    cannot find: without text, or without a vector. `note`: why there are no levels, else empty.
    """

    pairs: Pairs
    scores: Floats
    levels: Floats | None
    found: Floats | None
    missing_pins: int
    note: str

    def where(self, keep: NDArray[Any]) -> Answers:
        """The rows that a boolean mask or indices choose."""
        levels, found = (None if values is None else values[keep] for values in (self.levels, self.found))
        return replace(self, pairs=self.pairs.where(keep), scores=self.scores[keep], levels=levels, found=found)


def answer(scorer: Scorer, data: RelevanceData, pairs: Pairs, search: bool = True) -> Answers:
    """Ask a system. `search`: rank all pins too, where it can. Raises DataError where it answers with no numbers."""
    queries, texts = [query.text for query in data.queries], [render(pin).text for pin in data.pins]
    if search and isinstance(scorer, VectorScorer):
        scorer.vectors(texts)  # all at once: batches of similar length, and one progress bar
    scored = scorer.score(queries, texts, pairs)
    if np.isnan(scored.scores).any() or not (scored.levels is None or np.isfinite(scored.levels).all()):
        raise DataError(f"{scorer.model_id} answers with NaN; its weights are damaged: train or copy it again")
    seen = scorer.present if isinstance(scorer, IndexScorer) else np.array([bool(text) for text in texts])
    scores = np.where(seen[pairs.pin], scored.scores, -np.inf)
    found = _found(scorer, data, texts, pairs) if search and isinstance(scorer, Retriever) else None
    levels, note = scored.levels, ""
    if levels is None:
        note = f"{scorer.model_id} gives scores and no levels"
    elif levels.shape[1] != data.levels:
        levels, note = None, f"{scorer.model_id} knows {levels.shape[1]} levels, {data.folder.name} has {data.levels}"
    return Answers(pairs, scores, levels, found, int((~seen[np.unique(pairs.pin)]).sum()), note)


def _found(scorer: Retriever, data: RelevanceData, texts: Sequence[str], pairs: Pairs) -> Floats:
    """Per pair, the chance that its pin is among the first 100 of all pins for its query (`pins.metrics.in_first`)."""
    found, asked = np.empty(len(pairs)), rows_by_query(pairs)
    step = max(1, BLOCK // len(texts))
    with tqdm(total=len(asked), desc="search all pins", unit="query") as bar:
        for start in range(0, len(asked), step):
            some = asked[start : start + step]
            queries = [data.queries[number] for number, _ in some]
            scores = scorer.against_all([query.text for query in queries], [query.lang for query in queries], texts)
            for (_, rows), row in zip(some, scores, strict=True):
                found[rows] = in_first(row, FOUND_AMONG)[pairs.pin[rows]]
            bar.update(len(some))
    return found
