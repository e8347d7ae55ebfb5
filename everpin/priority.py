"""Who goes first on a machine that both encodes and answers: whoever waits for an answer.

An embedded installation has its worker, its index and its serving process on the same cores. A pin's new vector may come a moment later; an answer
may not. So the worker's encoding stands behind every other thread in the kernel's queue, and takes what they leave.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def behind(nice: int) -> None:
    """Put the calling thread, and threads that it starts, behind all others. Linux alone has this for a thread; elsewhere nothing is done.

    `nice`: 0 to 19. At 10 a thread has a tenth of a usual one's weight, so under full load it still moves on (docs/adr/0016).
    """
    if sys.platform == "linux":
        os.nice(nice)


def made_behind(make: Callable[[], T], nice: int) -> T:
    """What `make` returns, made in a thread that is behind: so are the native threads that a model's session starts for its whole life."""
    with ThreadPoolExecutor(1, "everpin-behind", behind, (nice,)) as thread:
        return thread.submit(make).result()
