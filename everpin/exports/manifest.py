"""What a folder of an export says of itself: which model, which moment, which files. Written last, so a folder that has it is whole."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pins.errors import EverpinError
from pins.manifest import Manifest
from pins.relevance import OrdinalHead

MANIFEST = "manifest.json"
METADATA = b"everpin"
"""Key of the Parquet files' metadata under which each file says whose vectors it holds."""


class Head(BaseModel):
    """The model's ordinal head: P(level > k) = sigmoid(scale * cosine - thresholds[k]), see `pins.relevance`."""

    model_config = ConfigDict(frozen=True)

    scale: float
    thresholds: tuple[float, ...]


class Model(BaseModel):
    """Whose vectors these are, and how their cosine becomes relevance. `template_version`: of the pin text that the model was trained on."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    template_version: int
    dimension: int
    ordinal_head: Head

    @classmethod
    def of(cls, manifest: Manifest) -> Model:
        """The same of a model folder."""
        head = manifest.ordinal_head
        return cls(
            model_id=manifest.model_id,
            template_version=manifest.template_version,
            dimension=manifest.dimension,
            ordinal_head=Head(scale=head.scale, thresholds=head.thresholds),
        )

    @property
    def head(self) -> OrdinalHead:
        """The ordinal head, to compute with."""
        return OrdinalHead(self.ordinal_head.scale, self.ordinal_head.thresholds)


class DataFile(BaseModel):
    """One Parquet file. `name` is relative to the folder, `sha256` in hex."""

    model_config = ConfigDict(frozen=True)

    name: str
    rows: int
    bytes: int
    sha256: str


class ExportManifest(BaseModel):
    """One export. `as_of_us`: the moment that it shows; `since_us`: that of the export it goes on from, None for a full one.

    `rows` counts all rows, `deleted` those among them that only say that a pin has no vector any more.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    kind: Literal["full", "incremental"]
    model: Model
    as_of_us: int
    as_of: str
    since_us: int | None = None
    partitions: int = Field(ge=1)
    text: bool
    rows: int
    deleted: int
    columns: dict[str, str]
    files: tuple[DataFile, ...]


def read_export(folder: Path) -> ExportManifest:
    """The manifest of an export. Raises EverpinError for a folder that is none."""
    try:
        return ExportManifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise EverpinError(f"{folder} is not a finished export: {error}; name a folder that `everpin export --out` made") from error
    except ValidationError as error:
        raise EverpinError(f"{folder / MANIFEST} is not an export's: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}; export again") from error


def damaged(folder: Path, manifest: ExportManifest) -> dict[str, str]:
    """What is wrong with the files of an export, by name; empty when all are there and as they were written."""
    return {file.name: wrong for file in manifest.files if (wrong := _wrong(folder / file.name, file))}


def _wrong(path: Path, file: DataFile) -> str:
    if not path.exists():
        return "missing"
    return "" if sha256(path) == file.sha256 else "its content is not what was exported"


def sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def metadata(model: Model, as_of_us: int, since_us: int | None) -> dict[bytes, bytes]:
    """What each Parquet file carries in its own schema, for a reader that has only the file."""
    body: dict[str, Any] = model.model_dump(mode="json") | {"as_of_us": as_of_us, "since_us": since_us}
    return {METADATA: json.dumps(body).encode()}


def moment(at_us: int) -> str:
    """Epoch microseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="microseconds")
