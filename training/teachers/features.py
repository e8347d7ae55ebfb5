"""Match features of a query and a pin's text: cosines of a bi-encoder, BM25, coverage, lengths. Computed from the two texts alone.

| name | meaning |
|---|---|
| cosine | of the query and the whole text |
| sentence_max, sentence_second, sentence_mean, sentence_min | of the query and each sentence of the text: best, second best, mean, worst |
| sentence_centroid | of the query and the mean of the sentences' vectors: sentences that disagree have a short mean, which the cosine undoes |
| bm25 | BM25 (Robertson and Zaragoza 2009, k1 1.2, b 0.75), divided by the most the query can reach, so it lies in [0, 1) |
| coverage, sentence_coverage | share of the query's idf that the whole text holds, or its best sentence |
| precision | share of the idf of a sentence that the query holds, best sentence |
| query_length, text_length, sentences | log(1 + terms), log(1 + terms), number of sentences |

The statistics behind idf and the mean length are fitted on the pins of the training folder and stored with the teacher.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import log
from pathlib import Path

import numpy as np
import Stemmer
import torch
from bm25s.stopwords import STOPWORDS_EN
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from training.source import resolve
from training.teachers.config import FEATURES, TeacherError

K1, B = 1.2, 0.75
CHUNK = 1024
"""Pairs whose cosines are computed at once."""
CACHED = 300_000
"""Texts whose vectors are kept; 1.5 kB each at 384 dimensions."""
MAX_SENTENCES = 16
"""Sentences of a text that are looked at: a rendered pin has at most seven fields."""

_TERM = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""A run of letters and digits, or one character of Japanese or Chinese."""
_STEMMER = Stemmer.Stemmer("english")


@lru_cache(maxsize=200_000)
def terms(text: str) -> tuple[str, ...]:
    """English stems without stop words; words of other languages pass through the stemmer as they are or nearly so."""
    return tuple(_STEMMER.stemWords([word for word in _TERM.findall(text.lower()) if word not in STOPWORDS_EN]))


def sentences(text: str) -> list[str]:
    """The fields of a rendered pin, as `pins.text.render` joined them; the text itself where it is one."""
    return [part for part in text.split(". ") if part][:MAX_SENTENCES] or [text]


@dataclass(frozen=True, slots=True)
class Lexicon:
    """What BM25 knows of a collection: in how many of `texts` each term occurs, and their mean length in terms."""

    texts: int
    mean_length: float
    frequency: dict[str, int]

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Lexicon:
        """Count the terms of a collection."""
        frequency: Counter[str] = Counter()
        for text in texts:
            frequency.update(set(terms(text)))
        return cls(len(texts), sum(len(terms(text)) for text in texts) / max(1, len(texts)), dict(sorted(frequency.items())))

    def idf(self, term: str) -> float:
        """Weight of a term: ln(1 + (N - n + 0.5) / (n + 0.5)), above 0 for every term."""
        known = self.frequency.get(term, 0)
        return log(1.0 + (self.texts - known + 0.5) / (known + 0.5))

    def match(self, query: str, text: str) -> dict[str, float]:
        """The features that need no vectors, by name."""
        asked = {term: self.idf(term) for term in terms(query)}
        parts = [set(terms(part)) for part in sentences(text)]
        counts = Counter(terms(text))
        total = sum(asked.values()) or 1.0
        norm = K1 * (1 - B + B * counts.total() / max(self.mean_length, 1e-9))
        return {
            "bm25": sum(weight * counts[term] / (counts[term] + norm) for term, weight in asked.items() if counts[term]) / total,
            "coverage": sum(weight for term, weight in asked.items() if counts[term]) / total,
            "sentence_coverage": max(sum(weight for term, weight in asked.items() if term in part) for part in parts) / total,
            "precision": max(sum(map(self.idf, part & asked.keys())) / (sum(map(self.idf, part)) or 1.0) for part in parts),
            "query_length": log(1 + len(terms(query))),
            "text_length": log(1 + counts.total()),
            "sentences": float(len(parts)),
        }

    def write(self, path: Path) -> None:
        """Store as JSON."""
        body = {"texts": self.texts, "mean_length": self.mean_length, "frequency": self.frequency}
        path.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def open(cls, path: Path) -> Lexicon:
        """Read what `write` stored."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


class Encoder:
    """A bi-encoder whose vectors are kept by text: pins come back with every query that meets them."""

    def __init__(self, name: str, device: torch.device | str | None = None) -> None:
        self.name = name
        place = resolve(name).place
        try:
            self.model = SentenceTransformer(place, device=str(device) if device else None)
        except (OSError, ValueError) as error:
            raise TeacherError(f"features.encoder {name!r} cannot be loaded: {error}") from error
        self._kept: dict[str, NDArray[np.float32]] = {}

    def vectors(self, texts: Sequence[str], progress: bool = False) -> NDArray[np.float32]:
        """Unit vectors, float32 (len(texts), dimension)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._kept]
        if new:
            fresh = self.model.encode(new, batch_size=64, normalize_embeddings=True, show_progress_bar=progress, convert_to_numpy=True)
            self._kept.update(zip(new, np.asarray(fresh, np.float32), strict=True))
        found = np.stack([self._kept[text] for text in texts])
        for oldest in list(self._kept)[: max(0, len(self._kept) - CACHED)]:
            del self._kept[oldest]
        return found

    def digest(self) -> str:
        """sha256 over the names and values of all weights, in order of name."""
        total = sha256()
        for name, weight in sorted(self.model.state_dict().items()):
            total.update(name.encode())
            total.update(weight.detach().cpu().contiguous().float().numpy().tobytes())
        return total.hexdigest()


