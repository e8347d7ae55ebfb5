"""The teacher: graded relevance of any (query, pin text) pairs, and the folder it lives in.

A teacher folder holds teacher.json (what it is, how it was trained, its figures), heads.safetensors, and of base/ (the transformer or
its adapters, and the tokenizer), lexicon.json (statistics of BM25), encoder/ (a bi-encoder that has no public name) and
cross_encoder/ (the teacher under a stack) what its kind needs. Training is `training.train_teacher`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from embedder.onnx import batches
from training.folder import rebuilt
from training.teachers.config import TeacherConfig, TeacherError, parse
from training.teachers.features import Encoder, Lexicon, MatchFeatures
from training.teachers.model import TeacherModel, load_base, load_tokenizer

ABOUT, HEADS, BASE, LEXICON, ENCODER, CROSS = "teacher.json", "heads.safetensors", "base", "lexicon.json", "encoder", "cross_encoder"
CHUNK = 16_384
"""Pairs that are tokenised and sorted by length together."""
BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""Padded tokens per forward pass."""


class PairFeatures:
    """The numbers the head sees beside the transformer: match features, and the level logarithms of a cross-encoder below."""

    def __init__(self, match: MatchFeatures | None, cross: Teacher | None) -> None:
        self.match, self.cross = match, cross

    @property
    def width(self) -> int:
        """Numbers per pair."""
        return (len(self.match.names) if self.match else 0) + (self.cross.levels if self.cross else 0)

    def matrix(self, queries: Sequence[str], texts: Sequence[str], progress: bool = False) -> NDArray[np.float32]:
        """float32 (len(queries), width)."""
        parts = [np.empty((len(queries), 0), np.float32)]
        if self.match:
            parts.append(self.match.matrix(queries, texts, progress))
        if self.cross:
            parts.append(np.log(np.maximum(self.cross.predict(queries, texts, progress), 1e-6)).astype(np.float32))
        return np.concatenate(parts, axis=1)


class Teacher:
    """A teacher in memory, trained or in training. `about` is its teacher.json; empty until it is saved."""

    def __init__(self, config: TeacherConfig, model: TeacherModel, tokenizer: Any, features: PairFeatures, about: Mapping[str, Any]) -> None:
        self.config, self.model, self.tokenizer, self.features, self.about = config, model, tokenizer, features, about

    @property
    def teacher_id(self) -> str:
        """The name of the recipe and eight digits of the weights' hash."""
        return str(self.about["teacher_id"])

    @property
    def levels(self) -> int:
        """Levels of the main head."""
        return self.config.heads[self.config.main]

    def predict(self, queries: Sequence[str], texts: Sequence[str], progress: bool = True, head: str | None = None) -> NDArray[np.float64]:
        """Level probabilities of the main head (or of the data set `head`), float64 (n, levels), rows sum to 1. Order does not matter."""
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries and {len(texts)} texts: pairs need as many of both")
        found = np.empty((len(queries), self.config.heads[head or self.config.main]))
        with tqdm(total=len(queries), desc="teacher", unit="pair", disable=not progress) as bar:
            for start in range(0, len(queries), CHUNK):
                here = slice(start, start + CHUNK)
                features = self.features.matrix(queries[here], texts[here]) if self.features.width else None
                found[here] = self.levels_of(queries[here], texts[here], features, head, bar)
        return found

    @torch.inference_mode()
    def levels_of(
        self, queries: Sequence[str], texts: Sequence[str], features: NDArray[np.float32] | None, head: str | None = None, bar: tqdm[Any] | None = None
    ) -> NDArray[np.float64]:
        """As `predict`, for pairs whose features are known already."""
        was_training = self.model.training
        self.model.eval()
        encoded = self.encode(queries, texts)
        found = np.empty((len(queries), self.config.heads[head or self.config.main]))
        for rows in batches([len(ids) for ids in encoded["input_ids"]] if encoded else [1] * len(queries), BATCH_TOKENS[self._device.type]):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.base.precision == "bf16" and self._device.type == "cuda"):
                logits = self.model(head or self.config.main, self.padded(encoded, rows), self.on_device(features, rows))
            levels = logits.double().exp()
            found[rows] = (levels / levels.sum(dim=1, keepdim=True)).cpu().numpy()
            if bar is not None:
                bar.update(len(rows))
        self.model.train(was_training)
        return found

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> dict[str, list[list[int]]]:
        """Token ids and what belongs to them, unpadded; empty for a teacher without a transformer."""
        if self.tokenizer is None or not queries:
            return {}
        return dict(self.tokenizer(list(queries), list(texts), truncation="longest_first", max_length=self.config.base.max_tokens))

    def padded(self, encoded: Mapping[str, list[list[int]]], rows: Sequence[int]) -> dict[str, Tensor] | None:
        """Some rows of `encode`, padded to the longest of them, on the model's device."""
        if not encoded:
            return None
        picked = self.tokenizer.pad({name: [values[row] for row in rows] for name, values in encoded.items()}, return_tensors="pt")
        return {name: values.to(self._device) for name, values in picked.items()}

    def on_device(self, features: NDArray[np.float32] | None, rows: Sequence[int]) -> Tensor | None:
        """Some rows of a feature matrix, on the model's device."""
        return None if features is None else torch.from_numpy(features[rows]).to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.model.mean.device


