"""Log lines a person can read at three in the morning: one per record, and the same complaint once a minute, not once a retry."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

REPEAT_S = 60.0
"""While a broker is gone its clients complain several times a second, each time in the same words about another number."""
NOISY = ("kafka", "aiokafka", "faust", "mode", "streams.transport", "streams.sensors", "httpx", "feast", "urllib3", "uvicorn", "redis", "qdrant_client")


class OncePerMinute(logging.Filter):
    """Lets a library's complaint through once in `REPEAT_S`, and then says how often it was kept back meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(NOISY):
            return True
        complaint = record.name, str(record.msg)[:80]
        shown_at, kept_back = self._last.get(complaint, (-REPEAT_S, 0))
        if self._clock() - shown_at < REPEAT_S:
            self._last[complaint] = shown_at, kept_back + 1
            return False
        self._last[complaint] = self._clock(), 0
        if kept_back:
            record.msg, record.args = f"{record.getMessage()} (and {kept_back} times since this was last shown)", ()
        return True


def configure_logging(level: str) -> None:
    """One line per record on standard error: time, level, name, message. `level` is debug, info, warn or error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OncePerMinute())
    logging.basicConfig(
        handlers=[handler], level={"warn": "WARNING"}.get(level, level.upper()), format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
