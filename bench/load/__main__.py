"""Latency of the API under load, while the worker writes: p50 and p99 by endpoint at 50, 200 and 500 requests/s, where it saturates, what it does
past that, and how soon it is itself again.

A whole system (broker, worker, serving process) runs on the sample pins, on the 5,000 pins of cxc_pins and on 100,000 generated ones; a process
of its own sends 50 pin updates a second, each of which is embedded. Requests are a mix of search (60 %), related pins (20 %), home feed (15 %) and
single pins (5 %), queries and pins by Zipf's law, 85 % of queries repeated. At the rates: open loop, Poisson arrivals, latency from the scheduled
time (`drive`). Saturation: the most that closed loops of growing size get answered. Then open loop at one and a half times that: what is shed
(503 with Retry-After) is counted apart, anything else that is not 200 is a failure. After it half the saturation rate is asked until the answers
are as before.

One machine does it all: generator, writer and server share its cores, as everything of a small installation would.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from bench.load.drive import Seen, ask_all, closed_loop, open_loop, recovery_s
from bench.load.fill import Filled, fill
from bench.load.mix import SHARES, Mix
from bench.load.wire import Wires
from bench.machine import machine, write
from everpin.settings import Settings
from everpin.system import System, running_system, serving
from everpin.wiring import build_artifact, worker_group

RATES = (50, 200, 500)
SIZES = {"sample": 0, "cxc": 0, "generated": 100_000}
CLIENTS = (4, 16, 48)
PAST_SATURATION = 1.5
TARGET = {"pins": "cxc", "rate": 200, "search_p99_ms": 50}
COUNTED = {"hits": ("everpin_query_cache_total", "hit"), "misses": ("everpin_query_cache_total", "miss"), "shed": ("everpin_http_shed_total", "")}


def counters(url: str) -> dict[str, float]:
    """The server's own counts: query cache and shedding."""
    families = list(text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=30).raise_for_status().text))
    samples = [sample for family in families for sample in family.samples]
    return {
        name: sum(sample.value for sample in samples if sample.name == metric and outcome in ("", sample.labels.get("outcome")))
        for name, (metric, outcome) in COUNTED.items()
    }


