"""Rows per second and peak memory of `everpin export --out`, vectors of 384 dimensions.

Three runs, each in a process of its own: `generated`, an index that makes up its points as they are asked for, which leaves the export's own work
(partitions, spill, Parquet, hashes); and the embedded index, opened by the export and read through the process that owns it. Points are copies of
one record under ids of their own, vectors random, filling is not measured. Peak memory is VmHWM of the process; of it, `anonymous` is what the
process itself holds, sampled five times a second, while `file` is mapped from files, which the kernel may take back: the spill, and the engine's.
Each run's export is checked: every pin once, every file as its manifest has it. `load_average` says what else the machine did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge
from tqdm import tqdm

from bench.machine import machine, write
from bench.resident import watched
from everpin.exports.manifest import Head, Model, damaged
from everpin.exports.moment import Patience, Point
from everpin.exports.writing import Wanted, write_export
from everpin.wiring import now_us
from index.edge import EdgePinIndex
from index.edge_requests import point
from index.loopback import LoopbackPinIndex
from index.owner_routes import offer
from pins.changes import IndexedPin
from pins.ports import PointWrite

MODEL_ID, DIMENSION = "bench-v1", 384
MODEL = Model(model_id=MODEL_ID, template_version=1, dimension=DIMENSION, ordinal_head=Head(scale=8.0, thresholds=(1.0, 2.0, 3.0, 4.0)))
T0 = 1_764_000_000_000_000
BULK = 2000
RUNS = ("generated", "index_opened_by_export", "index_owned_by_another_process")
TEXT = "title: A small balcony with a folding table | caption: Two chairs, a folding table and herbs in boxes on four square metres | boards: balcony"
FIELDS = {"title": "A small balcony with a folding table", "category": "home", "lang": "en", "boards": ["balcony"], "created_at_us": T0}


class Generated:
    """A PinIndex for exports alone: point n is made when it is asked for."""

    model_id = MODEL_ID

    def __init__(self, count: int) -> None:
        self.count = count
        chance = np.random.default_rng(7).normal(size=(4096, DIMENSION)).astype(np.float32)
        self.vectors = chance / np.linalg.norm(chance, axis=1, keepdims=True)

    def counts(self) -> dict[str, int]:
        return {"live": self.count, "textless": 0, "dead": 0, "refused": 0}

    def page_of_points(self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False) -> tuple[Sequence[Point], str]:
        start = int(cursor or 0)
        if newer_than >= T0 + self.count:
            return [], ""
        stop = min(start + limit, self.count)
        return [(record(number), self.vectors[number % 4096]) for number in range(start, stop)], str(stop) if stop < self.count else ""


def record(number: int) -> IndexedPin:
    return IndexedPin(f"pin-{number}", T0 + number, dead=False, embedded=True, model_id=MODEL_ID, text=TEXT, fields=FIELDS, fingerprint="0" * 32, seen="0" * 32)


def fill(home: Path, count: int) -> None:
    """The generated points in an embedded index."""
    index, source = EdgePinIndex(home, MODEL_ID, DIMENSION), Generated(count)
    cursor = "0"
    for number in tqdm(range(0, count, BULK), desc="filling the index", unit=f"x{BULK}"):
        found, cursor = source.page_of_points(cursor, BULK)
        batch = [point(PointWrite(pin, None, vector), None, "bench") for pin, vector in found]
        index._shard.update(edge.UpdateOperation.upsert_points(batch))
        if number // BULK % 16 == 15:
            index.flush()
    index.close()


def measure(name: str, home: Path, count: int, url: str) -> dict[str, Any]:
    """Export once, in this process. Raises SystemExit when the export is not all of it."""
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch, watched() as largest, _index(name, home, count, url) as index:
        folder = Path(scratch) / "export"
        began, spent = time.perf_counter(), time.process_time()
        manifest = write_export(index, folder, Wanted(MODEL), now_us, Patience(page_at_one_instant=True))
        seconds, cpu = time.perf_counter() - began, time.process_time() - spent
        if manifest.rows != count or damaged(folder, manifest):
            raise SystemExit(f"{count} rows were to be exported, not {manifest.rows}, or files are damaged: {damaged(folder, manifest)}")
    return {
        "rows": manifest.rows,
        "seconds": round(seconds, 1),
        "rows_per_second": round(manifest.rows / seconds),
        "rows_per_cpu_second": round(manifest.rows / cpu),
        "megabytes": round(sum(file.bytes for file in manifest.files) / 1e6, 1),
        "partitions": manifest.partitions,
        "memory_mb": dict(largest),
    }


@contextmanager
def _index(name: str, home: Path, count: int, url: str) -> Iterator[Any]:
    if name == "generated":
        yield Generated(count)
    elif url:
        import httpx  # noqa: PLC0415  the other runs measure a process without it

        yield LoopbackPinIndex(httpx.Client(base_url=url, timeout=60), MODEL_ID)
    else:
        index = EdgePinIndex(home, MODEL_ID, DIMENSION)
        yield index
        index.close()


def in_a_process(name: str, home: Path, count: int, url: str = "") -> dict[str, Any]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.export", "--measure", name, "--home", str(home), "--pins", str(count), "--url", url]
    load = [round(one, 1) for one in os.getloadavg()]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found | {"load_average": load}


def through_an_owner(name: str, home: Path, count: int) -> dict[str, Any]:
    """The same beside a process that owns the index: this one."""
    from fastapi import FastAPI  # noqa: PLC0415  the other runs measure a process without it

    from everpin.http import listening  # noqa: PLC0415  as above

    index = EdgePinIndex(home, MODEL_ID, DIMENSION)
    app = FastAPI()
    offer(app, index)
    with listening(app, 0) as url:
        found = in_a_process(name, home, count, url)
    index.close()
    return found


def main() -> None:
    """Measure all three, write bench/export.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1_000_000, help="points of the generated index")
    parser.add_argument("--indexed", type=int, default=100_000, help="points of the embedded index")
    parser.add_argument("--home", type=Path, help="where the index is made and kept; by default a temporary folder")
    parser.add_argument("--quick", action="store_true", help="a smoke run of 20,000 and 5,000 pins that writes nothing")
    parser.add_argument("--measure", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure, asked.home, asked.pins, asked.url)))
        return
    count, indexed = (20_000, 5_000) if asked.quick else (asked.pins, asked.indexed)
    with tempfile.TemporaryDirectory() as scratch:
        home = (asked.home or Path(scratch)) / "index"
        if not home.exists():
            fill(home, indexed)
        document = {
            "command": "python -m bench.export",
            "machine": machine("qdrant-edge-py", "pyarrow", "numpy"),
            "dimension": DIMENSION,
            RUNS[0]: in_a_process(RUNS[0], home, count),
            RUNS[1]: in_a_process(RUNS[1], home, indexed),
            RUNS[2]: through_an_owner(RUNS[2], home, indexed),
        }
    write("export", document, quick=asked.quick)


if __name__ == "__main__":
    main()
