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
class Manifest:
    """One student. `files` maps each file of the folder, but the manifest itself, to its sha256 in hex."""

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

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Manifest:
        """Read a parsed manifest.json. Raises ArtifactError naming the field that is missing or wrong."""
        try:
            head, drift = body["ordinal_head"], body["drift"]
            names = set(cls.__slots__) - {"ordinal_head", "drift", "languages", "files"}
            return cls(
                **{name: body[name] for name in names},
                languages=tuple(body["languages"]),
                files=dict(body["files"]),
                drift=None if drift is None else DriftBound(**drift),
                ordinal_head=OrdinalHead(float(head["scale"]), tuple(map(float, head["thresholds"]))),
            )
        except KeyError as error:
            raise ArtifactError(f"manifest.json has no field {error}; export the model again") from error
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"manifest.json: {error}; export the model again") from error
