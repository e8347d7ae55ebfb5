"""ENTRY: the command line. Every command, by name; what each does is in `everpin.commands`."""

from __future__ import annotations

import sys

import typer

from everpin.commands import asking, deadletters, healing, health, importing, keys, models, running
from everpin.commands.output import NOT_DONE
from pins.errors import EverpinError


def command_line() -> typer.Typer:
    """The commands in the order in which help shows them."""
    app = _group("Everpin keeps the embedding of every pin true to the pin.")
    app.command()(running.demo)
    app.command()(running.up)
    app.command()(running.worker)
    app.command()(running.serve)
    app.command()(asking.search)
    app.command()(asking.related)
    app.command()(asking.feed)
    app.command("explain")(asking.explain_pin)
    app.command("export")(healing.export_pins)
    app.command("reconcile")(healing.reconcile)
    app.command("reembed")(healing.reembed_pins)
    app.command("sweep")(healing.sweep_deleted)
    app.command("status")(health.show_status)
    app.command("top")(health.show_top)
    app.command("doctor")(health.show_doctor)
    app.command("settings")(health.show_settings)
    app.command("version")(health.show_version)

    load = _group("Load pins: features to Feast, events to Kafka, the worker does the rest.")
    load.command("jsonl")(importing.import_jsonl)
    load.command("parquet")(importing.import_parquet)
    load.command("cxc")(importing.import_cxc)
    load.command("events")(importing.import_events_file)
    app.add_typer(load, name="import")

    score = _group("Score the vectors in the index against human judgements.")
    score.command("cxc")(asking.evaluate_cxc)
    app.add_typer(score, name="evaluate")

    model = _group("Model folders: which there are, what they are made of, whether they are whole.")
    model.command("list")(models.model_list)
    model.command("show")(models.model_show)
    model.command("verify")(models.model_verify)
    app.add_typer(model, name="model")

    dlq = _group("Dead letters: messages that could not be used.")
    dlq.command("list")(deadletters.dlq_list)
    dlq.command("show")(deadletters.dlq_show)
    dlq.command("replay")(deadletters.dlq_replay)
    dlq.command("purge")(deadletters.dlq_purge)
    app.add_typer(dlq, name="dlq")

    access = _group("API keys: who may use the HTTP API, for what, and how often.")
    access.command("add")(keys.keys_add)
    access.command("list")(keys.keys_list)
    access.command("revoke")(keys.keys_revoke)
    app.add_typer(access, name="keys")
    return app


def _group(words: str) -> typer.Typer:
    return typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=words)


app = command_line()


def main() -> None:
    """Run a command; an error a person can act on becomes one line and exit code 2."""
    try:
        app()
    except EverpinError as error:
        print(f"everpin: {error}", file=sys.stderr)
        sys.exit(NOT_DONE)


if __name__ == "__main__":
    main()
