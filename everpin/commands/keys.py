"""`everpin keys`: who may use the HTTP API, for what, and how often."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from everpin.commands.output import AsJson, emit
from everpin.keys import SCOPES, Key, Scope, add_key, read_keys, revoke_key, utc_now
from everpin.settings import settings
from pins.errors import EverpinError

Scopes = Annotated[str, typer.Option(help="What it may do, separated by commas: read (search, related, feed, embed), write (edits, events), admin (metrics).")]
Rate = Annotated[float, typer.Option(min=0, help="Requests per second; 0: no limit.")]
Burst = Annotated[float | None, typer.Option(min=1, help="Requests that may come at once after a pause. Left out: those of one second.")]


def keys_add(
    name: Annotated[str, typer.Argument(help="Who will use it, such as search-page.")],
    scope: Scopes = "read",
    rate: Rate = 50,
    burst: Burst = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key and show it, this once. Running servers accept it within two seconds."""
    key, text = add_key(settings().home, name, scopes(scope), rate, burst, utc_now())
    emit({"key": text} | document(key), as_json, lambda console: _show_new(console, key, text))


def keys_list(as_json: AsJson = False) -> None:
    """The API keys, revoked ones too: id, name, scopes, rate. Secrets are not kept, so none is shown."""
    rows = [document(key) for key in read_keys(settings().home).values()]
    emit({"keys": rows}, as_json, lambda console: _show(console, rows))


def keys_revoke(key_id: Annotated[str, typer.Argument(help="As `everpin keys list` shows it.")], as_json: AsJson = False) -> None:
    """Make an API key useless for good. Running servers refuse it within two seconds."""
    key = revoke_key(settings().home, key_id, utc_now())
    emit(document(key), as_json, lambda console: console.print(f"{key.id} ({key.name}) is revoked since {key.revoked_at}", highlight=False, markup=False))


def scopes(text: str) -> frozenset[Scope]:
    """The scopes that an option names. Raises EverpinError, with those there are."""
    named = {part.strip() for part in text.split(",")}
    if unknown := named - set(get_args(Scope)):
        raise EverpinError(f"--scope {', '.join(sorted(unknown))!r} is no scope; give some of {','.join(SCOPES)}, separated by commas")
    return frozenset(scope for scope in SCOPES if scope in named)


def document(key: Key) -> dict[str, Any]:
    """A key as one JSON object, without its digest."""
    fields = key.model_dump(mode="json", exclude={"digest"})
    return fields | {"scopes": [scope for scope in SCOPES if scope in key.scopes]}


def _show_new(console: Console, key: Key, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
    limit = f"{key.rate:g} requests a second, {key.burst:g} at once" if key.rate else "no rate limit"
    console.print(f"{key.name}: {', '.join(document(key)['scopes'])}; {limit}. Keep it now: it cannot be shown again.", highlight=False, markup=False)


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table("id", "name", "scopes", "rate", "burst", "created", "revoked")
    for row in rows:
        limits = (f"{row['rate']:g}/s", f"{row['burst']:g}") if row["rate"] else ("no limit", "")
        table.add_row(row["id"], escape(row["name"]), ",".join(row["scopes"]), *limits, row["created_at"], row["revoked_at"] or "")
    console.print(table)
