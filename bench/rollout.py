"""A whole rollout under load: what clients see of start, backfill, canary, cut-over, roll-back, cut-over again and retirement.

A system on embedded parts holds the sample pins in the collection of one model. Clients search, ask for related pins and home feeds all the time, a
writer updates, adds and deletes pins, and the commands of `everpin rollout` are given as a person gives them, each a process of its own. Counted: answers
that are not 200; answers that are of no one model (a search's scores are computed again with the model it names); deletes that came back; updates that
are missing from a collection that should have them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from bench.load.fill import Filled, fill
from bench.machine import machine, write
from bench.sample import caption, new_pin
from everpin.live import installation, of_model
from everpin.settings import SHIPPED_MODEL, Settings
from everpin.supervising import Workers
from everpin.system import running_system, serving
from everpin.wiring import build_encoder, now_us, open_index, worker_groups
from pins.events import PinDeleted, PinUpdated
from pins.ports import Encoder, Vector
from streams.broker import Broker, EventProducer

OLD, NEW = SHIPPED_MODEL.parent / "minilm-l6-v1", SHIPPED_MODEL
SAME_SCORE = 2e-3
"""How far a score may be from the cosine computed again: int8 encoders batch differently."""
SETTLED_S = 60.0
KINDS = ("search", "search", "search", "related", "feed")


@dataclass
class Seen:
    """What clients saw: answers by kind and model; the first few failures and mixed answers; when each model was first and last seen after a mark."""

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    checked: int = 0
    resurrected: list[str] = field(default_factory=list)
    last: dict[str, float] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def mark(self) -> None:
        """Forget when models were seen."""
        with self.lock:
            self.first, self.last = {}, {}

    def total(self) -> int:
        with self.lock:
            return sum(self.answers.values())


@dataclass(frozen=True)
class Space:
    """What proves that an answer is of one model: each model's encoder, and the vectors of pins that nobody changes."""

    encoders: Mapping[str, Encoder]
    still: Mapping[str, Mapping[str, Vector]]
    queries: Sequence[str]

    def known(self) -> dict[str, dict[str, Vector]]:
        """Query vectors by model, made once."""
        return {model_id: dict(zip(self.queries, encoder.encode(list(self.queries)), strict=True)) for model_id, encoder in self.encoders.items()}


