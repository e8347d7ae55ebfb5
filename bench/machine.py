"""What every result says of the machine and the code it was measured on, and how it is written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent


def machine(*packages: str) -> dict[str, Any]:
    """Processor, cores, Python, the versions of `packages`, the commit and the date."""
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def write(name: str, result: dict[str, Any], *, quick: bool) -> None:
    """Print the result; keep it as bench/NAME.json unless it was only a smoke run."""
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if quick:
        print("a smoke run: nothing written", file=sys.stderr)
    else:
        (HERE / f"{name}.json").write_text(text)
