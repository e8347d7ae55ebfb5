"""A real Apache Kafka for tests: the address in EVERPIN_TEST_KAFKA, else one KRaft node of our own.

The jars are resolved once from Maven Central (`kafka-pom.xml` names the version) into
`$EVERPIN_TEST_CACHE/kafka-<version>`, default `~/.cache/everpin`; each broker then has its own data
folder and loopback ports. `python -m tests.services.kafka --warm` fills that cache and starts nothing.
"""

import argparse
import base64
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.services import ServiceUnavailable
from tests.services.process import POLL_S, end, free_port, spawn, wait_ready

POM: Final = Path(__file__).with_name("kafka-pom.xml")
COMPLETE: Final = "complete"  # the marker file in a cache folder whose jars are all there
JAVA_NEEDED: Final = 17
RESOLVE_DEADLINE_S: Final = 600.0
START_DEADLINE_S: Final = 90.0
STOP_GRACE_S: Final = 30.0
EMPTY_DEADLINE_S: Final = 30.0
# Two shared cores: the quick compiler and one GC thread start the broker sooner than a fast broker would pay back.
JVM: Final = ("-Xmx384m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
QUIET: Final = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")

SERVER_PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={log_dir}

# One node: every internal topic has one replica, and few partitions (50 is the default).
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

auto.create.topics.enable=true
num.partitions=4
# Retention goes by the records' own timestamps: a test that writes old ones would lose them within 30 s.
log.retention.ms=-1
# Tests wait for groups: no delay before the first rebalance, and short sessions are allowed (6 s is the default).
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
# A killed broker registers again only when its last life is fenced: 3 s instead of 9 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Small: two cores and a heap of 384 MiB (the cleaner's buffer alone is 128 MiB by default).
num.network.threads=2
num.io.threads=2
background.threads=2
num.recovery.threads.per.data.dir=1
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=8388608
log.index.size.max.bytes=1048576
"""


class NotOurBroker(Exception):
    """A test wants to stop or restart the broker that EVERPIN_TEST_KAFKA names."""


@dataclass(slots=True)
class Node:
    """A broker process of ours and what it is started from again."""

    java: str
    jars: Path
    data_dir: Path
    address: str
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the broker and wait until it answers a metadata request."""
        log = self.data_dir / "kafka.log"
        command = [self.java, *JVM, *QUIET, "-cp", f"{self.jars}/*", "kafka.Kafka", str(self.properties)]
        self.process = spawn(command, log)
        wait_ready(self.process, lambda: _answers(self.address), START_DEADLINE_S, log)

    def end(self, *, kill: bool) -> None:
        """End the broker if it runs."""
        if self.process is not None:
            end(self.process, kill=kill, grace_s=STOP_GRACE_S)
            self.process = None

    @property
    def properties(self) -> Path:
        """The file that the broker's settings are in."""
        return self.data_dir / "server.properties"


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """A broker that answered when it was returned. As a context manager it stops on leaving."""

    address: str  # "127.0.0.1:39092", for bootstrap.servers
    node: Node | None  # None: the broker is not ours

    @property
    def ours(self) -> bool:
        """Whether `kill` and `restart` are allowed."""
        return self.node is not None

    def stop(self) -> None:
        """End our broker in order (SIGTERM); a broker that is not ours goes on."""
        if self.node is not None:
            self.node.end(kill=False)

    def kill(self) -> None:
        """End our broker at once (SIGKILL); what it had not written is lost, its data folder stays."""
        self._ours().end(kill=True)

    def restart(self) -> None:
        """Start our broker again on the same port and data, ending it first if it runs."""
        node = self._ours()
        node.end(kill=False)
        node.start()

    def _ours(self) -> Node:
        if self.node is None:
            raise NotOurBroker(f"{self.address} comes from EVERPIN_TEST_KAFKA: unset it for tests that end the broker")
        return self.node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def start_kafka(data_dir: Path, port: int | None = None) -> RunningKafka:
    """Return a broker that answers: the one EVERPIN_TEST_KAFKA names (host:port), else a new one of our own.

    Our own listens on loopback only, on `port` or a free one; its settings, log and data are in `data_dir`,
    which must be a folder of its own.

    Raises:
        ServiceUnavailable: the named broker does not answer, Java or Maven is missing, the jars cannot be
            resolved, or the broker does not start; the message says what to change.
    """
    given = os.environ.get("EVERPIN_TEST_KAFKA")
    if given:
        if not _answers(given):
            raise ServiceUnavailable(f"EVERPIN_TEST_KAFKA={given} does not answer: start it or unset the variable")
        return RunningKafka(given, None)
    java = _java()
    port = port or free_port()
    node = Node(java, warm(), data_dir, f"127.0.0.1:{port}")
    _format(node, port)
    node.start()
    return RunningKafka(node.address, node)


def empty(address: str) -> None:
    """Delete every topic but Kafka's own, and every group. Members of a group that were killed are waited for."""
    admin = AdminClient({"bootstrap.servers": address})
    give_up = time.monotonic() + EMPTY_DEADLINE_S
    while topics := [name for name in admin.list_topics(timeout=10).topics if not name.startswith("__")]:
        _settled(admin.delete_topics(topics, operation_timeout=10), give_up)
    while groups := [group.group_id for group in admin.list_consumer_groups().result(10).valid]:
        _settled(admin.delete_consumer_groups(groups), give_up)


def _settled(asked: Mapping[str, Future[None]], give_up: float) -> None:
    """Wait for answers. What Kafka refused is asked for again by the caller until the deadline."""
    refused = {name: error for name, one in asked.items() if (error := one.exception(10)) is not None}
    if refused:
        if time.monotonic() > give_up:
            raise ServiceUnavailable(f"Kafka still has what an earlier test left behind after {EMPTY_DEADLINE_S:g} s: {refused}")
        time.sleep(POLL_S)


def warm() -> Path:
    """Return the folder with the broker's jars, resolving them with Maven the first time.

    The folder appears whole or not at all: a run that ends half way, or two at once, leave no partial one.
    """
    folder = _cache() / f"kafka-{_version()}"
    if not (folder / COMPLETE).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}-", dir=folder.parent) as scratch:
            jars = Path(scratch) / "jars"
            _resolve(jars)
            (jars / COMPLETE).touch()
            _publish(jars, folder)
    return folder


