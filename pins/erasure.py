"""What is left of a deleted pin in the feature store after a sweep: the fact that it is deleted, and nothing it ever said."""

from __future__ import annotations

from dataclasses import replace

from pins.features import VIEWS, Column, FeatureRow, PinFeatures

STATUS_VIEW = "pin_status"


def has_content(pin: PinFeatures) -> bool:
    """Whether any view but the status still says something of the pin."""
    return replace(pin, deleted=False, as_of={}) != PinFeatures(pin.pin_id)


def blank_rows(pin: PinFeatures, at_us: int) -> list[FeatureRow]:
    """Empty rows that replace all it said.

    As rows of `at_us` (epoch microseconds), or of just after the stored ones, they outrank every older event still to come.
    """
    return [
        FeatureRow(view, pin.pin_id, max(at_us, pin.as_of.get(view, 0) + 1), {name: _nothing(column) for name, column in columns.items()})
        for view, columns in VIEWS.items()
        if view != STATUS_VIEW
    ]


def _nothing(column: Column) -> list[object] | None:
    return [] if column.dtype.startswith("Array") else None
