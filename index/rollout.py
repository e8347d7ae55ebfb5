"""The live alias: which model's collection the read side serves. Moving it is the cut-over, moving it back the roll-back.

On a Qdrant server the alias is the server's own. The embedded engine has none, so there it is a file beside the collections, replaced whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from index.points import collection_name
from pins.errors import ArtifactError, Unavailable

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

ALIAS = "pins"
FILE = "aliases.json"
_PREFIX = collection_name("")
_DROPPED = "dropped-"


class EdgeAlias:
    """The alias of the embedded index: `aliases.json` in the folder of the collections. Any process may read and move it."""

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / FILE

    def live(self) -> str | None:
        """The model id that the alias names; None when nobody set it. Raises Unavailable, ArtifactError."""
        try:
            stored = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._file} cannot be read: {error}") from error
        except ValueError as error:
            raise self._damaged() from error
        if not isinstance(stored, dict) or not isinstance(name := stored.get(ALIAS), str):
            raise self._damaged()
        return _model_id(name)

    def point(self, model_id: str) -> None:
        """Name this model the live one. Durable when it returns. Raises ArtifactError when it has no collection, and Unavailable."""
        name = collection_name(model_id)
        if not (self._root / name / "segments").is_dir():
            raise _no_collection(name, model_id, str(self._root))
        fresh = self._file.with_name(f"{FILE}.{os.getpid()}")
        try:
            with fresh.open("w") as file:
                json.dump({ALIAS: name}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._file)
            folder = os.open(self._root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise Unavailable(f"{self._file} cannot be written: {error}; the alias is where it was") from error

    def drop(self, model_id: str) -> bool:
        """Remove a model's collection for good; False when there is none. The caller owns it. Raises ArtifactError for the live model, and Unavailable."""
        if self.live() == model_id:
            raise _is_live(model_id)
        gone = self._root / f"{_DROPPED}{collection_name(model_id)}"
        try:
            shutil.rmtree(gone, ignore_errors=True)
            (self._root / collection_name(model_id)).rename(gone)
            shutil.rmtree(gone)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"the collection of {model_id} cannot be removed: {error}; run the command again") from error
        return True

    def _damaged(self) -> ArtifactError:
        return ArtifactError(f'{self._file} is damaged; delete it (the model of EVERPIN_MODEL is served then), or write {{"{ALIAS}": "{_PREFIX}MODEL_ID"}}')


class QdrantAlias:
    """The alias of a Qdrant server, moved by one request."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def live(self) -> str | None:
        """As `EdgeAlias.live`."""
        with translated():
            found = [alias.collection_name for alias in self._client.get_aliases().aliases if alias.alias_name == ALIAS]
        return _model_id(found[0]) if found else None

    def point(self, model_id: str) -> None:
        """As `EdgeAlias.point`."""
        from qdrant_client import models  # noqa: PLC0415  slow to import; the embedded index does not need it

        name = collection_name(model_id)
        taken = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS))
        given = models.CreateAliasOperation(create_alias=models.CreateAlias(alias_name=ALIAS, collection_name=name))
        with translated():
            if not self._client.collection_exists(name):
                raise _no_collection(name, model_id, "the server")
            there = any(alias.alias_name == ALIAS for alias in self._client.get_aliases().aliases)
            self._client.update_collection_aliases(change_aliases_operations=[taken, given] if there else [given])

    def drop(self, model_id: str) -> bool:
        """As `EdgeAlias.drop`."""
        if self.live() == model_id:
            raise _is_live(model_id)
        name = collection_name(model_id)
        with translated():
            return self._client.collection_exists(name) and bool(self._client.delete_collection(name))


def _model_id(name: str) -> str:
    if not name.startswith(_PREFIX) or name == _PREFIX:
        raise ArtifactError(f"the alias {ALIAS!r} names {name!r}, which is no collection of Everpin; it must be {_PREFIX}MODEL_ID: move it again")
    return name.removeprefix(_PREFIX)


def _is_live(model_id: str) -> ArtifactError:
    return ArtifactError(f"{model_id} is the live model; its collection stays until the alias is moved away from it")


def _no_collection(name: str, model_id: str, where: str) -> ArtifactError:
    return ArtifactError(f"{where} has no collection {name}; start a worker of {model_id} and fill its collection before the alias is moved to it")


@contextmanager
def translated() -> Iterator[None]:
    """Qdrant's errors as Unavailable."""
    from qdrant_client.http.exceptions import ApiException  # noqa: PLC0415  as above

    try:
        yield
    except (ApiException, httpx.HTTPError, OSError) as error:
        raise Unavailable(f"Qdrant does not answer about its alias {ALIAS!r}: {error}; check QDRANT_URL and the server") from error
