"""What a bridge keeps of full re-embedding, by kind and by number of texts it is fitted on, and what it costs per query.

`python -m bench.bridge DATA NEW:OLD...`, with DATA a folder of the cxc layout and model folders or ids. Half of the pins are fitted on, the other half is
searched with the dev queries, exactly, by three systems: the old model, the new model on pins embedded anew, and the new model through the bridge.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bench.machine import machine, write
from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.bridge_texts import PINS_SHARE, Material, of_data
from everpin.bridging import KINDS, Both, Vectors, cost, encode, fitted, measured
from everpin.model_folders import model_folder
from everpin.published import folder_digest
from everpin.settings import settings
from pins.ports import Vector

PAIRS = (1_000, 5_000, 20_000)
PARTS = ("all", "read", "unread")
"""All queries, those in languages that the old model reads, and the others. Single languages are kept for the largest number of texts."""


class Remembered:
    """A student that encodes each text once, and keeps the vectors in `work` under the digest of its folder."""

    def __init__(self, folder: Path, work: Path) -> None:
        self._encoder = OnnxEncoder(open_artifact(folder), 2, cosmetic=False)
        self.model_id, self.ordinal_head, self.languages = self._encoder.model_id, self._encoder.ordinal_head, self._encoder.manifest.languages
        self._file, self._known = work / f"{folder_digest(folder)[:16]}.npz", dict[str, Vector]()
        if self._file.exists():
            with np.load(self._file) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    def encode(self, texts: Sequence[str]) -> Vector:
        missing = list(dict.fromkeys(text for text in texts if text not in self._known))
        self._known |= dict(zip(missing, self._encoder.encode(missing), strict=True)) if missing else {}
        return np.stack([self._known[text] for text in texts])

    def keep(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part.npz")
        np.savez(part, texts=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        part.replace(self._file)


def first(vectors: Vectors, texts: int) -> Vectors:
    """What a bridge of so many texts is fitted on: the draws of a smaller number are the first of a larger one's."""
    pins = min(len(vectors.pins.new), max(1, texts // PINS_SHARE))
    asked = min(len(vectors.asked.new), texts - pins)
    return replace(vectors, pins=_first(vectors.pins, pins), asked=_first(vectors.asked, asked), readable=vectors.readable[:asked])


def _first(both: Both, count: int) -> Both:
    return Both(both.new[:count], both.old[:count])


def case(new: Remembered, old: Remembered, material: Material, kinds: Sequence[str], pairs: Sequence[int]) -> dict[str, Any]:
    """One pair of models: every kind at every number of texts."""
    with tqdm(total=2 * sum(map(len, (material.pins, material.asked, material.searched, material.queries))), desc=f"{new.model_id} -> {old.model_id}") as bar:
        vectors = encode(material, new, old, old.languages, bar.update)
    new.keep()
    old.keep()
    table: dict[str, Any] = {}
    for kind in kinds:
        for texts in tqdm(pairs, desc=kind):
            part = first(vectors, texts)
            started = time.perf_counter()
            map_ = fitted(kind, part)
            seconds = time.perf_counter() - started
            figures = measured(map_, vectors, material, old.languages)
            table.setdefault(kind, {})[str(texts)] = {
                "pins": len(part.pins.new),
                "texts": len(part.asked.new),
                "texts_old_reads": int(part.readable.sum()),
                "fit_seconds": round(seconds, 1),
                "microseconds_per_query": cost(map_, vectors.queries.new),
                "quality": {name: _rounded(one) for name, one in figures.items() if name in PARTS or texts == pairs[-1]},
            }
    return {"new": new.model_id, "old": old.model_id, "old_reads": list(old.languages), "kinds": table}


def _rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {name: _rounded(one) for name, one in figures.items()}
    return round(figures, 4) if isinstance(figures, float) else figures


def main() -> None:
    """Measure and write bench/bridge.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.bridge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the cxc layout")
    parser.add_argument("models", nargs="*", default=["everpin-l6-v1:minilm-l6-v1"], metavar="NEW:OLD", help="ids or folders of two models")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "everpin-bench-bridge", help="where vectors are kept for the next run")
    parser.add_argument("--quick", action="store_true", help="a smoke run on a few texts that writes nothing")
    arguments = parser.parse_args()
    pairs = (200,) if arguments.quick else PAIRS
    material = of_data(arguments.data, [], pairs[-1], seed=0)
    if arguments.quick:
        material = replace(material, queries=material.queries[:40])
    students: dict[str, Remembered] = {}
    for name in dict.fromkeys(name for both in arguments.models for name in both.split(":")):
        students[name] = Remembered(model_folder(settings(), name), arguments.work)
    body = {
        "command": "python -m bench.bridge",
        "machine": machine("onnxruntime", "tokenizers", "numpy"),
        "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all cores"),
        "data": arguments.data.name,
        "metric": "nDCG@20 over the searched pins, gain 2^grade - 1, unjudged pins grade 0, own pin included; 95 % bootstrap by group",
        "searched_pins": len(material.searched),
        "queries": len(material.queries),
        "cases": [case(*(students[name] for name in both.split(":")), material, list(KINDS), pairs) for both in arguments.models],
    }
    write("bridge", body, quick=arguments.quick)


if __name__ == "__main__":
    main()
