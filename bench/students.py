"""Texts per second of model folders side by side: the same texts, one run, the first folder being what the others are compared with.

All with the serving encoder on the same number of threads, in interleaved rounds, so that a slow minute of the machine hits everyone.
`python -m bench.students BASE FOLDER...`; the base is made by `python -m training.export --precision fp32 --out BASE`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.encoder import texts, tokens
from bench.machine import machine, write
from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder

SECONDS = 1.0
"""Shortest measurement of one encoder in one round: a static student goes through the texts many times in it."""


def rate(encoder: OnnxEncoder, some: Sequence[str], seconds: float) -> float:
    """Texts per second over whole passes that together take at least `seconds`."""
    started, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - started) < seconds or not done:
        encoder.encode(some)
        done += len(some)
    return done / taken if taken else 0.0


def measure(encoders: Mapping[str, OnnxEncoder], some: Sequence[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Texts per second of each encoder in each round, the encoders taking turns; one pass before the first round warms them up."""
    for encoder in encoders.values():
        encoder.encode(some)
    speeds: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, encoder in encoders.items():
            speeds[name].append(rate(encoder, some, seconds))
    return speeds


def result(encoders: Mapping[str, OnnxEncoder], some: Sequence[str], speeds: Mapping[str, Sequence[float]], threads: int) -> dict[str, Any]:
    """The document of one run."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    base = next(iter(medians))
    words = [len(text.split()) for text in some]
    return {
        "command": "python -m bench.students",
        "machine": machine("onnxruntime", "tokenizers", "numpy"),
        "texts": len(some),
        "words_per_text": {"min": min(words), "median": statistics.median(words), "max": max(words)},
        "threads": threads,
        "students": {
            name: {
                "precision": encoder.manifest.precision,
                "dimension": encoder.dimension,
                "megabytes": encoder.manifest.metrics.get("model_megabytes"),
                "tokens_per_text": tokens(encoder, some),
                "texts_per_second": [round(value, 1) for value in speeds[name]],
                "median_texts_per_second": round(medians[name], 1),
                f"ratio_to_{base}": round(medians[name] / medians[base], 2),
            }
            for name, encoder in encoders.items()
        },
        "targets": {"6 layers": 3.0, "3 layers": 5.0, "static": 50.0},
    }


def main() -> None:
    """Measure and write bench/students.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.students", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="model folders; the first is the base of the ratios")
    parser.add_argument("--texts", type=int, default=600, help="how many texts")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; medians are reported")
    parser.add_argument("--threads", type=int, default=2, help="threads of every encoder")
    parser.add_argument("--quick", action="store_true", help="a smoke run of seconds that writes nothing")
    arguments = parser.parse_args()
    encoders = {}
    for folder in arguments.folders:
        encoder = OnnxEncoder(open_artifact(folder), arguments.threads)
        if encoder.model_id in encoders:
            raise SystemExit(f"{folder} and another folder both hold {encoder.model_id}; export one under a --model-id of its own")
        encoders[encoder.model_id] = encoder
    some = texts(100 if arguments.quick else arguments.texts)
    speeds = measure(encoders, some, 1 if arguments.quick else arguments.rounds, 0.1 if arguments.quick else SECONDS)
    write("students", result(encoders, some, speeds, arguments.threads), quick=arguments.quick)


if __name__ == "__main__":
    main()
