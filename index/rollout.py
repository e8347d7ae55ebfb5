"""The live alias: which model's collection answers now. Moved in one step, on the server as in the embedded index's folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from index.points import collection_name
from pins.errors import ArtifactError, Unavailable

ALIAS = "pins"
FILE = "aliases.json"


class EdgeAlias:
    """The alias of an embedded index: `aliases.json` beside the collections' folders. Any process may read it."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / FILE

    def live(self) -> str | None:
        """The model id that the alias names; None when nobody set it. Raises Unavailable, ArtifactError."""
        try:
            named = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ArtifactError(f"{self._path} is damaged ({error}); delete it, and EVERPIN_MODEL is live until the alias is set again") from error
        if not isinstance(named, dict) or not isinstance(named.get(ALIAS), str):
            raise ArtifactError(f"{self._path} names no model for {ALIAS!r}; delete it, and EVERPIN_MODEL is live until the alias is set again")
        return str(named[ALIAS])

    def point(self, model_id: str) -> None:
        """Move the alias, durably. Raises ArtifactError for a model without a collection here, Unavailable."""
        if not (self._root / collection_name(model_id)).is_dir():
            raise ArtifactError(f"there is no collection {collection_name(model_id)} in {self._root}; run a worker with that model first")
        fresh = self._path.with_name(f"{FILE}.{os.getpid()}")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({ALIAS: model_id}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._root, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}; the alias stays where it was") from error


class QdrantAlias:
    """The alias of a Qdrant server."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def live(self) -> str | None:
        """The model id that the alias names; None when nobody set it. Raises Unavailable."""
        try:
            aliases = self._client.get_aliases().aliases
        except (UnexpectedResponse, ResponseHandlingException, ApiException, httpx.HTTPError, OSError) as error:
            raise Unavailable(f"Qdrant does not tell its aliases: {error}; check QDRANT_URL and the server") from error
        prefix = collection_name("")
        return next((alias.collection_name.removeprefix(prefix) for alias in aliases if alias.alias_name == ALIAS), None)

    def point(self, model_id: str) -> None:
        """Move the alias in one request. Raises ArtifactError for a model without a collection there, Unavailable."""
        name = collection_name(model_id)
        create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=ALIAS))
        delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=ALIAS))
        try:
            if not self._client.collection_exists(name):
                raise ArtifactError(f"there is no collection {name} on the server; run a worker with that model first")
            self._client.update_collection_aliases([delete, create] if self.live() else [create])
        except (UnexpectedResponse, ResponseHandlingException, ApiException, httpx.HTTPError, OSError) as error:
            raise Unavailable(f"Qdrant did not move the alias: {error}; it stays where it was") from error
