"""The cxc_pins development set as Everpin sees it: pins, queries, graded pairs. Reading only; no vectors.

Each pin has four human captions of one photo: they become its title, description, caption and link description. The set has
no boards and no engagement. Grades 0-4 are the five levels of `pins.relevance` minus one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pins.features import PinFeatures

OWN = {"own", "sits_own"}
"""Sources of the rows that pair a query with the pin of its own photo."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Graded (query, pin) pairs, one row each: indices into `queries` and `pins`, grade, the query's group, own-pin flag."""

    query: NDArray[np.int64]
    pin: NDArray[np.int64]
    grade: NDArray[np.int64]
    group: NDArray[np.str_]
    own: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.grade)

    def where(self, keep: NDArray[np.bool_]) -> Pairs:
        """The rows where `keep` holds."""
        return Pairs(*(getattr(self, name)[keep] for name in self.__slots__))


def load_pins(folder: Path) -> list[PinFeatures]:
    """All pins, in the order of the file."""
    return [
        PinFeatures(row["item_id"], title=row["title"], description=row["description"], caption=row["caption"], link_description=row["extra"])
        for row in _rows(folder / "items.parquet")
    ]


def load_pairs(folder: Path, pins: list[PinFeatures], lang: str = "en") -> tuple[list[str], Pairs, Pairs]:
    """(queries, train pairs, dev pairs) of one language.

    Train rows that touch the own pin of any dev query are left out: each image-image rating appears in both directions,
    so they would carry dev's ratings into training.
    """
    queries = {row["query_id"]: row for row in _rows(folder / "queries.parquet")}
    judgements = _rows(folder / "judgements.parquet")
    dev_pins = {row["item_id"] for row in judgements if row["source"] in OWN and queries[row["query_id"]]["split"] == "dev"}
    chosen = [row for row in queries.values() if row["lang"] == lang]
    place = {row["query_id"]: index for index, row in enumerate(chosen)}
    pin_place = {pin.pin_id: index for index, pin in enumerate(pins)}
    rows = [row | queries[row["query_id"]] for row in judgements if row["query_id"] in place]
    train = [row for row in rows if row["split"] == "train" and row["item_id"] not in dev_pins]
    dev = [row for row in rows if row["split"] == "dev"]
    return [row["query"] for row in chosen], _pairs(train, place, pin_place), _pairs(dev, place, pin_place)


def _pairs(rows: list[dict[str, Any]], place: dict[str, int], pin_place: dict[str, int]) -> Pairs:
    return Pairs(
        np.array([place[row["query_id"]] for row in rows]),
        np.array([pin_place[row["item_id"]] for row in rows]),
        np.array([row["grade"] for row in rows], np.int64),
        np.array([row["group"] for row in rows]),
        np.array([row["source"] in OWN for row in rows]),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise SystemExit(f"{path} does not exist; give the folder that holds items.parquet, queries.parquet and judgements.parquet")
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
