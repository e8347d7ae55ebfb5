"""`everpin bridge fit` and `bridge show`: a map that lets a new model's queries ask the old model's collection while the backfill runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from embedder.bridged import read_bridge
from everpin.bridges import PAIRS, THRESHOLD, Fitting, Watching, bridge_file, fit, keep_bridge, shortfall
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.settings import settings
from pins.bridge import Bridge

PARTS = {"read": "old reads", "unread": "old cannot"}
"""Parts of the queries: by whether they are in a language that the old model reads."""
COLUMNS = ("n", "old", "bridged", "anew", "kept of anew", "same 10")


class Kind(StrEnum):
    """What is fitted."""

    linear = "linear"
    residual = "residual"
    procrustes = "procrustes"


def bridge_fit(
    new: str,
    old: str,
    kind: Annotated[
        Kind, typer.Option(help="linear: a matrix that learned to rank. residual: a small network beside it. procrustes: a mere rotation.")
    ] = Kind.linear,
    out: Annotated[
        Path | None, typer.Option(help="File of the bridge, .npz. Default: in EVERPIN_HOME/bridges, where `everpin rollout start --bridge` finds it.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=100, help="Texts at most that both models encode for it; a quarter of them are whole pins.")] = PAIRS,
    data: Annotated[Path | None, typer.Option(help="Folder of the cxc layout; its judgements measure the bridge. Default: the collection of OLD.")] = None,
    texts: Annotated[Path | None, typer.Option(help="More texts to fit on, such as logged queries, one a line: text, or JSON with query and lang.")] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Share of full re-embedding's nDCG@20 that it must keep over held-out queries.")] = THRESHOLD,
    seed: Annotated[int, typer.Option(help="The same seed and texts give the same bridge.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fit a map of NEW's query vectors into OLD's space, and measure what it keeps of full re-embedding. Exit code 1, and no file, below the threshold."""
    config = settings()
    how = Fitting(kind.value, pairs, data, texts, threshold, seed)
    with Progress(console=Console(stderr=True), disable=as_json) as progress:
        bridge = fit(config, new, old, how, watched(progress))
    path, short = out or bridge_file(config, bridge.digest), shortfall(bridge)
    if not short:
        keep_bridge(path, bridge)
    document = _document(bridge) | {"passed": not short, "path": None if short else str(path)}
    emit(document, as_json, lambda console: show_bridge(console, bridge))
    if short:
        print(f"everpin: {short}", file=sys.stderr)
        raise typer.Exit(PARTIAL)


def bridge_show(file: Path, as_json: AsJson = False) -> None:
    """What a bridge's file says of itself: its two models, what it was fitted and measured on, what it keeps, and its cost per query."""
    bridge = read_bridge(file)
    emit(_document(bridge) | {"path": str(file)}, as_json, lambda console: show_bridge(console, bridge))


def watched(progress: Progress) -> Watching:
    """Fitting a bridge, on a progress bar."""

    def watching(task: str, total: int) -> Callable[[int], None]:
        bar = progress.add_task(task, total=total)
        return lambda done: progress.advance(bar, done)

    return watching


def _document(bridge: Bridge) -> dict[str, Any]:
    return {
        "new": asdict(bridge.new),
        "old": asdict(bridge.old),
        "digest": bridge.digest,
        "levels": {"slope": bridge.slope, "intercept": bridge.intercept},
    } | dict(bridge.figures)


def show_bridge(console: Console, bridge: Bridge) -> None:
    """What a bridge keeps, as a table."""
    figures = bridge.figures
    console.print(f"{bridge.new.model_id} -> {bridge.old.model_id}, {figures['kind']}, digest {bridge.digest[:12]}")
    table = Table("queries", *(Column(name, justify="right", no_wrap=True) for name in COLUMNS), title="nDCG@20", title_justify="left")
    for name, part in figures["quality"].items():
        means = (f"{part['ndcg@20'][system]['mean']:.3f}" for system in ("old", "bridged", "new"))
        kept = "{mean:.1%} [{low:.1%}, {high:.1%}]".format(**part["kept"])
        table.add_row(PARTS.get(name, name), str(part["queries"]), *means, kept, f"{part['overlap@10']['mean']:.2f}")
    console.print(table)
    on, by, cost_us = figures["fitted_on"], figures["measured_on"], figures["microseconds_per_query"]
    console.print(
        f"fitted on {on['pins']} pins and {on['texts']} texts; measured on {by['queries']} queries over {by['pins']} other pins, judged: {by['judged']}"
    )
    console.print(f"{cost_us['p50']:.0f} us more per query (p99 {cost_us['p99']:.0f}); threshold {figures['threshold']:.1%}, kept {figures['kept']:.1%}")
