"""Events, pins and records that several unit tests start from."""

from __future__ import annotations

from typing import Any

from pins.changes import IndexedPin, fingerprint, surface_fields
from pins.events import PinUpdated
from pins.features import VIEWS, PinFeatures
from pins.text import render

T0 = 1_764_000_000_000_000
"""A moment in epoch microseconds."""


def row(view: str, **values: Any) -> dict[str, Any]:
    """A whole row of a view, as an event carries it: what is not named is empty."""
    empty: dict[str, Any] = {name: [] if column.dtype.startswith("Array") else None for name, column in VIEWS[view].items()}
    assert values.keys() <= empty.keys()
    return empty | values


def caption(pin_id: str, words: str | None, at: int = T0) -> PinUpdated:
    """A pin got a caption: the shortest event that changes a pin's text."""
    return PinUpdated(pin_id, at, {"pin_caption": {"caption": words}})


def content(pin_id: str, at: int = T0, **values: Any) -> PinUpdated:
    """A pin got a title, a category or the like."""
    return PinUpdated(pin_id, at, {"pin_content": row("pin_content", **values)})


def record(pin: PinFeatures, **changes: Any) -> IndexedPin:
    """The record of a pin that was indexed just as it is."""
    text = render(pin)
    now = fingerprint(text.text)
    made: dict[str, Any] = {
        "v": T0,
        "dead": False,
        "embedded": bool(text),
        "model_id": "fake-v1",
        "text": text.text,
        "fingerprint": now,
        "seen": now,
        "fields": surface_fields(pin, text),
        "reason": "new",
        "as_of": pin.as_of,
    }
    return IndexedPin(pin.pin_id, **made | changes)
