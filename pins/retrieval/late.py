"""Late interaction: a query against the sentences of a pin's text, one vector each, where one vector per pin has blurred them together.

MaxSim after ColBERT (Khattab and Zaharia, SIGIR 2020), with sentences in the place of tokens and the query as one vector: the largest
cosine between the query and a sentence. Sentences are encoded when they are first needed and kept for as long as their pin's record stays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pins.ports import Hit, PinIndex, Vector

MAX_SENTENCES = 12
"""Of one pin; those of a text come in the order of their worth, and a window of 256 tokens holds about as many."""


class SentenceVectors:
    """Vectors of the sentences of pins, of the models whose pins are asked for. Thread-safe; the longest unused go first.

    `encode`: texts to unit vectors, float32 of shape (n, dimension), by the model of the index that is asked.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Vector], capacity: int = 2_000) -> None:
        self._encode, self._capacity = encode, capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, int], Vector] = OrderedDict()

    def max_sim(self, query: Vector, hits: Sequence[Hit], index: PinIndex) -> NDArray[np.float64]:
        """The largest cosine of the query to a sentence of each hit's pin, shape (n,); NaN for a pin whose record has changed since the hit."""
        found = self._known(index.model_id, hits)
        if missing := [hit for hit in hits if hit.pin_id not in found]:
            found |= self._read(missing, index)
        return np.array([float((found[hit.pin_id] @ query).max()) if hit.pin_id in found else np.nan for hit in hits], np.float64)

    def _known(self, model_id: str, hits: Sequence[Hit]) -> dict[str, Vector]:
        found = {}
        with self._lock:
            for hit in hits:
                key = (model_id, hit.pin_id, hit.v)
                if key in self._kept:
                    self._kept.move_to_end(key)
                    found[hit.pin_id] = self._kept[key]
        return found

    def _read(self, hits: Sequence[Hit], index: PinIndex) -> dict[str, Vector]:
        records = index.known([hit.pin_id for hit in hits])
        texts = {hit.pin_id: sentences(record.text) for hit in hits if (record := records.get(hit.pin_id)) and record.v == hit.v}
        texts = {pin_id: some for pin_id, some in texts.items() if some}
        if not texts:
            return {}
        vectors = self._encode([sentence for some in texts.values() for sentence in some])
        ends = np.cumsum([len(some) for some in texts.values()])
        found = {pin_id: vectors[end - len(texts[pin_id]) : end].copy() for pin_id, end in zip(texts, ends, strict=True)}
        with self._lock:
            self._kept |= {(index.model_id, pin_id, records[pin_id].v): some for pin_id, some in found.items()}
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        return found


def sentences(text: str) -> list[str]:
    """The sentences of a pin's text, as `pins.text.render` joins them: at most MAX_SENTENCES."""
    return [sentence for sentence in text.split(". ") if sentence.strip()][:MAX_SENTENCES]
