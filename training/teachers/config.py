"""A teacher's recipe: one TOML file read into frozen values. What each key means and how to choose it stands here.

Unknown keys and values of the wrong kind are refused with the name of the nearest known key, before anything is loaded.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from training.data import MAX_LEVELS

KINDS = ("cross_encoder", "features", "stack")
FEATURES = (
    "cosine",
    "sentence_max",
    "sentence_second",
    "sentence_mean",
    "sentence_min",
    "sentence_centroid",
    "bm25",
    "coverage",
    "sentence_coverage",
    "precision",
    "query_length",
    "text_length",
    "sentences",
)
"""Match features by name; `training.teachers.features` says how each is computed."""


class TeacherError(SystemExit):
    """A teacher cannot be trained or opened; the message says which value and what to change. Ends a command with exit code 1."""


@dataclass(frozen=True, slots=True)
class Base:
    """The transformer. None of this is used by `kind = "features"` and `kind = "stack"`."""

    name: str = ""
    """A package with weights (`training.source.PACKAGES`), a Hugging Face name or a folder in Hugging Face layout."""
    pooling: str = "cls"
    """What stands for the pair: `cls` (first token: BERT, DeBERTa, XLM-R), `mean` (over real tokens: T5), `last` (last real token: decoders)."""
    max_tokens: int = 192
    """Query and text together, in tokens; the longer of the two is cut first."""
    precision: str = "no"
    """`bf16` computes in bfloat16 on a GPU that has it; `no` stays in fp32."""
    quantise: str = "none"
    """`4bit` loads the weights as NF4 (QLoRA, arXiv 2305.14314): needs a CUDA GPU, bitsandbytes and `lora_rank`."""
    lora_rank: int = 0
    """Rank of low-rank adapters (LoRA, arXiv 2106.09685); 0 trains every weight of the base."""
    lora_alpha: int = 16
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ()
    """Names of the linear layers that get adapters: all of attention and MLP in QLoRA."""
    gradient_checkpointing: bool = False
    """Computes activations twice to keep few of them: about a third slower, a fraction of the memory."""


@dataclass(frozen=True, slots=True)
class Match:
    """Match features of a query and a text, given to the head beside the pooled vector (or instead of it)."""

    encoder: str = ""
    """The bi-encoder whose cosines are features: a package, a Hugging Face name, or a folder (which is copied into the teacher's)."""
    names: tuple[str, ...] = ()
    """Which of FEATURES."""


@dataclass(frozen=True, slots=True)
class Head:
    """The small network on top, one per data set."""

    hidden: int = 128
    """Width of its one hidden layer; 0 leaves a linear map."""
    dropout: float = 0.1
    form: str = "softmax"
    """`softmax`: a logit per level. `ordinal`: one score and increasing thresholds (McCullagh 1980), so the levels keep their order."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Weights of the three losses, which are added. A list or pair loss makes batches of whole queries."""

    levels: float = 1.0
    """Cross-entropy against the soft levels, per row."""
    listwise: float = 0.0
    """ListNet (Cao et al. 2007): softmax over the candidates of one query."""
    pairwise: float = 0.0
    """LambdaRank (Burges 2010): logistic loss of two candidates' order, weighted by what swapping them costs in nDCG."""
    temperature: float = 1.0
    """Divides expected levels before the softmax of the list loss and the logistic of the pair loss."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    passes: int = 3
    batch_pairs: int = 32
    """Pairs per step and process; with a list or pair loss, as many whole queries as fit."""
    accumulate: int = 1
    """Steps whose gradients are added before the weights move."""
    learning_rate: float = 3e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    """Share of all updates in which the learning rate rises from 0; then it falls linearly to 0."""
    max_gradient_norm: float = 1.0
    checkpoint_every: int = 200
    """Updates between checkpoints."""
    evaluate_every: int = 200
    """Updates between two looks at the validation queries."""
    patience: int = 5
    """Looks without a better one before training stops; 0 never stops early."""
    log_loss_weight: float = 0.1
    """The best teacher has the largest nDCG@20 - log_loss_weight x log loss."""
    hold_out: float = 0.0
    """Share of the train groups that are kept from training and choose the best teacher, and that a stack learns from; 0 chooses by dev."""


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """A whole recipe. The first of `heads` is the main one: `Teacher.predict` gives its levels and dev is measured with it."""

    name: str
    """Beginning of the teacher's id."""
    kind: str
    """`cross_encoder`: a transformer reads query and text together. `features`: only match features. `stack`: match features and the levels
    of a trained cross-encoder, given with --stack-on."""
    heads: dict[str, int]
    """Data sets, by folder name, and the number of levels of each: scales are never pooled."""
    languages: tuple[str, ...] = ()
    """Query languages to train and validate on; empty means all."""
    weights: dict[str, float] = field(default_factory=dict)
    """Weight of a row in the loss by its source (`sis`, `sits`, `sits_own`, `own`, and `direct` for extra_text_pairs); 1 where none is given,
    0 leaves the rows out."""
    smoothing: float = 0.0
    """How far human grades blur into neighbouring levels (`training.teachers.examples.soft_targets`)."""
    base: Base = Base()
    head: Head = Head()
    features: Match = Match()
    loss: Loss = Loss()
    training: Schedule = Schedule()

    def __post_init__(self) -> None:
        for wrong, advice in _rules(self):
            if wrong:
                raise TeacherError(f"teacher config {self.name!r}: {advice}")

    @property
    def main(self) -> str:
        """The main data set."""
        return next(iter(self.heads))

    @property
    def whole_queries(self) -> bool:
        """Whether batches must hold all candidates of a query."""
        return self.loss.listwise > 0 or self.loss.pairwise > 0

    @property
    def digest(self) -> str:
        """sha256 over all values: two runs with one digest have one recipe."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _rules(config: TeacherConfig) -> list[tuple[bool, str]]:
    base, match, times = config.base, config.features, config.training
    strange = sorted(set(match.names) - set(FEATURES))
    learned = config.kind == "cross_encoder"
    return [
        (config.kind not in KINDS, f"kind {config.kind!r} is not one of {', '.join(KINDS)}"),
        (not config.heads, "heads names no data set; write heads = {cxc_pins = 5}"),
        (any(not 2 <= levels <= MAX_LEVELS for levels in config.heads.values()), f"heads: a scale has 2 to {MAX_LEVELS} levels"),
        (any(not weight >= 0 for weight in config.weights.values()), "weights must be 0 or more"),
        (not config.smoothing >= 0, f"smoothing is {config.smoothing}, it must be 0 or more"),
        (learned and not base.name, "a cross-encoder needs base.name: a package with weights, a Hugging Face name or a folder"),
        (base.pooling not in ("cls", "mean", "last"), f"base.pooling {base.pooling!r} is not cls, mean or last"),
        (base.precision not in ("no", "bf16"), f"base.precision {base.precision!r} is not no or bf16"),
        (base.quantise not in ("none", "4bit"), f"base.quantise {base.quantise!r} is not none or 4bit"),
        (base.quantise == "4bit" and not base.lora_rank, "weights in 4 bits cannot be trained themselves; set base.lora_rank, 16 is usual"),
        (base.lora_rank > 0 and not base.lora_targets, 'base.lora_rank needs base.lora_targets, as ["q_proj", "v_proj"]'),
        (bool(strange), f"features.names {', '.join(strange)} unknown; known: {', '.join(FEATURES)}"),
        (not learned and not match.names, f"kind {config.kind} needs features.names"),
        (bool(match.names) and not match.encoder, "features.names needs features.encoder: the bi-encoder whose cosines are features"),
        (config.head.form not in ("softmax", "ordinal"), f"head.form {config.head.form!r} is not softmax or ordinal"),
        (config.head.hidden < 0 or not 0 <= config.head.dropout < 1, "head.hidden must be 0 or more and head.dropout in [0, 1)"),
        (not config.loss.levels > 0, "loss.levels must be above 0: without it the levels mean nothing"),
        (min(config.loss.listwise, config.loss.pairwise) < 0 or not config.loss.temperature > 0, "loss weights must be 0 or more, its temperature above 0"),
        (min(times.passes, times.batch_pairs, times.accumulate, times.checkpoint_every, times.evaluate_every) < 1, "counts of [training] start at 1"),
        (not (0 <= times.warmup < 1 and 0 <= times.hold_out < 1), "training.warmup and training.hold_out are shares in [0, 1)"),
        (min(times.learning_rate, times.head_learning_rate, times.max_gradient_norm) <= 0, "learning rates and max_gradient_norm must be above 0"),
    ]


def read_config(path: Path) -> TeacherConfig:
    """Read a recipe. Raises TeacherError that names the file, the key and the nearest known one."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = ", ".join(sorted(str(file) for file in path.parent.glob("*.toml"))) or "none"
        raise TeacherError(f"{path} does not exist; recipes beside it: {near}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TeacherError(f"{path} is no TOML file: {error}") from error
    return parse(TeacherConfig, table, str(path))


def parse(kind: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """A dataclass from a TOML table: nested tables are dataclasses, lists become tuples. Raises TeacherError on any other shape."""
    hints = get_type_hints(kind)
    for key in table:
        if key not in hints:
            nearest = get_close_matches(key, list(hints), 1, cutoff=0.0)[0]
            raise TeacherError(f"{where}: unknown key {key!r}; did you mean {nearest!r}? Known: {', '.join(hints)}")
    missing = [entry.name for entry in fields(kind) if entry.name not in table and entry.default is MISSING and entry.default_factory is MISSING]
    if missing:
        raise TeacherError(f"{where}: {', '.join(missing)} missing")
    return kind(**{key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(value, Mapping):
        return parse(hint, value, where)  # type: ignore[arg-type]  # a hint that is a dataclass is a class
    inner = get_args(hint)
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(_value(inner[0], item, where) for item in value)
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _value(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        wanted = getattr(hint, "__name__", str(hint)).lower()
        raise TeacherError(f"{where} is {value!r}; it must be {'a table' if is_dataclass(hint) else wanted}")
    return value
