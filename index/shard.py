"""The folder of an embedded index: created, opened, mended after a crash, and rewritten so that nothing removed stays in its files.

The engine leaves overwritten and deleted points in its segments and its write-ahead log; flush and optimize do not remove
their bytes (measured on 0.9.0). So a sweep copies every point that stays into a fresh folder, makes that durable, and swaps:

    1. NAME.fresh is filled, closed and fsynced       a crash: NAME is whole, NAME.fresh is thrown away
    2. NAME      -> NAME.old                          a crash: NAME.fresh is whole and becomes NAME
    3. NAME.fresh -> NAME                             a crash: NAME is whole, NAME.old is thrown away
    4. NAME.old is deleted

`mend` finishes what a crash interrupted, whichever step it was, before the folder is opened. Records and filters: `index.edge`.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from index import points
from index.edge_requests import has, named_terms, vector_of
from pins.errors import ArtifactError, Unavailable

INDEXED = (
    {"v": edge.PayloadSchemaType.Float}
    | dict.fromkeys(("dead", "embedded", "outdated", *points.INTEGERS), edge.PayloadSchemaType.Integer)
    | dict.fromkeys(points.KEYWORDS, edge.PayloadSchemaType.Keyword)
)
"""Fields with an index of their own: without one, counting and filtering read the payload of every pin (38 ms instead of 2 ms over 5,000)."""
COPIED_AT_ONCE = 100
"""Points per step of a rewrite: each step holds Python's global lock for some 20 ms, and others get their turn in between."""
FLUSHED_EVERY = 200
"""Steps between flushes of a rewrite: the log grows in 32 MiB steps until one."""
FILLED_AT_ONCE = 200
"""Points per step of an upgrade, which nobody waits for but the process that opens the index."""
Verdict = Callable[[str, Mapping[str, Any]], str]
"""Of a point's id and payload: why it goes, or an empty string."""


def open_shard(path: Path, dimension: int) -> Any:
    """The engine on this folder, created where there is none. Raises Unavailable, ArtifactError."""
    try:
        mend(path)
        shard = edge.EdgeShard.load(str(path)) if (path / "segments").exists() else _create(path, dimension)
    except Exception as error:  # the engine raises bare Exceptions
        raise Unavailable(f"cannot open the embedded index at {path}: {error}; is another process using it? See `everpin status`") from error
    _require_dimension(shard, path, dimension)
    try:
        _upgrade(shard)
    except Exception as error:  # as above
        shard.close()
        raise Unavailable(f"cannot bring the embedded index at {path} up to date: {error}; start again, and it goes on where it stopped") from error
    return shard


def mend(path: Path) -> None:
    """Finish a swap that a crash interrupted: afterwards `path` is whole and its siblings are gone."""
    fresh, old = _fresh(path), _old(path)
    if not (path / "segments").exists() and (old / "segments").exists():
        whole = fresh if (fresh / "segments").exists() else old  # the fresh folder was durable before the old one was moved
        whole.rename(path)
        _sync_folder(path.parent)
    for leftover in (fresh, old):
        if leftover.exists():
            shutil.rmtree(leftover)


class FreshCopy:
    """Step 1: a folder beside the index that takes every point but those with a verdict. Its errors are the engine's own.

    `gone`: how many points were left out, by verdict. A point that is added again replaces itself.
    """

    def __init__(self, path: Path, dimension: int, verdict: Verdict) -> None:
        self._folder, self._verdict = _fresh(path), verdict
        shutil.rmtree(self._folder, ignore_errors=True)
        self._target = _create(self._folder, dimension)
        self._steps = 0
        self.gone: Counter[str] = Counter()

    def add(self, found: Sequence[Any], *, late: bool = False) -> None:
        """Take these records of the engine, read with payload and vector.

        `late`: they were written since the copy began, and replace what was copied of them whatever they are.
        """
        kept = []
        for point in found:
            stored = point.payload or {}
            if not late and (why := self._verdict(str(point.id), stored)):
                self.gone[why] += 1
            else:
                kept.append(edge.Point(id=point.id, vector=point.vector or {}, payload=stored))
        if kept:
            self._target.update(edge.UpdateOperation.upsert_points(kept))
        self._steps += 1
        if self._steps % FLUSHED_EVERY == 0:
            self._target.flush()

    def settle(self) -> None:
        """Make what was added durable."""
        self._target.flush()
        _sync_tree(self._folder)

    def finish(self) -> None:
        """Make all of it durable and close it: ready for `swap`."""
        self._target.flush()
        self._target.close()
        _sync_tree(self._folder)

    def discard(self) -> None:
        """Away with it, whatever state it is in."""
        with suppress(Exception):  # closed already, or broken: either way it goes
            self._target.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def swap(path: Path) -> None:
    """Steps 2 to 4. Both folders must be closed."""
    path.rename(_old(path))
    _sync_folder(path.parent)
    _fresh(path).rename(path)
    _sync_folder(path.parent)
    shutil.rmtree(_old(path))


def _create(path: Path, dimension: int) -> Any:
    path.mkdir(parents=True, exist_ok=True)
    config = edge.EdgeConfig(
        vectors={points.VECTOR: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={points.TERMS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
    )
    shard = edge.EdgeShard.create(str(path), config)
    _index_fields(shard)
    return shard


def _upgrade(shard: Any) -> None:
    """Give a folder of an earlier release what it lacks: indexes of fields, and the terms of every text. What is there stays as it is."""
    _index_fields(shard)
    shard.update(edge.UpdateOperation.create_sparse_vector(points.TERMS, edge.Modifier.Idf))
    without = edge.Filter(must=[has("embedded", 1)], must_not=[edge.HasVectorCondition(points.TERMS)])
    offset, steps = None, 0
    while True:
        found, offset = shard.scroll(edge.ScrollRequest(offset=offset, limit=FILLED_AT_ONCE, filter=without, with_payload=True, with_vector=False))
        vectors = [edge.PointVectors(p.id, named) for p in found if (named := named_terms(points.terms(p.payload or {})))]
        if vectors:
            shard.update(edge.UpdateOperation.update_vectors(vectors))
            steps += 1
        if offset is None:
            break
        if steps % FLUSHED_EVERY == 0:
            shard.flush()
    if steps:
        shard.flush()


def _index_fields(shard: Any) -> None:
    there = shard.info().payload_schema
    for field, schema in INDEXED.items():
        if field not in there:
            shard.update(edge.UpdateOperation.create_field_index(field, schema))


def _require_dimension(shard: Any, path: Path, dimension: int) -> None:
    embedded = edge.Filter(must=[edge.FieldCondition(key="embedded", match=edge.MatchValue(1))])
    found, _ = shard.scroll(edge.ScrollRequest(limit=1, with_payload=False, with_vector=True, filter=embedded))
    vector = vector_of(found[0].vector) if found else None
    if vector is not None and len(vector) != dimension:
        shard.close()
        raise ArtifactError(f"the index at {path} holds vectors of {len(vector)} dimensions, the model makes {dimension}; publish it under a new model_id")


def _fresh(path: Path) -> Path:
    return path.with_name(f"{path.name}.fresh")


def _old(path: Path) -> Path:
    return path.with_name(f"{path.name}.old")


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
