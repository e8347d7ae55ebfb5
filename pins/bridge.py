"""The bridge between two models: query vectors of a new model into the space of an old one, so that a new encoder can ask an old collection.

Only queries cross it, and only towards the collection that is asked: no vector of a pin is ever mapped, and nothing mapped is ever stored. Here is the
map and its file's bytes; `pins.bridge_fit` finds the map (after Drift-Adapter, arXiv 2509.23471), `everpin.bridging` measures what it keeps.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pins.errors import ArtifactError
from pins.ports import Vector
from pins.relevance import OrdinalHead

FORMAT = 1
"""Raised by any change of the file that an older reader would misread."""
SMALLEST = np.float32(1e-12)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models: its id, its dimension, and the digest of its folder, which a changed model of the same name does not share."""

    model_id: str
    dimension: int
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class Residual:
    """What a hidden layer adds to the matrix: relu(x `inner` + `bias`) `outer`; float32 of shapes (new, hidden), (hidden,), (hidden, old)."""

    inner: Vector
    bias: Vector
    outer: Vector

    def of(self, vectors: Vector) -> Vector:
        """Shape (..., new) in, (..., old) out."""
        return np.asarray(np.maximum(vectors @ self.inner + self.bias, np.float32(0)) @ self.outer, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """A matrix, float32 of shape (new, old), and what a residual adds to it."""

    matrix: Vector
    residual: Residual | None = None

    def apply(self, vectors: Vector) -> Vector:
        """Unit vectors of shape (new,) or (n, new) as unit vectors of shape (old,) or (n, old), float32. A zero vector stays one."""
        mapped = vectors @ self.matrix
        if self.residual is not None:
            mapped = (mapped + self.residual.of(vectors)) * np.any(vectors, axis=-1, keepdims=True)
        norms = np.sqrt(np.einsum("...d,...d->...", mapped, mapped))[..., None]
        return np.asarray(mapped / np.maximum(norms, SMALLEST), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Bridge:
    """A fitted map with the two models that it is for, and what was measured when it was fitted.

    `slope` and `intercept` give the cosines of mapped queries the scale of the old model's own, so that levels mean what they meant. `figures` is
    plain JSON.
    """

    new: Side
    old: Side
    map: Map
    slope: float = 1.0
    intercept: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if problem := _problem(self):
            raise ArtifactError(f"a bridge from {self.new.model_id} to {self.old.model_id} cannot be: {problem}; fit it again with `everpin bridge fit`")

    @property
    def digest(self) -> str:
        """sha256 in hex of everything in it but the figures: two bridges of one digest give the same answers."""
        about = json.dumps([FORMAT, asdict(self.new), asdict(self.old), self.slope, self.intercept], sort_keys=True)
        digest = sha256(about.encode())
        for name, array in sorted(_arrays(self.map).items()):
            digest.update(f"{name} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def apply(self, vectors: Vector) -> Vector:
        """Unit query vectors of the new model, shape (new,) or (n, new), as unit vectors in the space of the old one. A zero vector stays one."""
        return self.map.apply(vectors)

    def head(self, old: OrdinalHead) -> OrdinalHead:
        """The old model's ordinal head for cosines of mapped queries."""
        return OrdinalHead(old.scale * self.slope, tuple(threshold - old.scale * self.intercept for threshold in old.thresholds))

    def require(self, new: Side, old: Side) -> None:
        """Raises ArtifactError unless the bridge was fitted for exactly these two models."""
        for role, mine, theirs in (("new", self.new, new), ("old", self.old, old)):
            if mine != theirs:
                raise ArtifactError(
                    f"this bridge was fitted for {mine.model_id} (digest {mine.digest[:12]}, {mine.dimension} dimensions) as the {role} model, "
                    f"here it is {theirs.model_id} (digest {theirs.digest[:12]}, {theirs.dimension} dimensions); "
                    f"fit one with `everpin bridge fit {new.model_id} {old.model_id}`"
                )


def dump(bridge: Bridge) -> bytes:
    """The bytes of a bridge's file, an npz."""
    about = {
        "format": FORMAT,
        "digest": bridge.digest,
        "new": asdict(bridge.new),
        "old": asdict(bridge.old),
        "slope": bridge.slope,
        "intercept": bridge.intercept,
        "figures": dict(bridge.figures),
    }
    file = BytesIO()
    arrays: dict[str, Any] = {**_arrays(bridge.map), "about": np.array(json.dumps(about, allow_nan=False))}
    np.savez(file, **arrays)
    return file.getvalue()


def parse(content: bytes) -> Bridge:
    """A bridge of its file's bytes. Raises ArtifactError for a file that is damaged, was edited, or is of another release."""
    try:
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["format"] != FORMAT:
                raise ArtifactError(f"the bridge is of format {about['format']}, this Everpin reads {FORMAT}; fit it again with `everpin bridge fit`")
            residual = Residual(arrays["inner"], arrays["bias"], arrays["outer"]) if "outer" in arrays else None
            sides = Side(**about["new"]), Side(**about["old"])
            bridge = Bridge(*sides, Map(arrays["matrix"], residual), float(about["slope"]), float(about["intercept"]), dict(about["figures"]))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, OSError, EOFError) as error:
        raise ArtifactError(f"the bridge is damaged or no bridge at all ({error}); fit it again with `everpin bridge fit`") from error
    if bridge.digest != about["digest"]:
        raise ArtifactError("the bridge was changed after it was fitted: its digest is another; fit it again with `everpin bridge fit`")
    return bridge


def _arrays(map_: Map) -> dict[str, NDArray[np.float32]]:
    residual = map_.residual
    return {"matrix": map_.matrix} | ({"inner": residual.inner, "bias": residual.bias, "outer": residual.outer} if residual else {})


def _problem(bridge: Bridge) -> str:
    """What keeps the parts from fitting together; empty when nothing does."""
    arrays, (new, old) = _arrays(bridge.map), (bridge.new.dimension, bridge.old.dimension)
    hidden = arrays["bias"].size if "bias" in arrays else 0
    shapes = {"matrix": (new, old), "inner": (new, hidden), "bias": (hidden,), "outer": (hidden, old)}
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.shape != shapes[name]:
            return f"{name} is {array.dtype} of shape {array.shape}, its models ask for float32 of {shapes[name]}"
        if not np.isfinite(array).all():
            return f"{name} holds values that are not finite"
    if not (np.isfinite([bridge.slope, bridge.intercept]).all() and bridge.slope > 0):
        return f"slope {bridge.slope} and intercept {bridge.intercept} must be finite, and the slope above 0"
    return ""