class Client(threading.Thread):
    """Asks, checks, and asks again, until it is told to stop."""

    def __init__(
        self, host: str, filled: Filled, space: Space, vectors: Mapping[str, Mapping[str, Vector]], gone: set[str], seen: Seen, seed: int, pause_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._host, self._filled, self._space, self._vectors, self._gone, self._seen = host, filled, space, vectors, gone, seen
        self._chance, self._stopped, self._pause_s = Random(seed), threading.Event(), pause_s

    def stop(self) -> None:
        self._stopped.set()
        self.join(30)

    def run(self) -> None:
        with closing(http.client.HTTPConnection(self._host, timeout=30)) as connection:
            while not self._stopped.wait(self._pause_s):
                self._once(connection)

    def _once(self, connection: http.client.HTTPConnection) -> None:
        kind, query, gone = self._chance.choice(KINDS), self._chance.choice(self._space.queries), frozenset(self._gone)
        try:
            body = self._ask(connection, kind, query)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            with self._seen.lock:
                self._seen.failed.append(f"{kind}: {error!r}")
            return
        self._check(kind, query, body, gone)

    def _ask(self, connection: http.client.HTTPConnection, kind: str, query: str) -> dict[str, Any]:
        if kind == "search":
            connection.request("POST", "/v1/search", json.dumps({"query": query, "limit": 20, "retrieval": "dense"}), {"Content-Type": "application/json"})
        elif kind == "related":
            connection.request("GET", f"/v1/pins/{self._chance.choice(self._filled.pins)}/related?limit=20")
        else:
            connection.request("GET", f"/v1/users/{self._chance.choice(self._filled.users)}/feed?limit=20")
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200 and not (kind == "related" and answer.status == 404):  # a pin that the writer deleted
            raise ValueError(f"{answer.status} {text[:200]!r}")
        body: dict[str, Any] = json.loads(text)
        return body

    def _check(self, kind: str, query: str, body: dict[str, Any], gone: frozenset[str]) -> None:
        model_id, at = body.get("model_id", "none"), time.monotonic()
        results = body.get("results", [])
        wrong = self._strangers(model_id, query, results) if kind == "search" else []
        with self._seen.lock:
            self._seen.answers[kind, model_id] += 1
            self._seen.first.setdefault(model_id, at)
            self._seen.last[model_id] = at
            self._seen.checked += len(results) if kind == "search" else 0
            self._seen.resurrected += [one["pin_id"] for one in results if one["pin_id"] in gone]
            if wrong or (model_id != "none" and body["collection"] != f"pins__{model_id}"):
                self._seen.mixed.append(f"{kind} of {model_id}: {wrong[:2]}")

    def _strangers(self, model_id: str, query: str, results: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Results whose score is not that of the named model. The pins are of those that nobody changes."""
        vectors, asked = self._space.still[model_id], self._vectors[model_id][query]
        return [one for one in results if one["pin_id"] in vectors and abs(float(vectors[one["pin_id"]] @ asked) - one["score"]) > SAME_SCORE]


class Writer(threading.Thread):
    """Updates, adds and deletes pins at a rate, and keeps what each is now: its caption, or None for a deleted one."""

    def __init__(self, config: Settings, broker: Broker, pins: Sequence[str], rate: float) -> None:
        super().__init__(daemon=True)
        self._producer, self._pins, self._rate = EventProducer(broker, lambda: worker_groups(config)), list(pins), rate
        self.truth: dict[str, str | None] = {}
        self.written, self._chance, self._stopped = 0, Random(5), threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(1 / self._rate):
            self._write(self.written)
            self.written += 1
        self._producer.close()

    def stop(self) -> None:
        self._stopped.set()
        self.join(120)

    def _write(self, number: int) -> None:
        kind = self._chance.random()
        alive = [pin_id for pin_id in self._pins if self.truth.get(pin_id, "") is not None]
        if kind < 0.1:
            made = new_pin(f"new-{number}", number)
            self.truth[made.pin_id] = str(made.features["pin_caption"]["caption"])
            self._pins.append(made.pin_id)
            self._producer.send(made)
        elif kind < 0.2:
            pin_id = self._chance.choice(alive)
            self.truth[pin_id] = None
            self._producer.send(PinDeleted(pin_id, now_us()))
        else:
            pin_id, words = self._chance.choice(alive), f"edition {number} of {caption(number, 1)}"
            self.truth[pin_id] = words
            self._producer.send(PinUpdated(pin_id, now_us(), {"pin_caption": {"caption": words}}))


def everpin(config: Settings, broker: Broker, *arguments: str) -> tuple[dict[str, Any], float]:
    """A command in a process of its own: its document and its seconds."""
    environment = {**os.environ, "EVERPIN_HOME": str(config.home), "EVERPIN_KAFKA": "", "PYTHONWARNINGS": "ignore"}
    environment.pop("EVERPIN_MODEL", None)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "everpin.cli", *arguments, "--json"], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(f"everpin {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-2000:]} {done.stdout[-500:]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document, time.monotonic() - began


@contextmanager
def followed(workers: Workers) -> Iterator[None]:
    """Do what `everpin up` does beside: keep the wanted workers running."""
    stopped = threading.Event()

    def follow() -> None:
        while not stopped.wait(0.5):
            workers.follow()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(60)
        workers.close()


def missing(config: Settings, folder: Path, truth: Mapping[str, str | None]) -> list[str]:
    """Pins whose record in a model's collection is not what the writer made of them, once they had time to get there."""
    deadline = time.monotonic() + SETTLED_S
    encoder = build_encoder(of_model(config, folder))
    with open_index(of_model(config, folder), encoder.model_id, encoder.dimension, purpose="bench") as index:
        while True:
            records = index.known(list(truth))
            wrong = [pin_id for pin_id, words in truth.items() if not _as_written(records.get(pin_id), words)]
            if not wrong or time.monotonic() > deadline:
                return wrong
            time.sleep(0.5)


def _as_written(record: Any, words: str | None) -> bool:
    if words is None:
        return record is None or record.dead
    return record is not None and not record.dead and " ".join(words.split()[:3]).casefold() in record.text.casefold()  # texts are cut at the end


def switched(seen: Seen, after: str, within_s: float = 10.0) -> float:
    """Seconds after the command returned until only this model answered; 0 where that was before."""
    began, deadline = time.monotonic(), time.monotonic() + within_s
    while after not in seen.first and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.5)  # the model before must not be seen any more
    others = [at for model_id, at in seen.last.items() if model_id not in (after, "none")]
    return max(0.0, max([seen.first.get(after, deadline), *others]) - began)


def rollout(home: Path, requests: int, rate: float, clients: int, pause_s: float = 0.0) -> dict[str, Any]:
    """The whole sequence; asks go on until `requests` were answered, each client pausing after each. What was seen of it."""
    config = Settings(home=home, port=0, model=OLD)
    filled = fill(config, 0, None)
    written, still = filled.pins[:150], filled.pins[150:]
    old, new = (build_encoder(of_model(config, folder)) for folder in (OLD, NEW))
    texts = _texts(config, still)
    space = Space(
        {e.model_id: e for e in (old, new)},
        {e.model_id: dict(zip(texts, e.encode(list(texts.values())), strict=True)) for e in (old, new)},
        filled.queries[:60],
    )
    vectors, seen, gone, steps = space.known(), Seen(), set[str](), dict[str, Any]()
    with ExitStack() as stack:
        system = stack.enter_context(running_system(config, home / "worker.log"))
        page = stack.enter_context(serving(config, home / "serve.log"))
        stack.enter_context(followed(Workers(config, system.broker, home / "workers.log", {old.model_id: system.worker})))
        writer = Writer(config, system.broker, written, rate)
        askers = [Client(urlsplit(page.url).netloc, filled, space, vectors, gone, seen, number, pause_s) for number in range(clients)]
        for thread in (writer, *askers):
            thread.start()
            stack.callback(thread.stop)
        installed = installation(config)
        installed.alias.point(old.model_id)

        def step(name: str, *arguments: str) -> None:
            seen.mark()
            _, steps[name] = everpin(config, system.broker, *arguments)
            print(f"{name}: {steps[name]:.1f} s, {seen.total()} answers, {len(seen.failed)} failed, {len(seen.mixed)} mixed", file=sys.stderr)

        step("publish", "model", "publish", str(NEW), "--force", "the gate is not what is measured here")
        step("start", "rollout", "start", new.model_id, "--yes")
        step("canary", "rollout", "cutover", "--canary", "20")
        time.sleep(3)
        part = {model_id: sum(n for (kind, m), n in seen.answers.items() if m == model_id) for model_id in (old.model_id, new.model_id)}
        for name, command, after in (("cutover", "cutover", new), ("rollback", "rollback", old), ("cutover again", "cutover", new)):
            step(name, "rollout", command)
            steps[f"{name}, until seen by all"] = switched(seen, after.model_id)
        while seen.total() < requests:
            time.sleep(0.5)
        writer.stop()
        gone |= {pin_id for pin_id, words in writer.truth.items() if words is None}
        lost = {folder.name: missing(config, folder, writer.truth) for folder in (OLD, NEW)}
        seen.resurrected.clear()  # from here on both collections are known to be without the deleted pins
        step("retire", "rollout", "retire", old.model_id, "--hold", "0s", "--yes")
        time.sleep(2)
        for asker in askers:
            asker.stop()
        lost["after retirement"] = missing(config, NEW, writer.truth)
    return {
        "answers": {f"{kind} {model_id}": n for (kind, model_id), n in sorted(seen.answers.items())},
        "requests": seen.total() + len(seen.failed),
        "failed": len(seen.failed),
        "mixed": len(seen.mixed),
        "examples": seen.failed[:3] + seen.mixed[:3],
        "scores_checked": seen.checked,
        "canary_answers": part,
        "resurrected": len(set(seen.resurrected)),
        "missing_updates": {where: len(pins) for where, pins in lost.items()},
        "events_written": writer.written,
        "seconds": {name: round(value, 2) for name, value in steps.items()},
        "collections_left": sorted(path.name for path in (home / "index").glob("pins__*")),
    }


def _texts(config: Settings, pins: Sequence[str]) -> dict[str, str]:
    """The texts that are embedded of these pins."""
    encoder = build_encoder(config)
    with open_index(config, encoder.model_id, encoder.dimension, purpose="bench", own=True) as index:
        return {pin_id: record.text for pin_id, record in index.known(list(pins)).items() if record.embedded}


def main() -> None:
    """Measure, write bench/rollout.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.rollout", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000, help="answers to wait for at least")
    parser.add_argument("--rate", type=float, default=10, help="writes per second")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = rollout(Path(scratch), 1 if arguments.quick else arguments.requests, arguments.rate, arguments.clients)
    document = {"command": "python -m bench.rollout", "machine": machine("fastapi", "qdrant-edge-py", "onnxruntime", "ray"), "clients": arguments.clients}
    document |= {"writes_per_second": arguments.rate, "target": {"requests": 100_000, "failed": 0, "mixed": 0}, "rollout": found}
    print(json.dumps(found, indent=1))
    write("rollout", document, quick=arguments.quick)


if __name__ == "__main__":
    main()
