"""Run Everpin under faults and compare its index with an oracle that starts from scratch.

    python -m tests.faults.run --seed 7 --minutes 2 --workers 3 --kill 20

One worker: embedded broker, embedded index, Feast on SQLite. Two or more: a real Apache Kafka, a Qdrant server (its real
engine behind a stand-in for the REST routes), Feast on Redis. A seeded platform sends edits, captions, saves, deletes,
revivals, poison, late, doubled and reordered events. Meanwhile workers are killed with SIGKILL at named points and at random
moments, frozen beyond their session, replaced by deploys, and the services hang, slow down, die and come back. At the end
every pin's features are rendered and embedded again and compared with what the index serves.

The same seed gives the same schedule of events and faults. The run goes on beyond --minutes until every fault has happened.
Exit codes: 0 the index equals the oracle, 1 it does not (what is wrong is said), 2 the run could not take place.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from bench.machine import machine
from everpin.wiring import build_artifact, build_encoder, now_us, open_index
from pins.errors import EverpinError, Unavailable
from streams.broker import Offsets, ensure_topics
from streams.features import FeastFeatures
from tests.faults.driver import Driver
from tests.faults.fleet import Fleet
from tests.faults.generator import counts, schedule
from tests.faults.injector import OUTAGE_S, Injector, plan
from tests.faults.oracle import Verdict, compare
from tests.faults.report import Report
from tests.faults.setting import PARTITIONS, Choice, Setting, setting
from tests.services import ServiceUnavailable

MEASURED = ("faust-streaming", "aiokafka", "feast", "qdrant-edge-py", "onnxruntime")
PER_KILL_S = 25.0
"""Most seconds that one kill is expected to take a worker out of work: detection, start, join."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seed", type=int, default=7, help="seed of events and faults (default 7)")
    made.add_argument("--minutes", type=float, default=2.0, help="how long events flow, at least (default 2)")
    made.add_argument("--workers", type=int, default=3, help="workers in the group, 1 to 4 (default 3)")
    made.add_argument("--kill", type=int, default=20, help="SIGKILLs; six of ten at named points in turn, the others at random moments (default 20)")
    made.add_argument("--at-points", type=int, default=None, metavar="N", help="so many of the kills at named points instead of six of ten")
    made.add_argument("--pause", type=int, default=None, help="workers frozen beyond their session at a named point (default: one a minute)")
    made.add_argument("--session", type=float, default=10.0, help="the group's session time-out in seconds (default 10, as in production)")
    made.add_argument("--deploy", type=int, default=None, help="workers replaced by a new one (default: one a minute)")
    made.add_argument("--outages", type=int, default=None, help="outages of services, each kind in turn (default: each kind once)")
    made.add_argument("--outage-seconds", type=float, nargs=2, default=OUTAGE_S, metavar=("LEAST", "MOST"), help="how long an outage lasts (default 4 10)")
    made.add_argument("--skew", type=float, default=5.0, help="seconds by which the second worker's clock is ahead and the third's behind (default 5)")
    made.add_argument("--pins", type=int, default=300, help="pins, chosen by Zipf's law (default 300)")
    made.add_argument("--rate", type=float, default=40.0, help="changes per second (default 40)")
    made.add_argument("--broker", choices=["embedded", "kafka"], default="", help="default: embedded for one worker, else kafka")
    made.add_argument("--features", choices=["sqlite", "redis"], default="", help="default: sqlite for one worker, else redis")
    made.add_argument("--index", choices=["edge", "server"], default="", help="default: edge for one worker, else server")
    made.add_argument(
        "--start", choices=["fork", "exec"], default="fork", help="start workers from a process with the imports done, or from nothing (default fork)"
    )
    made.add_argument("--folder", type=Path, default=None, help="keep logs and stores here (default: a temporary folder, kept when something is wrong)")
    made.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as a JSON document")
    made.add_argument("--plan", action="store_true", help="print the faults this seed gives, and do nothing")
    return made


def planned(asked: argparse.Namespace, kinds: Sequence[str]) -> list[Any]:
    """The faults of these arguments."""
    minutes = max(1, round(asked.minutes))
    number = len(kinds) if asked.outages is None else asked.outages
    return plan(
        asked.seed, asked.minutes * 60, asked.workers, kills=asked.kill,
        pauses=minutes if asked.pause is None else asked.pause,
        deploys=minutes if asked.deploy is None else asked.deploy,
        at_points=asked.at_points, session_s=asked.session, outage_s=asked.outage_seconds,
        outages=[kinds[one % len(kinds)] for one in range(number)] if kinds else [],
    )  # fmt: skip


