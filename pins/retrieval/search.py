"""Search: the pins most relevant to a query."""

from __future__ import annotations

from dataclasses import replace

from pins.ports import PinIndex, Where
from pins.retrieval.results import QueryEncoder, Result, result


def search(text: str, encoder: QueryEncoder, index: PinIndex, limit: int = 10, where: Where = Where()) -> list[Result]:
    """The pins most relevant to a query, best first, each with its expected relevance (1 to 5) and most probable level."""
    require_one_model(encoder.model_id, index)
    if not text.strip():
        raise ValueError("the query is empty; give at least one word")
    hits = index.search(encoder.query(text), limit, where)
    expected = encoder.ordinal_head.expected([hit.score for hit in hits])
    return [
        replace(result(hit, index.model_id), relevance=float(relevance), level=encoder.ordinal_head.level(hit.score))
        for hit, relevance in zip(hits, expected, strict=True)
    ]


def require_one_model(model_id: str, index: PinIndex) -> None:
    """Raises ValueError when the query would be encoded by another model than the index was."""
    if model_id != index.model_id:
        raise ValueError(f"the query encoder is {model_id}, the index holds {index.model_id}; their vectors must not meet")
