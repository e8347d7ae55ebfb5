"""What Feast knows of pins and users: declarations only. Import this before `feast`.

Feast's import (feast/metrics.py) sets PROMETHEUS_MULTIPROC_DIR, which turns every Prometheus metric of this process and of
its children into a memory-mapped file. Binding prometheus_client first and taking the variables back keeps them in memory.
"""

import os

import prometheus_client  # noqa: F401  (chooses where metrics are kept when it is imported)

_before = dict(os.environ)

import feast  # noqa: E402, F401

for _name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR"):
    if _name not in _before:
        os.environ.pop(_name, None)
