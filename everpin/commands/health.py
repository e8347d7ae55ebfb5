"""Is the system well, is this machine fit for it, and how is it set."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from everpin import __version__
from everpin.checks import doctor, status
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.live import live_settings
from everpin.owner import owners
from everpin.settings import Settings, settings, variable
from everpin.top import GONE_S, TIMEOUT_S, Watcher, healthy, screen
from pins.errors import Unavailable


def show_status(as_json: AsJson = False) -> None:
    """Broker, lag per partition, Feast, index, dead letters. Exit code 1 when anything is unhealthy."""
    document = status(live_settings(settings()))
    emit(document, as_json, lambda console: console.print_json(json.dumps(document, default=str)))
    for problem in document["problems"]:
        print(f"unhealthy: {problem}", file=sys.stderr)
    raise typer.Exit(0 if document["healthy"] else PARTIAL)


def show_top(
    url: Annotated[list[str] | None, typer.Option(help="A worker's routes, http://host:port, repeatable. Default: the worker of EVERPIN_HOME.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One frame and out. So it is, too, where the output is no terminal.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, max=60, help="Seconds between frames.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Lag, rates, outcomes and freshness of running workers, live. One frame: exit code 1 when a worker is gone or not ready."""
    fixed = [_root(one) for one in url or ()]
    console = Console()
    with httpx.Client(timeout=TIMEOUT_S) as client:
        watcher = Watcher(client, lambda: fixed or _owner_urls(), keep_s=0 if fixed else GONE_S)
        try:
            if as_json or once or not console.is_terminal:
                _one_frame(watcher, interval, as_json)
            else:
                _frames(watcher, interval, console)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _one_frame(watcher: Watcher, interval: float, as_json: bool) -> None:
    if not watcher.look()["workers"]:
        raise Unavailable(f"no worker runs on {settings().home}; start `everpin up`, or name workers with --url")
    threading.Event().wait(interval)  # rates need two scrapes
    document = watcher.look()
    emit(document, as_json, lambda console: console.print(screen(document)))
    raise typer.Exit(0 if healthy(document) else PARTIAL)


def _frames(watcher: Watcher, interval: float, console: Console) -> None:
    pause = threading.Event()
    with Live(screen(watcher.look()), console=console, auto_refresh=False, screen=True) as live:
        while not pause.wait(interval):
            live.update(screen(watcher.look()), refresh=True)


def _owner_urls() -> Sequence[str]:
    return [owner.url for owner in owners(settings().home).values() if owner.url]


def _root(url: str) -> str:
    """The root of a worker's routes, whatever a person pasted: host:port, or its /metrics."""
    return (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/metrics")


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
