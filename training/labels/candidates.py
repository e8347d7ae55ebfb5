"""Which pins a query is compared with, before a teacher scores the pairs: found by BM25, found by the current index, or random.

Everything is deterministic: ties go to the pin that comes first in the folder, and chance comes from (seed, text of the query),
so neither the order of queries nor an interruption changes a candidate. Queries that read alike get the same pins.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

import bm25s
import numpy as np
import Stemmer
from bm25s.stopwords import STOPWORDS_EN
from numpy.typing import NDArray

from training.data import DataError

K1, B = 1.2, 0.75
"""BM25's constants as Robertson and Zaragoza (2009) recommend them for short text."""
BLOCK_SCORES = 16_000_000
"""Cosines held at once: 64 MB. Queries are taken in blocks of as many as fit."""
ENGLISH = ("en", "", "?")
"""Languages that are read as English: pins and queries without a language are."""

Encode = Callable[[list[str]], NDArray[np.float32]]
"""Texts to unit vectors, float32 of shape (n, dimension): the published student's `encode`."""

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_WIDE = re.compile(rf"[{_CJK}]")


@dataclass(frozen=True, slots=True)
class Asked:
    """What candidates are sought for: a text, its language, and the pins that people judged for it.

    `own`: pins it was written for, `judged`: the others; places in the catalogue. Both are empty for a query of a log.
    """

    text: str
    lang: str
    own: tuple[int, ...] = ()
    judged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Mix:
    """Proportions of the kinds of candidate, as whole parts, and the ranks that hard negatives are drawn from.

    `judged`: pairs with a human grade, the query's own pin first; `bm25` and `index`: the first places of each list; `hard`:
    chance picks from ranks `hard_from` to `hard_to` of either list; `random`: any pin. What a kind cannot fill (a log's query
    has no judged pin, BM25 may find nothing) goes to the index list, then to chance. The defaults add up to 32.
    """

    judged: int = 12
    bm25: int = 4
    index: int = 6
    hard: int = 6
    random: int = 4
    hard_from: int = 20
    hard_to: int = 200

    def __post_init__(self) -> None:
        parts = (self.judged, self.bm25, self.index, self.hard, self.random)
        if not all(isinstance(value, int) and value >= 0 for value in asdict(self).values()) or not sum(parts[1:]):
            raise DataError(f"the mix needs whole parts of at least 0, and one of bm25, index, hard, random above 0; got {asdict(self)}")
        if not 1 <= self.hard_from <= self.hard_to:
            raise DataError(f"hard negatives need ranks 1 <= hard_from <= hard_to, got {self.hard_from} and {self.hard_to}")

    def quotas(self, per_query: int, judged: bool) -> dict[str, int]:
        """How many candidates of each kind, adding up to `per_query`: shares by largest remainder (Hamilton)."""
        parts = {"judged": self.judged if judged else 0, "bm25": self.bm25, "index": self.index, "hard": self.hard, "random": self.random}
        total = sum(parts.values())
        quotas = {kind: per_query * part // total for kind, part in parts.items()}
        by_remainder = sorted(parts, key=lambda kind: -(per_query * parts[kind] % total))
        for kind in by_remainder[: per_query - sum(quotas.values())]:
            quotas[kind] += 1
        return quotas


@dataclass(frozen=True, slots=True)
class Candidates:
    """(query, pin) pairs, one row each, query by query. `asked` and `pin`: int64 places; `source`: judged, bm25, index or random."""

    asked: NDArray[np.int64]
    pin: NDArray[np.int64]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.pin)


class Bm25:
    """A BM25 index over pin texts. Terms are made by `terms`, each text by the rules of its own language."""

    def __init__(self, texts: Sequence[str], langs: Sequence[str]) -> None:
        self._stem = Stemmer.Stemmer("english")
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        words = [terms(text, lang, self._stem) for text, lang in zip(texts, langs, strict=True)]
        self._wordless = not any(words)
        if not self._wordless:
            self._index.index(words, show_progress=False)
        self._pins = len(texts)

    def scores(self, text: str, lang: str) -> NDArray[np.float32]:
        """BM25 score of every pin, float32 of shape (pins,); 0 where a pin shares no term with the text."""
        known = [] if self._wordless else self._index.get_tokens_ids(terms(text, lang, self._stem))
        if not known:
            return np.zeros(self._pins, np.float32)
        return np.asarray(self._index.get_scores_from_ids(known), np.float32)


def terms(text: str, lang: str, stem: Any) -> list[str]:
    """Search terms: English words without stop words, stemmed (Snowball); words of other languages whole; Han and kana as bigrams."""
    words = []
    for run in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _WIDE.match(run):
            words += [run[start : start + 2] for start in range(max(1, len(run) - 1))]
        elif lang not in ENGLISH:
            words.append(run)
        elif run not in STOPWORDS_EN:
            words.append(stem.stemWord(run))
    return words


