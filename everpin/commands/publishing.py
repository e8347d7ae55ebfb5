"""`everpin model publish`: a model folder into the registry, if its gate lets it through."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.figures import read_figures
from everpin.gate import Line
from everpin.gate_rules import read_rules
from everpin.publishing import Outcome, publish
from everpin.settings import settings

Evaluation = Annotated[Path | None, typer.Option(help="Evaluation of this model: python -m training.evaluate FOLDER --baseline LIVE --data DIR --json.")]
LiveEvaluation = Annotated[Path | None, typer.Option(help="Evaluation of the live model on the same data, where the first has another baseline.")]


def model_publish(
    folder: Path,
    evaluation: Evaluation = None,
    live_evaluation: LiveEvaluation = None,
    gate: Annotated[Path | None, typer.Option(help="TOML whose keys replace those of the shipped gate.toml.")] = None,
    force: Annotated[str, typer.Option(metavar="REASON", help="Publish although the gate refuses; the reason is kept with the version.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify a model folder, ask its gate, and publish it as an immutable version with its lineage. Exit code 1 when the gate refuses."""
    rules = read_rules(gate)
    evaluations = tuple(None if path is None else read_figures(path) for path in (evaluation, live_evaluation))
    with Console(stderr=True, quiet=as_json).status("publishing") as status:
        outcome = publish(settings(), folder, rules, (evaluations[0], evaluations[1]), force.strip(), lambda words: status.update(f"{folder.name}: {words}"))
    emit(document(outcome), as_json, lambda console: _show(console, outcome))
    if outcome.receipt is None:
        failed = ", ".join(line.name for line in outcome.gate if not line.passed)
        print(f"everpin: {outcome.model_id} is not published, its gate refuses: {failed}; see docs/models.md, or --force REASON", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def document(outcome: Outcome) -> dict[str, Any]:
    """What came of it, as JSON holds it."""
    receipt = outcome.receipt
    return {
        "model_id": outcome.model_id,
        "digest": outcome.digest,
        "published": receipt is not None,
        "already": outcome.already,
        "path": str(outcome.place) if receipt else None,
        "version": receipt.version if receipt else None,
        "registry": receipt.registry if receipt else None,
        "gate": {
            "passed": all(line.passed for line in outcome.gate),
            "forced": receipt.forced if receipt else "",
            "lines": [asdict(line) for line in outcome.gate],
        },
        "lineage": receipt.lineage if receipt else None,
    }


def gate_table(lines: Sequence[Line]) -> Table:
    """The gate for people."""
    table = Table("", "rule", Column("value", justify="right"), "threshold", Column("note", overflow="fold"), title="Gate", title_justify="left")
    for line in lines:
        verdict = "[green]pass[/]" if line.passed else "[red]fail[/]"
        table.add_row(verdict, *map(escape, (line.name, "-" if line.value is None else str(line.value), line.threshold, line.note)))
    return table


def _show(console: Console, outcome: Outcome) -> None:
    console.print(gate_table(outcome.gate))
    if (receipt := outcome.receipt) is None:
        return
    done = "already published" if outcome.already else f"published although its gate refused ({escape(receipt.forced)})" if receipt.forced else "published"
    console.print(f"{outcome.model_id} is {done}: version {receipt.version} in {receipt.registry}")
    console.print(f"{outcome.place}, digest {outcome.digest[:12]}, made from {_made_from(receipt.lineage)}")


def _made_from(lineage: dict[str, Any]) -> str:
    data = lineage.get("data") or {}
    folders = ", ".join(f"{name} {str(digest)[:12]}" for name, digest in data.items()) or str(lineage["weights_digest"])[:12]
    return f"teacher {lineage['teacher']}, data {folders}"
