"""DriftPredictor: how far would an edit move a pin's vector? A cheap guess from token ids alone, without the student.

The prediction is a small learned model. Each token has a short vector, so that the sum over a text stands in for the text's
embedding, and an impact of its own. The distance of the two sums, the impact of the tokens that left or came, and the shape
of the edit (how many tokens, neighbours changed, how long the text is) go through one hidden layer.
`training.calibrate_drift` fits it and publishes how often it errs at its threshold.

Some tokens are never cosmetic: negations, colours, and every token the calibration has not seen. An edit that adds or removes
one of them is predicted to move the vector as far as a vector can move.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pins.errors import ArtifactError

Floats = NDArray[np.float32]

T = TypeVar("T")

FARTHEST = 2.0
"""The largest cosine distance there is."""
FEATURES = 9


class DriftPredictor:
    """The learned predictor. Arrays, by name:

    `rows` int32 (vocabulary,): the row of each token in `vectors`, -1 for tokens that are never cosmetic;
    `vectors` float (rows, k): token vectors, the last row standing in for every token without one;
    `impact` float (rows,): how much each token weighs when it leaves or comes, not negative;
    `low`, `high` (FEATURES,): the range of each feature in calibration, to which features are clipped;
    `hidden` (FEATURES, h), `hidden_bias` (h,), `output` (h,), `output_bias` (): the layer that gives the log of the drift.
    """

    NAMES = ("rows", "vectors", "impact", "low", "high", "hidden", "hidden_bias", "output", "output_bias")

    def __init__(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        if missing := set(self.NAMES) - arrays.keys():
            raise ArtifactError(f"drift.npz has no {sorted(missing)}; run training.calibrate_drift on this model again")
        self._rows = arrays["rows"].astype(np.int64)
        self._vectors, self._impact = arrays["vectors"].astype(np.float32), arrays["impact"].astype(np.float32)
        self._low, self._high = arrays["low"].astype(np.float32), arrays["high"].astype(np.float32)
        self._hidden, self._hidden_bias, self._output = (arrays[name].astype(np.float32) for name in ("hidden", "hidden_bias", "output"))
        self._output_bias = float(arrays["output_bias"].astype(np.float64))

    @classmethod
    def from_arrays(cls, **arrays: NDArray[np.generic]) -> DriftPredictor:
        """Build from arrays by name."""
        return cls(arrays)

    @classmethod
    def load(cls, path: Path) -> DriftPredictor:
        """Read drift.npz. Raises ArtifactError when it is unreadable or incomplete."""
        try:
            with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
                return cls({name: file[name] for name in file.files})
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            raise ArtifactError(f"{path} cannot be read ({error}); copy the whole model folder again") from error

    def predict(self, old_ids: Sequence[int], new_ids: Sequence[int]) -> float:
        """Predicted cosine distance, 0 to 2, between the vectors of two token sequences (after truncation)."""
        if list(old_ids) == list(new_ids):
            return 0.0
        old, new = np.asarray(old_ids), np.asarray(new_ids)
        edit = Change(old, new)
        changed = self._rows[edit.tokens]
        if (changed < 0).any():
            return FARTHEST
        before = self._vectors[self._rows[old]].sum(axis=0)
        after = before - self._vectors[self._rows[edit.old]].sum(axis=0) + self._vectors[self._rows[edit.new]].sum(axis=0)
        seen = np.clip(edit.features(static_distance(before, after), float(self._impact[changed].sum())), self._low, self._high)
        active = np.maximum(seen @ self._hidden + self._hidden_bias, 0.0)
        return float(min(np.exp(active @ self._output + self._output_bias), FARTHEST))


class Change:
    """What an edit does to a token sequence: the part between the common start and the common end, and its tokens.

    `gone` and `added` count the tokens that left and came; `tokens` are their ids. A token that only moved is in neither.
    """

    def __init__(self, old: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        self.start, end = _common(old, new)
        self.length = max(len(old), len(new))
        self.old, self.new = old[self.start : len(old) - end], new[self.start : len(new) - end]
        left, right = int(old[self.start - 1]) if self.start else -1, int(old[len(old) - end]) if end else -1
        before, after = self.old.tolist(), self.new.tolist()
        self._gone, self._added = _moved(before, after)
        self._neighbours = sum(map(len, _moved(_pairs(left, before, right), _pairs(left, after, right))))

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Ids of the tokens that left or came, each as often as it did."""
        return np.array(self._gone + self._added, np.int64)

    def features(self, distance: float, impact: float) -> Floats:
        """Shape (FEATURES,): logarithms of the static distance, the tokens' impact and the counts, and where the edit starts."""
        spans = sorted((len(self.old), len(self.new)))
        counts = np.array([len(self._gone), len(self._added), self._neighbours, *spans], np.float32)
        place = self.start / self.length
        return np.concatenate([[np.log(distance + 1e-5), np.log(impact + 1e-3)], np.log(counts + 0.3), [np.log(self.length), place]], dtype=np.float32)


def static_distance(before: Floats, after: Floats) -> float:
    """Squared distance of two sums of token vectors, relative to their size: 0 for equal sums."""
    change = after - before
    return float(change @ change / (np.sqrt((before @ before) * (after @ after)) + 1e-9))


def _common(old: NDArray[np.int64], new: NDArray[np.int64]) -> tuple[int, int]:
    """Lengths of the common start and of the common end, which never overlap."""
    shorter = min(len(old), len(new))
    start = _equal(old[:shorter], new[:shorter])
    left = shorter - start
    return start, _equal(old[len(old) - left :][::-1], new[len(new) - left :][::-1])


def _equal(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    differs = one != other
    return int(differs.argmax()) if differs.any() else len(one)


def _pairs(left: int, tokens: list[int], right: int) -> list[tuple[int, int]]:
    whole = [left, *tokens, right]
    return list(pairwise(whole))


def _moved(before: list[T], after: list[T]) -> tuple[list[T], list[T]]:
    """(gone, added): multiset differences."""
    old, new = Counter(before), Counter(after)
    return list((old - new).elements()), list((new - old).elements())
