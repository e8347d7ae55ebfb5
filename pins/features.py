"""What a pin and a user are made of: the columns of every feature view, and the values read back from them.

One view per producer: whoever writes a view replaces its whole row, and rows of one view are ordered by event time. The
same table drives event validation, the Feast declarations and the importers, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a view: what it accepts, in words and as a check; `dtype` names the Feast type.

    `optional`: a row may leave it out, which means empty. For columns that came after the first rows of their view.
    """

    dtype: str
    wanted: str
    accepts: Callable[[object], bool]
    optional: bool = False


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64_MAX


def _is_number(value: object) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_list(of: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(of, value))


TEXT = Column("String", "a string or null", lambda value: value is None or isinstance(value, str))
LATER_TEXT = replace(TEXT, optional=True)
COUNT = Column("Int64", "an integer or null", lambda value: value is None or _is_int(value))
TEXTS = Column("Array(String)", "a list of strings", _is_list(lambda value: isinstance(value, str)))
NUMBERS = Column("Array(Float64)", "a list of finite numbers", _is_list(_is_number))
TIMES = Column("Array(Int64)", "a list of epoch microseconds", _is_list(_is_int))

VIEWS: Mapping[str, Mapping[str, Column]] = {
    "pin_content": {
        "title": TEXT,
        "description": TEXT,
        "link_title": TEXT,
        "link_description": TEXT,
        "link_url": TEXT,
        "image_url": TEXT,
        "category": TEXT,
        "lang": TEXT,
        "created_at_us": COUNT,
    },
    "pin_caption": {"caption": TEXT, "caption_model": LATER_TEXT},
    "pin_boards": {"board_titles": TEXTS},
    "pin_engagement": {"engaged_queries": TEXTS, "engaged_counts": NUMBERS, "save_count": COUNT, "like_count": COUNT},
    "pin_status": {"deleted": COUNT},
}
"""Views of the entity `pin`, in the order in which they are read."""

USER_VIEW = "user_history"
USER_COLUMNS: Mapping[str, Column] = {"pin_ids": TEXTS, "actions": TEXTS, "action_times_us": TIMES}
"""The one view of the entity `user`: three lists of equal length, oldest action first."""


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One row to write: the columns of one view of one entity, valid from `event_time_us` (epoch microseconds)."""

    view: str
    key: str
    event_time_us: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PinFeatures:
    """Everything the feature store knows of one pin at one moment.

    `engaged_queries` are (query, engagement count) pairs; `as_of` is the event time of each view's row in epoch
    microseconds, absent where the view has no row. `caption_model` names the model that wrote the caption, empty for a person's.
    """

    pin_id: str
    title: str = ""
    description: str = ""
    caption: str = ""
    board_titles: tuple[str, ...] = ()
    engaged_queries: tuple[tuple[str, float], ...] = ()
    link_title: str = ""
    link_description: str = ""
    link_url: str = ""
    image_url: str = ""
    category: str = ""
    lang: str = ""
    created_at_us: int = 0
    save_count: int = 0
    like_count: int = 0
    deleted: bool = False
    as_of: Mapping[str, int] = field(default_factory=dict)
    caption_model: str = ""


def pin_features(pin_id: str, values: Mapping[str, Any], as_of: Mapping[str, int]) -> PinFeatures:
    """Read the flat columns of all views into one value; missing and null columns become empty ones."""
    text = {name: str(values.get(name) or "") for view in VIEWS.values() for name, column in view.items() if column.dtype == TEXT.dtype}
    queries = list(values.get("engaged_queries") or ())
    counts = list(values.get("engaged_counts") or ())
    counts += [1.0] * (len(queries) - len(counts))
    return PinFeatures(
        pin_id,
        **text,
        board_titles=tuple(values.get("board_titles") or ()),
        engaged_queries=tuple(zip(queries, map(float, counts), strict=False)),
        created_at_us=int(values.get("created_at_us") or 0),
        save_count=int(values.get("save_count") or 0),
        like_count=int(values.get("like_count") or 0),
        deleted=bool(values.get("deleted")),
        as_of=dict(as_of),
    )


@dataclass(frozen=True, slots=True)
class UserAction:
    """A user saved or clicked a pin at `time_us` (epoch microseconds)."""

    pin_id: str
    action: str
    time_us: int
