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
NICE = 10
"""A tenth of a usual thread's weight: under full load an encoder still moves on. Measured in docs/adr/0016-answers-first.md."""


def behind() -> None:
    """Put the calling thread, and threads that it starts, behind all others. Linux alone has this for a thread; elsewhere nothing is done."""
    if sys.platform == "linux":
        os.nice(NICE)


def made_behind(make: Callable[[], T]) -> T:
    """What `make` returns, made in a thread that is behind: so are the native threads that a model's session starts for its whole life."""
    with ThreadPoolExecutor(1, "everpin-behind", initializer=behind) as thread:
        return thread.submit(make).result()
