from __future__ import annotations

from typing import Any

import pytest

from pins.features import VIEWS, PinFeatures, pin_features
from tests.unit.samples import T0


def test_flat_columns_become_one_pin() -> None:
    values: dict[str, Any] = {
        "title": "Soup", "description": "d", "link_title": "lt", "link_description": "ld", "link_url": "lu", "image_url": "iu", "category": "food",
        "lang": "en", "created_at_us": T0, "caption": "c", "caption_model": "cm",
        "board_titles": ["b", "a", "b"], "engaged_queries": ["soup", "stew"], "engaged_counts": [2, 0.5],
        "save_count": 3, "like_count": 4, "deleted": 1,
    }  # fmt: skip
    assert {name for columns in VIEWS.values() for name in columns} == values.keys()
    assert pin_features("p", values, {"pin_content": T0}) == PinFeatures(
        "p", "Soup", "d", "c", ("b", "a", "b"), (("soup", 2.0), ("stew", 0.5)), "lt", "ld", "lu", "iu", "food", "en", T0, 3, 4, True, {"pin_content": T0}, "cm",
    )  # fmt: skip


@pytest.mark.parametrize("values", [{}, {name: None for columns in VIEWS.values() for name in columns}], ids=["missing", "null"])
def test_missing_and_null_columns_become_empty_ones(values: dict[str, Any]) -> None:
    assert pin_features("p", values, {}) == PinFeatures("p")


def test_queries_without_a_count_count_one_and_counts_without_a_query_nothing() -> None:
    assert pin_features("p", {"engaged_queries": ["a", "b"], "engaged_counts": [3]}, {}).engaged_queries == (("a", 3.0), ("b", 1.0))
    assert pin_features("p", {"engaged_queries": ["a"], "engaged_counts": [3, 4]}, {}).engaged_queries == (("a", 3.0),)


def test_a_status_of_zero_is_a_living_pin() -> None:
    assert not pin_features("p", {"deleted": 0}, {}).deleted
