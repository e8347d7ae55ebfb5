"""Related pins of every pin of an export, by brute force: no index, no server, numpy alone.

    python examples/related_pins.py EXPORT related.parquet [--limit 10]

EXPORT is one folder or several, a full export and the incremental ones after it in order. Each row of the result is a pin, its related pins best
first, and the relevance that the model expects of each, 1.0 to 5.0. Memory: the vectors, 1.5 GB for a million of 384 dimensions, and one block of
cosines, BLOCK times as many numbers as there are pins. A million pins are 4e14 multiplications, an hour on 16 cores: by then an index is cheaper.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from everpin.exports.manifest import read_export
from everpin.exports.reading import live_pins

BLOCK = 512


def vectors_of(folders: list[Path]) -> tuple[NDArray[np.str_], NDArray[np.float32]]:
    """Pin ids, shape (n,), and their unit vectors, shape (n, dimension), of the last of these exports."""
    tables = list(live_pins(folders))
    ids = np.concatenate([table.column("pin_id").to_numpy() for table in tables])
    numbers = [chunk.flatten().to_numpy() for table in tables for chunk in table.column("vector").chunks]
    return ids, np.concatenate(numbers).reshape(len(ids), -1)


def nearest(queries: NDArray[np.float32], vectors: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Places and cosines of the `limit` vectors nearest to each query, best first: two arrays of shape (queries, limit)."""
    cosines = queries @ vectors.T
    limit = min(limit, len(vectors))
    found = np.argpartition(-cosines, limit - 1, axis=1)[:, :limit]
    order = np.argsort(-np.take_along_axis(cosines, found, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(found, order, axis=1)
    return places, np.take_along_axis(cosines, places, axis=1)


def related(folders: list[Path], limit: int) -> Any:
    """A pyarrow.Table of pin_id, related (pin ids) and relevance (expected levels)."""
    ids, vectors = vectors_of(folders)
    head = read_export(folders[-1]).model.head
    blocks = []
    for start in range(0, len(ids), BLOCK):
        places, cosines = nearest(vectors[start : start + BLOCK], vectors, limit + 1)
        for row, (found, near) in enumerate(zip(places, cosines, strict=True), start):
            others = found != row
            blocks.append((ids[row], ids[found[others]][:limit].tolist(), head.expected(near[others][:limit]).round(3).tolist()))
    pins, near_pins, relevance = zip(*blocks, strict=True) if blocks else ((), (), ())
    return pa.table({"pin_id": list(pins), "related": list(near_pins), "relevance": list(relevance)})


def main() -> None:
    """Read, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, nargs="+")
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=10)
    asked = parser.parse_args()
    table = related(asked.export, asked.limit)
    pq.write_table(table, asked.out)
    print(f"related pins of {len(table)} pins written to {asked.out}")


if __name__ == "__main__":
    main()
