from __future__ import annotations

from pathlib import Path

from everpin.settings import Settings
from streams.app import build_app
from streams.broker import Broker


def test_a_worker_looks_at_the_topics_again_before_anybody_misses_it(tmp_path: Path) -> None:
    """A leader that joined a broker just started knows of no topics, and gives nobody a partition until it looks again."""
    app = build_app(Broker("127.0.0.1:9092"), "everpin-test", tmp_path, Settings(home=tmp_path))
    assert app.conf.consumer_metadata_max_age_ms <= 1000 * app.conf.broker_session_timeout
