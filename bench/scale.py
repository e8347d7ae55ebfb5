"""What a billion pins need, computed from the committed results and from assumptions that are named: `python -m bench.scale`.

The figures of docs/scale.md are written by this script, so that none is typed by hand. `--pins` and `--hours` print another case and write nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What no result here measures. Each field says what it is and where it comes from; change it and compute again."""

    pins: int = 1_000_000_000
    """Pins of the installation."""
    hours: float = 24.0
    """Time in which a new model's collection must be full."""
    node_cores: int = 32
    """Cores of one machine of the cluster."""
    gpu_texts_per_second: float = 5_000.0
    """ASSUMED, not measured: a six-layer student of 22 million parameters in fp16 at 90 tokens a text on one small data-centre GPU."""
    gpu_host_cores: int = 16
    """Of a GPU machine: they read, render, decide and write what the GPU encodes, in the time per pin that bench/worker.json has for that."""
    core_hour: float = 0.04
    """Price of a core for an hour, with its memory, in USD; spot prices are a third."""
    gpu_hour: float = 0.80
    """Price of such a GPU machine for an hour, in USD."""
    gib_month: float = 3.00
    """Price of a GiB of memory for a month, in USD, as part of a memory-rich machine."""
    ssd_gib_month: float = 0.10
    """Price of a GiB of local SSD for a month, in USD."""
    dimension: int = 384
    """Of the shipped students."""
    text_bytes: int = 330
    """Rendered text of a pin: the sample pins' mean."""
    payload_bytes: int = 1_200
    """Record beside vector and text, on disk, as measured on the sample pins (`everpin rollout plan` takes the same)."""
    graph_links: int = 32
    """HNSW m = 16: 2 m links of 4 bytes in the lowest layer, and 10 % more above it."""
    term_bytes: int = 350
    """Sparse vector of a text of 40 distinct terms (the sample pins' mean), 8 bytes each, with its share of the inverted lists' overhead."""
    replicas: int = 2
    """Copies of every shard, and of every Kafka partition and Redis shard."""
    shard_memory_gib: float = 48.0
    """Memory of one Qdrant node that vectors and graph may fill: 64 GiB less a quarter for the system, page cache and queries."""
    shard_pins: int = 50_000_000
    """Most pins of one shard, whatever its memory, so that a shard can be moved and its graph built anew in hours."""
    feast_bytes: int = 2_900
    """A pin's five views in Redis: 1,450 bytes of protobuf as SQLite holds them (28.7 MB for 20,000 pins), twice that with keys and hashes."""
    guarded_writes_per_second: float = 2_500.0
    """Guarded writes that one Qdrant shard takes; bench/guard.json has the embedded engine's 256 points in a batch. ASSUMED to hold for a server."""
    changed_per_day: float = 0.10
    """Share of the pins that have an event on a day: captions, boards, engagement."""
    embedded_of_changed: float = 0.20
    """Share of the events that need a new vector; the others are unchanged, cosmetic, or beside the text."""
    peak: float = 3.0
    """Busiest hour over the mean hour."""
    event_bytes: int = 400
    """An event with one view's features."""
    retention_days: float = 3.0
    """Of the update topics."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of the committed results.

    Pins a second of one core in a backfill; `kept`: the share of the encoder's own gain from one to two processes that a backfill keeps; events
    a second of one worker process on each path; microseconds that a pin takes on its way around the encoder; guarded writes a second.
    """

    core_pins_per_second: float
    kept: float
    skip_events_per_second: float
    embed_events_per_second: float
    around_us: float
    guarded_per_second: float

    @classmethod
    def read(cls) -> Measured:
        backfill, worker, guard = (json.loads((HERE / f"{name}.json").read_text()) for name in ("backfill", "worker", "guard"))
        events, steps, two = worker["median_events_per_second"], worker["microseconds_per_event"]["embed"], backfill["two_workers_to_one"]
        return cls(
            backfill["median_pins_per_second"]["1 x 1"],
            two["backfill"] / two["encoder"],
            events["skip"],
            events["embed"],
            sum(us for step, us in steps.items() if step not in ("encode", "kafka and faust")),
            256_000 / guard["median_ms"]["256"]["guarded"],
        )


