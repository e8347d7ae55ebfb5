"""The exported student, as calibration uses it: the serving encoder, with a progress bar. Never torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder

CHUNK = 256


def open_student(folder: Path) -> OnnxEncoder:
    """The verified student of a model folder, on all cores."""
    return OnnxEncoder(open_artifact(folder), threads=os.cpu_count() or 1)


def embed(student: OnnxEncoder, texts: Sequence[str], what: str) -> NDArray[np.float32]:
    """Unit vectors, float32 of shape (len(texts), dimension), with a progress bar."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.empty((len(texts), student.dimension), np.float32)
    with tqdm(total=len(texts), desc=f"embed {what}", unit="text") as bar:
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            vectors[rows] = student.encode([texts[row] for row in rows])
            bar.update(len(rows))
    return vectors


def token_ids(student: OnnxEncoder, text: str) -> tuple[int, ...]:
    """Token ids after truncation: what the drift predictor is given at run time."""
    return student._token_ids(text)  # the encoder keeps them to itself: only its own predictor and this calibration need them
