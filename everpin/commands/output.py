"""How every command speaks: tables for people, one JSON document for machines, and an exit code.

Exit codes: 0 all done; 1 done in part, or something is unhealthy; 2 not done, and why.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many results.")]
PARTIAL, NOT_DONE = 1, 2


def emit(document: Any, as_json: bool, show: Callable[[Console], None]) -> None:
    """Print a result: as JSON, or for people."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2, default=str))
    else:
        show(Console())
