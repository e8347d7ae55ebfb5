"""What the embedded engine is told: points, filters and searches in its own classes. Plain functions; the calls are in `index.edge`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qdrant_edge as edge

from index import points
from pins.ports import Ask, PointWrite, Terms, Vector, Where


def point(write: PointWrite, kept: Vector | None, mark: str) -> Any:
    """The point of a write. `kept`: the stored vector, for a write that keeps it."""
    vector = kept if write.keep_vector else write.vector
    stored = points.payload(write.record, mark) | {"embedded": int(vector is not None)}
    vectors: dict[str, Any] = {} if vector is None else {points.VECTOR: vector.tolist()}
    return edge.Point(id=points.point_uuid(write.record.pin_id), vector=vectors | named_terms(points.terms(stored)), payload=stored)


def named_terms(terms: Terms) -> dict[str, Any]:
    """Terms as the sparse vector of a point; nothing where there is no term."""
    return {points.TERMS: edge.SparseVector(list(terms.ids), list(terms.weights))} if terms.ids else {}


def bare(ask: Ask) -> Any:
    """A search for the ids and scores only."""
    by = points.goes_by(ask)
    if isinstance(by, Terms):
        query = edge.Query.Nearest(edge.SparseVector(list(by.ids), list(by.weights)), using=points.TERMS)
    else:
        query = edge.Query.Nearest(by.tolist(), using=points.VECTOR)
    return edge.QueryRequest(query=query, limit=ask.limit, filter=matching(ask.where), with_payload=False, with_vector=False)


def unchanged_since_read(writes: Sequence[PointWrite]) -> Any:
    """Matches exactly the stored points that are still the ones each write was decided on; new ids are always inserted."""
    clauses: list[Any] = [edge.FieldCondition(key="v", range=edge.RangeFloat(lt=0))]  # matches nothing, so the filter is never empty
    for write in writes:
        mine = edge.HasIdCondition({points.point_uuid(write.record.pin_id)})
        if write.expected_v:
            still = edge.RangeFloat(gte=write.expected_v, lte=write.expected_v)
            clauses.append(edge.Filter(must=[mine, edge.FieldCondition(key="v", range=still)]))
        elif write.expected_v == 0:  # a damaged record without a version
            clauses.append(edge.Filter(must=[mine], must_not=[edge.FieldCondition(key="v", range=edge.RangeFloat(gte=1))]))
    return edge.Filter(should=clauses)


def matching(where: Where) -> Any:
    """The live pins for which every filter holds."""
    must = [has(f"fields.{key}", value) for key, value in points.equalities(where)]
    if where.created_since_us is not None:
        must.append(edge.FieldCondition(key="fields.created_at_us", range=edge.RangeFloat(gte=where.created_since_us)))
    without = [edge.HasIdCondition({points.point_uuid(pin_id) for pin_id in where.without})] if where.without else []
    return edge.Filter(must=must, must_not=[has("dead", 1), *without])


def has(key: str, value: str | int) -> Any:
    """One field holds this value."""
    return edge.FieldCondition(key=key, match=edge.MatchValue(value))


def vector_of(stored: Any) -> Vector | None:
    """The dense vector of a stored point, float32, or None."""
    values = stored.get(points.VECTOR) if isinstance(stored, dict) else None
    return None if values is None else points.float32(values)
