"""The outsides the core talks to, as Protocols: the feature store, the student, the index. Adapters live elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pins.changes import IndexedPin, Student
from pins.features import FeatureRow, PinFeatures, UserAction

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """One neighbour: its cosine similarity to the query and its record's surface fields.

    `refused`: why its newer text could not be embedded, so that this vector is of an older one.
    """

    pin_id: str
    score: float
    fields: Mapping[str, Any]
    v: int = 0
    vector: Vector | None = None
    refused: str = ""

    def scored(self, score: float) -> Hit:
        """The same pin with another score."""
        return Hit(self.pin_id, score, self.fields, self.v, self.vector, self.refused)


@dataclass(frozen=True, slots=True)
class PointWrite:
    """One guarded write: `record` replaces the stored one only while that still has version `expected_v` (None: no record).

    `vector` is float32 of shape (dimension,), unit length; None with `keep_vector` keeps the stored one, else the record
    has no vector.
    """

    record: IndexedPin
    expected_v: int | None
    vector: Vector | None = None
    keep_vector: bool = False


@dataclass(frozen=True, slots=True)
class Where:
    """Filters of a search, all of which must hold. `created_since_us` is epoch microseconds."""

    lang: str | None = None
    category: str | None = None
    board: str | None = None
    created_since_us: int | None = None
    without: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Terms:
    """A text as BM25 sees it: `ids` are distinct hashes of its terms, below 2^32 and ascending, `weights` one finite number each.

    Made by `pins.lexical`: for a pin's text the weights are the saturated term frequencies, for a query 1 each. The index multiplies
    with the inverse document frequency.
    """

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """One search of a batch: by `vector` (cosine) or by `terms` (BM25), exactly one of them."""

    limit: int
    vector: Vector | None = None
    terms: Terms | None = None
    where: Where = Where()


class FeatureSource(Protocol):
    """The feature store. Raises Unavailable when it does not answer."""

    def write(self, rows: Sequence[FeatureRow]) -> None:
        """Write rows; a row older than the stored one (by event time) changes nothing."""

    def of(self, pin_ids: Sequence[str]) -> Mapping[str, PinFeatures]:
        """The features of each pin now; a pin with no row in any view is absent."""

    def pin_ids(self, batch: int = 1000, view: str = "") -> Iterator[Sequence[str]]:
        """Every pin with a row in any view, or in this one, in batches and bounded memory. A store may repeat a pin."""

    def present(self, pin_ids: Sequence[str]) -> set[str]:
        """Those of these pins that have a row in any view; cheaper than reading them."""

    def scrub(self) -> bool:
        """Remove overwritten rows from the store's own files; False when another process kept it from doing so."""

    def history(self, user_id: str) -> Sequence[UserAction]:
        """A user's actions, oldest first; empty for an unknown user."""


class Encoder(Student, Protocol):
    """The student. Raises Unembeddable for a text it cannot encode, never returns a vector that is not finite."""

    @property
    def dimension(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 of shape (len(texts), dimension), in the order of the texts."""


class PinIndex(Protocol):
    """One model's collection. Raises Unavailable when it does not answer and Unembeddable for a point it refuses."""

    @property
    def model_id(self) -> str: ...

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        """The records of these pins, tombstones included; absent where there is none."""

    def write(self, points: Sequence[PointWrite]) -> set[str]:
        """Apply guarded writes, one per pin at most, and return the ids of those that landed."""

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        """The live pins nearest to a vector, by cosine, best first; ties by pin id."""

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        """Several searches in one round trip, answers in the order of the asks. A hit's score is the cosine, or BM25 for terms; its vector is there
        either way. No terms, no hits."""

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        """Vectors of live pins; a pin without one is absent."""

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        """Every record, tombstones included, in batches. A point that names no pin, or another than its own, has an empty pin id."""

    def page(self, cursor: str = "", limit: int = 1000) -> tuple[Sequence[IndexedPin], str]:
        """One batch of a scan, and the cursor of the next one: opaque, empty at the start and after the end."""

    def page_of_points(
        self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False
    ) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
        """The same with each record's vector, read together; with `newer_than` only the records of a higher version.

        `bare`: no vectors, and of the records only pin id and version. The embedded engine reads a page at one instant; a server reads while others write.
        """

    def sweep(self, before_v: int) -> Mapping[str, int]:
        """Remove for good the `dead` tombstones of a version below `before_v` and the `nameless` points; how many of each went."""

    def counts(self) -> Mapping[str, int]:
        """Number of `live` pins with a vector, `refused` ones among them, `textless` pins and `dead` tombstones."""

    def flush(self) -> None:
        """Make what was written durable against a power failure."""

    def close(self) -> None:
        """Flush and release the store."""
