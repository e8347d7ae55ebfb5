"""The live index as a scorer: the pins' vectors from an export of it, the queries' from the student that wrote them.

So evaluation sees what the stream really wrote, without a way into the index: `everpin export FILE --vectors` makes the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data import DataError, Pairs
from training.measures.scorers import Floats, Scored, Scorer, Vectors, VectorScorer, shortened


@dataclass(frozen=True)
class IndexScorer:
    """Vectors of an index, asked by the student that wrote them.

    `pins`: float32 (pins of the data folder, dimension), zeros where the index has no vector; `present`: bool, where it has one.
    """

    student: VectorScorer
    pins: Vectors
    present: NDArray[np.bool_]

    @property
    def model_id(self) -> str:
        return self.student.model_id

    @property
    def lineage(self) -> Mapping[str, Any]:
        return {**self.student.lineage, "vectors": "live index"}

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """As `Scorer.score`; the pins' texts are not looked at. A pin without a vector ranks last."""
        cosines = self.student.score_vectors(queries, self.pins, pairs.query, pairs.pin).scores
        present, head = self.present[pairs.pin], self.student.head
        levels = None if head is None else head.probabilities(np.where(present, cosines, -1.0))
        return Scored(np.where(present, cosines, -np.inf), levels)

    def against_all(self, queries: Sequence[str], langs: Sequence[str], texts: Sequence[str]) -> Floats:
        """As `Retriever.against_all`, over the pins of the data folder."""
        scores = (self.student.vectors(queries) @ self.pins.T).astype(np.float64)
        scores[:, ~self.present] = -np.inf
        return scores


def open_index(student: Scorer, file: Path, pin_ids: Sequence[str]) -> IndexScorer:
    """The vectors of an export (.jsonl or .parquet) in the order of `pin_ids`. Raises DataError where they are not the student's."""
    if not isinstance(student, VectorScorer):
        raise DataError(f"{student.model_id} makes no vectors; beside an index's vectors, give the folder of the student that wrote them")
    rows = _exported(file, student.model_id)
    width = student.encode([""]).shape[1]
    strange = next((pin_id for pin_id, vector in rows.items() if len(vector) != width or not np.isfinite(vector).all()), None)
    if strange is not None:
        raise DataError(f"{file}: the vector of {strange!r} is not of {width} finite numbers, as those of {student.model_id} are; export the index again")
    present = np.array([pin_id in rows for pin_id in pin_ids])
    if not present.any():
        raise DataError(f"{file} has a vector for none of the {len(pin_ids)} pins of the data folder; import them first: everpin import cxc FOLDER")
    pins = np.array([rows.get(pin_id) or [0.0] * width for pin_id in pin_ids], np.float32)
    return IndexScorer(student, shortened(pins, student.dimension), present)


def _exported(file: Path, model_id: str) -> dict[str, list[float]]:
    """Vectors by pin, of an export of one model; pins without a vector are left out."""
    try:
        rows = pq.read_table(file).to_pylist() if file.suffix == ".parquet" else [json.loads(line) for line in _lines(file)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read: {error}; make it with: everpin export {file.name} --vectors") from error
    for row in rows:
        if not isinstance(row, dict) or not {"pin_id", "vector", "model_id"} <= row.keys():
            raise DataError(f"{file} has a row without pin_id, vector or model_id; make it with: everpin export {file.name} --vectors")
        if row["vector"] is not None and row["model_id"] != model_id:
            raise DataError(f"{file} holds vectors of {row['model_id']}, the model is {model_id}; vectors of two models never meet")
    return {row["pin_id"]: row["vector"] for row in rows if row["vector"] is not None}


def _lines(file: Path) -> list[str]:
    """Lines that end in a line feed; other line separators may stand in a pin's text."""
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line]
