"""Resident memory of the process that measures: its peak, and how much of it is its own."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SAMPLE_S = 0.2


def memory_mb() -> dict[str, float]:
    """Peak, anonymous and file-backed resident memory of this process now."""
    fields = dict(re.findall(r"^(VmHWM|RssAnon|RssFile):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE))
    return {"peak": int(fields["VmHWM"]) / 1024, "anonymous": int(fields["RssAnon"]) / 1024, "file": int(fields["RssFile"]) / 1024}


@contextmanager
def watched() -> Iterator[Counter[str]]:
    """The largest memory figures seen in the block."""
    largest, stop = Counter[str](), threading.Event()

    def watch() -> None:
        while True:
            for name, value in memory_mb().items():
                largest[name] = max(largest[name], round(value))
            if stop.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield largest
    finally:
        stop.set()
        thread.join()
