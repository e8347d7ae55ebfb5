"""docker/ says what the code says: settings that exist, pinned images, and one pip step for the image and its check."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import feature_repo
from everpin import __version__
from everpin.settings import Settings, variable

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
KNOWN = {variable(name) for name in Settings.model_fields} | {"EVERPIN_REDIS"}
"""EVERPIN_REDIS is read by Feast, in feature_store.redis.yaml."""
PIP_STEP = "install --no-cache-dir -c requirements/constraints.txt '.[worker]'"


def instructions(name: str) -> list[str]:
    """The arguments of every instruction of that name, in order."""
    return [line.removeprefix(f"{name} ").strip() for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "check.sh"])
def test_every_variable_is_a_setting(file: str) -> None:
    named = set(re.findall(r"\b(?:EVERPIN_[A-Z_]+|QDRANT_URL)\b", (ROOT / "docker" / file).read_text()))
    assert named
    assert named <= KNOWN


def test_the_settings_of_the_services_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for service in OURS.values():
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, str(value))
    config = Settings()
    assert (config.kafka, config.qdrant_url, config.http_port) == ("kafka:9092", "http://qdrant:6333", 8080)


def test_one_off_commands_see_what_the_worker_sees() -> None:
    assert set(OURS) == {"worker", "api", "everpin"}
    assert OURS["everpin"]["environment"] == OURS["worker"]["environment"]
    assert OURS["everpin"]["profiles"] == ["tools"]


def test_the_api_sees_what_the_worker_sees_and_keeps_its_keys() -> None:
    api, worker = OURS["api"], OURS["worker"]
    own = {name: value for name, value in api["environment"].items() if name not in worker["environment"]}
    assert own == {"EVERPIN_HOST": "0.0.0.0", "EVERPIN_PORT": 8600}
    assert api["environment"] == worker["environment"] | own
    assert api["command"] == ["serve"]
    assert api["ports"] == ["127.0.0.1:8600:8600"]
    assert api["volumes"] == ["api-state:/state"]
    python, flag, code = api["healthcheck"]["test"][1:]
    assert (python, flag) == ("python", "-c")
    compile(code, "healthcheck", "exec")
    assert all(part in code for part in ("8600", "/livez", "timeout"))


def test_services_that_are_spoken_to_are_started_and_healthy_first() -> None:
    hosts = {"kafka", "redis", "qdrant"}
    for service in OURS.values():
        assert service["depends_on"] == {host: {"condition": "service_healthy"} for host in hosts}
    assert all(SERVICES[host]["healthcheck"]["test"] for host in hosts)


def test_what_must_outlive_a_container_lies_in_a_named_volume() -> None:
    kept = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())}
    assert kept == set(COMPOSE["volumes"])


def test_ports_are_open_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_long_running_services_come_back() -> None:
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    assert restarts.pop("everpin") == "no"
    assert set(restarts.values()) == {"unless-stopped"}


def test_images_are_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()] + [line.split()[0] for line in instructions("FROM")]
    for image in images:
        _, _, tag = image.partition(":")
        assert re.match(r"v?\d+\.\d+", tag), f"{image} names no version"
    assert {service["image"] for service in OURS.values()} == {f"everpin:{__version__}"}


def test_kafka_is_the_version_that_the_tests_run() -> None:
    tested = re.search(r"<kafka\.version>(.+)</kafka\.version>", (ROOT / "tests/services/kafka-pom.xml").read_text())
    assert tested
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{tested[1]}"


def test_the_image_runs_the_worker_without_root() -> None:
    assert instructions("USER")[-1] not in ("root", "0")
    assert DOCKERFILE.rindex("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")
    assert (instructions("ENTRYPOINT"), instructions("CMD")) == (['["everpin"]'], ['["worker"]'])


def test_our_containers_may_write_nowhere_but_in_their_state_and_gain_no_rights() -> None:
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not {"cap_add", "privileged", "user", "network_mode", "pid"} & set(service)


def test_state_lies_in_the_volume_and_the_health_check_asks_the_worker() -> None:
    (environment,) = instructions("ENV")
    assert f"EVERPIN_HOME={instructions('VOLUME')[0]}" in environment.split()
    python, flag, code = json.loads(instructions("HEALTHCHECK")[0].partition("CMD")[2])
    assert (python, flag) == ("python", "-c")
    compile(code, "HEALTHCHECK", "exec")
    assert all(part in code for part in ("EVERPIN_HTTP_PORT", "/livez", "timeout"))


def test_image_and_check_take_the_same_pip_step() -> None:
    steps = [step for step in instructions("RUN") if "pip" in step]
    assert steps == [f"/opt/everpin/bin/pip {PIP_STEP}"]
    assert PIP_STEP in (ROOT / "docker/check.sh").read_text()


def test_what_the_image_copies_exists_and_reaches_the_build() -> None:
    copied = {path for line in instructions("COPY") if not line.startswith("--") for path in line.split()[:-1]}
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {Path(path).parts[0] for path in copied} == let_in
    assert "training" not in copied
    assert all((ROOT / path).exists() for path in copied)


def test_the_feature_store_file_is_where_the_image_installs_it() -> None:
    stated = Path(OURS["worker"]["environment"]["EVERPIN_FEAST_YAML"])
    python = re.match(r"python:(\d+\.\d+)", instructions("FROM")[-1])
    assert python
    assert stated.parent == Path(f"/opt/everpin/lib/python{python[1]}/site-packages/feature_repo")
    assert (Path(feature_repo.__path__[0]) / stated.name).exists()