def computed(a: Assumptions, m: Measured) -> dict[str, list[tuple[str, str, str]]]:
    """Rows of name, figure and how it was computed, by subject."""
    core_hours = a.pins / m.core_pins_per_second / 3600
    cores = core_hours / a.hours
    host = a.gpu_host_cores / m.around_us * 1e6
    gpu = min(a.gpu_texts_per_second, host)
    gpu_hours = a.pins / gpu / 3600
    collection_bytes = {
        "float32 in memory": a.dimension * 4,
        "int8, originals on disk": a.dimension,
        "binary, originals on disk": a.dimension / 8,
    }
    graph = a.graph_links * 4 * 1.1
    disk = a.pins * (a.dimension * 4 + a.text_bytes + a.payload_bytes + a.term_bytes + graph) * a.replicas
    events = a.pins * a.changed_per_day / 86400
    seconds_per_event = a.embedded_of_changed / m.embed_events_per_second + (1 - a.embedded_of_changed) / m.skip_events_per_second
    workers = math.ceil(events * a.peak * seconds_per_event)
    qdrant = []
    for name, size in collection_bytes.items():
        memory = a.pins * (size + graph) / GIB
        shards = max(math.ceil(memory / a.shard_memory_gib), math.ceil(a.pins / a.shard_pins))
        qdrant.append((f"memory, {name}", f"{memory * a.replicas:,.0f} GiB", f"pins x ({size:,.0f} + {graph:.0f} bytes of graph) x {a.replicas}"))
        qdrant.append((f"shards x replicas, {name}", f"{shards} x {a.replicas}", f"{memory / shards:.0f} GiB and {a.pins / shards / 1e6:,.0f} M pins each"))
        qdrant.append((f"memory for a month, {name}", f"{memory * a.replicas * a.gib_month:,.0f} USD", f"at {a.gib_month:.2f} USD a GiB"))
    needed = a.pins / (a.hours * 3600)
    qdrant.append(("disk", f"{disk / 1e12:,.1f} TB", f"vector, text, record, terms, graph; {disk / GIB * a.ssd_gib_month:,.0f} USD a month"))
    qdrant.append(("shards that the backfill's writes need", f"{math.ceil(needed / a.guarded_writes_per_second)}", f"{needed:,.0f} writes/s"))
    rows = 5 * a.pins
    return {
        "Backfill on cores": [
            ("core-hours", f"{core_hours:,.0f}", f"pins / {m.core_pins_per_second:.0f} pins/s of one core (bench/backfill.json)"),
            (
                f"cores for {a.hours:g} hours",
                f"{math.ceil(cores):,}",
                f"{math.ceil(cores / a.node_cores)} machines of {a.node_cores}",
            ),
            ("cost", f"{core_hours * a.core_hour:,.0f} USD", f"at {a.core_hour:.2f} USD a core-hour"),
        ],
        "Backfill on GPUs (assumed, not measured)": [
            ("GPU-hours", f"{gpu_hours:,.0f}", f"pins / {gpu:,.0f} pins/s: the GPU's {a.gpu_texts_per_second:,.0f}, or its host's {host:,.0f} around it"),
            (f"GPUs for {a.hours:g} hours", f"{math.ceil(gpu_hours / a.hours)}", "one a machine"),
            ("cost", f"{gpu_hours * a.gpu_hour:,.0f} USD", f"at {a.gpu_hour:.2f} USD an hour"),
        ],
        "Index (Qdrant), per model": qdrant,
        "Stream (Kafka and workers), per model": [
            ("events", f"{events:,.0f}/s, {events * a.peak:,.0f}/s at the peak", f"{a.changed_per_day:.0%} of the pins a day"),
            (
                "worker processes at the peak",
                f"{workers:,}",
                f"{a.embedded_of_changed:.0%} embedded ({m.embed_events_per_second:.0f}/s), others {m.skip_events_per_second:.0f}/s",
            ),
            ("partitions", f"{_partitions(workers):,}", "at least the workers, with half as many again to grow, a multiple of 12"),
            (
                "kept in topics",
                f"{events * 86400 * a.retention_days * a.event_bytes * a.replicas / GIB:,.0f} GiB",
                f"{a.retention_days:g} days, {a.replicas} copies",
            ),
        ],
        "Features (Feast on Redis)": [
            ("rows", f"{rows / 1e9:,.1f} billion", "five views a pin"),
            ("memory", f"{a.pins * a.feast_bytes * a.replicas / GIB:,.0f} GiB", f"{a.feast_bytes:,} bytes a pin, {a.replicas} copies"),
            ("memory for a month", f"{a.pins * a.feast_bytes * a.replicas / GIB * a.gib_month:,.0f} USD", f"at {a.gib_month:.2f} USD a GiB"),
            ("reads of a backfill", f"{needed:,.0f} pins/s", f"{math.ceil(needed / 8_000)} cores of clients at 8,000 rows/s"),
        ],
    }


def _partitions(workers: int) -> int:
    return 12 * math.ceil(1.5 * workers / 12)


def document(a: Assumptions, m: Measured) -> str:
    """The tables, and the assumptions they stand on."""
    lines = []
    for subject, rows in computed(a, m).items():
        lines += [f"### {subject}", "", "| figure | value | from |", "|---|---|---|", *(f"| {name} | {value} | {how} |" for name, value, how in rows), ""]
    lines += ["### Assumptions", "", "| assumption | value |", "|---|---|"]
    lines += [f"| `{field.name}` | {_shown(getattr(a, field.name))} |" for field in fields(a)]
    measured = [
        ("pins/s of one core in a backfill", f"{m.core_pins_per_second:.0f}"),
        ("share of the encoder's own gain from one to two processes that a backfill keeps", f"{m.kept:.0%}"),
        ("events/s of a worker that embed, and that do not", f"{m.embed_events_per_second:.0f}, {m.skip_events_per_second:.0f}"),
        ("time of a pin around the encoder", f"{m.around_us:.0f} us"),
        ("guarded writes/s of the embedded engine", f"{m.guarded_per_second:,.0f}"),
    ]
    lines += ["", "### Measured on two cores", "", "| figure | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in measured)]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,g}"


def rewritten(text: str) -> str:
    """The page with fresh figures."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{document(Assumptions(), Measured.read())}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Rewrite docs/scale.md, or print another case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pins", type=int)
    parser.add_argument("--hours", type=float)
    arguments = parser.parse_args()
    other = {name: value for name, value in vars(arguments).items() if value is not None}
    if other:
        print(document(Assumptions(**other), Measured.read()))
    else:
        PAGE.write_text(rewritten(PAGE.read_text()))


if __name__ == "__main__":
    main()
