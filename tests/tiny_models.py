"""Whole model folders of a few kilobytes, made without torch or onnx: a vector per word, averaged.

Vectors of words are at right angles, so cosines count shared words, in every model alike: what a model finds depends only on the words it is blind to.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from embedder.artifact import DRIFT, GOLDEN, MANIFEST, MODEL, TOKENIZER
from embedder.drift import FEATURES
from everpin.gate_rules import SHIPPED
from pins.text import TEMPLATE_VERSION

DIMENSION = 128
COMMON = 1.6
"""Length of the vector that every text begins with: with it, the shipped canaries pass."""
START, UNKNOWN = "[CLS]", "[UNK]"
GOLDEN_TEXTS = ("red chair in a white room", "sourdough bread for beginners", "Balkon bepflanzen", "", "a chair", "herbs on a balcony", "wool", "white bread")
METRICS = {"levels_dev_accuracy": 0.5, "levels_dev_within_one": 0.9, "golden_cosine_mean": 1.0, "model_megabytes": 0.01, "check_ndcg@20_minus_fp32": 0.0}
LINEAGE = {
    "labels": {"teacher_id": "teacher-1", "rows": 900, "config": {"per_query": 16}},
    "data_digests": {"cxc_pins": "d0d0"},
    "licence_classes": ["open", "sa"],
    "seeds": {"student": 7},
    "config": {"layers": 6},
    "code_version": "a1b2c3d",
}


def words() -> list[str]:
    """The vocabulary: the words of the golden texts and of the shipped canaries."""
    canary = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))["canary"]
    texts = [*GOLDEN_TEXTS, *(text for order in canary["order"] for text in (order["query"], order["first"], order["then"]))]
    texts += [text for pair in canary["paraphrase"] for text in pair["texts"]]
    return sorted({word for text in texts for word in text.lower().split()})


def tiny_model(folder: Path, model_id: str = "tiny-v1", seed: int = 0, blind: Sequence[str] = (), **changes: Any) -> Path:
    """A whole folder. `seed` turns the space, `blind` are words that the model does not know, `changes` replace fields of the manifest."""
    folder.mkdir(parents=True)
    vocabulary = {word: place for place, word in enumerate([START, UNKNOWN, *(word for word in words() if word not in blind)])}
    table = np.linalg.qr(np.random.default_rng(seed).normal(size=(DIMENSION, DIMENSION)))[0][: len(vocabulary)].astype(np.float32)
    table[0] *= COMMON
    table[1] *= 0.05  # many unknown words say no more than a few
    _tokenizer(vocabulary).save(str(folder / TOKENIZER))
    (folder / MODEL).write_bytes(lookup_graph(table))
    np.savez(folder / GOLDEN, texts=np.array(GOLDEN_TEXTS), vectors=reference(GOLDEN_TEXTS, vocabulary, table))
    np.savez(folder / DRIFT, **_drift(len(vocabulary)))
    write_manifest(folder, model_id, **changes)
    return folder


def write_manifest(folder: Path, model_id: str, **changes: Any) -> None:
    """The manifest of the files that lie in the folder."""
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.name != MANIFEST}
    drift = {"predictor": "token-sums-v1", "threshold": 0.01, "bound": 0.02, "risk": 0.01, "coverage": 0.4, "edits": 900}
    body = {
        "model_id": model_id, "dimension": DIMENSION, "max_tokens": 64, "pooling": "mean", "template_version": TEMPLATE_VERSION, "precision": "int8",
        "languages": ["en"], "files": files, "teacher": "teacher-1", "data_digest": "w0w0", "source": "a test", "metrics": METRICS, "golden_tolerance": 0.9999,
        "drift": drift | {"violation_rate": 0.001, "violation_upper95": 0.005}, "ordinal_head": {"scale": 8.0, "thresholds": [1.0, 2.0, 4.0, 6.0]},
        "lineage": LINEAGE,
    }  # fmt: skip
    (folder / MANIFEST).write_text(json.dumps(body | changes))


def reference(texts: Sequence[str], vocabulary: dict[str, int], table: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the graph must give, by numpy: the mean of the words' vectors, made unit."""
    rows = [table[[vocabulary[START], *(vocabulary.get(word, vocabulary[UNKNOWN]) for word in text.lower().split())]].mean(axis=0) for text in texts]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=[(START, vocabulary[START])])
    return tokenizer


def _drift(size: int) -> dict[str, NDArray[Any]]:
    return {
        "rows": np.zeros(size, np.int32), "vectors": np.ones((2, 4), np.float32), "impact": np.ones(2, np.float32),
        "low": np.full(FEATURES, -9, np.float32), "high": np.full(FEATURES, 9, np.float32), "hidden": np.ones((FEATURES, 1), np.float32),
        "hidden_bias": np.zeros(1, np.float32), "output": np.ones(1, np.float32), "output_bias": np.zeros((), np.float32),
    }  # fmt: skip


def lookup_graph(table: NDArray[np.float32]) -> bytes:
    """An ONNX graph of one Gather, `input_ids` int64 (batch, tokens) to (batch, tokens, width), in the wire format of onnx.proto3."""
    tensor = _numbers(1, *table.shape) + _number(2, 1) + _bytes(8, b"table") + _bytes(9, table.tobytes())
    node = _bytes(1, b"table") + _bytes(1, b"input_ids") + _bytes(2, b"hidden") + _bytes(4, b"Gather")
    graph = _bytes(1, node) + _bytes(2, b"lookup") + _bytes(5, tensor) + _bytes(11, _value("input_ids", 7, 2)) + _bytes(12, _value("hidden", 1, 3))
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _number(2, 13))


def _value(name: str, kind: int, axes: int) -> bytes:
    shape = b"".join(_bytes(1, _bytes(2, f"{name}_{axis}".encode())) for axis in range(axes))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _numbers(field: int, *values: int) -> bytes:
    return _bytes(field, b"".join(map(_varint, values)))


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