def _resolve(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceUnavailable(
            f"no Maven to fetch Apache Kafka {_version()} with: `apt-get install maven`, or set EVERPIN_TEST_KAFKA to a broker's host:port"
        )
    command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(f"Maven did not resolve {POM.name} within {RESOLVE_DEADLINE_S:g} s") from error
    if done.returncode != 0:
        raise ServiceUnavailable(f"Maven could not resolve {POM.name} (is Maven Central reachable?):\n{done.stdout}")


def _publish(jars: Path, folder: Path) -> None:
    try:
        jars.rename(folder)
    except OSError:
        if not (folder / COMPLETE).exists():  # another run was not first, so this is a real failure
            raise


def _cache() -> Path:
    return Path(os.environ.get("EVERPIN_TEST_CACHE") or Path.home() / ".cache" / "everpin")


def _version() -> str:
    version = ET.parse(POM).findtext(".//{*}properties/{*}kafka.version")
    if version is None:
        raise ValueError(f"{POM} has no kafka.version property")
    return version


def _java() -> str:
    java = shutil.which("java")
    found = ""
    if java is not None:
        found = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', found)
    if java is None or major is None or int(major[1]) < JAVA_NEEDED:
        raise ServiceUnavailable(
            f"Apache Kafka needs Java {JAVA_NEEDED} or newer (found: {found.strip() or 'none'}): `apt-get install "
            "openjdk-17-jre-headless`, or set EVERPIN_TEST_KAFKA to a broker's host:port"
        )
    return java


def _format(node: Node, port: int) -> None:
    """Write the node's settings and an empty, formatted data folder under a random cluster id."""
    node.data_dir.mkdir(parents=True, exist_ok=True)
    settings = SERVER_PROPERTIES.format(port=port, controller_port=free_port(), log_dir=node.data_dir / "logs")
    node.properties.write_text(settings)
    tool = [node.java, *JVM, *QUIET, "-cp", f"{node.jars}/*", "kafka.tools.StorageTool"]
    command = [*tool, "format", "--cluster-id", _cluster_id(), "--config", str(node.properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceUnavailable(f"kafka.tools.StorageTool could not format {node.data_dir}:\n{done.stdout}{done.stderr}")


def _cluster_id() -> str:
    # Kafka's form of a UUID: URL-safe base64 without padding; a leading dash would read as an option.
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")


def _answers(address: str) -> bool:
    client = AdminClient({"bootstrap.servers": address, "log_level": 0, "socket.timeout.ms": 2000})
    try:
        return bool(client.list_topics(timeout=1).brokers)
    except KafkaException:
        return False


def main() -> None:
    """Fill the cache of jars (`--warm`), as CI does before the tests."""
    parser = argparse.ArgumentParser(prog="python -m tests.services.kafka", description=__doc__)
    parser.add_argument("--warm", action="store_true", required=True, help="resolve Apache Kafka into the cache")
    parser.parse_args()
    print(f"Apache Kafka {_version()} is in {warm()}")


if __name__ == "__main__":
    main()
