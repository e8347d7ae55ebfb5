"""Pins per second of a backfill with one and two workers, beside the encoder alone on the same texts: what the way around it costs.

Settings are named workers x threads of each. Encoder alone: as many processes, as many threads, the same rendered texts in the same blocks, all
loaded before the clock starts. A backfill's clock runs from the beginning of its first block to the end of its last: starting Ray and loading
stores is told apart, as `start_s`. The collection is owned by the driver, as on one machine without a worker, so its writes share the cores. The
two kinds of run take turns, in rounds, so that a slow minute hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backfill.run import BATCH, backfill
from bench.machine import machine, write
from bench.sample import new_pin
from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.settings import SHIPPED_MODEL, Settings
from everpin.wiring import build_features
from pins.indexer import feature_rows
from pins.text import render

SETTINGS = {"1 x 1": (1, 1), "2 x 1": (2, 1), "1 x 2": (1, 2)}
TARGETS = {"share of the encoder's own": 0.85, "two workers to one, at least": 1.7}


def fill(home: Path, count: int) -> list[str]:
    """A feature store of pins; their rendered texts in the order of a scan."""
    features = build_features(Settings(home=home))
    features.write([row for number in range(count) for row in feature_rows(new_pin(f"p{number}", number))])
    ids = [pin_id for some in features.pin_ids() for pin_id in some]
    found = features.of(ids)
    features.close()
    return [render(found[pin_id]).text for pin_id in ids]


def encode(texts: Path, part: int, parts: int, threads: int, model: Path) -> None:
    """In a process of its own: load, say so, wait for a line, encode every `parts`-th block, say when it began and ended."""
    lines: list[str] = json.loads(texts.read_text())
    blocks = [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)][part::parts]
    encoder = OnnxEncoder(open_artifact(model), threads)
    encoder.encode(lines[:32])
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    for block in blocks:
        encoder.encode(block)
    print(json.dumps({"began": began, "ended": time.time()}), flush=True)


def alone(texts: Path, count: int, workers: int, threads: int, model: Path) -> float:
    """Texts per second of the encoder in `workers` processes."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.backfill", "--model", str(model), "--texts", str(texts), "--parts", str(workers)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([*command, "--threads", str(threads), "--part", str(part)], **pipes) for part in range(workers)]  # type: ignore[call-overload]
    for one in running:
        assert one.stdout.readline() == "ready\n"
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    times = [json.loads(one.communicate()[0]) for one in running]
    return count / (max(one["ended"] for one in times) - min(one["began"] for one in times))


def filled(home: Path, scratch: Path, count: int, workers: int, threads: int, model: Path) -> dict[str, float]:
    """A backfill into an empty collection beside a copy of the feature store. Raises SystemExit unless it did every pin."""
    fresh = scratch / "run"
    shutil.copytree(home, fresh)
    report = backfill(Settings(home=fresh), model, workers=workers, threads=threads)
    shutil.rmtree(fresh)
    if not report.complete or report.encoded != count:
        raise SystemExit(f"{count} pins were to be embedded, not {report}")
    return {"pins_per_second": report.pins_per_second, "start_s": report.seconds - count / report.pins_per_second}


def measure(count: int, rounds: int, model: Path) -> dict[str, Any]:
    """All settings, in turns."""
    speeds: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in SETTINGS} for kind in ("backfill", "encoder")}
    starts: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch, home = Path(folder), Path(folder) / "home"
        texts = scratch / "texts.json"
        texts.write_text(json.dumps(fill(home, count)))
        for _ in tqdm(range(rounds), desc="rounds"):
            for name, (workers, threads) in SETTINGS.items():
                speeds["encoder"][name].append(alone(texts, count, workers, threads, model))
                run = filled(home, scratch, count, workers, threads, model)
                speeds["backfill"][name].append(run["pins_per_second"])
                starts.append(run["start_s"])
    return result(speeds, starts)


def result(speeds: dict[str, dict[str, list[float]]], starts: Sequence[float]) -> dict[str, Any]:
    """Figures of the rounds: ratios are taken within a round, then their median."""
    ours, theirs = speeds["backfill"], speeds["encoder"]

    def ratio(some: Sequence[float], other: Sequence[float]) -> float:
        return round(statistics.median(one / two for one, two in zip(some, other, strict=True)), 3)

    return {
        "pins_per_second": {name: [round(value, 1) for value in values] for name, values in ours.items()},
        "encoder_texts_per_second": {name: [round(value, 1) for value in values] for name, values in theirs.items()},
        "median_pins_per_second": {name: round(statistics.median(values), 1) for name, values in ours.items()},
        "median_encoder_texts_per_second": {name: round(statistics.median(values), 1) for name, values in theirs.items()},
        "share_of_encoder": {name: ratio(ours[name], theirs[name]) for name in ours},
        "two_workers_to_one": {"backfill": ratio(ours["2 x 1"], ours["1 x 1"]), "encoder": ratio(theirs["2 x 1"], theirs["1 x 1"])},
        "start_s": round(statistics.median(starts), 1),
        "targets": TARGETS,
    }


def main() -> None:
    """Measure, write bench/backfill.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=6144, help="24 blocks: with few, the last one of either worker weighs too much")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL)
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    for hidden in ("--part", "--parts", "--threads"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.texts:
        encode(arguments.texts, arguments.part, arguments.parts, arguments.threads, arguments.model)
        return
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  Ray's own name; the encoder alone has no lower priority either
    count, rounds = (512, 1) if arguments.quick else (arguments.pins, arguments.rounds)
    document = {
        "command": "python -m bench.backfill",
        "machine": machine("ray", "onnxruntime", "feast", "qdrant-edge-py"),
        "load_before": [round(value, 1) for value in os.getloadavg()],
        "model_id": arguments.model.name,
        "pins": count,
        "batch": BATCH,
        "rounds": rounds,
    }
    write("backfill", document | measure(count, rounds, arguments.model), quick=arguments.quick)


if __name__ == "__main__":
    main()
