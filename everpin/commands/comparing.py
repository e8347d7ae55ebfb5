"""`everpin model compare`: what changes for people when one model follows another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.commands.output import AsJson, emit
from everpin.compared_texts import cxc_pins, cxc_queries, file_queries, sample_pins, sample_queries
from everpin.comparing import Encoded, K, Text, answers, compared, encoded
from everpin.evaluation import Query, Scores, paired, score, summary
from everpin.figures import Figures, figures
from everpin.model_folders import model_folder
from everpin.published import receipt_of
from everpin.settings import Settings, settings
from pins.errors import EverpinError
from pins.ports import Vector

SHOWN = 3
"""Results of a query that a person is shown of each model; --json has all."""
FEWEST = 100
"""Pins below which the first ten are too large a part of all to say much."""


@dataclass(frozen=True, slots=True)
class Held:
    """Vectors of pins, in memory, as an evaluation asks for them."""

    model_id: str
    by_id: Mapping[str, Vector]

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        return {pin_id: self.by_id[pin_id] for pin_id in pin_ids if pin_id in self.by_id}


def model_compare(
    old: str,
    new: str,
    queries: Annotated[
        Path | None, typer.Option(help="Queries, one a line: text, or JSON with query and lang. Default: the sample's, or the folder's.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the cxc layout; its judgements give nDCG with intervals. Default: the shipped sample.")] = None,
    changed: Annotated[int, typer.Option(min=0, max=1000, help="How many of the queries that change most.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Compare two models, by id or path: figures side by side, shared results, shift of scores, and the queries that change most."""
    config = settings()
    pins = cxc_pins(data) if data else sample_pins()
    asked, judged = cxc_queries(data) if data else (sample_queries(), [])
    asked = file_queries(queries) if queries else asked
    if not pins or not asked:
        raise EverpinError(f"{data or queries} has {len(pins)} pins and {len(asked)} queries; there is nothing to compare")
    encoders = [OnnxEncoder(open_artifact(model_folder(config, model)), config.threads, cosmetic=False) for model in (old, new)]
    with Progress(console=Console(stderr=True), disable=as_json) as progress:

        def of(encoder: OnnxEncoder) -> tuple[Encoded, Scores | None]:
            task = progress.add_task(encoder.model_id, total=len(pins) + len(asked) + len(judged))
            return _measured(encoder, asked, judged, pins, lambda n: progress.advance(task, n))

        sides = [of(encoder) for encoder in encoders]
    first, second = (answers(side) for side, _ in sides)
    document = compared(first, second, asked, pins, changed) | {
        "figures": _side_by_side([_figures(config, encoder, judged, scores) for encoder, (_, scores) in zip(encoders, sides, strict=True)]),
        "new - old": _paired(judged, *(scores for _, scores in sides)),
        "manifest": _manifests(encoders),
    }
    emit(document, as_json, lambda console: _show(console, document))


def _measured(
    encoder: OnnxEncoder, asked: Sequence[Text], judged: Sequence[Query], pins: Sequence[Text], step: Callable[[int], None]
) -> tuple[Encoded, Scores | None]:
    """Vectors, and scores of the judged pairs where there are some."""
    found = encoded(encoder, asked, pins, step)
    held = Held(encoder.model_id, {pin.name: vector for pin, vector in zip(pins, found.pins, strict=True)})
    return found, score(judged, encoder, held, step) if judged else None


def _figures(config: Settings, encoder: OnnxEncoder, judged: Sequence[Query], scores: Scores | None) -> Figures | None:
    """Figures of the judgements where there are some, else those with which the model was published."""
    if scores:
        return figures(summary(judged, scores), "the folder's judgements")
    receipt = receipt_of(config, encoder.model_id)
    return figures(receipt.evaluation, f"the receipt of {encoder.model_id}") if receipt and receipt.evaluation else None


def _paired(judged: Sequence[Query], old: Scores | None, new: Scores | None) -> dict[str, Any]:
    """By language and metric: the new model minus the old one on the same queries; empty without judgements."""
    if old is None or new is None:
        return {}
    return {lang: {metric: asdict(apart) for metric, apart in found.items()} for lang, found in paired(judged, new, old).items()}