def play(asked: argparse.Namespace, choice: Choice, folder: Path, say: Any = lambda words: None) -> Report:
    """One whole run. Raises ServiceUnavailable, Unavailable, TimeoutError when it cannot take place."""
    started = time.monotonic()
    names = ("seed", "minutes", "workers", "kill", "pins", "rate", "skew", "session", "start", "outage_seconds")
    report = Report({name: getattr(asked, name) for name in names} | {"broker": choice.broker, "features": choice.features, "index": choice.index})
    say("starting services")
    with setting(choice, folder) as services:
        ensure_topics(services.broker, PARTITIONS, 1)
        fleet = Fleet(services, asked.workers, asked.skew, {"FAULT_SESSION_S": str(asked.session)}, asked.start)
        try:
            fleet.start()
            features = FeastFeatures(services.config.feast_home, services.config.feast_yaml)
            say("starting workers")
            fleet.await_ready()
            _storm(asked, services, fleet, features, report, say)
            say("comparing with the oracle")
            verdict = judge(services, features, [step.pin_id for step in schedule(asked.seed, 1, 1, asked.pins)])
            report.judge(verdict)
            report.read_notices(services.broker, verdict)
            features.close()
        finally:
            fleet.kill()
    report.seconds = round(time.monotonic() - started, 1)
    return report


def _storm(asked: argparse.Namespace, services: Setting, fleet: Fleet, features: FeastFeatures, report: Report, say: Any) -> None:
    """Events and faults until both are over; then let the workers drain, and stop them in order."""
    seconds = asked.minutes * 60
    longest = seconds + PER_KILL_S * asked.kill / asked.workers + 60
    steps = schedule(asked.seed, longest, asked.rate, asked.pins)
    driver = Driver(services.broker, services.group, features, steps, now_us() // 1000 * 1000)
    injector = Injector(planned(asked, services.outages()), fleet, services)
    began = time.monotonic()
    driver.start()
    injector.start()
    while driver.is_alive() and (time.monotonic() - began < seconds or injector.busy):
        say(f"{len(driver.done)} steps, {sum(injector.done.values())} faults, {fleet.exits[-9]} kills")
        time.sleep(0.2)
    injector.cancel()
    driver.finish()
    driver.join()
    report.harness_failures += [repr(driver.failure)] if driver.failure else []
    report.sent, report.unsent = counts(driver.done), len(driver.unsent)
    drained = time.monotonic()
    report.drained = drain(services, fleet, say)
    report.drain_s = round(time.monotonic() - drained, 1)
    fleet.await_ready()
    fleet.stop()
    report.read_injector(injector)
    report.read_fleet(fleet)
    report.read_topics(services.broker, driver.done)


def drain(services: Setting, fleet: Fleet, say: Any, timeout_s: float = 240.0) -> bool:
    """Wait until the group has no lag in two looks running; False when it makes no progress in time."""
    best, deadline, empty = sys.maxsize, time.monotonic() + timeout_s, 0
    offsets = Offsets(services.broker, services.group)
    try:
        while empty < 2:
            try:
                behind = sum(lag.messages for lag in offsets.lag())
            except Unavailable:
                behind = best
            if behind < best:
                best, deadline = behind, time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                return False
            say(f"draining, {behind} events behind")
            empty = empty + 1 if behind == 0 else 0
            time.sleep(0.3)
        return True
    finally:
        offsets.close()


def judge(services: Setting, features: FeastFeatures, pin_ids: Sequence[str]) -> Verdict:
    """Compare the index, as left behind by the stopped workers, with the truth."""
    config, artifact = services.config, build_artifact(services.config)
    encoder = build_encoder(config, artifact)
    with open_index(config, encoder.model_id, encoder.dimension, purpose="oracle") as index:
        return compare(set(pin_ids), features, index, encoder)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    console = Console(stderr=True)
    if not 1 <= asked.workers <= 4 or asked.minutes <= 0 or asked.kill < 0:
        console.print(f"[red]--workers {asked.workers} must be 1 to 4, --minutes {asked.minutes} above 0, --kill {asked.kill} not below 0[/]")
        return 2
    try:
        choice = Choice.of(asked.workers, asked.broker, asked.features, asked.index)
    except ValueError as error:
        console.print(f"[red]{error}[/]")
        return 2
    if asked.plan:
        kinds = _kinds(choice)
        for fault in planned(asked, kinds):
            print(f"{fault.at_s:8.1f} s  {fault.kind:12} worker {fault.slot:2}  {fault.point or '-':12} {fault.lasts_s or ''}")
        return 0
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="everpin-faults-"))
    try:
        with Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True) as progress:
            task = progress.add_task("", total=None)
            report = play(asked, choice, folder, lambda words: progress.update(task, description=words))
    except (ServiceUnavailable, EverpinError, TimeoutError) as error:
        console.print(f"[red]the run could not take place:[/] {error}")
        return 2
    report.show(Console(width=150))
    if asked.json:
        made = {"command": " ".join(["python -m tests.faults.run", *(arguments or sys.argv[1:])]), "machine": machine(*MEASURED)}
        asked.json.write_text(json.dumps(made | report.as_json(), indent=2) + "\n")
    if not report.ok:
        console.print(f"logs and stores: {folder}")
    return 0 if report.ok else 1


def _kinds(choice: Choice) -> list[str]:
    kinds = ["kafka_kill"] if choice.broker == "kafka" else []
    kinds += ["qdrant_kill", "qdrant_hang", "qdrant_slow"] if choice.index == "server" else []
    return kinds + (["redis_hang"] if choice.features == "redis" else [])


if __name__ == "__main__":
    sys.exit(main())
