"""A real Redis for tests: the address in EVERPIN_TEST_REDIS, else a redis-server of our own that keeps nothing."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from redis import Redis
from redis.exceptions import RedisError

from tests.services import ServiceUnavailable
from tests.services.process import end, free_port, spawn, wait_ready

START_DEADLINE_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class RunningRedis:
    """A Redis that answers. As a context manager it stops on leaving."""

    url: str  # "redis://127.0.0.1:6390/0"
    process: subprocess.Popen[bytes] | None  # None: the Redis is not ours

    def stop(self) -> None:
        """End our redis-server; a Redis that is not ours goes on."""
        if self.process is not None:
            end(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def start_redis(data_dir: Path) -> RunningRedis:
    """Return a Redis that answers PING: the one named by EVERPIN_TEST_REDIS (a redis:// URL), else one of our own.

    Our own is empty, listens on loopback only and writes nothing but its log, `data_dir/redis.log`.

    Raises:
        ServiceUnavailable: the named Redis does not answer, or there is no redis-server to start.
    """
    given = os.environ.get("EVERPIN_TEST_REDIS")
    if given:
        if not _answers(given):
            raise ServiceUnavailable(f"EVERPIN_TEST_REDIS={given} does not answer PING: start it or unset the variable")
        return RunningRedis(given, None)
    binary = shutil.which("redis-server")
    if binary is None:
        raise ServiceUnavailable("no redis-server: `apt-get install redis-server`, or set EVERPIN_TEST_REDIS to a URL")
    port = free_port()
    url, log = f"redis://127.0.0.1:{port}/0", data_dir / "redis.log"
    listen = ["--bind", "127.0.0.1", "--port", str(port)]
    process = spawn([binary, *listen, "--save", "", "--appendonly", "no", "--dir", str(data_dir)], log)
    wait_ready(process, lambda: _answers(url), START_DEADLINE_S, log)
    return RunningRedis(url, process)


def _answers(url: str) -> bool:
    with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
