"""What is measured of a search, and how it is summed per unit.

A search is one answer that was shown. It is fulfilled when somebody saved a pin of it or stayed with one (a long click). Every metric is a ratio of
two sums, so a unit's searches weigh as many as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pins.metrics import ndcg

SUMS = ("searches", "fulfilled", "clicks", "long_clicks", "saves", "hides", "ndcg", "engaged", "preferred", "credited")
"""What is summed per unit. `engaged`: searches with an nDCG. `preferred`: interleaved searches won by the candidate less those won by the control;
`credited`: interleaved searches that either won."""
NDCG_AT = 20
GRADES = {"click": 1, "long_click": 2, "save": 3, "hide": 0}
"""The grade of a shown pin by what was done with it, for nDCG by engagement; the greatest counts where there are several."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A ratio of two of SUMS, with its meaning. `better`: 1 where more is better, -1 where less is."""

    name: str
    above: str
    below: str
    better: int
    meaning: str


METRICS = (
    Metric("fulfilment", "fulfilled", "searches", 1, "share of searches with a save or a long click"),
    Metric("long_clicks", "long_clicks", "searches", 1, "long clicks per search"),
    Metric("saves", "saves", "searches", 1, "saves per search"),
    Metric("clicks", "clicks", "searches", 1, "clicks per search, long ones included"),
    Metric("hides", "hides", "searches", -1, "pins hidden per search"),
    Metric("ndcg@20", "ndcg", "engaged", 1, "nDCG@20 of searches with a click or save: save 3, long click 2, click 1, else 0"),
)
PRIMARY = METRICS[0].name
"""What the verdict is about; the others are guardrails."""
PREFERENCE = Metric("preference", "preferred", "searches", 1, "share of interleaved searches won by the candidate less the share won by the control")


@dataclass(slots=True)
class UnitSums:
    """The sums of each unit of one arm: `len(SUMS)` numbers a unit, whatever it did."""

    _rows: dict[str, int] = field(default_factory=dict)
    _sums: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, unit: str) -> bool:
        return unit in self._rows

    @property
    def units(self) -> Collection[str]:
        return self._rows.keys()

    def add(self, unit: str, facts: Mapping[str, float]) -> None:
        """Add one search's facts, by name of SUMS."""
        row = self._rows.setdefault(unit, len(self._rows))
        if row * len(SUMS) == len(self._sums):
            self._sums.extend([0.0] * len(SUMS))
        for name, value in facts.items():
            self._sums[row * len(SUMS) + SUMS.index(name)] += value

    def of(self, name: str, without: Collection[str] = ()) -> NDArray[np.float64]:
        """One of SUMS for every unit but some, shape (units,), always in the same order."""
        table = np.array(self._sums, np.float64).reshape(-1, len(SUMS))
        kept = [row for unit, row in self._rows.items() if unit not in without] if without else slice(None)
        return table[kept, SUMS.index(name)]


def facts(shown: int, kinds: Mapping[int, Collection[str]]) -> dict[str, float]:
    """What one search adds to SUMS. `kinds`: what was done with the pins shown, by place from 0, all below `shown`."""
    done = [kind for place in kinds for kind in kinds[place]]
    grades = tuple((place, max(GRADES[kind] for kind in kinds[place])) for place in sorted(kinds) if place < NDCG_AT)
    engaged = any(grade for _, grade in grades)
    return {
        "searches": 1.0,
        "fulfilled": float("save" in done or "long_click" in done),
        "clicks": float(done.count("click") + done.count("long_click")),
        "long_clicks": float(done.count("long_click")),
        "saves": float(done.count("save")),
        "hides": float(done.count("hide")),
        "ndcg": _ndcg(min(shown, NDCG_AT), grades) if engaged else 0.0,
        "engaged": float(engaged),
    }


@lru_cache(maxsize=4096)
def _ndcg(shown: int, grades: tuple[tuple[int, int], ...]) -> float:
    row = np.zeros(shown)
    for place, grade in grades:
        row[place] = grade
    return ndcg(row, NDCG_AT)