class Catalogue:
    """The pins of a folder, ready to be searched with words and with vectors.

    `texts` and `langs`: one per pin; `vectors`: the index, unit vectors of shape (pins, dimension); `encode`: the student that
    made them.
    """

    def __init__(self, texts: Sequence[str], langs: Sequence[str], vectors: NDArray[np.float32], encode: Encode, mix: Mix | None = None) -> None:
        if not len(texts) == len(langs) == len(vectors):
            raise ValueError(f"{len(texts)} texts, {len(langs)} languages and {len(vectors)} vectors are not of the same pins")
        self.mix = mix or Mix()
        self._bm25 = Bm25(texts, langs)
        self._vectors = vectors
        self._encode = encode

    def __len__(self) -> int:
        return len(self._vectors)

    def found(self, asked: Iterable[Asked]) -> NDArray[np.int64]:
        """For each query the number of pins that share a term with it."""
        return np.array([np.count_nonzero(self._bm25.scores(one.text, one.lang)) for one in asked], np.int64)

    def candidates(self, asked: Sequence[Asked], per_query: int, seed: int) -> Candidates:
        """`per_query` different pins for each query, or all pins where the catalogue has fewer."""
        texts = sorted({one.text for one in asked})
        near = dict(zip(texts, self._nearest(texts), strict=True))
        picked = [self._pick(one, near[one.text], per_query, seed) for one in asked]
        return Candidates(
            np.repeat(np.arange(len(asked)), [len(pins) for pins in picked]),
            np.array([pin for pins in picked for pin in pins], np.int64),
            np.array([source for pins in picked for source in pins.values()], np.str_),
        )

    def _nearest(self, texts: list[str]) -> Iterator[NDArray[np.int64]]:
        """For each text its nearest pins, best first."""
        vectors = self._encode(texts) if texts else np.empty((0, self._vectors.shape[1]), np.float32)
        block = max(1, BLOCK_SCORES // len(self))
        for start in range(0, len(texts), block):
            for cosines in vectors[start : start + block] @ self._vectors.T:
                yield top(cosines, self.mix.hard_to)

    def _pick(self, asked: Asked, near: NDArray[np.int64], per_query: int, seed: int) -> dict[int, str]:
        """Pins and where each came from."""
        quotas = self.mix.quotas(per_query, bool(asked.own or asked.judged))
        luck = np.random.default_rng(lot(seed, asked.text)).random(len(self))
        scores = self._bm25.scores(asked.text, asked.lang)
        words = top(np.where(scores > 0, scores, -np.inf), self.mix.hard_to)
        picked: dict[int, str] = {}
        _take(picked, [*asked.own, *sorted(asked.judged, key=lambda pin: luck[pin])], "judged", quotas["judged"])
        _take(picked, words, "bm25", quotas["bm25"])
        _take(picked, near, "index", quotas["index"])
        self._take_hard(picked, words, near, luck, quotas["hard"])
        _take(picked, near, "index", per_query - quotas["random"] - len(picked))
        enough = min(len(self), per_query + len(picked))
        _take(picked, top(-luck, enough), "random", per_query - len(picked))
        return picked

    def _take_hard(self, picked: dict[int, str], words: NDArray[np.int64], near: NDArray[np.int64], luck: NDArray[np.float64], most: int) -> None:
        """Chance picks from the middle ranks of both lists, each under the name of the list it is in (BM25 where in both)."""
        ranks = slice(self.mix.hard_from - 1, self.mix.hard_to)
        source = dict.fromkeys(near[ranks].tolist(), "index") | dict.fromkeys(words[ranks].tolist(), "bm25")
        fresh = sorted((pin for pin in source if pin not in picked), key=lambda pin: luck[pin])
        picked.update((pin, source[pin]) for pin in fresh[: max(0, most)])


def _take(picked: dict[int, str], pins: Iterable[int], source: str, most: int) -> None:
    """The first `most` pins that are not picked yet."""
    fresh = (int(pin) for pin in pins if int(pin) not in picked)
    picked.update(dict.fromkeys(islice(fresh, max(0, most)), source))


def top(scores: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Places of the highest scores, best first, equal ones in order of place; -inf never. At most `most`."""
    floor = np.partition(scores, -most)[-most] if most < len(scores) else -np.inf
    places = np.flatnonzero((scores >= floor) & (scores > -np.inf))
    return places[np.argsort(-scores[places], kind="stable")][:most]


def lot(seed: int, text: str) -> int:
    """A number below 2^64 drawn by a seed and a text: the same on every machine and in every order."""
    return int.from_bytes(blake2b(f"{seed}\n{text}".encode(), digest_size=8).digest())
