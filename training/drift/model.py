"""Fitting the drift predictor: token vectors and one hidden layer, on pairs of texts whose true drift the student gave.

A token's vector is a linear image of the student's own input embedding, so that tokens seen rarely still get a sensible one.
The loss is the pinball loss on the log of the drift at a high quantile: calling a real change cosmetic costs more than
calling a cosmetic one real. What is fitted here is run by `embedder.drift`, without torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, softplus
from tqdm import tqdm

from embedder.drift import FEATURES, Change
from training.exports.int8 import dequantise_blocks

WIDTH, HIDDEN, EPOCHS, BATCH, RATE, DECAY, QUANTILE, FLOOR = 48, 24, 12, 128, 3e-3, 1e-2, 0.9, 1e-4
"""FLOOR: drifts below it are numerical noise of the runtime."""

Examples = Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]]
TokenPairs = Sequence[tuple[Sequence[int], Sequence[int]]]
Arrays = dict[str, NDArray[np.generic]]


def input_embeddings(model: Path) -> NDArray[np.float32]:
    """The student's word embedding table, float32 of shape (vocabulary, width), read from its ONNX graph."""
    tensors = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
    name = next(name for name in tensors if "word_embeddings" in name)
    base = name.removesuffix("_int8").removesuffix("_scales")
    if base in tensors:
        return np.asarray(numpy_helper.to_array(tensors[base]), np.float32)
    return dequantise_blocks(numpy_helper.to_array(tensors[f"{base}_int8"]), numpy_helper.to_array(tensors[f"{base}_scales"]), axis=1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs as tensors: token rows laid end to end with the start of each text, fixed features, and log drift."""

    old: tuple[Tensor, Tensor]
    new: tuple[Tensor, Tensor]
    changed: tuple[Tensor, Tensor]
    shape: Tensor
    drift: Tensor


class DriftModel(nn.Module):
    """Token vectors from input embeddings, a weight per token, one hidden layer over the features of `Change`."""

    def __init__(self, embeddings: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.embeddings, self.low, self.high = embeddings, low, high
        self.project = nn.Linear(embeddings.shape[1], WIDTH, bias=True)
        self.weigh = nn.Linear(embeddings.shape[1], 1)
        self.free = nn.Parameter(torch.zeros(len(embeddings), 1))
        self.strike = nn.Linear(embeddings.shape[1], 1)
        self.struck = nn.Parameter(torch.zeros(len(embeddings), 1))
        self.hidden = nn.Linear(FEATURES, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def vectors(self) -> Tensor:
        """(tokens, WIDTH): each token's vector times its weight."""
        weights = softplus(self.weigh(self.embeddings) + self.free)
        return torch.as_tensor(self.project(self.embeddings) * weights)

    def impact(self) -> Tensor:
        """(tokens, 1): what a token that left or came adds to the edit's impact."""
        return softplus(self.strike(self.embeddings) + self.struck)

    def scaled(self, features: Tensor) -> Tensor:
        return (torch.clamp(features, self.low, self.high) - self.low) / (self.high - self.low + 1e-6) * 4 - 2

    def forward(self, batch: Batch) -> Tensor:
        vectors = self.vectors()
        before, after = (embedding_bag(tokens, vectors, starts, mode="sum") for tokens, starts in (batch.old, batch.new))
        distance = (after - before).square().sum(1) / (before.norm(dim=1) * after.norm(dim=1) + 1e-9)
        impact = embedding_bag(batch.changed[0], self.impact(), batch.changed[1], mode="sum")
        features = torch.cat([torch.log(distance + 1e-5)[:, None], torch.log(impact + 1e-3), batch.shape[:, 2:]], dim=1)
        return torch.as_tensor(self.output(torch.relu(self.hidden(self.scaled(features))))[:, 0])


def fit(embeddings: NDArray[np.float32], pairs: TokenPairs, drift: NDArray[np.float64], never: Iterable[int]) -> Arrays:
    """Fit on pairs and return the arrays of drift.npz. Tokens in `never`, or in no pair, get no row: they are never cosmetic."""
    torch.manual_seed(0)
    seen = np.array(sorted({token for pair in pairs for text in pair for token in text}))
    table = np.full(len(embeddings), len(seen))
    table[seen] = np.arange(len(seen))
    changes = [Change(np.asarray(old), np.asarray(new)) for old, new in tqdm(pairs, "edit features", unit="edit")]
    shapes = np.stack([change.features(1.0, 1.0) for change in changes])
    low, high = np.quantile(shapes, [0.002, 0.998], axis=0).astype(np.float32)
    low[:2], high[:2] = np.log([1e-5, 1e-3]), np.log([4.0, 100.0])
    normed = (embeddings[seen] - embeddings[seen].mean(axis=0)) / embeddings[seen].std()
    model = DriftModel(torch.from_numpy(normed), torch.from_numpy(low), torch.from_numpy(high))
    examples = [(*pair, change.tokens.tolist()) for pair, change in zip(pairs, changes, strict=True)]
    _train(model, examples, shapes, np.log(np.maximum(drift, FLOOR)), table)
    rows = np.where(table < len(seen), table, -1).astype(np.int32)
    rows[[token for token in never if token < len(rows)]] = -1
    return {"rows": rows, **_arrays(model)}


def _train(model: DriftModel, examples: Examples, shapes: NDArray[np.float32], logs: NDArray[np.float64], table: NDArray[np.int64]) -> None:
    steps = EPOCHS * (-(-len(examples) // BATCH))
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    order = np.random.default_rng(0)
    with tqdm(total=steps, desc="fit drift", unit="step") as bar:
        for _ in range(EPOCHS):
            for places in np.array_split(order.permutation(len(examples)), steps // EPOCHS):
                batch = _batch([examples[place] for place in places], shapes[places], logs[places], table)
                missing = batch.drift - model(batch)
                loss = torch.maximum(QUANTILE * missing, (QUANTILE - 1) * missing).mean()
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's own stub
                optimiser.step()
                schedule.step()
                bar.update()
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def _batch(examples: Examples, shapes: NDArray[np.float32], logs: NDArray[np.float64], table: NDArray[np.int64]) -> Batch:
    def flat(texts: list[Sequence[int]]) -> tuple[Tensor, Tensor]:
        starts = np.cumsum([0, *map(len, texts[:-1])])
        return torch.from_numpy(table[np.concatenate(texts).astype(np.int64)]), torch.from_numpy(starts)

    old, new, changed = (flat(list(texts)) for texts in zip(*examples, strict=True))
    return Batch(old, new, changed, torch.from_numpy(shapes), torch.from_numpy(logs.astype(np.float32)))


def _arrays(model: DriftModel) -> Arrays:
    """The fitted parameters in the form `embedder.drift` runs: feature scaling folded into the hidden layer."""
    with torch.no_grad():
        vectors = model.vectors()
        scale = 4 / (model.high - model.low + 1e-6)
        weight = model.hidden.weight.T * scale[:, None]
        bias = model.hidden.bias - (model.low * scale + 2) @ model.hidden.weight.T
        vectors, impact = (torch.cat([rows, rows.mean(dim=0, keepdim=True)]) for rows in (vectors, model.impact()))
        size = vectors.abs().max() / 100  # keeps float16 away from its limits; the static distance does not depend on scale
        found = {"vectors": (vectors / size).half(), "impact": impact[:, 0], "low": model.low, "high": model.high, "hidden": weight, "hidden_bias": bias}
        found |= {"output": model.output.weight[0], "output_bias": model.output.bias[0]}
        return {name: value.numpy() for name, value in found.items()}
