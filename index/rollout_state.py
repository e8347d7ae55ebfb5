"""Where the state of a rollout is kept: in the index, beside the alias, and changed by compare-and-set.

On a server it is the one point of a collection of its own; beside the embedded engine it is a file, replaced whole.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import NAMESPACE_URL, uuid4, uuid5

from index.rollout import translated
from pins.errors import ArtifactError, Unavailable
from pins.rollout import Rollout, read, stored

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

COLLECTION = "everpin_rollout"
FILE, LOCK = "rollout.json", "rollout.lock"
POINT = str(uuid5(NAMESPACE_URL, "everpin:rollout"))


class RolloutState(Protocol):
    """The state of the installation's rollout."""

    def read(self) -> Rollout | None:
        """The rollout that is going on; None when there is none. Raises Unavailable, and ArtifactError for damage."""

    def replace(self, before: Rollout | None, after: Rollout | None) -> bool:
        """Keep `after` if the state still is `before`; False if somebody changed it first. None: no rollout. Raises Unavailable."""


class EdgeRolloutState:
    """`rollout.json` in the folder of the embedded collections. Any process may change it."""

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / FILE

    def read(self) -> Rollout | None:
        try:
            return _parsed(json.loads(self._file.read_bytes()), str(self._file))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._file} cannot be read: {error}") from error
        except ValueError as error:
            raise ArtifactError(f"{self._file} is damaged: {error}; delete it to forget the rollout, the alias stays as it is") from error

    def replace(self, before: Rollout | None, after: Rollout | None) -> bool:
        try:
            with self._alone():
                if self.read() != before:
                    return False
                self._write(after)
        except OSError as error:
            raise Unavailable(f"{self._file} cannot be written: {error}; the rollout is where it was") from error
        return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / LOCK).open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, after: Rollout | None) -> None:
        if after is None:
            self._file.unlink(missing_ok=True)
            return
        fresh = self._file.with_name(f"{FILE}.{os.getpid()}")
        try:
            with fresh.open("w") as file:
                json.dump(stored(after), file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._file)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


class QdrantRolloutState:
    """One point in a collection of its own on a Qdrant server."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def read(self) -> Rollout | None:
        found = self._found()
        return _parsed(found["rollout"], f"the collection {COLLECTION}") if found and found.get("rollout") else None

    def replace(self, before: Rollout | None, after: Rollout | None) -> bool:
        from qdrant_client import models  # noqa: PLC0415  slow to import; the embedded index does not need it

        if self.read() != before:
            return False
        found, mark = self._found(), uuid4().hex
        payload = {"rollout": stored(after) if after else None, "mark": mark, "before": (found or {}).get("mark", "")}
        same = models.Filter(must=[models.FieldCondition(key="mark", match=models.MatchValue(value=payload["before"]))])
        with translated():
            if not self._client.collection_exists(COLLECTION):
                self._client.create_collection(COLLECTION, vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT))
            point = models.PointStruct(id=POINT, vector=[1.0], payload=payload)
            self._client.upsert(COLLECTION, [point], wait=True, update_filter=same)  # a point that is not there yet is always inserted
        return (self._found() or {}).get("mark") == mark

    def _found(self) -> dict[str, object] | None:
        with translated():
            if not self._client.collection_exists(COLLECTION):
                return None
            points = self._client.retrieve(COLLECTION, [POINT], with_payload=True)
        return dict(points[0].payload or {}) if points else None


def _parsed(data: object, where: str) -> Rollout:
    if not isinstance(data, dict):
        raise ArtifactError(f"{where} is damaged: no object; delete it to forget the rollout, the alias stays as it is")
    return read(data)
