"""One pin of an answer, the query encoder an answer is made with, and the folding of near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from pins.ports import Hit, Vector
from pins.relevance import Level, OrdinalHead

SAME_PIN_COSINE = 0.985
"""Two pins this close show the same idea in the same words: one of them is enough."""

Stage = Callable[[str], AbstractContextManager[None]]
"""What times the stages of an answer: entered with a stage's name for as long as the stage takes."""


def untimed(stage: str) -> AbstractContextManager[None]:
    """Time nothing."""
    return nullcontext()


class QueryEncoder(Protocol):
    """Text of a query to a unit vector of the index's own model."""

    @property
    def model_id(self) -> str: ...
    @property
    def ordinal_head(self) -> OrdinalHead: ...
    def query(self, text: str) -> Vector: ...


@dataclass(frozen=True, slots=True)
class Result:
    """One pin of an answer. `score` is the cosine; relevance and level only where there is a query; `why` in words.

    `refused`: why the pin's newer text could not be embedded; it is then found by its previous one.
    """

    pin_id: str
    title: str
    score: float
    model_id: str
    fields: Mapping[str, Any]
    relevance: float | None = None
    level: Level | None = None
    why: str = ""
    refused: str = ""


def result(hit: Hit, model_id: str, why: str = "") -> Result:
    """A hit as one pin of an answer."""
    return Result(hit.pin_id, str(hit.fields.get("title", "")), hit.score, model_id, hit.fields, why=why, refused=hit.refused)


def fold(hits: Sequence[Hit], shown: Iterable[Vector]) -> list[Hit]:
    """The hits without near-duplicates of one another and of what is shown already."""
    kept, vectors = [], list(shown)
    for hit in hits:
        if hit.vector is None or all(float(hit.vector @ other) < SAME_PIN_COSINE for other in vectors):
            kept.append(hit)
            vectors += [] if hit.vector is None else [hit.vector]
    return kept
