"""ENTRY: the command line. Every command, by name; what each does is in `everpin.commands`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from everpin.commands import (
    asking,
    backfilling,
    bridging,
    comparing,
    deadletters,
    experiments,
    exporting,
    healing,
    health,
    importing,
    keys,
    models,
    publishing,
    rollouts,
    running,
)
from everpin.commands.output import NOT_DONE
from pins.errors import EverpinError

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": running.demo,
    "up": running.up,
    "worker": running.worker,
    "serve": running.serve,
    "search": asking.search,
    "related": asking.related,
    "feed": asking.feed,
    "explain": asking.explain_pin,
    "export": exporting.export_pins,
    "reconcile": healing.reconcile,
    "reembed": healing.reembed_pins,
    "sweep": healing.sweep_deleted,
    "backfill": backfilling.fill,
    "status": health.show_status,
    "top": health.show_top,
    "doctor": health.show_doctor,
    "settings": health.show_settings,
    "version": health.show_version,
}
"""In the order in which help shows them."""
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "import": (
        "Load pins: features to Feast, events to Kafka, the worker does the rest.",
        {
            "jsonl": importing.import_jsonl,
            "parquet": importing.import_parquet,
            "cxc": importing.import_cxc,
            "events": importing.import_events_file,
        },
    ),
    "evaluate": ("Score the vectors in the index against human judgements.", {"cxc": asking.evaluate_cxc}),
    "model": (
        "Models: which there are, what they are made of, whether they are whole; publish one, compare two.",
        {
            "list": models.model_list,
            "show": models.model_show,
            "verify": models.model_verify,
            "publish": publishing.model_publish,
            "compare": comparing.model_compare,
        },
    ),
    "bridge": (
        "Bridges: a new model's queries on an old model's collection, while the backfill runs.",
        {"fit": bridging.bridge_fit, "show": bridging.bridge_show},
    ),
    "rollout": (
        "Roll a published model out beside the live one, and back.",
        {
            "start": rollouts.rollout_start,
            "status": rollouts.rollout_status,
            "pause": rollouts.rollout_pause,
            "resume": rollouts.rollout_resume,
            "cutover": rollouts.rollout_cutover,
            "rollback": rollouts.rollout_rollback,
            "retire": rollouts.rollout_retire,
        },
    ),
    "experiment": (
        "Experiments: what a canary's people did, arm by arm.",
        {"report": experiments.experiment_report, "list": experiments.experiment_list, "simulate": experiments.experiment_simulate},
    ),
    "dlq": (
        "Dead letters: messages that could not be used.",
        {"list": deadletters.dlq_list, "show": deadletters.dlq_show, "replay": deadletters.dlq_replay, "purge": deadletters.dlq_purge},
    ),
    "keys": (
        "API keys: who may use the HTTP API, for what, and how often.",
        {"add": keys.keys_add, "list": keys.keys_list, "revoke": keys.keys_revoke},
    ),
}


def command_line() -> typer.Typer:
    """All commands and groups of commands."""
    app = _group("Everpin keeps the embedding of every pin true to the pin.", COMMANDS)
    for name, (words, commands) in GROUPS.items():
        app.add_typer(_group(words, commands), name=name)
    return app


def _group(words: str, commands: dict[str, Callable[..., None]]) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=words)
    for name, command in commands.items():
        group.command(name)(command)
    return group


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
