"""FeastFeatures: batched, time-stamped reads and ordered writes. The one place that speaks to Feast.

One FeatureStore per process: Feast's feature resolution cache is a module global, and two stores used in turn clear it at
each switch. After the first read everything Feast built is frozen out of the cyclic collector, which would otherwise walk
its protobufs in the middle of a batch.
"""

from __future__ import annotations

import fcntl
import gc
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import feature_repo  # noqa: F401  (before feast: it says why)

# isort: split
import redis.exceptions
from feast import FeatureStore, FeatureView
from feast.errors import FeastError
from feast.infra.online_stores.sqlite import SqliteOnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from feature_repo import definitions
from pins.actions import HistoryWrite, StoredHistory, usable
from pins.errors import Unavailable
from pins.features import USER_COLUMNS, USER_VIEW, VIEWS, Column, FeatureRow, PinFeatures, UserAction, pin_features
from streams.online_store import OrderedRedisOnlineStore, OrderedSqliteOnlineStore

T = TypeVar("T")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOCK = "opening.lock"
DEFAULT_YAML = Path(definitions.__file__).with_name("feature_store.yaml")


class FeastFeatures:
    """A FeatureSource on Feast. Not thread-safe: use it from one thread, as the worker does."""

    def __init__(self, home: Path, yaml: Path | None = None) -> None:
        """Open (and, the first time, create) the feature repository under `home`, as `yaml` describes it."""
        self._where = f"the feature store under {home}"
        home.mkdir(parents=True, exist_ok=True)
        with (home / LOCK).open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # Feast writes its registry in place: whoever reads it meanwhile finds half of it
            self._store = self._call(lambda: _open(home, yaml or DEFAULT_YAML))
            self._pin_service = self._call(lambda: self._store.get_feature_service("pin_text_v1"))
        self._views = {view.name: view for view in [*definitions.pin_views, definitions.user_history]}
        self._pin_columns = [name for columns in VIEWS.values() for name in columns]
        self.of(["warm-up"])
        gc.collect()
        gc.freeze()

    def write(self, rows: Sequence[FeatureRow]) -> None:
        by_view: dict[str, list[FeatureRow]] = defaultdict(list)
        for row in rows:
            by_view[row.view].append(row)
        for view, some in by_view.items():
            batch = [_proto_row(row, USER_COLUMNS if view == USER_VIEW else VIEWS[view]) for row in _newest(some)]
            self._call(lambda view=view, batch=batch: self._provider().online_write_batch(self._store.config, self._views[view], batch, None))  # type: ignore[misc]

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        if not pin_ids:
            return {}
        found: dict[str, PinFeatures] = {}
        columns, times = self._read(self._pin_service, "pin_id", list(pin_ids))
        for row, pin_id in enumerate(pin_ids):
            as_of = {view: times[next(iter(names))][row] for view, names in VIEWS.items() if times[next(iter(names))][row]}
            if as_of:
                found[pin_id] = pin_features(pin_id, {name: columns[name][row] for name in self._pin_columns}, as_of)
        return found

    def pin_ids(self, batch: int = 1000, view: str = "") -> Iterator[Sequence[str]]:
        yield from self._entities([self._views[name] for name in ([view] if view else VIEWS)], batch)

    def _entities(self, views: Sequence[FeatureView], batch: int) -> Iterator[Sequence[str]]:
        pages = self._call(lambda: self._ordered_store().entities(self._store.config, views, batch))
        while (page := self._call(lambda: next(pages, None))) is not None:
            yield page

    def present(self, pin_ids: Sequence[str]) -> set[str]:
        keys = [EntityKey(join_keys=["pin_id"], entity_values=[Value(string_val=pin_id)]) for pin_id in pin_ids]
        there = self._call(lambda: self._ordered_store().present(self._store.config, [self._views[name] for name in VIEWS], keys))
        return {pin_id for pin_id, found in zip(pin_ids, there, strict=True) if found}

    def scrub(self) -> bool:
        return self._call(lambda: self._ordered_store().scrub(self._store.config))

    def history(self, user_id: str) -> Sequence[UserAction]:
        return usable(self.histories([user_id])[user_id].actions)

    def histories(self, user_ids: Sequence[str]) -> Mapping[str, StoredHistory]:
        if not user_ids:
            return {}
        columns, times = self._read([f"{USER_VIEW}:{name}" for name in USER_COLUMNS], "user_id", list(user_ids))
        found: dict[str, StoredHistory] = {}
        for row, user_id in enumerate(user_ids):
            lists = zip(*(columns[name][row] or [] for name in USER_COLUMNS), strict=True)
            found[user_id] = StoredHistory(tuple(UserAction(*action) for action in lists), times["pin_ids"][row] or None)
        return found

    def replace(self, writes: Sequence[HistoryWrite]) -> set[str]:
        rows = [(_proto_row(write.row, USER_COLUMNS), write.expected) for write in writes]
        landed = self._call(lambda: self._ordered_store().replace(self._store.config, self._views[USER_VIEW], rows))
        return {write.row.key for write, done in zip(writes, landed, strict=True) if done}

    def user_ids(self, batch: int = 1000) -> Iterator[Sequence[str]]:
        """Every user with a history, in batches and bounded memory. A store may repeat a user. Raises Unavailable."""
        yield from self._entities([self._views[USER_VIEW]], batch)

    def close(self) -> None:
        """Release the online store's connection."""
        store = self._provider().online_store
        if isinstance(store, SqliteOnlineStore) and store._conn:
            store._conn.close()
            store._conn = None

    def _provider(self) -> Any:
        return self._store._get_provider()

    def _ordered_store(self) -> OrderedSqliteOnlineStore | OrderedRedisOnlineStore:
        store = self._provider().online_store
        if not isinstance(store, (OrderedSqliteOnlineStore, OrderedRedisOnlineStore)):
            raise Unavailable(f"{self._where} is a {type(store).__name__}, which cannot list its pins; use a store of streams.online_store")
        return store

    def _read(self, features: Any, join_key: str, keys: list[str]) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
        """Values and event times (epoch microseconds, 0 where there is no row) by column, in the order of the keys."""
        response = self._call(lambda: self._store.get_online_features(features, [{join_key: key} for key in keys]))
        names = response.proto.metadata.feature_names.val
        times = {
            name: [stamp.seconds * 1_000_000 + stamp.nanos // 1000 for stamp in result.event_timestamps]
            for name, result in zip(names, response.proto.results, strict=True)
        }
        return response.to_dict(), times

    def _call(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except (FeastError, sqlite3.Error, redis.exceptions.RedisError, OSError) as error:
            raise Unavailable(f"{self._where} does not answer: {error}; check EVERPIN_FEAST_YAML and the store it names") from error


def _open(home: Path, yaml: Path) -> FeatureStore:
    shutil.copyfile(yaml, home / "feature_store.yaml")  # so that Feast's own tools work in that folder
    store = FeatureStore(repo_path=str(home), fs_yaml_file=home / "feature_store.yaml")
    store.apply(definitions.ALL)  # type: ignore[arg-type]  # feast's own list type is invariant
    return store


def _newest(rows: Sequence[FeatureRow]) -> list[FeatureRow]:
    """One row per key, so that a store that judges a batch against the state before it cannot let an older one win."""
    best: dict[str, FeatureRow] = {}
    for row in rows:
        if row.key not in best or row.event_time_us >= best[row.key].event_time_us:
            best[row.key] = row
    return list(best.values())


def _proto_row(row: FeatureRow, columns: Mapping[str, Column]) -> tuple[EntityKey, dict[str, Value], datetime, None]:
    entity = "user_id" if row.view == USER_VIEW else "pin_id"
    key = EntityKey(join_keys=[entity], entity_values=[Value(string_val=row.key)])
    values = {name: _value(column, row.values.get(name) if column.optional else row.values[name]) for name, column in columns.items()}
    return key, values, EPOCH + timedelta(microseconds=row.event_time_us), None


def _value(column: Column, value: Any) -> Value:
    """A column's value as Feast's protobuf; lone surrogates, which have no UTF-8 form, are dropped from strings."""
    proto = Value()
    if value is None:
        return proto
    match column.dtype:
        case "String":
            proto.string_val = _utf8(value)
        case "Int64":
            proto.int64_val = value
        case "Array(String)":
            proto.string_list_val.val.extend(map(_utf8, value))
        case "Array(Float64)":
            proto.double_list_val.val.extend(map(float, value))
        case "Array(Int64)":
            proto.int64_list_val.val.extend(value)
    return proto


def _utf8(text: str) -> str:
    return text.encode("utf-8", "ignore").decode()
