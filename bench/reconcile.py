"""Pins per second and peak memory of `everpin reconcile` over many synthetic pins, Feast on SQLite, the embedded index.

Twice, each in a process of its own: the index opened by reconcile itself, and the index owned by another process and read
through it, as beside a running worker. The pins are copies of the sample pins under ids of their own, their rows and points
written in bulk, vectors random; filling is not measured. A thousandth of them is harmed, and a run that does not find exactly
those is refused. Peak memory is VmHWM of the process, which loads the student only where a text differs; of it, `anonymous` is what the process
itself holds, sampled five times a second, while `file` is mapped from the engine's files, which the kernel may take back.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from tqdm import tqdm

from bench.machine import machine, write
from bench.resident import watched
from bench.sample import new_pin, rows
from everpin.http import listening
from everpin.reconciling import Scope, Stores, Tally, differences
from everpin.settings import Settings
from everpin.wiring import build_artifact, build_features, lazy_encoder, open_index
from index import points
from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.owner_routes import offer
from pins.changes import IndexedPin, fingerprint, surface_fields
from pins.features import VIEWS
from pins.indexer import feature_rows
from pins.text import render

BULK = 2000
HARMED_EVERY = 1000


def fill(config: Settings, count: int) -> None:
    """Features and points of pins p0, p1, ...; every thousandth pin is missing from the index."""
    templates = _features(config, count)
    artifact = build_artifact(config)
    index = EdgePinIndex(config.index_home, artifact.manifest.model_id, artifact.manifest.dimension)
    chance = np.random.default_rng(7)
    for start in tqdm(range(0, count, BULK), desc="points", unit=f"x{BULK}"):
        vectors = chance.normal(size=(BULK, artifact.manifest.dimension)).astype(np.float32)
        batch = [
            _point(replace(templates[number % len(templates)], pin_id=f"p{number}"), vectors[number - start])
            for number in range(start, min(count, start + BULK))
            if number % HARMED_EVERY
        ]
        index._shard.update(edge.UpdateOperation.upsert_points(batch))
        if start // BULK % 16 == 15:
            index.flush()
    index.close()


def _point(record: IndexedPin, vector: np.ndarray) -> Any:
    payload = points.payload(record, "bench")
    return edge.Point(id=UUID(points.point_id(record.pin_id)), vector={points.VECTOR: vector.tolist()}, payload=payload)


def _features(config: Settings, count: int) -> list[IndexedPin]:
    """Write the rows of all pins as copies of the sample pins' rows; the records of those as a worker would have made them."""
    features = build_features(config)
    ids = [f"sample-{number}" for number in range(len(rows()))]
    features.write([row for number, pin_id in enumerate(ids) for row in feature_rows(new_pin(pin_id, number))])
    found = features.of(ids)
    features.close()
    with sqlite3.connect(config.feast_home / "online.db") as store:
        for view in tqdm(VIEWS, desc="feature views"):
            table = f'"everpin_{view}"'
            stored = {key: (at, values) for key, at, values in store.execute(f"SELECT entity_key, event_us, vals FROM {table}")}
            store.execute(f"DELETE FROM {table}")
            copies = ((_key(f"p{number}"), *row) for number in range(count) if (row := stored.get(_key(ids[number % len(ids)]))))
            store.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", copies)
    store.close()
    records = []
    for pin_id in ids:
        pin = found[pin_id]
        text = render(pin)
        now = fingerprint(text.text)
        model_id = build_artifact(config).manifest.model_id if not records else records[0].model_id
        records.append(
            IndexedPin(
                pin_id,
                1_764_000_000_000_000,
                dead=False,
                embedded=True,
                model_id=model_id,
                text=text.text,
                fingerprint=now,
                seen=now,
                fields=surface_fields(pin, text),
                reason="new",
                as_of=pin.as_of,
            )
        )
    return records


def _key(pin_id: str) -> bytes:
    key: bytes = serialize_entity_key(EntityKey(join_keys=["pin_id"], entity_values=[Value(string_val=pin_id)]), entity_key_serialization_version=3)
    return key


def measure(config: Settings, url: str) -> dict[str, Any]:
    """Reconcile once, in this process; the index behind `url`, or opened here where there is none."""
    encoder, features = lazy_encoder(config), build_features(config)
    with watched() as largest, _index(config, url) as index:
        tally, started = Tally(), time.perf_counter()
        for _ in differences(Stores(features, index, encoder), Scope(), tally):
            pass
        seconds = time.perf_counter() - started
    features.close()
    return {
        "pins": tally.compared,
        "seconds": round(seconds, 1),
        "pins_per_second": round(tally.compared / seconds, 1),
        "differences": dict(tally.kinds),
        "memory_mb": dict(largest),
    }


@contextmanager
def _index(config: Settings, url: str) -> Iterator[Any]:
    manifest = build_artifact(config).manifest
    if url:
        import httpx  # noqa: PLC0415  the other mode measures a process without it

        yield LoopbackPinIndex(httpx.Client(base_url=url, timeout=60), manifest.model_id)
        return
    with open_index(config, manifest.model_id, manifest.dimension, purpose="bench", own=True) as index:
        yield index


def in_a_process(home: Path, count: int, url: str = "") -> dict[str, Any]:
    """`measure` in a fresh process. Raises SystemExit when it did not find what was harmed."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.reconcile", "--measure", str(home), "--url", url]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    expected: Mapping[str, int] = {"missing": -(-count // HARMED_EVERY)}
    if found["pins"] != count or found["differences"] != expected:
        raise SystemExit(f"{count} pins and {expected} were to be found, not {found}")
    return found


def through_an_owner(home: Path, count: int) -> dict[str, Any]:
    """The same beside a process that owns the index: this one."""
    from fastapi import FastAPI  # noqa: PLC0415  the other mode measures a process without it

    config = Settings(home=home)
    manifest = build_artifact(config).manifest
    index = EdgePinIndex(config.index_home, manifest.model_id, manifest.dimension)
    app = FastAPI()
    offer(app, index)
    with listening(app, 0) as url:
        found = in_a_process(home, count, url)
    index.close()
    return found


def main() -> None:
    """Fill, measure both ways, write bench/reconcile.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="where the stores are made and kept; by default a temporary folder")
    parser.add_argument("--quick", action="store_true", help="a smoke run of 20,000 pins that writes nothing")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Settings(home=arguments.measure), arguments.url)))
        return
    count = 20_000 if arguments.quick else arguments.pins
    with tempfile.TemporaryDirectory() as scratch:
        home = arguments.home or Path(scratch)
        if not (home / "index").exists():
            fill(Settings(home=home), count)
        document = {
            "command": "python -m bench.reconcile",
            "machine": machine("feast", "qdrant-edge-py"),
            "pins": count,
            "index_opened_by_reconcile": in_a_process(home, count),
            "index_owned_by_another_process": through_an_owner(home, count),
        }
    write("reconcile", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
