"""Writes everpin_client/models.py from the API's own schemas, so that both sides of the wire are one text.

The schemas need nothing but pydantic and the standard library, which is checked here; so the text itself is the schema, and no part of a
constraint or docstring is lost on the way. One thing is rewritten: `Field(x)` becomes `Field(default=x)`, which every type checker knows
for a default without pydantic's plug-in.

Run `python client/generate_models.py` after a change of surfaces/schemas.py; `tests/client/test_models.py` says when it was forgotten.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SCHEMAS = Path(__file__).parents[1] / "surfaces" / "schemas.py"
MODELS = Path(__file__).parent / "everpin_client" / "models.py"
HEAD = '"""What goes over the wire: requests, answers and problems. Generated from surfaces/schemas.py by client/generate_models.py: edit it there."""'
ALLOWED = {"pydantic", *sys.stdlib_module_names}


def models(schemas: str) -> str:
    """The client's models, from the text of the API's schemas. Raises ValueError where that imports what a client does not have."""
    tree = ast.parse(schemas)
    if foreign := _roots(tree) - ALLOWED:
        raise ValueError(f"the API's schemas import {', '.join(sorted(foreign))}, which a client does not have; let them import pydantic alone")
    lines = schemas.splitlines(keepends=True)
    for line, column in sorted(_positional_defaults(tree), reverse=True):
        text = lines[line - 1].encode()
        lines[line - 1] = (text[:column] + b"default=" + text[column:]).decode()
    docstring = tree.body[0]
    return f"{HEAD}\n{''.join(lines[docstring.end_lineno :])}"


def _roots(tree: ast.Module) -> set[str]:
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in modules}


def _positional_defaults(tree: ast.Module) -> list[tuple[int, int]]:
    """Line and byte column of each default that is given to Field by position."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field"]
    return [(call.args[0].lineno, call.args[0].col_offset) for call in calls if call.args]


if __name__ == "__main__":
    MODELS.write_text(models(SCHEMAS.read_text(encoding="utf-8")), encoding="utf-8")
