"""A backfill in a process of its own, told on the command line when to pause and whether to kill a worker: Ray stays out of the tests' process."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from backfill.blocks import Progress
from backfill.run import backfill
from everpin.settings import settings

FOLDER = "everpin-ray-"


def ray_processes(pid: int, named: str = "") -> list[int]:
    """Processes of the Ray that process `pid` started, by the folder they work in; `named`: only those with this in their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line, files = (folder / "cmdline").read_bytes(), [os.readlink(file) for file in (folder / "fd").iterdir()]
            mine = f"{FOLDER}{pid}-".encode()
            if (mine in line or any(mine.decode() in file for file in files)) and named.encode() in line:
                found.append(int(folder.name))
    return [one for one in found if one != pid]


def main() -> None:
    """MODEL PAUSE_AFTER KILL: run until PAUSE_AFTER blocks are done (0: to the end); with KILL, kill a worker after the first block."""
    model, pause_after, kill = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "kill"
    blocks, killed = 0, 0

    def step(now: Progress) -> None:
        nonlocal blocks, killed
        blocks += 1
        if kill and not killed:
            workers = ray_processes(os.getpid(), "MapWorker")
            os.kill(workers[0], signal.SIGKILL)
            killed = workers[0]

    report = backfill(settings(), model, batch=16, threads=1, proceed=lambda: not pause_after or blocks < pause_after, step=step)
    print(json.dumps(asdict(report) | {"killed": killed}))


if __name__ == "__main__":
    main()
