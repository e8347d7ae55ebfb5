"""The shipped student against the torch reference, and against itself: alone, in a batch, in any order, in any thread."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from embedder.artifact import Artifact, open_artifact
from embedder.onnx import OnnxEncoder, batches, exact_integers
from everpin.settings import SHIPPED_MODEL
from pins.errors import Unembeddable

SAMPLE = Path(__file__).parents[2] / "everpin" / "sample" / "pins.jsonl"


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return open_artifact(SHIPPED_MODEL)


@pytest.fixture(scope="module")
def encoder(artifact: Artifact) -> OnnxEncoder:
    return OnnxEncoder(artifact, threads=2)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    pins = [json.loads(line) for line in SAMPLE.read_text().splitlines()[:60]]
    return [f"{pin['title']}. {pin['description']}" for pin in pins] + ["a", "?!", "😀 emoji", "日本語の文", "word " * 400]


def test_every_golden_vector_is_reproduced(artifact: Artifact, encoder: OnnxEncoder) -> None:
    cosines = encoder.golden_cosines(artifact)
    assert len(cosines) >= 64
    assert cosines.min() >= artifact.manifest.golden_tolerance
    assert cosines.mean() >= artifact.manifest.metrics["golden_cosine_mean"] - 0.001


def test_a_text_has_one_vector_alone_or_in_a_batch(encoder: OnnxEncoder, texts: list[str]) -> None:
    together = encoder.encode(texts)
    alone = np.stack([encoder.query(text) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_results_come_in_the_order_of_the_texts(encoder: OnnxEncoder, texts: list[str]) -> None:
    order = np.random.default_rng(0).permutation(len(texts))
    np.testing.assert_allclose(encoder.encode([texts[row] for row in order]), encoder.encode(texts)[order], atol=1e-5)


def test_vectors_are_unit_and_finite(encoder: OnnxEncoder, texts: list[str]) -> None:
    vectors = encoder.encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    assert encoder.encode([]).shape == (0, 384)


def test_threads_may_share_an_encoder(encoder: OnnxEncoder, texts: list[str]) -> None:
    expected = encoder.encode(texts)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(encoder.encode, [texts] * 4):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_what_the_student_cannot_see_has_the_same_tokens(encoder: OnnxEncoder) -> None:
    assert encoder.same_tokens("A Red   Chair", "a red chair")
    assert encoder.same_tokens("word " * 400, "word " * 401)
    assert not encoder.same_tokens("a red chair", "a blue chair")


def test_a_change_of_meaning_is_predicted_to_drift(encoder: OnnxEncoder, artifact: Artifact) -> None:
    if artifact.manifest.drift is None:
        pytest.fail("the shipped student publishes no drift bound")
    text = "Roasted pumpkin soup. a bowl of orange soup with seeds on a wooden table. Autumn dinners, Soups, Vegetarian"
    assert encoder.drift_threshold is not None
    assert encoder.drift(text, text.replace("pumpkin soup", "chocolate cake")) > encoder.drift_threshold
    assert OnnxEncoder(artifact, cosmetic=False).drift_threshold is None


@pytest.mark.parametrize(
    ("cpuinfo", "exact"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", True),
        ("flags : avx2 avx_vnni", True),
        ("flags : avx2 avx512f\nbugs : avx_vnni", False),
        ("Features : asimd", False),
        ("", False),
    ],
)
def test_exact_kernels_are_asked_for_where_integers_could_saturate(cpuinfo: str, exact: bool) -> None:
    assert exact_integers(cpuinfo) == exact


def test_kernels_with_and_without_the_option_agree(artifact: Artifact, encoder: OnnxEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedder.onnx._cpuinfo", lambda: "")
    texts = ["a bowl of soup", "ein Garten am Haus", "雪の中の家"]
    both = np.stack([encoder.encode(texts), OnnxEncoder(artifact, threads=2).encode(texts)])
    assert (both[0] * both[1]).sum(axis=1).min() > 0.9999


def test_an_input_that_the_tokeniser_refuses_is_named(encoder: OnnxEncoder) -> None:
    with pytest.raises(Unembeddable, match=SHIPPED_MODEL.name):
        encoder.encode(["fine", 7])  # type: ignore[list-item]


def test_batches_are_cut_by_padded_tokens() -> None:
    lengths = [5, 200, 7, 120, 6, 4000]
    cut = list(batches(lengths, budget=400))
    assert sorted(row for rows in cut for row in rows) == list(range(len(lengths)))
    assert cut[0] == [5], "a text over the budget runs alone"
    assert all(len(rows) * max(lengths[row] for row in rows) <= 400 for rows in cut[1:])


def test_neither_the_worker_nor_the_command_line_needs_torch() -> None:
    """Feast takes torch where it is installed; here it cannot be imported."""
    script = "import sys; sys.modules['torch'] = sys.modules['transformers'] = None; import streams.app, everpin.cli, everpin.demo, streams.features"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=False, timeout=120).returncode == 0
