"""Pytest fixtures for the real services; a conftest brings them in with `pytest_plugins = ["tests.services.fixtures"]`.

`kafka` and `redis_url` are one service for the whole run: `kafka` is emptied for each test, with Redis a test keeps to keys
of its own. A test that ends its broker takes `own_kafka`.
"""

from collections.abc import Iterator

import pytest

from tests.services import ServiceUnavailable, unavailable
from tests.services.kafka import RunningKafka, empty, start_kafka
from tests.services.redis import start_redis


@pytest.fixture(scope="session")
def running_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """The broker behind `kafka`."""
    try:
        kafka = start_kafka(tmp_path_factory.mktemp("kafka"))
    except ServiceUnavailable as reason:
        unavailable(reason)
    with kafka:
        yield kafka


@pytest.fixture
def kafka(running_kafka: RunningKafka) -> RunningKafka:
    """Give a test the one broker of the whole run, without topics and groups."""
    if not running_kafka.ours:
        unavailable(f"{running_kafka.address} from EVERPIN_TEST_KAFKA must keep what it holds: unset it for tests that want an empty broker")
    empty(running_kafka.address)
    return running_kafka


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningKafka]:
    """Give one test a broker that it may kill and restart."""
    try:
        kafka = start_kafka(tmp_path_factory.mktemp("own-kafka"))
    except ServiceUnavailable as reason:
        unavailable(reason)
    with kafka:
        if not kafka.ours:
            unavailable(f"{kafka.address} from EVERPIN_TEST_KAFKA must go on: unset it for tests that end the broker")
        yield kafka


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of a Redis shared by the whole run."""
    try:
        redis = start_redis(tmp_path_factory.mktemp("redis"))
    except ServiceUnavailable as reason:
        unavailable(reason)
    with redis:
        yield redis.url
