"""Is the system well, is this machine fit for it, and how is it set."""

from __future__ import annotations

import json
import sys

import typer
from rich.table import Column, Table

from everpin import __version__
from everpin.checks import doctor, status
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.settings import Settings, settings, variable


def show_status(as_json: AsJson = False) -> None:
    """Broker, lag per partition, Feast, index, dead letters. Exit code 1 when anything is unhealthy."""
    document = status(settings())
    emit(document, as_json, lambda console: console.print_json(json.dumps(document, default=str)))
    for problem in document["problems"]:
        print(f"unhealthy: {problem}", file=sys.stderr)
    raise typer.Exit(0 if document["healthy"] else PARTIAL)


def show_doctor(as_json: AsJson = False) -> None:
    """Check versions, disk, ports, state folder and model folder, each with the fix."""
    checks = doctor(settings())
    table = Table("", "check", "found", "fix")
    for check in checks:
        table.add_row("[green]ok[/]" if check.ok else "[red]no[/]", check.name, check.found, "" if check.ok else check.fix)
    document = {"checks": [{"name": c.name, "ok": c.ok, "found": c.found, "fix": "" if c.ok else c.fix} for c in checks]}
    emit(document, as_json, lambda console: console.print(table))
    raise typer.Exit(0 if all(check.ok for check in checks) else PARTIAL)


def show_settings(as_json: AsJson = False) -> None:
    """Every setting, its environment variable, its value now, and how to choose one."""
    config = settings()
    table = Table(Column("variable", overflow="fold"), Column("value", overflow="fold"), "meaning")
    for name, field in Settings.model_fields.items():
        table.add_row(variable(name), str(getattr(config, name)), field.description)
    document = {variable(name): str(getattr(config, name)) for name in Settings.model_fields}
    emit(document, as_json, lambda console: console.print(table))


def show_version(as_json: AsJson = False) -> None:
    """The version of Everpin."""
    emit({"version": __version__}, as_json, lambda console: console.print(__version__))
