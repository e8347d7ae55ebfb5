"""Asks the advisory database of the package index about every version in requirements/constraints.txt, with pip-audit.

It says which of three things happened: versions with known vulnerabilities were found (exit code 1), none were, or it could not ask. The last is no
pass: it is said on standard error, and fails (exit code 3) with --require, which a release uses. One package is asked about first, so that a
database that is out of reach costs one question.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

CONSTRAINTS = Path(__file__).parent / "constraints.txt"
FIRST = "fastapi"
FOUND, NOT_ASKED = 1, 3
ACCEPTED: Mapping[str, str] = MappingProxyType({})
"""Advisories that do not touch us: id to the reason, in words."""


def pinned(constraints: str) -> list[str]:
    """The lines `name==version`."""
    return [line.strip() for line in constraints.splitlines() if "==" in line and not line.startswith("#")]


def audited(lines: Sequence[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each line; empty when it got no answer at all."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--requirement", file.name, "--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return []
    return found


def unanswered(found: Sequence[Mapping[str, Any]], asked: int) -> int:
    """How many of the packages asked about the database said nothing of."""
    return asked - sum("vulns" in package for package in found)


def vulnerable(found: Sequence[Mapping[str, Any]], accepted: Mapping[str, str] = ACCEPTED) -> list[str]:
    """One line for each known vulnerability that is not accepted: package, version, advisory, and the versions that fix it."""
    return [
        f"{package['name']} {package['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'no version yet'}"
        for package in found
        for known in package.get("vulns", ())
        if not {known["id"], *known.get("aliases", ())} & set(accepted)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask, say what was found, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--require", action="store_true", help="fail when the database cannot be asked about every package")
    require = parser.parse_args(arguments).require
    lines = pinned(CONSTRAINTS.read_text())
    first = [line for line in lines if line.startswith(f"{FIRST}==")]
    if unanswered(audited(first), 1):
        print(f"dependency audit SKIPPED: the advisory database does not answer; {len(lines)} pinned versions were NOT checked", file=sys.stderr)
        return NOT_ASKED if require else 0
    found = audited(lines)
    known, missing = vulnerable(found), unanswered(found, len(lines))
    for line in known:
        print(f"vulnerable: {line}", file=sys.stderr)
    if missing:
        print(f"dependency audit INCOMPLETE: nothing is known of {missing} of {len(lines)} pinned versions", file=sys.stderr)
    if not known:
        print(f"dependency audit: {len(lines) - missing} pinned versions have no known vulnerability")
    return FOUND if known else NOT_ASKED if missing and require else 0


if __name__ == "__main__":
    sys.exit(main())
