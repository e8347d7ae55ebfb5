"""Whether two runs of one recipe gave the same figures: every number of two JSON documents, within a tolerance.

    python -m training.runs.compare ONE/evaluation.json OTHER/evaluation.json

Texts are not compared: folders, dates and the hashes of weights may differ where the figures do not.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
SHOWN = 10


def differences(one: Any, other: Any, tolerance: float, place: str = "") -> Iterator[str]:
    """Where two documents differ: a number by more than `tolerance`, or a key or row that only one has."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            if key in one and key in other:
                yield from differences(one[key], other[key], tolerance, f"{place}/{key}")
            else:
                yield f"{place}/{key} is only in the {'first' if key in one else 'second'}"
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{place} has {len(one)} and {len(other)} rows"
        for number, (left, right) in enumerate(zip(one, other, strict=False)):
            yield from differences(left, right, tolerance, f"{place}/{number}")
    elif _is_number(one) and _is_number(other):
        if not (math.isclose(one, other, rel_tol=0, abs_tol=tolerance) or (math.isnan(one) and math.isnan(other))):
            yield f"{place}: {one} and {other}"
    elif type(one) is not type(other):
        yield f"{place}: {one!r} and {other!r}"


def numbers(body: Any) -> int:
    """How many numbers a document holds."""
    if isinstance(body, (dict, list)):
        return sum(numbers(part) for part in (body.values() if isinstance(body, dict) else body))
    return int(_is_number(body))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.runs.compare", description="Compare every number of two evaluations; exit code 1 where one differs."
    )
    parser.add_argument("one", type=Path, metavar="FILE")
    parser.add_argument("other", type=Path, metavar="FILE")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help=f"largest difference that counts as none (default: {TOLERANCE:g})")
    args = parser.parse_args()
    one, other = (json.loads(path.read_text()) for path in (args.one, args.other))
    found = list(differences(one, other, args.tolerance))
    count = numbers(one)
    if found or not count:
        more = f"\nand {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise SystemExit("\n".join(found[:SHOWN]) + more if found else f"{args.one} holds no number: there is nothing to compare")
    print(f"{count} numbers are the same to {args.tolerance:g}")


if __name__ == "__main__":
    main()
