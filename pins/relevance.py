"""The five-level relevance scale and the ordinal head: cosine -> level probabilities -> expected relevance.

The head is a proportional-odds model (McCullagh 1980): P(level > k) = sigmoid(scale * cosine - thresholds[k]). Its scale
is positive and its thresholds increase, so expected relevance grows with the cosine and the index's order IS the
relevance order.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Level(IntEnum):
    """Pinterest's five levels (arXiv 2410.17152, section 4). Human grades 0-4 are these levels minus one."""

    HIGHLY_IRRELEVANT = 1
    IRRELEVANT = 2
    MARGINALLY_RELEVANT = 3
    RELEVANT = 4
    HIGHLY_RELEVANT = 5

    @property
    def label(self) -> str:
        """The level in words: `highly relevant`."""
        return self.name.replace("_", " ").lower()


@dataclass(frozen=True, slots=True)
class OrdinalHead:
    """Turns cosines into levels. `thresholds` has one entry per step between levels: four, increasing."""

    scale: float
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        increasing = list(self.thresholds) == sorted(set(self.thresholds))
        if not (self.scale > 0 and increasing and len(self.thresholds) == len(Level) - 1 and np.isfinite((self.scale, *self.thresholds)).all()):
            raise ValueError(f"an ordinal head needs a finite scale > 0 and four increasing, finite thresholds, got {self.scale} and {self.thresholds}")

    def probabilities(self, cosine: ArrayLike) -> NDArray[np.float64]:
        """Shape (..., 5): the probability of each level, lowest first, for cosines of shape (...)."""
        logits = self.scale * np.asarray(cosine, np.float64)[..., None] - np.asarray(self.thresholds)
        above = 1.0 / (1.0 + np.exp(-logits))
        edges = np.ones((*above.shape[:-1], 1)), np.zeros((*above.shape[:-1], 1))
        return -np.diff(np.concatenate([edges[0], above, edges[1]], axis=-1), axis=-1)

    def expected(self, cosine: ArrayLike) -> NDArray[np.float64]:
        """Expected level, 1.0 to 5.0, of shape (...); strictly increasing in the cosine."""
        return self.probabilities(cosine) @ np.arange(1.0, len(Level) + 1)

    def level(self, cosine: float) -> Level:
        """The most probable level; the higher one where two are equally probable."""
        return Level(int(most_probable(self.probabilities(cosine))))


def most_probable(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Levels 1 to 5 of shape (...) for probabilities of shape (..., 5); the higher level where two are equally probable."""
    levels: NDArray[np.int64] = len(Level) - np.argmax(probabilities[..., ::-1], axis=-1)
    return levels
