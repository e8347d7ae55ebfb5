"""Related pins: the neighbours of a pin."""

from __future__ import annotations

from dataclasses import replace

from pins.errors import PinNotFound
from pins.ports import PinIndex, Where
from pins.retrieval.results import Result, fold, result


def related_pins(pin_id: str, index: PinIndex, limit: int = 10, where: Where = Where()) -> list[Result]:
    """Pins near a pin, without the pin itself and without near-duplicates. Raises PinNotFound when it has no vector."""
    vector = index.vectors([pin_id]).get(pin_id)
    if vector is None:
        raise PinNotFound(f"pin {pin_id!r} has no vector in {index.model_id}: unknown, deleted, or without text; see `everpin explain {pin_id}`")
    hits = index.search(vector, 2 * limit + 1, replace(where, without=where.without | {pin_id}))
    return [result(hit, index.model_id, f"like {pin_id}") for hit in fold(hits, [vector])[:limit]]
