"""OnnxEncoder: tokenise, run, pool, normalise. The student as the worker and the surfaces use it.

Texts are sorted by length and cut into batches by padded tokens, because a batch costs (texts x longest text): mixed
lengths in one batch are mostly padding. Results come back in the order of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from embedder.artifact import Artifact
from embedder.drift import DriftPredictor
from pins.errors import ArtifactError, Unembeddable
from pins.ports import Vector
from pins.relevance import OrdinalHead

BATCH_TOKENS = 512
"""Padded tokens per run: enough to fill two cores, small enough for their caches (`python -m bench.encoder --sweep`)."""
POOLINGS = ("mean", "cls", "graph")
SLOWER_FUSED = ["SkipLayerNormFusion", "BiasGeluFusion"]
"""What onnxruntime fuses at load although its fused operators are slower on a CPU than those they replace (training/LOG.md)."""
GOLDEN_CHECKED = 8
"""Golden texts that are encoded at every start; `everpin doctor` checks all of them."""


class OnnxEncoder:
    """One loaded student. `threads` caps the cores one run may use; runs from several threads share them.

    `on_run` is told the padded tokens of each run, for whoever keeps figures.
    """

    def __init__(self, artifact: Artifact, threads: int = 2, cosmetic: bool = True) -> None:
        self.manifest = artifact.manifest
        if self.manifest.pooling not in POOLINGS:
            raise ArtifactError(
                f"{self.model_id} pools by {self.manifest.pooling!r}, this Everpin knows {', '.join(POOLINGS)}; run the release it was made for"
            )
        self._tokenizer = Tokenizer.from_file(str(artifact.tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.manifest.max_tokens)
        self._session = _session(artifact, threads)
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._predictor = DriftPredictor.load(artifact.drift) if artifact.drift and cosmetic else None
        self.on_run: Callable[[int], None] = lambda padded_tokens: None
        self._ids = lru_cache(maxsize=4096)(self._token_ids)
        self._verify(artifact)

    @property
    def model_id(self) -> str:
        return self.manifest.model_id

    @property
    def dimension(self) -> int:
        return self.manifest.dimension

    @property
    def ordinal_head(self) -> OrdinalHead:
        return self.manifest.ordinal_head

    @property
    def drift_threshold(self) -> float | None:
        """Largest predicted drift that may keep its vector; None when cosmetic changes are embedded as well."""
        return self.manifest.drift.threshold if self._predictor and self.manifest.drift else None

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 of shape (len(texts), dimension). Raises Unembeddable when the student refuses a text.

        A text in which a static student finds no token has a vector of zeros, which every index refuses.
        """
        vectors = np.empty((len(texts), self.dimension), np.float32)
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts))
            for rows in batches([len(encoding) for encoding in encodings]):
                vectors[rows] = self._run([encodings[row] for row in rows])
        except Exception as error:  # tokenizers and onnxruntime raise bare Exceptions and RuntimeErrors
            raise Unembeddable("encoder_error", f"{self.model_id} refused {len(texts)} texts: {error}") from error
        return vectors

    def query(self, text: str) -> Vector:
        """The unit vector of one query, float32 of shape (dimension,)."""
        vector: Vector = self.encode([text])[0]
        return vector

    def same_tokens(self, before: str, after: str) -> bool:
        """Whether the student sees the same tokens in both texts, after truncation: then the vectors are the same too."""
        return self._ids(before) == self._ids(after)

    def drift(self, before: str, after: str) -> float:
        """Predicted cosine distance between the vectors of two texts; infinite where no predictor was published."""
        if self._predictor is None:
            return float("inf")
        return self._predictor.predict(self._ids(before), self._ids(after))

    def golden_cosines(self, artifact: Artifact, texts: int | None = None) -> NDArray[np.float32]:
        """Cosine of this runtime's vectors to the torch reference, for the first `texts` golden texts."""
        golden, reference = artifact.golden()
        return np.asarray((self.encode(golden[:texts]) * reference[:texts]).sum(axis=1), np.float32)

    def _token_ids(self, text: str) -> tuple[int, ...]:
        try:
            return tuple(self._tokenizer.encode(text).ids)
        except Exception as error:  # tokenizers raises bare Exceptions
            raise Unembeddable("encoder_error", f"the tokenizer of {self.model_id} refused {text[:80]!r}: {error}") from error

    def feeds(self, texts: Sequence[str]) -> Iterator[dict[str, NDArray[np.int64]]]:
        """What the graph is fed for texts, batch by batch, for whoever looks inside it: arrays of shape (batch, tokens) by name."""
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        for rows in batches([len(encoding) for encoding in encodings]):
            yield _feeds([encodings[row] for row in rows])

    def _run(self, encodings: Sequence[Encoding]) -> Vector:
        feeds = _feeds(encodings)
        mask = feeds["attention_mask"]
        self.on_run(mask.size)
        hidden = self._session.run(None, {name: array for name, array in feeds.items() if name in self._inputs})[0]
        return _normalise(_pool(hidden, mask, self.manifest.pooling)[:, : self.dimension])

    def _verify(self, artifact: Artifact) -> None:
        width = artifact.golden()[1].shape[1]
        if width != self.dimension:
            raise ArtifactError(f"{artifact.folder}: golden vectors have {width} dimensions, the manifest says {self.dimension}")
        worst = float(self.golden_cosines(artifact, GOLDEN_CHECKED).min())
        if not worst >= self.manifest.golden_tolerance:
            raise ArtifactError(
                f"{self.model_id} gives cosine {worst:.5f} to its golden vectors here, it promised {self.manifest.golden_tolerance}; "
                f"onnxruntime {ort.__version__} computes something else on this machine: install the version in requirements/constraints.txt"
            )


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Positions in batches of similar length, longest first, each of at most `budget` padded tokens (or one text)."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def _feeds(encodings: Sequence[Encoding]) -> dict[str, NDArray[np.int64]]:
    longest = max(1, *map(len, encodings))
    ids = np.zeros((len(encodings), longest), np.int64)
    mask = np.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding)] = encoding.ids
        mask[row, : len(encoding)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def exact_integers(cpuinfo: str) -> bool:
    """Whether the processor adds products of bytes in 32 bits (VNNI), by Linux's list of its features.

    Older ones add two of them in 16 bits, which saturate; ONNX Runtime then has to take exact kernels, which are three times as slow where
    VNNI would have been exact as well.
    """
    flags = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "").split()
    return "avx512_vnni" in flags or "avx_vnni" in flags


@lru_cache(maxsize=1)
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""  # not Linux: exact kernels are asked for


def _session(artifact: Artifact, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")  # weights stored as int8 are unfolded to fp32 once, at load
    if not exact_integers(_cpuinfo()):
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(str(artifact.model), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOWER_FUSED)
    except Exception as error:  # onnxruntime raises its own classes without a common base
        raise ArtifactError(f"{artifact.model}: onnxruntime {ort.__version__} cannot load it: {error}") from error


def _pool(hidden: NDArray[np.float32], mask: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    """(batch, tokens, width) to (batch, width): the mean over real tokens, or the first token; unchanged where the graph pooled."""
    if pooling == "graph":
        return hidden
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.astype(np.float32)
    pooled: NDArray[np.float32] = np.einsum("btd,bt->bd", hidden, weights) / weights.sum(axis=1, keepdims=True)
    return pooled


def _normalise(vectors: NDArray[np.float32]) -> Vector:
    unit: Vector = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return unit
