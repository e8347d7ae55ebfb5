"""Whatever can score (query, pin) pairs, behind one face: published student, torch student, teacher, BM25.

`open_scorer` chooses by what a folder holds. A student and BM25 can also score every pin for a query (`against_all`), which recall
over the whole index needs; a teacher reads pairs one by one and cannot. The vectors of a live index: `training.measures.live_index`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedder.artifact import MANIFEST, read_manifest
from pins.errors import EverpinError
from pins.relevance import OrdinalHead
from training.data import DataError, Pairs
from training.labels.candidates import ENGLISH, Bm25
from training.students.published import embed, open_student

BM25 = "bm25"
"""The name that stands for the BM25 baseline where a model folder is asked for."""
GATHERED = 16_384
"""Pairs whose vectors are gathered at once."""
FILES_THAT_TELL = {MANIFEST: "published student", "teacher.json": "teacher", "modules.json": "torch student", "config.json": "torch student"}
"""What a folder is, by the first of these files that it holds."""

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scored:
    """Answers to n pairs. `scores`: float64 (n,), higher is more relevant; minus infinity for a pin that cannot be found at all.

    `levels`: probabilities of the five levels, float64 (n, 5), rows of sum 1; None where the system knows no levels.
    """

    scores: Floats
    levels: Floats | None


@runtime_checkable
class Scorer(Protocol):
    """Scores pairs. `lineage` says what the system was made from, as its own folder says it."""

    model_id: str
    lineage: Mapping[str, Any]

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """Score `pairs`, whose `query` and `pin` are places in `queries` (texts) and `texts` (rendered pins)."""


@runtime_checkable
class Retriever(Scorer, Protocol):
    """A scorer that can search all pins."""

    def against_all(self, queries: Sequence[str], langs: Sequence[str], texts: Sequence[str]) -> Floats:
        """Scores of every pin for every query, shape (queries, pins); minus infinity where a pin is not found."""


@dataclass
class VectorScorer:
    """A student: the cosine of two vectors, and levels by its ordinal head. Every distinct text is embedded once.

    `encode`: texts to unit vectors, float32 (n, dimension). `dimension`: score by the first so many numbers of each vector only,
    made unit again (Matryoshka, arXiv 2205.13147).
    """

    model_id: str
    encode: Callable[[Sequence[str]], Vectors]
    head: OrdinalHead | None
    lineage: Mapping[str, Any]
    dimension: int | None = None
    _known: dict[str, Vectors] = field(default_factory=dict, repr=False)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 of shape (len(texts), dimension)."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            self._known.update(zip(fresh, shortened(self.encode(fresh), self.dimension), strict=True))
        return np.stack([self._known[text] for text in texts])

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """As `Scorer.score`: the cosines of the pairs."""
        pins, place = np.unique(pairs.pin, return_inverse=True)
        return self.score_vectors(queries, self.vectors([texts[pin] for pin in pins]), pairs.query, place)

    def score_vectors(self, queries: Sequence[str], pins: Vectors, asked: NDArray[np.int64], place: NDArray[np.intp]) -> Scored:
        """Score rows of `pins` (m, dimension), one row of pairs per entry of `asked` (place in `queries`) and `place` (row of `pins`)."""
        distinct, row = np.unique(asked, return_inverse=True)
        vectors = self.vectors([queries[number] for number in distinct])
        parts = [slice(start, start + GATHERED) for start in range(0, len(asked), GATHERED)]
        cosines = np.concatenate([np.einsum("nd,nd->n", vectors[row[part]], pins[place[part]]) for part in parts]).astype(np.float64)
        return Scored(cosines, None if self.head is None else self.head.probabilities(cosines))

    def against_all(self, queries: Sequence[str], langs: Sequence[str], texts: Sequence[str]) -> Floats:
        """As `Retriever.against_all`: the cosines; a pin without text is not found."""
        scores = (self.vectors(queries) @ self.vectors(texts).T).astype(np.float64)
        scores[:, [not text for text in texts]] = -np.inf
        return scores


@dataclass(frozen=True)
class TeacherScorer:
    """A cross-encoder: it reads query and pin together, and its score is the expected level. `head`: None for its main one."""

    teacher: Any
    lineage: Mapping[str, Any]
    head: str | None = None

    @property
    def model_id(self) -> str:
        return str(self.teacher.teacher_id)

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """As `Scorer.score`."""
        levels = self.teacher.predict([queries[row] for row in pairs.query], [texts[row] for row in pairs.pin], head=self.head)
        return Scored(levels @ np.arange(1.0, levels.shape[1] + 1), levels)


@dataclass
class Bm25Scorer:
    """BM25 over the pins' texts (k1 1.2, b 0.75; `training.labels.candidates`): what plain word search reaches.

    `langs`: the language of each pin. Queries in English are compared by English rules where the pin is English; for any other query
    every pin is read word by word as it stands, so that words which two languages share still meet.
    """

    langs: Sequence[str]
    model_id: str = BM25
    lineage: Mapping[str, Any] = field(default_factory=dict)
    _indexes: dict[bool, Bm25] = field(default_factory=dict, repr=False)

    def score(self, queries: Sequence[str], texts: Sequence[str], pairs: Pairs) -> Scored:
        """As `Scorer.score`; a pin that shares no term with the query scores 0."""
        scores = np.empty(len(pairs))
        for number, rows in rows_by_query(pairs):
            scores[rows] = self._search(queries[number], str(pairs.lang[rows[0]]), texts)[pairs.pin[rows]]
        return Scored(scores, None)

    def against_all(self, queries: Sequence[str], langs: Sequence[str], texts: Sequence[str]) -> Floats:
        """As `Retriever.against_all`; a pin that shares no term is not found."""
        scores = np.stack([self._search(text, lang, texts) for text, lang in zip(queries, langs, strict=True)]).astype(np.float64)
        return np.where(scores > 0, scores, -np.inf)

    def _search(self, text: str, lang: str, texts: Sequence[str]) -> Vectors:
        english = lang in ENGLISH
        if english not in self._indexes:
            self._indexes[english] = Bm25(texts, self.langs if english else [lang] * len(texts))
        return self._indexes[english].scores(text, lang)


def rows_by_query(pairs: Pairs) -> list[tuple[int, NDArray[np.intp]]]:
    """Each query's place and the rows of its pairs, in the order of the folder."""
    order = np.argsort(pairs.query, kind="stable")
    numbers, starts = np.unique(pairs.query[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(pairs) else []


def shortened(vectors: Vectors, dimension: int | None) -> Vectors:
    """The first `dimension` numbers of each vector, made unit again. Raises DataError where there are fewer."""
    if dimension is None:
        return vectors
    if not 1 <= dimension <= vectors.shape[1]:
        raise DataError(f"vectors have {vectors.shape[1]} numbers; a dimension of {dimension} cannot be cut from them")
    cut = vectors[:, :dimension]
    short: Vectors = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.float32(1e-12))
    return short


def open_scorer(model: Path | str, langs: Sequence[str] = (), dimension: int | None = None, dataset: str | None = None) -> Scorer:
    """The scorer of a model folder, or of the name `bm25`, for which `langs` gives the pins' languages. Raises DataError.

    A teacher with a head for `dataset` answers on that one's scale, any other with its main head.
    """
    if str(model) == BM25:
        return Bm25Scorer(langs)
    folder = Path(model)
    kind = next((kind for name, kind in FILES_THAT_TELL.items() if (folder / name).exists()), None)
    if kind == "teacher":
        return _teacher(folder, dataset)
    if kind == "published student":
        return _published(folder, dimension)
    if kind == "torch student":
        return _torch_student(folder, dimension)
    raise DataError(f"{folder} is no model: give {BM25!r}, or a folder that holds one of {', '.join(FILES_THAT_TELL)}")


def _published(folder: Path, dimension: int | None) -> VectorScorer:
    try:
        student = open_student(folder)
        manifest = read_manifest(folder)
    except EverpinError as error:
        raise DataError(f"{folder} cannot be used: {error}") from error
    body = _json(folder / MANIFEST)
    lineage = {"kind": "published student", **{name: body[name] for name in sorted(body.keys() - {"files", "metrics", "ordinal_head", "drift"})}}
    return VectorScorer(manifest.model_id, lambda texts: embed(student, texts, "texts"), manifest.ordinal_head, lineage, dimension)


def _teacher(folder: Path, dataset: str | None) -> TeacherScorer:
    body = _json(folder / "teacher.json")
    from training.teachers.teacher import open_teacher  # noqa: PLC0415  # torch is loaded for teachers only

    return TeacherScorer(open_teacher(folder), {"kind": "teacher", **body}, dataset if dataset in body.get("heads", {}) else None)


def _torch_student(folder: Path, dimension: int | None) -> VectorScorer:
    try:
        model = _sentence_transformer(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} cannot be loaded as a torch student: {error}; copy or train it again") from error

    def encode(texts: Sequence[str]) -> Vectors:
        return np.asarray(model.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=True), np.float32)

    described = _json(folder / "student.json") if (folder / "student.json").exists() else {}
    lineage = {"kind": "torch student", **described.get("lineage", {})}
    return VectorScorer(folder.resolve().name.lower(), encode, _head(described.get("ordinal_head"), folder), lineage, dimension)


def _sentence_transformer(folder: Path) -> Any:
    """A folder with modules.json as it says; plain Hugging Face layout with the pooling and the length that it names."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415  # torch is loaded for torch students only
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer  # noqa: PLC0415

    from training.source import resolve  # noqa: PLC0415

    if (folder / "modules.json").exists():
        return SentenceTransformer(str(folder))
    source = resolve(str(folder))
    transformer = Transformer(str(folder), max_seq_length=source.max_tokens)
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), source.pooling)])


def _head(body: Mapping[str, Any] | None, folder: Path) -> OrdinalHead | None:
    if body is None:
        return None
    try:
        return OrdinalHead(float(body["scale"]), tuple(map(float, body["thresholds"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / 'student.json'}: the ordinal head cannot be used: {error}; it needs scale and four thresholds") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); copy the model folder again") from error
    if not isinstance(body, dict):
        raise DataError(f"{path} must hold a JSON object; copy the model folder again")
    return body