def build(config: TeacherConfig, features: PairFeatures, device: torch.device | str = "cpu") -> Teacher:
    """An untrained teacher: the base as published, heads drawn at random."""
    tokenizer = load_tokenizer(config.base.name) if config.kind == "cross_encoder" else None
    base = load_base(config.base, tokenizer, device) if tokenizer else None
    return Teacher(config, TeacherModel(config, base, features.width).to(device), tokenizer, features, {})


def save_teacher(folder: Path, teacher: Teacher, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the folder, whole or not at all, and return its teacher.json. `facts`: data digests, seed, metrics and the like."""
    with rebuilt(folder) as fresh:
        heads = {name: weight for name, weight in teacher.model.state_dict().items() if not name.startswith("base.")}
        save_file(heads, fresh / HEADS)
        if teacher.model.base is not None:
            teacher.model.base.save_pretrained(fresh / BASE)  # type: ignore[operator]  # a Hugging Face or PEFT model
            teacher.tokenizer.save_pretrained(fresh / BASE)
        _save_features(fresh, teacher.features)
        config = teacher.config
        about = {
            "teacher_id": f"{config.name}-{_digest(fresh)[:8]}",
            "kind": config.kind,
            "base": config.base.name,
            "heads": config.heads,
            "encoder_digest": teacher.features.match.encoder.digest() if teacher.features.match else None,
            **facts,
            "config": asdict(config),
        }
        write_about(fresh, about)
        return about


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    """Write teacher.json, numbers in full: a later run compares its recipe with them."""
    scratch = folder / f".{ABOUT}"
    scratch.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.rename(folder / ABOUT)


def open_teacher(folder: Path, device: str | None = None) -> Teacher:
    """A trained teacher, on the GPU where there is one. Raises TeacherError when the folder is none, or not as it was saved."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError) as error:
        raise TeacherError(f"{folder} is no teacher folder: {ABOUT}: {error}; python -m training.train_teacher writes one") from error
    config: TeacherConfig = parse(TeacherConfig, about["config"], str(folder / ABOUT))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    features = _open_features(folder, config, about, device)
    tokenizer = load_tokenizer(str(folder / BASE)) if config.kind == "cross_encoder" else None
    base = _open_base(folder, config, tokenizer, device) if tokenizer else None
    model = TeacherModel(config, base, features.width)
    try:
        found = model.load_state_dict(load_file(folder / HEADS), strict=False)
    except (OSError, RuntimeError) as error:
        raise TeacherError(f"{folder / HEADS} does not fit {ABOUT}: {error}; copy the folder again") from error
    if lacking := [name for name in found.missing_keys if not name.startswith("base.")]:
        raise TeacherError(f"{folder / HEADS} lacks {', '.join(lacking)}; copy the folder again")
    return Teacher(config, model.to(device).eval(), tokenizer, features, about)


def _open_base(folder: Path, config: TeacherConfig, tokenizer: Any, device: str) -> Any:
    if config.base.lora_rank:
        return load_base(config.base, tokenizer, device, adapters=folder / BASE)
    return load_base(replace(config.base, name=str(folder / BASE)), tokenizer, device)


def _save_features(folder: Path, features: PairFeatures) -> None:
    if features.match:
        features.match.lexicon.write(folder / LEXICON)
        encoder = Path(features.match.encoder.name)
        if encoder.is_dir():
            shutil.copytree(encoder, folder / ENCODER)
    if features.cross:
        save_teacher(folder / CROSS, features.cross, {name: value for name, value in features.cross.about.items() if name != "config"})


def _open_features(folder: Path, config: TeacherConfig, about: Mapping[str, Any], device: str) -> PairFeatures:
    cross = open_teacher(folder / CROSS, device) if config.kind == "stack" else None
    if not config.features.names:
        return PairFeatures(None, cross)
    own = folder / ENCODER
    encoder = Encoder(str(own) if own.is_dir() else config.features.encoder, device)
    if encoder.digest() != about["encoder_digest"]:
        raise TeacherError(f"{folder} was trained with other weights of {config.features.encoder}; install the release it was trained with, or train it anew")
    return PairFeatures(MatchFeatures(config.features.names, encoder, Lexicon.open(folder / LEXICON)), cross)


def _digest(folder: Path) -> str:
    total = sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(folder)).encode())
        total.update(sha256(path.read_bytes()).digest())
    return total.hexdigest()