class MatchFeatures:
    """The named features of any pairs, with one encoder and one lexicon."""

    def __init__(self, names: Sequence[str], encoder: Encoder, lexicon: Lexicon) -> None:
        self.names, self.encoder, self.lexicon = tuple(names), encoder, lexicon

    def matrix(self, queries: Sequence[str], texts: Sequence[str], progress: bool = False) -> NDArray[np.float32]:
        """float32 (len(queries), len(names)), one row per pair."""
        rows = np.empty((len(queries), len(self.names)), np.float32)
        columns = [FEATURES.index(name) for name in self.names]
        self.encoder.vectors([*queries, *texts, *(part for text in dict.fromkeys(texts) for part in sentences(text))][:CACHED] or [""], progress)
        for start in tqdm(range(0, len(queries), CHUNK), "match features", unit="chunk", disable=not progress):
            here = slice(start, start + CHUNK)
            rows[here] = self._chunk(queries[here], texts[here])[:, columns]
        return rows

    def _chunk(self, queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
        """All FEATURES of a few pairs, in their order."""
        asked, whole = self.encoder.vectors(queries), self.encoder.vectors(texts)
        parts = [sentences(text) for text in texts]
        lengths = np.array([len(part) for part in parts])
        real = np.arange(lengths.max()) < lengths[:, None]
        cosines = np.full(real.shape, -np.inf, np.float32)
        flat = self.encoder.vectors([sentence for part in parts for sentence in part])
        cosines[real] = np.einsum("nd,nd->n", np.repeat(asked, lengths, axis=0), flat)
        best = -np.sort(-cosines, axis=1)
        mean = np.where(real, cosines, 0).sum(axis=1) / lengths
        second = np.where(lengths > 1, best[:, min(1, best.shape[1] - 1)], best[:, 0])
        worst = np.where(real, cosines, np.inf).min(axis=1)
        centroid = np.add.reduceat(flat, np.r_[0, lengths.cumsum()[:-1]], axis=0)
        centroid /= np.maximum(np.linalg.norm(centroid, axis=1, keepdims=True), 1e-9)
        dense = [np.einsum("nd,nd->n", asked, whole), best[:, 0], second, mean, worst, np.einsum("nd,nd->n", asked, centroid)]
        sparse = [self.lexicon.match(query, text) for query, text in zip(queries, texts, strict=True)]
        return np.stack([*dense, *(np.array([row[name] for row in sparse]) for name in FEATURES[len(dense) :])], axis=1).astype(np.float32)