def _side_by_side(found: Sequence[Figures | None]) -> dict[str, Any]:
    """By language and metric: [old, new], each with its interval, null where it was not measured; and on which data."""
    bodies = [one.as_json()["languages"] if one else {} for one in found]
    langs = sorted(bodies[0].keys() | bodies[1].keys())
    names = {lang: sorted({name for body in bodies for name in body.get(lang, {})}) for lang in langs}
    return {
        "data": [one.data if one else None for one in found],
        "languages": {lang: {name: [body.get(lang, {}).get(name) for body in bodies] for name in names[lang]} for lang in langs},
    }


def _manifests(encoders: Sequence[OnnxEncoder]) -> dict[str, list[float | None]]:
    metrics = [encoder.manifest.metrics for encoder in encoders]
    return {name: [body.get(name) for body in metrics] for name in sorted(metrics[0].keys() | metrics[1].keys())}


def _show(console: Console, document: dict[str, Any]) -> None:
    old, new = document["models"]
    if document["figures"]["languages"]:
        console.print(_figures_table(document, old, new))
    if document["new - old"]:
        console.print(_paired_table(document))
    table = Table("figure of the manifest", old, new)
    for name, values in document["manifest"].items():
        table.add_row(name, *("-" if value is None else f"{value:.4g}" for value in values))
    console.print(table)
    console.print(_overlap_table(document))
    console.print(_scores_table(document, old, new))
    for change in document["changed"]:
        console.print(_changed_table(change, old, new))
    if document["pins"] < FEWEST:
        console.print(f"Only {document['pins']} pins: the first {K} are a large part of them, so most of any two models' results are shared.")


def _figures_table(document: dict[str, Any], old: str, new: str) -> Table:
    title = f"95 % intervals; data: {', '.join(dict.fromkeys(data or 'the folder' for data in document['figures']['data']))}"
    table = Table("language", "figure", old, new, title=title, title_justify="left")
    for lang, found in document["figures"]["languages"].items():
        for name, values in found.items():
            table.add_row(lang, name, *("-" if value is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]" for value in values))
    return table


def _paired_table(document: dict[str, Any]) -> Table:
    table = Table("language", "figure", "new - old", "p", title="The same queries, paired, with 95 % intervals", title_justify="left")
    for lang, found in document["new - old"].items():
        for name, apart in found.items():
            table.add_row(lang, name, "{mean:+.3f} [{low:+.3f}, {high:+.3f}]".format(**apart), f"{apart['p']:.3f}")
    return table


def _overlap_table(document: dict[str, Any]) -> Table:
    found = document[f"overlap@{K}"]
    title = f"Results that both show among the first {K}: {found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}], {document['queries']} queries"
    table = Table("shared", "queries", "", title=title, title_justify="left")
    most = max(found["histogram"].values())
    for share, count in found["histogram"].items():
        table.add_row(share, str(count), "█" * round(40 * count / most))
    return table


def _scores_table(document: dict[str, Any], old: str, new: str) -> Table:
    table = Table("score", "of", f"mean {old}", f"mean {new}", "sd", "sd", "KS", title="Shift of scores", title_justify="left")
    for name, kinds in document["scores"].items():
        for kind, found in kinds.items():
            table.add_row(name.replace("_", " "), kind, *(f"{value:.3f}" for value in (*found["mean"], *found["sd"], found["ks"])))
    return table


def _changed_table(change: dict[str, Any], old: str, new: str) -> Table:
    title = f"{escape(change['query'])} ({change['lang']}): {change['overlap']:.0%} shared, expected relevance {change['relevance_gained']:+.2f}"
    table = Table(*(Column(name, ratio=1, overflow="fold") for name in (old, new)), title=title, title_justify="left", expand=True)
    for one, other in zip(change["old"][:SHOWN], change["new"][:SHOWN], strict=True):
        table.add_row(*(f"{result['relevance']:.1f}  {escape(result['title'])} ({result['pin_id']})" for result in (one, other)))
    return table
