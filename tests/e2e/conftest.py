"""One running system, on embedded parts, for all end-to-end tests: the broker in this process, a real worker as a child."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from everpin.settings import Settings
from everpin.system import System, running_system
from everpin.wiring import build_artifact, worker_group
from streams.broker import DEAD, EventProducer, Offsets, read_topic, wait_for_lag
from tests.faults.processes import command


@dataclass
class Stage:
    """A running system and the hands to work it."""

    config: Settings
    system: System
    producer: EventProducer
    offsets: Offsets
    used: dict[str, int] = field(default_factory=dict)

    def drain(self) -> None:
        self.producer.flush()
        wait_for_lag(self.offsets, 0, timeout_s=60)

    def post(self, path: str, **body: Any) -> Any:
        return self.system.http.post(f"/index/{path}", json=body).raise_for_status().json()

    def record(self, pin_id: str) -> dict[str, Any] | None:
        found: dict[str, Any] = self.post("known", pin_ids=[pin_id])
        return found.get(pin_id)

    def status(self) -> dict[str, Any]:
        return self.system.status()

    def dead(self, needle: bytes) -> list[Mapping[str, str]]:
        """Headers of the dead letters whose value or key holds `needle`."""
        records = [r for r in read_topic(self.system.broker, DEAD) if needle in (r.value or b"") + (r.key or b"")]
        return [{name: value.decode() for name, value in record.headers} for record in records]

    def everpin(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json; its document."""
        environment = {"EVERPIN_HOME": str(self.config.home), "PATH": "/usr/bin:/bin", "HOME": str(self.config.home)}
        done = command([*arguments, "--json"], environment)
        assert done.returncode == code, f"exit code {done.returncode}: {done.stderr}"
        return json.loads(done.stdout) if done.stdout else done.stderr


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    config = Settings(home=tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("EVERPIN_PARK_DELAY_S", "0.5")
        environment.setenv("EVERPIN_PARK_DEADLINE_S", "15")
        group = worker_group(config, build_artifact(config).manifest.model_id)
        with running_system(config, config.home / "worker.log") as system:
            producer, offsets = EventProducer(system.broker, group), Offsets(system.broker, group)
            yield Stage(config, system, producer, offsets)
            producer.close()
            offsets.close()


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait on a condition with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
