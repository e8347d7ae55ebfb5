"""Roll a published model out beside the live one, step by step, and back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from everpin.bridges import DIGITS, Fitting, bridge_file, find_bridge, fit, keep_bridge, shortfall
from everpin.commands.bridging import show_bridge, watched
from everpin.commands.healing import seconds
from everpin.commands.output import PARTIAL, AsJson, emit
from everpin.live import of_model
from everpin.model_folders import model_folder
from everpin.rollout_plan import Alike, alike, canary_cosine, plan, readable_bytes, readable_seconds, share
from everpin.rollouts import Rollouts
from everpin.settings import Settings, settings
from everpin.wiring import now_us
from pins.bridge import Bridge
from pins.errors import EverpinError
from pins.rollout import Readiness, Rollout, refusals

READY_S = 90.0
Model = Annotated[str, typer.Argument(help="Model id of a published model; see `everpin model list`.")]


def rollout_start(
    model: Model,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without this, only the plan is shown.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the backfill that encode side by side.")] = 1,
    price: Annotated[float, typer.Option(min=0, help="Price of one core for an hour, for the plan's cost.")] = 0.05,
    bridge: Annotated[
        bool | None,
        typer.Option(
            help="Let MODEL read queries for the live collection at once, over a bridge: the one that `everpin bridge fit` kept, else one fitted now."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the candidate's worker.")] = READY_S,
    as_json: AsJson = False,
) -> None:
    """Show what the rollout takes; with --yes begin it, wait for the model's own worker, and fill its collection. Interrupted, it goes on where it was."""
    config = settings()
    rollouts = Rollouts(config)
    folder = model_folder(config, model)
    candidate = of_model(config, folder)
    now = rollouts.now()
    if not yes:
        planned = plan(rollouts, candidate, workers, price)
        emit({"plan": asdict(planned), "started": now is not None}, as_json, lambda console: _show_plan(console, asdict(planned), price))
        return
    if now is None:
        planned = plan(rollouts, candidate, workers, price)
        _show_plan(Console(stderr=True), asdict(planned), price)
    laid = _bridge(rollouts, candidate) if bridge else None
    rollout = rollouts.begin(planned.candidate if now is None else _model_id(rollouts, now, model))
    if bridge is not None:
        rollout = rollouts.bridge(laid.digest if laid else "")
    if rollout.paused:
        raise EverpinError("the rollout is paused; `everpin rollout resume` first")
    if not rollout.filled_us:
        rollouts.wait_for_workers(rollout.candidate, wait)
        _fill(rollouts, candidate, workers, as_json)
    _report(rollouts, as_json)


def rollout_status(
    queries: Annotated[int, typer.Option(min=0, max=1000, help="Searches that both models are asked for the overlap; 0 leaves it out.")] = 40,
    as_json: AsJson = False,
) -> None:
    """Where the rollout is: phase, coverage, lag of the candidate's workers, overlap of the answers, canary cosine. Exit code 1 while it may not cut over."""
    _report(Rollouts(settings()), as_json, queries)


def rollout_pause(as_json: AsJson = False) -> None:
    """Hold the backfill; workers and serving go on."""
    _changed(lambda rollouts: rollouts.pause(paused=True), as_json)


def rollout_resume(as_json: AsJson = False) -> None:
    """Take the hold away; `everpin rollout start MODEL --yes` goes on with the backfill."""
    _changed(lambda rollouts: rollouts.pause(paused=False), as_json)


