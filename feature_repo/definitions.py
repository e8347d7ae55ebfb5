"""Entities, views and services of the feature store. One view per producer; the columns are those of `pins.features`."""

from __future__ import annotations

from collections.abc import Mapping

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, FeastType, Float64, Int64, String

from pins.features import USER_COLUMNS, USER_VIEW, VIEWS, Column

DTYPES: Mapping[str, FeastType] = {
    "String": String,
    "Int64": Int64,
    "Array(String)": Array(String),
    "Array(Float64)": Array(Float64),
    "Array(Int64)": Array(Int64),
}

pin = Entity(name="pin", join_keys=["pin_id"], value_type=ValueType.STRING, description="A saved idea: what Everpin embeds")
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="A person whose home feed is drawn from their actions")


def view(name: str, columns: Mapping[str, Column], entity: Entity) -> FeatureView:
    """A view that its producer pushes whole rows to; the parquet file beside it keeps the history for training."""
    history = FileSource(name=f"{name}_history", path=f"offline/{name}.parquet", timestamp_field="event_timestamp", created_timestamp_column="created")
    return FeatureView(
        name=name,
        entities=[entity],
        schema=[Field(name=entity.join_key, dtype=String), *(Field(name=column, dtype=DTYPES[kind.dtype]) for column, kind in columns.items())],
        source=PushSource(name=f"{name}_push", batch_source=history),
        online=True,
    )


pin_views = [view(name, columns, pin) for name, columns in VIEWS.items()]
user_history = view(USER_VIEW, USER_COLUMNS, user)

pin_text_v1 = FeatureService(name="pin_text_v1", features=list(pin_views), description="Everything a pin's text and payload are made of")
user_history_v1 = FeatureService(name="user_history_v1", features=[user_history], description="A user's saves and clicks, for the home feed")

ALL = [pin, user, *pin_views, user_history, pin_text_v1, user_history_v1]
