"""The services of one run: broker, index, features. What each worker is told of them; what the run may break of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from everpin.settings import Settings
from everpin.wiring import build_artifact, worker_group
from streams.broker import Broker, embedded_broker
from tests.faults.engine import QdrantServer
from tests.services.kafka import RunningKafka, start_kafka
from tests.services.redis import start_redis

REDIS_YAML = Path(__file__).parents[2] / "feature_repo" / "feature_store.redis.yaml"
PARTITIONS = 12
"""Of each topic on Kafka: divided evenly by one to four workers. Faust gives each at most its share rounded up, the last ones the rest."""
WORKER_SETTINGS = {
    "EVERPIN_PARTITIONS": str(PARTITIONS),
    "EVERPIN_THREADS": "1",
    "EVERPIN_PARK_DELAY_S": "1",
    "EVERPIN_QDRANT_TIMEOUT_S": "5",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which services: broker `embedded` or `kafka`, features `sqlite` or `redis`, index `edge` or `server`."""

    broker: str
    features: str
    index: str

    @classmethod
    def of(cls, workers: int, broker: str = "", features: str = "", index: str = "") -> Choice:
        """What was asked for, completed by what `workers` workers need. Raises ValueError where it cannot work."""
        several = workers > 1
        choice = cls(broker or ("kafka" if several else "embedded"), features or ("redis" if several else "sqlite"), index or ("server" if several else "edge"))
        if several and choice.broker == "embedded":
            raise ValueError(f"the embedded broker serves one worker per group, not {workers}: use --broker kafka")
        if several and choice.index == "edge":
            raise ValueError(f"one process owns an edge index, not {workers}: use --index server")
        return choice


@dataclass(frozen=True, slots=True)
class Setting:
    """Running services. `config` is how the run itself opens index and features; None: that service cannot be broken."""

    choice: Choice
    folder: Path
    broker: Broker
    config: Settings
    group: str
    kafka: RunningKafka | None
    qdrant: QdrantServer | None
    redis: subprocess.Popen[bytes] | None

    def environment(self, start: str) -> dict[str, str]:
        """Environment of the worker of this start. With Redis each start has a home of its own, as in a new container."""
        home = self.config.home if self.choice.features == "sqlite" else self.folder / "homes" / start
        told = {**os.environ, **WORKER_SETTINGS, "EVERPIN_HOME": str(home), "EVERPIN_KAFKA": str(self.broker)}
        if self.qdrant:
            told["QDRANT_URL"] = self.qdrant.url
        if self.config.feast_yaml:
            told["EVERPIN_FEAST_YAML"] = str(self.config.feast_yaml)
        return told

    def outages(self) -> list[str]:
        """The kinds of outage that can be made here."""
        kinds = ["kafka_kill"] if self.kafka and self.kafka.ours else []
        kinds += ["qdrant_kill", "qdrant_hang", "qdrant_slow"] if self.qdrant else []
        return kinds + (["redis_hang"] if self.redis else [])


@contextmanager
def setting(choice: Choice, folder: Path) -> Iterator[Setting]:
    """Start the chosen services under `folder` for the time of the block. Raises ServiceUnavailable."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        kafka = stack.enter_context(start_kafka(_made(folder / "kafka"))) if choice.broker == "kafka" else None
        broker = Broker(kafka.address) if kafka else stack.enter_context(embedded_broker())
        qdrant = QdrantServer(folder / "qdrant") if choice.index == "server" else None
        if qdrant:
            stack.callback(qdrant.kill)
            qdrant.start()
        redis = stack.enter_context(start_redis(_made(folder / "redis"))) if choice.features == "redis" else None
        if redis:
            os.environ["EVERPIN_REDIS"] = redis.url.removeprefix("redis://").split("/")[0]  # Feast reads it from the environment
        config = Settings(
            home=folder / "home", kafka=str(broker), feast_yaml=REDIS_YAML if redis else None, threads=2, **({"QDRANT_URL": qdrant.url} if qdrant else {})
        )
        group = worker_group(config, build_artifact(config).manifest.model_id)
        yield Setting(choice, folder, broker, config, group, kafka, qdrant, redis.process if redis else None)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