def rollout_cutover(
    canary: Annotated[
        str | None, typer.Option(help="Send only this share of the traffic, in per cent, by hash of the user or query; 0 ends the canary.")
    ] = None,
    interleave: Annotated[
        bool, typer.Option("--interleave/--no-interleave", help="Draft the searches of that share from both models' rankings: tells sooner who is preferred.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let the candidate answer everybody, or with --canary a share. Refused unless its collection is complete, caught up, and its gate passed."""
    if canary is not None:
        part = share(canary)
        if interleave and not part:
            raise EverpinError(f"--canary {canary} ends the canary, so there is nothing to interleave; leave out --interleave, or give a share above 0")
        _changed(lambda rollouts: rollouts.canary(part, interleave=interleave), as_json)
        return
    if interleave:
        raise EverpinError("--interleave is a way of --canary; name the share: `everpin rollout cutover --canary 5 --interleave`")
    _changed(Rollouts.cut_over, as_json)


def rollout_rollback(as_json: AsJson = False) -> None:
    """Let the model before answer everybody again, at once: its collection was kept up to date all the time."""
    _changed(Rollouts.roll_back, as_json)


def rollout_retire(
    model: Annotated[str, typer.Argument(help="The model that is not live; its collection is dropped, and the rollout ends.")],
    hold: Annotated[str, typer.Option(help="How long it is kept after the alias moved: 30m, 24h, 7d.")] = "24h",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the collection cannot be brought back but by a new rollout.")] = False,
    as_json: AsJson = False,
) -> None:
    """Drop the collection that is not live, which ends the rollout."""
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise EverpinError(f"this would drop the collection of {model}; add --yes")
        typer.confirm(f"This drops the collection of {model}. Go on?", abort=True, err=True)
    rollouts = Rollouts(settings())
    left = rollouts.retire(model, seconds(hold))
    document = {"retired": model, "live": rollouts.place.live(), "rollout": asdict(left) if left else None}
    emit(document, as_json, lambda console: console.print(f"{model} is retired; {document['live']} is live"))


def _model_id(rollouts: Rollouts, now: Rollout, model: str) -> str:
    """The candidate that `model` names, by id or folder."""
    same = model_folder(rollouts.config, model) == model_folder(rollouts.config, now.candidate)
    return now.candidate if same else model


def _bridge(rollouts: Rollouts, candidate: Settings) -> Bridge:
    """A bridge from the candidate to the live model, kept before or fitted now. Raises EverpinError below its threshold."""
    config, live = rollouts.config, rollouts.place.live()
    bridge = find_bridge(config, str(candidate.model), live)
    if bridge is None:
        with Progress(console=Console(stderr=True)) as progress:
            bridge = fit(config, str(candidate.model), live, Fitting(), watched(progress))
        if short := shortfall(bridge):
            raise EverpinError(f"{short}; `everpin bridge fit {bridge.new.model_id} {live}` takes these options, then start again")
        keep_bridge(bridge_file(config, bridge.digest), bridge)
    show_bridge(Console(stderr=True), bridge)
    return bridge


def _fill(rollouts: Rollouts, candidate: Settings, workers: int, quiet: bool) -> None:
    """Backfill the candidate's collection, and note when every pin was looked at."""
    from backfill.run import backfill  # noqa: PLC0415  Ray is slow to import, and an extra

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(f"filling {rollouts.required().candidate}", total=rollouts.look().pins or None)
        done = backfill(
            rollouts.config,
            candidate.model,
            workers=workers,
            restart=bool(rollouts.required().missed_us),
            proceed=lambda: not rollouts.required().paused,
            step=lambda at: progress.update(task, completed=at.done, total=at.pins),
        )
    if done.complete:
        rollouts.filled()
    elif not rollouts.required().paused:
        raise EverpinError(f"the backfill stopped before every pin was looked at ({done.stopped}): {done.problem}; the same command goes on")


def _changed(act: Callable[[Rollouts], Rollout], as_json: bool) -> None:
    rollouts = Rollouts(settings())
    rollout = act(rollouts)
    live = rollouts.place.live()
    document = {"live": live, "phase": rollout.phase(live), "rollout": asdict(rollout)}
    emit(document, as_json, lambda console: console.print(_sentence(rollout, live)))


def _report(rollouts: Rollouts, as_json: bool, queries: int = 0) -> None:
    rollout = rollouts.now()
    live = rollouts.place.live()
    if rollout is None:
        emit({"live": live, "phase": None, "rollout": None}, as_json, lambda console: console.print(f"{live} is live; no rollout is going on"))
        return
    seen = rollouts.look()
    why = refusals(rollout, seen)
    candidate, previous = (of_model(rollouts.config, model_folder(rollouts.config, model_id)) for model_id in (rollout.candidate, rollout.previous))
    both = alike(rollouts, (previous, candidate), queries) if queries and seen.done and not rollout.retiring else None
    document = {
        "live": live,
        "phase": rollout.phase(live),
        "rollout": asdict(rollout),
        "queries_read_by": rollout.candidate if rollout.crossing(live) else live,
        "pins": seen.pins,
        "done": seen.done,
        "coverage": round(seen.coverage, 6),
        **_speed(rollout, live, seen),
        "lag": seen.lag,
        "canary_cosine": round(canary_cosine(candidate), 6),
        "overlap": asdict(both) if both else None,
        "refusals": why,
    }
    emit(document, as_json, lambda console: _show_status(console, document, rollout, both))
    if why and rollout.phase(live) != "live":
        raise typer.Exit(PARTIAL)


def _speed(rollout: Rollout, live: str, seen: Readiness) -> dict[str, float | None]:
    """Pins a second since the beginning, and seconds that are left at that rate; None where nothing is being filled."""
    seconds_gone = (now_us() - rollout.started_us) / 1e6
    if rollout.phase(live) != "filling" or not seen.done or seconds_gone <= 0:
        return {"pins_per_second": None, "eta_s": None}
    rate = seen.done / seconds_gone
    return {"pins_per_second": round(rate, 2), "eta_s": round(seen.missing / rate, 1)}


def _show_plan(console: Console, planned: dict[str, Any], price: float) -> None:
    table = Table("plan", Column("", overflow="fold"), show_header=False)
    rate, workers = planned["texts_per_s"], planned["workers"]
    for name, words in (
        ("candidate", planned["candidate"]),
        ("live now", planned["previous"]),
        ("pins to embed", f"{planned['pins']:,}"),
        ("time", f"{readable_seconds(planned['seconds'])} at {rate:.0f} texts/s measured here, {workers} worker{'s' if workers > 1 else ''}"),
        ("cost", f"{planned['core_hours']:.2f} core-hours, {planned['cost']:.2f} at {price:g} a core-hour"),
        ("disk", readable_bytes(planned["disk_bytes"])),
    ):
        table.add_row(name, words)
    console.print(table)
    console.print("The live model answers everybody until `everpin rollout cutover`. Add --yes to begin.")


def _show_status(console: Console, document: dict[str, Any], rollout: Rollout, both: Alike | None) -> None:
    console.print(_sentence(rollout, document["live"]))
    with Progress(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), console=console) as progress:
        progress.add_task(rollout.candidate, total=max(1, document["pins"]), completed=min(document["done"], document["pins"]) if document["pins"] else 1)
    table = Table("", "", show_header=False)
    table.add_row("started", f"{datetime.fromtimestamp(rollout.started_us / 1e6, UTC):%Y-%m-%d %H:%M} UTC")
    if document["pins_per_second"]:
        table.add_row("rate", f"{document['pins_per_second']:.1f} pins/s since the start, {readable_seconds(document['eta_s'])} to go at that rate")
    table.add_row("lag of its workers", "not reached" if document["lag"] is None else f"{document['lag']} events")
    table.add_row("canary cosine", f"{document['canary_cosine']:.6f}")
    if document["queries_read_by"] != document["live"]:
        table.add_row("queries", f"read by {document['queries_read_by']}, over bridge {rollout.bridge[:DIGITS]} until `--no-bridge`")
    if both:
        table.add_row("overlap@10", f"{both.overlap_at_10:.2f} over {both.queries} searches, least {both.least:.2f}")
    console.print(table)
    for line in document["refusals"]:
        console.print(f"not yet: {line}")


def _sentence(rollout: Rollout, live: str) -> str:
    words = {
        "filling": f"{rollout.candidate} is being filled; {live} answers everybody",
        "paused": f"the backfill of {rollout.candidate} is paused; {live} answers everybody",
        "ready": f"{rollout.candidate} is filled; {live} answers everybody",
        "canary": _canary(rollout, live),
        "live": f"{rollout.candidate} is live; {rollout.previous} is kept up to date for a roll-back",
        "rolled back": f"{live} answers everybody again; {rollout.candidate} is kept up to date",
        "retiring": f"{rollout.retiring} is being retired; {live} is live",
    }
    return words[rollout.phase(live)]


def _canary(rollout: Rollout, live: str) -> str:
    if rollout.interleave:
        return f"{rollout.share:.1%} of the searches are drafted from the rankings of {live} and {rollout.candidate}; {live} answers everything else"
    return f"{rollout.candidate} answers {rollout.share:.1%} of the traffic, {live} the rest"