def served(before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    """What the server counted between two readings."""
    change = {name: after[name] - before[name] for name in before}
    asked = change["hits"] + change["misses"]
    return {"query_cache_hit_share": round(change["hits"] / asked, 3) if asked else None, "shed": int(change["shed"])}


@contextmanager
def writing(system: System, group: str, pins: Path, rate: float, changes: float) -> Iterator[dict[str, Any]]:
    """Updates at a rate for the time of the block; what the writer says of itself is in the dictionary after it."""
    said: dict[str, Any] = {}
    command = [sys.executable, "-m", "bench.load.writer", str(system.broker), group, str(pins), "--rate", str(rate), "--changes", str(changes)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield said
    finally:
        output, _ = process.communicate(timeout=60)
        said.update(json.loads(output) if process.returncode == 0 else {"failed": process.returncode})


def processor_s(processes: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds of these processes (name to pid) so far, of everything on the machine, and what the hypervisor gave to others meanwhile."""
    own = {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in processes.items()}
    times = psutil.cpu_times()
    return own | {"everything": times.user + times.nice + times.system + times.irq + times.softirq, "stolen": times.steal}


def cores(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Cores in use between two readings of `processor_s`."""
    return {name: round((after[name] - before[name]) / seconds, 2) for name in before}


async def measured(url: str, filled: Filled, processes: Mapping[str, int], arguments: argparse.Namespace) -> dict[str, Any]:
    """All loads on one setting. `processes`: whose processor time is told, name to pid."""
    host = urlsplit(url).netloc
    endpoint = urlsplit(url)
    seconds, short = (2.0, 1.0) if arguments.quick else (arguments.seconds, arguments.seconds / 3)
    found: dict[str, Any] = {"rates": {}, "closed_loop": {}}
    async with Wires(str(endpoint.hostname), endpoint.port or 80) as wires:
        mix = Mix(filled.queries, filled.pins, filled.users, host, arguments.hits)
        warm = await ask_all(wires, mix.warming())
        asked = iter(mix)
        await open_loop(wires, asked, 50, short)
        found["warming_failed"] = dict(warm.failed)
        for rate in arguments.rates:
            before, spent, began = counters(url), processor_s(processes), time.perf_counter()
            seen = await open_loop(wires, asked, rate, seconds, not arguments.even)
            used = cores(spent, processor_s(processes), time.perf_counter() - began)
            found["rates"][rate] = seen.summary(seconds) | {"server": served(before, counters(url)), "cores": used}
        for clients in CLIENTS:
            seen = await closed_loop(wires, asked, clients, short)
            found["closed_loop"][clients] = seen.summary(short)
        most = max(one["answered_per_second"] for one in found["closed_loop"].values())
        found["saturation_per_second"] = most
        found["past_saturation"] = await overloaded(url, wires, asked, most, short)
    return found


async def overloaded(url: str, wires: Wires, asked: Iterator[Any], most: float, seconds: float) -> dict[str, Any]:
    """Half of saturation, then past it, then half of it again."""
    usual = await open_loop(wires, asked, most / 2, seconds)
    before = counters(url)
    past = await open_loop(wires, asked, PAST_SATURATION * most, 2 * seconds)
    over_at = time.perf_counter()
    after = await open_loop(wires, asked, most / 2, 2 * seconds, seen=Seen())
    return past.summary(2 * seconds) | {
        "asked_per_second": round(PAST_SATURATION * most, 1),
        "server": served(before, counters(url)),
        "recovery_s": recovery_s(usual, after, over_at),
        "failed_afterwards": dict(after.failed),
    }


def setting(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fill an installation, run the system on it, and measure."""
    count = min(SIZES[name], arguments.generated) if name == "generated" else SIZES[name]
    with tempfile.TemporaryDirectory() as scratch:
        config = Settings(home=Path(scratch), port=0)
        began = time.perf_counter()
        filled = fill(config, count, arguments.cxc if name == "cxc" else None)
        filled_s = time.perf_counter() - began
        group = worker_group(config, build_artifact(config).manifest.model_id)
        logs = Path(scratch) / "worker.log", Path(scratch) / "serve.log"
        written = Path(scratch) / "written.txt"
        written.write_text("\n".join(filled.written))
        with running_system(config, logs[0]) as system, serving(config, logs[1]) as page:
            with writing(system, group, written, arguments.updates, arguments.changes) as writer:
                found = asyncio.run(measured(page.url, filled, {"serving": page.process.pid, "worker": system.worker.pid}, arguments))
            found |= {"pins": len(filled.pins), "filled_s": round(filled_s, 1), "writer": writer, **_worker(system.status())}
        return found


def _worker(status: Mapping[str, Any]) -> dict[str, Any]:
    """What the worker says of the whole run: its freshness, from update to searchable, and its index."""
    return {name: status.get(name) for name in ("freshness_ms", "index")}


def main() -> None:
    """Measure, write bench/load.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rates", nargs="+", type=int, default=RATES, help="requests per second")
    parser.add_argument("--seconds", type=float, default=10, help="of each rate; a third of it for each closed loop")
    parser.add_argument("--hits", type=float, default=0.85, help="share of repeated queries")
    parser.add_argument("--updates", type=float, default=50, help="pin updates per second")
    parser.add_argument("--changes", type=float, default=1.0, help="share of the updates that change a pin's text, and so are embedded")
    parser.add_argument("--even", action="store_true", help="even arrivals instead of Poisson's")
    parser.add_argument("--generated", type=int, default=SIZES["generated"], help="pins of the generated setting")
    parser.add_argument("--cxc", type=Path, help="a folder of the cxc layout with items.parquet and queries.parquet")
    parser.add_argument("--quick", action="store_true", help="a smoke run on few pins that writes nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.settings, arguments.generated = [name for name in ("sample", "generated") if name in arguments.settings], 2000
    if "cxc" in arguments.settings and not arguments.cxc:
        parser.error("the setting cxc needs --cxc FOLDER; or choose --settings sample generated")
    document = {
        "command": "python -m bench.load " + " ".join("FOLDER" if word == str(arguments.cxc) else word for word in sys.argv[1:]),
        "machine": machine("fastapi", "uvicorn", "qdrant-edge-py", "onnxruntime", "feast"),
        "seconds": arguments.seconds,
        "arrivals": "even" if arguments.even else "Poisson",
        "latency": "from the scheduled time",
        "mix": SHARES,
        "repeated_queries": arguments.hits,
        "updates_per_second": arguments.updates,
        "changing": arguments.changes,
        "target": TARGET,
        "settings": {name: setting(name, arguments) for name in arguments.settings},
    }
    write("load", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
