"""`everpin status` and `everpin doctor`: is the system healthy, is this machine fit for it, and what to change where not."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import httpx

from embedder.artifact import open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin.loading import feature_store
from everpin.owner import live_owner, owners, place
from everpin.settings import Settings
from everpin.wiring import find_broker, open_index, worker_group
from index.edge import MIN_FREE_BYTES
from pins.errors import EverpinError
from streams.broker import PARKED, Offsets
from streams.deadletters import depth

PACKAGES = ("feast", "faust-streaming", "kafka-python", "confluent-kafka", "qdrant-client", "qdrant-edge-py", "onnxruntime", "tokenizers", "numpy")
LAG_ALARM = 10_000
"""Events behind at which `status` calls the stream unhealthy."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, whether it is well, what was found, and what to do where it is not."""

    name: str
    ok: bool
    found: str
    fix: str = ""


def status(config: Settings) -> dict[str, Any]:
    """The system's health as one document; `healthy` is false when anything is not."""
    problems: list[str] = []
    body: dict[str, Any] = {"home": str(config.home)}

    def part(name: str, read: Callable[[], Any]) -> None:
        try:
            body[name] = read()
        except EverpinError as error:
            body[name] = None
            problems.append(f"{name}: {error}")

    part("model_id", lambda: read_manifest(config.model).model_id)
    part("worker", lambda: _worker(config))
    part("broker", lambda: _broker(config, str(body["model_id"])))
    part("features", lambda: _features(config))
    part("index", lambda: _index(config))
    if body["broker"] and body["broker"]["lag"] > LAG_ALARM:
        problems.append(f"broker: the worker is {body['broker']['lag']} events behind; start more workers, or see its log")
    if body["worker"] and not body["worker"].get("ready", True):
        problems.append("worker: not ready; see its log")
    return body | {"healthy": not problems, "problems": problems}


def _worker(config: Settings) -> dict[str, Any]:
    owner = live_owner(place(config.home, read_manifest(config.model).model_id))
    if owner is None or not owner.url:
        if config.kafka:
            return {"note": "workers run elsewhere; ask their /readyz"}
        raise EverpinError(f"no worker runs on {config.home}; start `everpin up`")
    try:
        body: dict[str, Any] = httpx.get(f"{owner.url}/status", timeout=10).raise_for_status().json()
    except httpx.HTTPError as error:
        raise EverpinError(f"process {owner.pid} does not answer: {error}") from error
    return body


def _broker(config: Settings, model_id: str) -> dict[str, Any]:
    broker = find_broker(config)
    if broker is None:
        raise EverpinError("none; start `everpin up`, or set EVERPIN_KAFKA")
    offsets = Offsets(broker, worker_group(config, model_id))
    try:
        lags = offsets.lag()
    finally:
        offsets.close()
    partitions = [asdict(lag) | {"lag": lag.messages} for lag in lags]
    return {
        "address": str(broker),
        "lag": sum(lag.messages for lag in lags),
        "parked": sum(lag.messages for lag in lags if lag.topic == PARKED),
        "dead_letters": depth(broker).letters,
        "partitions": partitions,
    }


def _features(config: Settings) -> dict[str, Any]:
    with feature_store(config) as features:
        features.of(["status"])
    return {"answers": True, "yaml": str(config.feast_yaml or "embedded")}


def _index(config: Settings) -> dict[str, Any]:
    manifest = read_manifest(config.model)
    with open_index(config, manifest.model_id, manifest.dimension, purpose="everpin status") as index:
        return {"by_model": {index.model_id: dict(index.counts())}, "where": config.qdrant_url or str(config.index_home)}


def doctor(config: Settings) -> list[Check]:
    """Everything a newcomer may trip over, each with the fix."""
    return [_python(), *_packages(), _sqlite(), _disk(config), _home(config), _model(config), _port(config), *_services(config)]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info[:2] == (3, 11), found, "use CPython 3.11: it is the version that requirements/constraints.txt is locked for")


def _packages() -> list[Check]:
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return [Check("packages", False, f"{name} is missing", "run `make demo` once, or pip install -c requirements/constraints.txt '.[worker]'")]
    torch = "torch" in sys.modules
    return [
        Check("packages", True, ", ".join(f"{name} {version}" for name, version in found.items())),
        Check("no torch in the worker", not torch, "torch is loaded" if torch else "not loaded", "find who imports it with python -X importtime"),
    ]


def _sqlite() -> Check:
    return Check("sqlite", sqlite3.sqlite_version_info >= (3, 24), sqlite3.sqlite_version, "use a Python built with SQLite 3.24 or later")


def _disk(config: Settings) -> Check:
    parent = next(folder for folder in (config.home.absolute(), *config.home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    enough = 2 * MIN_FREE_BYTES
    return Check("disk", free > enough, f"{free >> 20} MiB free under {config.home}", f"keep at least {enough >> 20} MiB free, or move EVERPIN_HOME")


def _home(config: Settings) -> Check:
    working = ", ".join(f"process {owner.pid} ({owner.purpose} of {model_id})" for model_id, owner in owners(config.home).items())
    try:
        config.home.mkdir(parents=True, exist_ok=True)
        (config.home / ".doctor").touch()
        (config.home / ".doctor").unlink()
    except OSError as error:
        return Check("state folder", False, f"{config.home}: {error}", "make it writable, or set EVERPIN_HOME to a folder of yours")
    return Check("state folder", True, f"{config.home}, " + (f"in use by {working}" if working else "not in use"))


def _model(config: Settings) -> Check:
    try:
        artifact = open_artifact(config.model)
        worst = float(OnnxEncoder(artifact, config.threads).golden_cosines(artifact).min())
    except EverpinError as error:
        return Check("model folder", False, str(error), "set EVERPIN_MODEL to a complete folder, or check the repository out again")
    return Check("model folder", True, f"{artifact.manifest.model_id}: hashes match, golden vectors reproduced to cosine {worst:.6f}")


def _port(config: Settings) -> Check:
    if not config.http_port:
        return Check("port", True, "any free one (EVERPIN_HTTP_PORT=0)")
    with socket.socket() as sock:
        taken = sock.connect_ex(("127.0.0.1", config.http_port)) == 0
    return Check("port", not taken, f"{config.http_port} is {'taken' if taken else 'free'}", "stop what listens there, or set another EVERPIN_HTTP_PORT")


def _services(config: Settings) -> list[Check]:
    checks = []
    if config.kafka:
        model_id = read_manifest(config.model).model_id
        checks.append(_answers("kafka", config.kafka, lambda: str(_broker(config, model_id)["address"]), "start Kafka, or correct EVERPIN_KAFKA"))
    if config.qdrant_url:
        checks.append(_answers("qdrant", config.qdrant_url, lambda: str(_index(config)["by_model"]), "start Qdrant, or correct QDRANT_URL"))
    return checks


def _answers(name: str, address: str, ask: Callable[[], str], fix: str) -> Check:
    try:
        return Check(name, True, f"{address}: {ask()}")
    except EverpinError as error:
        return Check(name, False, str(error), fix)
