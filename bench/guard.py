"""What safety costs at the index: reading the known record, and the compare-and-set, beside the bare upsert they protect.

Three ways to write one batch of changed pins to the embedded engine, interleaved in one run: `bare`, the engine's own upsert;
`guarded`, EdgePinIndex.write with its condition and the read-back of its mark; `known + guarded`, as the worker does it.
The floor of a batch is what the engine needs for the bare upsert; the ceiling that matters is encoding the batch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import qdrant_edge as edge
from tqdm import tqdm

from bench.machine import machine, write
from bench.sample import rows
from everpin.settings import Settings
from everpin.wiring import build_encoder, now_us
from index import points
from index.edge import EdgePinIndex
from pins.changes import IndexedPin, fingerprint
from pins.ports import PointWrite, Vector

DIMENSION = 384
BATCHES = (16, 64, 128, 256)


def records(count: int) -> list[IndexedPin]:
    """Records with the texts and fields of the sample pins."""
    made = []
    for number in range(count):
        row = rows()[number % len(rows())]
        text = " ".join(filter(None, (row.title, row.caption, row.description)))
        fields = {"title": row.title, "category": row.category, "lang": row.lang, "boards": [], "created_at_us": 1, "image_url": "", "link_url": ""}
        print_ = fingerprint(text)
        made.append(IndexedPin(f"p{number}", now_us(), False, True, "bench", text=text, fingerprint=print_, seen=print_, fields=fields, reason="new"))
    return made


def vectors(count: int, chance: np.random.Generator) -> list[Vector]:
    """Unit vectors, float32."""
    raw = chance.normal(size=(count, DIMENSION)).astype(np.float32)
    return list(raw / np.linalg.norm(raw, axis=1, keepdims=True))


def bare(index: EdgePinIndex, writes: Sequence[PointWrite]) -> None:
    """The engine's upsert, with the same points and no condition, no check and no read."""
    batch = [
        edge.Point(id=points.point_id(write.record.pin_id), vector={points.VECTOR: write.vector.tolist()}, payload=points.payload(write.record, "bench"))
        for write in writes
        if write.vector is not None
    ]
    index._call(lambda: index._shard.update(edge.UpdateOperation.upsert_points(batch)))


def measure(index: EdgePinIndex, stored: list[IndexedPin], size: int, rounds: int, chance: np.random.Generator) -> dict[str, list[float]]:
    """Milliseconds of each way for a batch of this size, by round."""
    found: dict[str, list[float]] = {"bare": [], "guarded": [], "known + guarded": [], "known": []}

    def timed(name: str, act: Callable[[], object]) -> None:
        started = time.perf_counter()
        act()
        found[name].append((time.perf_counter() - started) * 1000)

    for _ in range(rounds):
        for way in ("bare", "guarded", "known + guarded"):
            start = int(chance.integers(0, len(stored) - size))
            before = stored[start : start + size]
            after = [replace(record, v=record.v + 1) for record in before]
            stored[start : start + size] = after
            writes = [PointWrite(new, old.v, vector) for old, new, vector in zip(before, after, vectors(size, chance), strict=True)]
            ids = [write.record.pin_id for write in writes]
            if way == "bare":
                timed(way, lambda writes=writes: bare(index, writes))  # type: ignore[misc]  # called now
            elif way == "guarded":
                timed(way, lambda writes=writes, ids=ids: _all(index.write(writes), ids))  # type: ignore[misc]
            else:
                timed(way, lambda writes=writes, ids=ids: (index.known(ids), _all(index.write(writes), ids)))  # type: ignore[misc]
                timed("known", lambda ids=ids: index.known(ids))  # type: ignore[misc]
    return found


def _all(landed: set[str], ids: Sequence[str]) -> None:
    if landed != set(ids):
        raise SystemExit(f"{len(set(ids) - landed)} guarded writes did not land: the figure would be of something else")


def encoding_ms(size: int, rounds: int) -> float:
    """Median milliseconds to encode as many sample pins with the shipped student."""
    encoder = build_encoder(Settings())
    texts = [record.text for record in records(size)]
    taken = []
    for _ in range(rounds):
        started = time.perf_counter()
        encoder.encode(texts)
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


def main() -> None:
    """Measure, write bench/guard.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=10_000, help="pins in the index")
    parser.add_argument("--rounds", type=int, default=40, help="batches of each size and way; medians are reported")
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    asked = parser.parse_args()
    count, rounds = (1000, 3) if asked.quick else (asked.pins, asked.rounds)
    chance, stored = np.random.default_rng(7), records(count)
    with tempfile.TemporaryDirectory() as scratch:
        index = EdgePinIndex(Path(scratch), "bench", DIMENSION, min_free_bytes=0)
        for start in tqdm(range(0, count, 500), desc="filling the index"):
            part = stored[start : start + 500]
            index.write([PointWrite(record, None, vector) for record, vector in zip(part, vectors(len(part), chance), strict=True)])
        found = {size: measure(index, stored, size, rounds, chance) for size in tqdm(BATCHES, desc="batch sizes")}
        index.close()
    medians = {size: {way: round(statistics.median(values), 3) for way, values in some.items()} for size, some in found.items()}
    document = {
        "command": "python -m bench.guard",
        "machine": machine("qdrant-edge-py", "onnxruntime"),
        "pins": count,
        "rounds": rounds,
        "median_ms": {str(size): some for size, some in medians.items()},
        "guarded_to_bare": {str(size): round(some["guarded"] / some["bare"], 2) for size, some in medians.items()},
        "encode_ms": {"128": round(encoding_ms(128, 3 if asked.quick else 9), 1)},
    }
    document["share_of_embedding_a_batch_of_128"] = round(medians[128]["known + guarded"] / (medians[128]["known + guarded"] + document["encode_ms"]["128"]), 3)
    write("guard", document, quick=asked.quick)


if __name__ == "__main__":
    main()
