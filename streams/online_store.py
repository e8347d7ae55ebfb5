"""Feast online stores that keep order: an older row never replaces a newer one, whoever writes it and when.

Feast's own SQLite store keeps whole seconds and lets the last writer win; its Redis store compares, but reads first and
writes later, so two writers can still undo each other. Both are replaced here by one atomic statement per row. Rows with
equal event times: the later write wins.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import feature_repo  # noqa: F401  (before feast: it says why)

# isort: split
from feast import Entity, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key, serialize_entity_key_prefix
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig, _quote_id, _table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Map, Value
from google.protobuf.timestamp_pb2 import Timestamp

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEYS_PER_READ = 30_000
"""SQLite binds at most 32,766 variables in one statement."""
SCRUB_PATIENCE_S = 10.0
"""How long a scrub tries to empty SQLite's log while other processes are in the middle of a read or a write."""


def microseconds(time: datetime) -> int:
    """Epoch microseconds; a naive time is UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


class OrderedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """`path`: the SQLite file, relative to the feature repository."""

    type: Literal["streams.online_store.OrderedSqliteOnlineStore"] = "streams.online_store.OrderedSqliteOnlineStore"  # type: ignore[assignment]


class OrderedSqliteOnlineStore(SqliteOnlineStore):
    """One row per entity and view: the event time in microseconds and all values as one protobuf map."""

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if not self._conn:
            path = Path(self._get_db_path(config))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._conn = sqlite3.connect(path, timeout=30, check_same_thread=False)
            self._conn.execute("PRAGMA journal_mode=WAL")
            self._conn.execute("PRAGMA synchronous=NORMAL")
            self._conn.execute("PRAGMA secure_delete=ON")  # what a row replaces is overwritten with zeros, not only unlinked
        connection: sqlite3.Connection = self._conn
        return connection

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        with self._get_conn(config) as connection:
            for view in tables_to_keep:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {_table(config, view)} "
                    "(entity_key BLOB PRIMARY KEY, event_us INTEGER NOT NULL, vals BLOB NOT NULL) WITHOUT ROWID"
                )
            for view in tables_to_delete:
                connection.execute(f"DROP TABLE IF EXISTS {_table(config, view)}")

    def online_write_batch(self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None) -> None:
        rows = list(map(_columns, data))
        with self._get_conn(config) as connection:
            connection.executemany(
                f"INSERT INTO {_table(config, table)} VALUES (?, ?, ?) ON CONFLICT(entity_key) DO UPDATE "
                "SET event_us = excluded.event_us, vals = excluded.vals WHERE excluded.event_us >= event_us",
                rows,
            )
        if progress:
            progress(len(rows))

    def replace(self, config: RepoConfig, table: FeatureView, rows: Sequence[tuple[Row, int | None]]) -> list[bool]:
        """Per row whether it landed: it does only where the stored event time is the expected one (None: no row is stored)."""
        landed = []
        with self._get_conn(config) as connection:
            for row, expected_us in rows:
                key, event_us, vals = _columns(row)
                if expected_us is None:
                    insert = f"INSERT INTO {_table(config, table)} VALUES (?, ?, ?) ON CONFLICT(entity_key) DO NOTHING"
                    done = connection.execute(insert, (key, event_us, vals))
                else:
                    update = f"UPDATE {_table(config, table)} SET event_us = ?, vals = ? WHERE entity_key = ? AND event_us = ?"
                    done = connection.execute(update, (event_us, vals, key, expected_us))
                landed.append(done.rowcount == 1)
        return landed

    def online_read(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey], requested_features: list[str] | None = None
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        keys = [serialize_entity_key(key, entity_key_serialization_version=3) for key in entity_keys]
        found: dict[bytes, tuple[datetime, dict[str, Value]]] = {}
        for start in range(0, len(keys), KEYS_PER_READ):
            part = keys[start : start + KEYS_PER_READ]
            marks = ",".join("?" * len(part))
            for key, event_us, vals in self._get_conn(config).execute(
                f"SELECT entity_key, event_us, vals FROM {_table(config, table)} WHERE entity_key IN ({marks})", part
            ):
                found[key] = EPOCH + timedelta(microseconds=event_us), dict(Map.FromString(vals).val)
        return [found.get(key, (None, None)) for key in keys]

    def entities(self, config: RepoConfig, views: Sequence[FeatureView], batch: int) -> Iterator[list[str]]:
        """Every entity with a row in any of these views, each once, in the order of the keys; `batch` of them in memory."""
        after = b""
        page = f"SELECT * FROM (SELECT entity_key FROM {{}} WHERE entity_key > :after ORDER BY entity_key LIMIT {batch})"
        union = " UNION ".join(page.format(_table(config, view)) for view in views)
        while True:
            keys = [key for (key,) in self._get_conn(config).execute(f"{union} ORDER BY entity_key LIMIT {batch}", {"after": after})]
            if not keys:
                return
            yield [_entity(key) for key in keys]
            after = keys[-1]

    def present(self, config: RepoConfig, views: Sequence[FeatureView], entity_keys: Sequence[EntityKey]) -> list[bool]:
        """Whether each entity has a row in any of these views; reads no values."""
        keys = [serialize_entity_key(key, entity_key_serialization_version=3) for key in entity_keys]
        found: set[bytes] = set()
        for view in views:
            missing = [key for key in keys if key not in found]
            for start in range(0, len(missing), KEYS_PER_READ):
                part = missing[start : start + KEYS_PER_READ]
                there = f"SELECT entity_key FROM {_table(config, view)} WHERE entity_key IN ({','.join('?' * len(part))})"
                found |= {key for (key,) in self._get_conn(config).execute(there, part)}
        return [key in found for key in keys]

    def scrub(self, config: RepoConfig) -> bool:
        """Rewrite the file from its rows and empty the log, so that no overwritten row stays. False: another process held the store.

        secure_delete alone leaves copies behind where pages were split and merged (measured: 2 of 800 texts). The rewrite
        needs the file's size again on the disk, and writers wait meanwhile.
        """
        connection, deadline = self._get_conn(config), time.monotonic() + SCRUB_PATIENCE_S
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            return False
        while True:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy or time.monotonic() > deadline:
                return not busy
            time.sleep(0.05)


def _columns(row: Row) -> tuple[bytes, int, bytes]:
    """A row as SQLite keeps it: entity key, event time in microseconds, all values as one protobuf map."""
    key, values, event_time, _ = row
    stored = Map()
    for name, value in values.items():
        stored.val[name].CopyFrom(value)
    return serialize_entity_key(key, entity_key_serialization_version=3), microseconds(event_time), stored.SerializeToString()


def _entity(key: bytes) -> str:
    value: str = deserialize_entity_key(key, entity_key_serialization_version=3).entity_values[0].string_val
    return value


def _is_of_project(key: bytes, project: bytes, prefix: int) -> bool:
    """Whether a Redis key, whose entity's name takes `prefix` bytes, is this project's and not one's whose name only ends the same."""
    entity = key.removesuffix(project)
    return len(entity) == prefix + 8 + int.from_bytes(entity[prefix + 4 : prefix + 8], "little")


