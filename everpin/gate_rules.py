"""The rules of the gate: the shipped `gate.toml`, and a file that a person lays over it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pins.errors import EverpinError

SHIPPED = Path(__file__).parent / "gate.toml"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ranking(_Table):
    """nDCG by language, against the live model."""

    metric: str
    max_loss: float = Field(ge=0)
    allow_missing: tuple[str, ...]


class Speed(_Table):
    """Encoding on this machine."""

    query_ms: float = Field(gt=0)
    texts_per_s_ratio: float = Field(ge=0)


class Size(_Table):
    """Of the folder."""

    megabytes: float = Field(gt=0)


class Int8(_Table):
    """Parity of the exported graph with the fp32 reference."""

    min_cosine: float = Field(ge=-1, le=1)
    max_ndcg_loss: float = Field(ge=0)
    allow_missing: bool


class Contents(_Table):
    """What the manifest must say."""

    drift: bool
    metrics: tuple[str, ...]
    licences: tuple[str, ...]


class Order(_Table):
    """`first` must be nearer to the query than `then`, by at least `margin` of cosine."""

    lang: str
    query: str
    first: str
    then: str
    margin: float = Field(0.0, ge=0)

    @property
    def compared(self) -> tuple[str, ...]:
        """The query, what must be nearer to it, and what farther."""
        return self.query, self.first, self.then


class Paraphrase(_Table):
    """Two texts whose cosine must be at least `min_cosine`."""

    lang: str
    texts: tuple[str, str]
    min_cosine: float = Field(ge=-1, le=1)


class Canary(_Table):
    """Strings whose vectors are known to a person beforehand."""

    vectors: tuple[str, ...]
    order: tuple[Order, ...]
    paraphrase: tuple[Paraphrase, ...]


class Rules(_Table):
    """All thresholds; what each means stands beside it in gate.toml."""

    ranking: Ranking
    speed: Speed
    size: Size
    int8: Int8
    manifest: Contents
    canary: Canary


def read_rules(path: Path | None = None) -> Rules:
    """The shipped rules, with those of `path` laid over them key by key. Raises EverpinError that names the wrong key."""
    body = _read(SHIPPED)
    if path is not None:
        body |= {name: _laid_over(body.get(name), value) for name, value in _read(path).items()}
    try:
        return Rules.model_validate(body)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}, got {item['input']!r:.80}" for item in error.errors())
        raise EverpinError(f"--gate {path or SHIPPED}: {wrong}; the keys there are stand in {SHIPPED}") from error


def _laid_over(table: Any, over: Any) -> Any:
    return table | over if isinstance(table, dict) and isinstance(over, dict) else over


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EverpinError(f"--gate {path} cannot be read: {error}; copy {SHIPPED} and change that") from error
