"""What Feast knows of pins and users: declarations only. Import this before `feast`.

Feast's import (feast/metrics.py) sets PROMETHEUS_MULTIPROC_DIR, which turns every Prometheus metric of this process and of
its children into a memory-mapped file. Binding prometheus_client first and taking the variables back keeps them in memory.

Feast also has typeguard compile its classes again with checks of every argument, which is two thirds of its import: 4 s of
processor time at each start of a worker or a command. mypy checks what we hand to Feast, so these classes stay as they are written.
"""

import os
from typing import TypeVar

import prometheus_client  # noqa: F401  (chooses where metrics are kept when it is imported)
import typeguard

T = TypeVar("T")


def _as_written(target: T) -> T:
    """What `typeguard.typechecked` is under `python -O`."""
    return target


_before = dict(os.environ)
_checked = typeguard.typechecked
typeguard.typechecked = _as_written  # type: ignore[assignment]  # for the time of Feast's import

import feast  # noqa: E402, F401

typeguard.typechecked = _checked
for _name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
    if _name not in _before:
        os.environ.pop(_name, None)