def _table(config: RepoConfig, view: FeatureView) -> str:
    name: str = _quote_id(_table_id(config.project, view, False))
    return name


class OrderedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """`connection_string`: host:port of the server."""

    type: Literal["streams.online_store.OrderedRedisOnlineStore"] = "streams.online_store.OrderedRedisOnlineStore"  # type: ignore[assignment]


WRITE_IF_NEWER = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and tonumber(stored) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2], unpack(ARGV, 3))
return 1
"""
"""One row, atomically. Microseconds since the epoch stay below 2^53, so Lua's doubles compare them exactly."""


WRITE_IF_UNCHANGED = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], unpack(ARGV, 3))
return 1
"""
"""One row, atomically, where the stored event time is the expected one (empty: no row is stored)."""


class OrderedRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis layout, which its own reads understand, plus the event time in microseconds beside each view."""

    def online_write_batch(self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None) -> None:
        client = self._get_client(config.online_store)
        digest = client.script_load(WRITE_IF_NEWER)
        with client.pipeline(transaction=False) as pipe:
            for row in data:
                pipe.evalsha(digest, 1, _key(config, row[0]), f"_us:{table.name}", *_fields(table, row))
            pipe.execute()
        if progress:
            progress(len(data))

    def replace(self, config: RepoConfig, table: FeatureView, rows: Sequence[tuple[Row, int | None]]) -> list[bool]:
        """Per row whether it landed: it does only where the stored event time is the expected one (None: no row is stored)."""
        client = self._get_client(config.online_store)
        digest = client.script_load(WRITE_IF_UNCHANGED)
        with client.pipeline(transaction=False) as pipe:
            for row, expected_us in rows:
                expected = "" if expected_us is None else expected_us
                pipe.evalsha(digest, 1, _key(config, row[0]), f"_us:{table.name}", expected, *_fields(table, row))
            return list(map(bool, pipe.execute()))

    def entities(self, config: RepoConfig, views: Sequence[FeatureView], batch: int) -> Iterator[list[str]]:
        """Every entity with a row in any of these views. SCAN sees all that are there throughout, and may show one twice."""
        client, project = self._get_client(config.online_store), config.project.encode()
        prefix = serialize_entity_key_prefix(views[0].join_keys)
        cursor = 0
        while True:
            cursor, found = client.scan(cursor, match=prefix + b"*" + project, count=batch)
            keys = [key for key in found if _is_of_project(key, project, len(prefix))]
            with client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.hmget(key, [f"_ts:{view.name}" for view in views])
                stamps = pipe.execute()
            yield [_entity(key.removesuffix(project)) for key, of_views in zip(keys, stamps, strict=True) if any(of_views)]
            if not cursor:
                return

    def present(self, config: RepoConfig, views: Sequence[FeatureView], entity_keys: Sequence[EntityKey]) -> list[bool]:
        """Whether each entity has a row in any of these views."""
        with self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for key in entity_keys:
                pipe.hmget(_key(config, key), [f"_ts:{view.name}" for view in views])
            return [any(stamps) for stamps in pipe.execute()]

    def scrub(self, config: RepoConfig) -> bool:
        """Nothing to do: memory is overwritten at once. What Redis itself saves to disk follows its own schedule."""
        return True


def _key(config: RepoConfig, key: EntityKey) -> bytes:
    redis_key: bytes = _redis_key(config.project, key, entity_key_serialization_version=config.entity_key_serialization_version)
    return redis_key


def _fields(table: FeatureView, row: Row) -> list[Any]:
    """The event time in microseconds, then Feast's own fields of a view: its timestamp and its values, each after its name."""
    _, values, event_time, _ = row
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds(event_time))
    fields: list[Any] = [microseconds(event_time), f"_ts:{table.name}", stamp.SerializeToString()]
    for name, value in values.items():
        fields += [_mmh3(f"{table.name}:{name}"), value.SerializeToString()]
    return fields
