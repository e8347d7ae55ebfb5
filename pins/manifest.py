"""The manifest of a published student: what a model folder says of itself, and what must fit before it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pins.errors import ArtifactError
from pins.relevance import OrdinalHead


@dataclass(frozen=True, slots=True)
class DriftBound:
    """Calibration of the cosmetic-change predictor.

    Edits whose predicted drift is at most `threshold` are skipped; at most a share `risk` of them moved the vector by
    more than cosine distance `bound` (upper 95 % limit). `coverage` is the share of calibration edits that are skipped.
    """

    predictor: str
    threshold: float
    bound: float
    risk: float
    coverage: float
    edits: int
    violation_rate: float
    violation_upper95: float


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a student was made from.

    `labels`: what the teacher's labels say of themselves (teacher, digest, rows, ...), None for a student that saw none;
    `data_digests`: digest by name of a data folder; `licence_classes`: of all texts it was trained on (`open`, `sa`, `research`);
    `seeds`: by the stage that drew with them.
    """

    labels: Mapping[str, Any] | None
    data_digests: Mapping[str, str]
    licence_classes: tuple[str, ...]
    seeds: Mapping[str, int]
    config: Mapping[str, Any]
    code_version: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Lineage:
        """Read the lineage of a parsed manifest. Raises KeyError, TypeError or ValueError."""
        classes = body["licence_classes"]
        if isinstance(classes, str):
            raise TypeError(f"licence_classes must be a list, not {classes!r}")
        return cls(
            labels=None if body["labels"] is None else dict(body["labels"]),
            data_digests={name: str(digest) for name, digest in dict(body["data_digests"]).items()},
            licence_classes=tuple(map(str, classes)),
            seeds={stage: int(seed) for stage, seed in dict(body["seeds"]).items()},
            config=dict(body["config"]),
            code_version=str(body["code_version"]),
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One student. `files` maps each file of the folder, but the manifest itself, to its sha256 in hex.

    `pooling`: `mean` of the tokens, `cls` the first token, or `graph`, where the graph pools and gives one vector per text. Vectors
    are cut to `dimension` and made unit again. `lineage` is None where nothing is known of the training.
    """

    model_id: str
    dimension: int
    max_tokens: int
    pooling: str
    template_version: int
    precision: str
    languages: tuple[str, ...]
    files: Mapping[str, str]
    teacher: str | None
    data_digest: str
    source: str
    metrics: Mapping[str, float]
    golden_tolerance: float
    drift: DriftBound | None
    ordinal_head: OrdinalHead
    lineage: Lineage | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Manifest:
        """Read a parsed manifest.json. Raises ArtifactError naming the field that is missing or wrong."""
        try:
            head, drift, lineage = body["ordinal_head"], body["drift"], body.get("lineage")
            names = set(cls.__slots__) - {"ordinal_head", "drift", "languages", "files", "lineage"}
            return cls(
                **{name: body[name] for name in names},
                languages=tuple(body["languages"]),
                files=dict(body["files"]),
                drift=None if drift is None else DriftBound(**drift),
                ordinal_head=OrdinalHead(float(head["scale"]), tuple(map(float, head["thresholds"]))),
                lineage=None if lineage is None else Lineage.from_json(lineage),
            )
        except KeyError as error:
            raise ArtifactError(f"manifest.json has no field {error}; export the model again") from error
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"manifest.json: {error}; export the model again") from error
