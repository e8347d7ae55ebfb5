"""One HTML page of one evaluation: tables, plots, lineage. It needs nothing beside it and fetches nothing.

The page is made from the JSON of `training.evaluate` alone, so it can be drawn again later. It reads at phone width and in dark mode;
every plot says its numbers in its alternative text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from training.data import DataError
from training.folder import write_json
from training.measures import plots as report_plots

RANKING = {"ndcg@10": "nDCG@10", "ndcg@20": "nDCG@20", "p@8": "P@8", "recall@100": "recall@100"}
LEVELS = {
    "accuracy": "accuracy",
    "within_one": "within one",
    "auroc@2+": "AUROC 2+",
    "auroc@3+": "AUROC 3+",
    "auroc@4+": "AUROC 4+",
    "spearman": "Spearman",
    "ece": "calibration error",
    "log_loss": "log loss",
}
PARTS = {"languages": "Own pin included", "languages_without_own_pin": "Own pin left out"}
STYLE = """
:root { color-scheme: light dark; --series-1: #2f6fb0; --series-2: #c26a1f; --series-3: #3c8a5a; --grid: #8884; --soft: #8882; }
@media (prefers-color-scheme: dark) { :root { --series-1: #6aa9e9; --series-2: #eaa05c; --series-3: #77c596; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 52rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; } p, figcaption { max-width: 40rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--soft); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } caption { text-align: left; font-weight: 600; padding: .6rem 0 .3rem; }
small { display: block; opacity: .75; } tr.mean td { font-weight: 600; border-top: 2px solid var(--grid); }
figure { margin: 1rem 0; } figure svg { width: 100%; max-width: 34rem; height: auto; } figcaption { font-size: .85rem; opacity: .8; }
.cell { background: color-mix(in srgb, var(--series-1) var(--share), transparent); }
dl { display: grid; grid-template-columns: minmax(6rem, auto) 1fr; gap: .2rem 1rem; font-size: .85rem; } dd { margin: 0; overflow-wrap: anywhere; }
"""
READING = (
    "Intervals are 95 % by bootstrap over query groups. nDCG and P@8 re-rank judged candidates; recall@100 is the share of a query's relevant judged pins "
    "(grade {relevant_grade} or more) among the first 100 of all pins. AUROC n+ tells whether a pair's grade reaches n. Calibration error is that of the "
    "most probable level (Naeini et al. 2015). Mean other: the plain mean over every language but English."
)


def write(folder: Path, body: Mapping[str, Any], scaling: Path | None = None, ablation: Path | None = None) -> Path:
    """Write report.html and evaluation.json into a folder, and return the page's path. Raises DataError for a curve that cannot be drawn."""
    html = page(body, None if scaling is None else _json(scaling), None if ablation is None else _json(ablation))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", body)
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def page(body: Mapping[str, Any], scaling: Mapping[str, Any] | None = None, ablation: Mapping[str, Any] | None = None) -> str:
    """The whole page."""
    data, name = body["data"], escape(body["model_id"])
    parts = [
        f"<h1>{name} on {escape(data['folder'])}, {escape(data['split'])}</h1>",
        f"<p>{body['queries']} queries, {data['pairs']} judged pairs, {data['pins']} pins. {READING.format(**body['levels'])}</p>",
        *_missing(body),
        *(_tables(body, part, title) for part, title in PARTS.items()),
        "<h2>By language</h2>",
        *(report_plots.languages(metric, _systems(body)) for metric in ("ndcg@20", "recall@100")),
        *_differences(body),
        *_levels(body),
        *_bands(body),
        *_judge(body),
        *([] if scaling is None else ["<h2>More labels</h2>", _scaling(scaling)]),
        *([] if ablation is None else ["<h2>Fields of the pin's text</h2>", _ablation(ablation)]),
        "<h2>Lineage</h2>",
        _definitions({"model": body["model_id"], **body["lineage"], "data digest of this evaluation": data["digest"], "bootstrap": body["bootstrap"]}),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>{name}: evaluation</title><style>{STYLE}</style>"
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}{title}</head><body>', *parts, "</body></html>", ""])


def _missing(body: Mapping[str, Any]) -> Iterable[str]:
    if body["missing_pins"]:
        yield f"<p><strong>{body['missing_pins']} judged pins could not be found</strong> and ranked last.</p>"
    if body["levels"]["note"]:
        yield f"<p>No level metrics: {escape(body['levels']['note'])}.</p>"


def _tables(body: Mapping[str, Any], part: str, title: str) -> str:
    rows = _with_mean(body[part], body[part.replace("languages", "mean_other")])
    return f"<h2>{title}</h2>" + _table("Ranking", rows, RANKING) + _table("Levels and scores, over pairs", rows, LEVELS)


def _differences(body: Mapping[str, Any]) -> Iterable[str]:
    if "baseline" in body:
        yield f"<h2>Minus {escape(body['baseline']['model_id'])}</h2>"
        for part, title in PARTS.items():
            yield _table(f"{title}; paired, with the p value of no difference", body["baseline"]["difference"][part], {**RANKING, "accuracy": "accuracy"})


def _levels(body: Mapping[str, Any]) -> Iterable[str]:
    if body["levels"]["measured"]:
        yield "<h2>Levels</h2>" + report_plots.reliability(body["reliability"]) + _confusion(body["confusion"])


def _confusion(counts: Sequence[Sequence[int]]) -> str:
    """Rows: the human grade; columns: the most probable level; each cell the share of its row."""
    head = "".join(f'<th scope="col">{level}</th>' for level in range(len(counts)))
    rows = []
    for grade, row in enumerate(counts):
        shares = [count / max(sum(row), 1) for count in row]
        cells = "".join(
            f'<td class="cell" style="--share:{share:.0%}">{share:.0%}<small>{count}</small></td>' for share, count in zip(shares, row, strict=True)
        )
        rows.append(f'<tr><th scope="row">grade {grade}</th>{cells}</tr>')
    caption = "<caption>Most probable level (columns, as grades) by human grade (rows)</caption>"
    return f'<div class="wide"><table>{caption}<tr><td></td>{head}</tr>{"".join(rows)}</table></div>'


def _bands(body: Mapping[str, Any]) -> Iterable[str]:
    rows = {f"{lang}, {band}": parts[lang] for lang in ("en", "mean_other") for band, parts in body["bands"].items() if lang in parts}
    if rows:
        yield "<h2>Head, torso, tail</h2><p>Thirds of each language's queries by how many pins share a word with them.</p>" + _table("Ranking", rows, RANKING)


def _judge(body: Mapping[str, Any]) -> Iterable[str]:
    if "judge" in body:
        found = body["judge"]["languages"]
        rows = {
            lang: {
                "exact": one["exact"],
                "within_one": one["within_one"],
                "queries": one["queries"],
                **{f"tau {name}": tau for name, tau in one["kendall_tau"].items()},
            }
            for lang, one in found.items()
        }
        columns = {"exact": "same level", "within_one": "within one", **{name: name for row in rows.values() for name in row if name.startswith("tau ")}}
        yield f"<h2>Labels of {escape(body['judge']['teacher_id'])} against people</h2>"
        yield _table("Pairs, and Kendall's tau of the model's figures per query", rows, columns)


def _scaling(body: Mapping[str, Any]) -> str:
    """What `training.scaling` wrote: quality of students against the number of labels."""
    try:
        plots = [_curve(body, measure, title) for measure, title in (("", "nDCG@20"), (" accuracy", "five-level accuracy"))]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the scaling curve cannot be drawn ({error!r}); give the JSON that python -m training.scaling wrote") from error
    if not plots[0]:
        raise DataError("the scaling curve cannot be drawn: no point has a figure yet; give the JSON that python -m training.scaling wrote")
    return "".join(plots)


def _curve(body: Mapping[str, Any], measure: str, title: str) -> str:
    names = {f"english{measure}": "English", f"others{measure}": "mean other"}
    points = {label: [(point["labels"], point["measures"][name]) for point in body["points"] if name in point["measures"]] for name, label in names.items()}
    beside = {f"{model}, {label}": figures[name]["mean"] for model, figures in body["beside"].items() for name, label in names.items() if name in figures}
    series = {label: some for label, some in points.items() if some}
    if not series:
        return ""
    return report_plots.lines(f"scaling{measure}", f"{title} on dev against labels of the teacher", ("labels", title), series, beside)


def _ablation(body: Mapping[str, Any]) -> str:
    """What `training.ablation` wrote: nDCG@20 of each system with the pin's fields added one by one; steps name what is generated."""
    shown = {"en": "English", "mean_other": "mean other"}
    try:
        names = [step["name"] + (", boards generated" if step["generated"] and "generated" not in step["name"] else "") for step in body["steps"]]
        plots = []
        for system, about in body["systems"].items():
            figures = [step["systems"][system]["languages"] for step in body["steps"]]
            series = {label: [step.get(lang, {}).get(body["metric"]) for step in figures] for lang, label in shown.items()}
            kept = {label: values for label, values in series.items() if any(values)}
            if not kept:
                raise KeyError("a step")
            caption = f"{body['metric']} of the {system} {about['model_id']} with fields added one by one, own pin included"
            plots.append(report_plots.steps(f"ablation-{system}", caption, names, kept))
        return "".join(plots)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"the ablation cannot be drawn ({error!r}); give the JSON that python -m training.ablation wrote") from error


def _systems(body: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """Figures by language of the model and, where there is one, its baseline."""
    own = {body["model_id"]: _with_mean(body["languages"], body["mean_other"])}
    if "baseline" not in body:
        return own
    baseline = body["baseline"]
    name = baseline["model_id"] if baseline["model_id"] not in own else f"{baseline['model_id']} (baseline)"
    return own | {name: baseline["figures"]["languages"]}


def _with_mean(rows: Mapping[str, Any], mean: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(rows) | ({} if mean is None else {"mean_other": mean})


def _table(caption: str, rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    shown = {name: label for name, label in columns.items() if any(name in row for row in rows.values())}
    if not shown:
        return ""
    head = "".join(f'<th scope="col">{escape(label)}</th>' for label in ("", "queries", *shown.values()))
    lines = []
    for name, row in rows.items():
        cells = "".join(f"<td>{_cell(row.get(column))}</td>" for column in shown)
        kind = ' class="mean"' if name == "mean_other" else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(name.replace("_", " "))}</th><td>{row.get("queries", "")}</td>{cells}</tr>')
    return f'<div class="wide"><table><caption>{escape(caption)}</caption><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    p = f", p {value['p']:.3f}" if "p" in value else ""
    return f"{value['mean']:.3f}<small>{value['low']:.3f} to {value['high']:.3f}{p}</small>"


def _definitions(facts: Mapping[str, Any]) -> str:
    said = {name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in facts.items()}
    return "<dl>" + "".join(f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(value)}</dd>" for name, value in said.items()) + "</dl>"


def _json(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(body, dict):
        raise DataError(f"{path} must hold a JSON object")
    return body


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.measures.report",
        description="Draw the HTML page of an evaluation again, for instance with a curve that was not there yet.",
        epilog="The evaluation comes from python -m training.evaluate MODEL --data DIR --json, or from its --report.",
    )
    parser.add_argument("evaluation", type=Path, metavar="FILE", help="JSON of training.evaluate")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report.html and evaluation.json")
    parser.add_argument("--scaling", type=Path, metavar="FILE", help="JSON of training.scaling")
    parser.add_argument("--ablation", type=Path, metavar="FILE", help="JSON of training.ablation")
    args = parser.parse_args(arguments)
    body = _json(args.evaluation)
    if missing := {"model_id", "languages", "bands", "levels", "data", "lineage"} - body.keys():
        raise DataError(f"{args.evaluation} is no evaluation: it has no {', '.join(sorted(missing))}; make it with python -m training.evaluate --json")
    print(write(args.out, body, args.scaling, args.ablation))


if __name__ == "__main__":
    main()
