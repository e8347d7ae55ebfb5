"""How activations become uint8: one fixed scale and zero point for each tensor, from what flows through it on real texts.

Fixed ranges, because a range taken from each batch would make a text's vector depend on the texts beside it. A few channels are
far wider than the rest (outliers); dividing those by a factor, and multiplying the rows of the weight by it, leaves the
product as it is and the range to the others (SmoothQuant, arXiv 2211.10438, here for the widest channels only).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper

Matrix = NDArray[np.float32]

SAMPLE = 1024
"""Tokens kept of each tensor for judging ranges; the widest values are taken over all tokens."""
CLIPS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Shares of the full range that are tried at either end or both: values beyond are cut off, the others get finer steps."""
WIDE = (0.97, 0.9)
"""Quantiles of the channels' widths from which on a channel counts as wide."""
PAYS = 0.5
"""Dividing the wide channels is one more pass over the layers' input: done where it leaves at most this share of the error, and only
before layers with more outputs than inputs, whose time it hardly shows in."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What flowed through one tensor: a sample of tokens (n, channels), and each channel's extremes over all tokens."""

    sample: Matrix
    low: Matrix
    high: Matrix


@dataclass(frozen=True, slots=True)
class Range:
    """Uint8 of x is round(x / `divide` / `scale`) + `zero`; `divide` has one factor per channel, None where all are 1.

    `error`: what it changes in the layers behind it, as a share of their output's power, averaged over tokens.
    """

    scale: float
    zero: int
    divide: Matrix | None
    error: float


def observe(model: onnx.ModelProto, names: Sequence[str], batches: Iterable[Mapping[str, NDArray[np.int64]]], seed: int = 7) -> dict[str, Seen]:
    """Run the fp32 graph and look at tensors of shape (batch, tokens, channels); padding is left out, tensors of other shapes too."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    chance = np.random.default_rng(seed)
    seen: dict[str, Seen] = {}
    for feeds in batches:
        mask = feeds["attention_mask"].astype(bool)
        outputs = session.run(list(names), {name: array for name, array in feeds.items() if name in wanted})
        for name, output in zip(names, outputs, strict=True):
            if output.ndim == mask.ndim + 1 and output.shape[:2] == mask.shape:
                seen[name] = _merged(seen.get(name), output[mask], chance)
    return seen


def _merged(before: Seen | None, tokens: Matrix, chance: np.random.Generator) -> Seen:
    low, high = tokens.min(axis=0), tokens.max(axis=0)
    if before is None:
        return Seen(_some(tokens, chance), low, high)
    both = np.concatenate([before.sample, tokens])
    return Seen(_some(both, chance), np.minimum(low, before.low), np.maximum(high, before.high))


def _some(tokens: Matrix, chance: np.random.Generator) -> Matrix:
    return tokens if len(tokens) <= SAMPLE else tokens[chance.choice(len(tokens), SAMPLE, replace=False)]


def fit_range(seen: Seen, weight: Matrix) -> Range:
    """The range that changes `tokens @ weight` least; weight float32 (channels, outputs) of all layers that read the tensor."""
    plain = _best_clip(seen, weight, None)
    if weight.shape[1] <= weight.shape[0]:
        return plain
    width = np.maximum(np.abs(seen.low), np.abs(seen.high))
    divided = [_best_clip(seen, weight, np.maximum(1.0, width / max(np.quantile(width, share), 1e-6)).astype(np.float32)) for share in WIDE]
    best = min(divided, key=lambda found: found.error)
    return best if best.error <= PAYS * plain.error else plain


def _best_clip(seen: Seen, weight: Matrix, divide: Matrix | None) -> Range:
    factor = np.ones_like(seen.low) if divide is None else divide
    tokens, rows = seen.sample / factor, quantise_columns(weight * factor[:, None])
    restored = rows[0] * rows[1]
    truth = seen.sample @ weight
    power = np.maximum(np.square(truth).mean(axis=1), 1e-12)
    low, high = min(float((seen.low / factor).min()), 0.0), max(float((seen.high / factor).max()), 0.0)
    found = []
    for cut in {ends for clip in CLIPS for ends in ((clip, clip), (1.0, clip), (clip, 1.0))}:
        scale = max((high * cut[1] - low * cut[0]) / 255, 1e-8)
        zero = round(-low * cut[0] / scale)
        seen_as = (np.clip(np.rint(tokens / np.float32(scale)) + zero, 0, 255) - zero) * np.float32(scale)
        error = np.square(seen_as @ restored - truth).mean(axis=1) / power
        found.append(Range(scale, zero, divide, float(error.mean())))
    return min(found, key=lambda one: (one.error, one.scale))


def quantise_columns(weight: Matrix) -> tuple[NDArray[np.int8], Matrix]:
    """Symmetric int8 with one scale per column, each the one of a few that changes the column least: values, and scales (columns,)."""
    widest = np.maximum(np.abs(weight).max(axis=0), 1e-12)
    scales, least = widest / 127, np.full(weight.shape[1], np.inf)
    for clip in np.linspace(0.75, 1.0, 11):
        tried = widest * clip / 127
        error = np.square(np.clip(np.rint(weight / tried), -127, 127) * tried - weight).sum(axis=0)
        better = error < least
        scales, least = np.where(better, tried, scales), np.minimum(error, least)
    scales = scales.astype(np.float32)
    return np.clip(np.rint(weight / scales), -127, 127).astype(np.int8), scales
