"""What Feast's offline store knew of pins at given times: the values, and the event time of the row they come from.

Feast's own point-in-time join gives the values; each is then found again in its view's history by event time, so that the
dates are those of the values used. Feast is read here and nowhere else in training; the feature repository is given as a
folder, nothing of it is imported.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml
from feast import FeatureStore, FeatureView, RepoConfig
from feast.errors import FeastError
from feast.infra.offline_stores.offline_utils import get_offline_store_from_config
from tqdm import tqdm

from pins.features import VIEWS, PinFeatures, pin_features
from training.data import DataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[str, int]
"""A pin and the latest event time (epoch microseconds) that its features may have."""


@dataclass(frozen=True, slots=True)
class Version:
    """One row of a view's history: event time, time of writing (the event time where the source keeps none), values."""

    event_us: int
    written_us: int
    values: Mapping[str, Any]


def open_repository(folder: Path) -> FeatureStore:
    """The feature repository, without its online store. Raises DataError."""
    try:
        described = yaml.safe_load(os.path.expandvars((folder / "feature_store.yaml").read_text(encoding="utf-8")))
        store = FeatureStore(repo_path=str(folder), config=RepoConfig(**described | {"online_store": None, "repo_path": folder}))
        known = {view.name for view in store.list_feature_views()}
    except (OSError, FeastError, yaml.YAMLError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is no feature repository: {error}; give the folder with feature_store.yaml, such as EVERPIN_HOME/feast") from error
    missing = VIEWS.keys() - known
    if missing:
        raise DataError(f"the registry of {folder} has no view {', '.join(sorted(missing))}; start a worker on it once, or run feast apply")
    return store


def as_of(store: FeatureStore, view: FeatureView, keys: Sequence[Key]) -> dict[Key, Version]:
    """The newest version of each pin that is not later than its key. Empty where the view has no history."""
    try:
        there = {name for name, _ in view.batch_source.get_table_column_names_and_types(store.config)}
        columns = [name for name in VIEWS[view.name] if name in there]  # a history from before a column was added lacks it
        given = _given_by_feast(store, view.name, columns, keys)
        versions = _history(store, view, columns, {pin_id for pin_id, _ in keys})
    except FileNotFoundError:
        tqdm.write(f"view {view.name} has no history: {view.batch_source.path} does not exist")
        return {}
    except (FeastError, OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise DataError(f"the history of view {view.name}, {view.batch_source.path}, cannot be read: {error!r}") from error
    ttl_us = int(view.ttl.total_seconds() * 1e6) if view.ttl else 0
    found = {}
    for key in keys:
        version = _dated(versions.get(key[0], []), key, ttl_us, given.get(key, {}), view.name)
        if version:
            found[key] = version
    return found


def _dated(versions: Sequence[Version], key: Key, ttl_us: int, given: Mapping[str, Any], view: str) -> Version | None:
    """What Feast gave, with its dates. Raises DataError where no row of that time holds these values."""
    end = bisect_right(versions, key[1], key=lambda version: version.event_us)
    newest = versions[end - 1] if end and (not ttl_us or versions[end - 1].event_us >= key[1] - ttl_us) else None
    same_time = [version for version in versions[:end] if newest and version.event_us == newest.event_us]
    read = pin_features("", given, {})
    if read not in [pin_features("", version.values, {}) for version in same_time] and (newest or read != PinFeatures("")):
        dated = f"the newest allowed is of {iso(newest.event_us)}" if newest else "none is so early"
        raise DataError(
            f"Feast joined a row of view {view} to pin {key[0]!r} that its history does not hold as of {iso(key[1])} ({dated}); was it rewritten meanwhile?"
        )
    return Version(newest.event_us, newest.written_us, given) if newest else None


def _given_by_feast(store: FeatureStore, view: str, columns: Sequence[str], keys: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """Feast's point-in-time join of one view. One view at a time: a pin whose rows of one view are all later drops out of Feast's answer."""
    entities = pd.DataFrame({"pin_id": [pin_id for pin_id, _ in keys], "event_timestamp": pd.to_datetime([limit for _, limit in keys], unit="us", utc=True)})
    frame = store.get_historical_features(entity_df=entities, features=[f"{view}:{name}" for name in columns]).to_df()
    places = zip(frame["pin_id"], _microseconds(frame["event_timestamp"]), strict=True)
    return dict(zip(places, _values(frame, columns), strict=True))


def _history(store: FeatureStore, view: FeatureView, columns: Sequence[str], pins: set[str]) -> dict[str, list[Version]]:
    """Every row of these pins, oldest first; of one event time the one written last comes last."""
    source = view.batch_source
    read = get_offline_store_from_config(store.config.offline_store).pull_all_from_table_or_query
    frame = read(store.config, source, ["pin_id"], list(columns), source.timestamp_field, source.created_timestamp_column or None).to_df()
    frame = frame[frame["pin_id"].isin(pins)]
    if undated := int(frame[source.timestamp_field].isna().sum()):
        raise ValueError(f"{undated} rows have no {source.timestamp_field}: nobody can say when they became true")
    event = _microseconds(frame[source.timestamp_field])
    written = _microseconds(frame[source.created_timestamp_column]) if source.created_timestamp_column else event
    versions: dict[str, list[Version]] = {}
    for pin_id, event_us, written_us, values in zip(frame["pin_id"], event, written, _values(frame, columns), strict=True):
        versions.setdefault(pin_id, []).append(Version(event_us, max(event_us, written_us), values))
    for of_pin in versions.values():
        of_pin.sort(key=lambda version: (version.event_us, version.written_us))
    return versions


def _microseconds(times: pd.Series) -> list[int]:
    """Epoch microseconds; a missing time is 0."""
    return [int(value) for value in pd.to_datetime(times, utc=True).dt.as_unit("us").fillna(EPOCH).astype("int64")]


def _values(frame: pd.DataFrame, columns: Sequence[str]) -> Iterable[dict[str, Any]]:
    plain = ([_plain(value) for value in frame[name]] for name in columns)
    return (dict(zip(columns, values, strict=True)) for values in zip(*plain, strict=True))


def _plain(value: Any) -> Any:
    """pandas' value as Python's: arrays are lists, in which a missing string is empty; NaN is None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return ["" if one is None else one for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def iso(at_us: int) -> str:
    """Epoch microseconds as ISO 8601, to the second."""
    return (EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%SZ")
