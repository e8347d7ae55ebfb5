"""Child processes: the environment that they need, and that none outlives its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading

END_WITH_PARENT = "--end-with-parent"
SERVING_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""Of a serving process, read when numpy is imported: its products are of a hundred rows, and a pool of threads only waits for the other core."""


def end_with_parent(arguments: list[str]) -> None:
    """With `--end-with-parent` among the arguments (it is taken out), stop when the process that holds our standard input is gone."""
    if END_WITH_PARENT not in arguments:
        return
    arguments.remove(END_WITH_PARENT)

    def watch() -> None:
        while os.read(0, 4096):  # unbuffered: the interpreter locks its buffered readers while it ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="everpin-parent", daemon=True).start()


def share_the_interpreter() -> None:
    """Let threads take turns every half millisecond, not every five: a request waits for several of them in a row, and each wait is seen by a person."""
    sys.setswitchinterval(0.0005)
