"""The plots of a report, as SVG that lies in the page: it takes the page's colours, so one drawing serves light and dark.

Each function returns a whole <figure> with a caption and an alternative text that says the numbers. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, GRID = "#010203", "#040506"
SERIES = ("#111213", "#141516", "#171819")
"""Stand-ins that matplotlib draws with; `_themed` puts the page's colours in their place."""
PAGE_COLOURS = {INK: "currentColor", GRID: "var(--grid)"} | {colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)}
WIDTH = 4.6
"""Inches at 72 points: about as wide as a phone, so that text stays as large as the page's there."""
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and scaled
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}

Value = Mapping[str, float]


def languages(metric: str, systems: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Bars per language with intervals. `systems`: figures by language, by model id, the model first, then its baseline."""
    names = [lang for lang, figures in next(iter(systems.values())).items() if metric in figures]
    if not names:
        return ""
    thickness = 0.8 / len(systems)
    with _drawing(f"languages-{metric}", 0.9 + 0.27 * len(names) * len(systems)) as (axes, svg):
        for number, (model, figures) in enumerate(systems.items()):
            shown = [(place, figures[lang][metric]) for place, lang in enumerate(names) if metric in figures.get(lang, {})]
            places = [place + (number - (len(systems) - 1) / 2) * thickness for place, _ in shown]
            values = [value for _, value in shown]
            axes.barh(places, [value["mean"] for value in values], thickness * 0.9, color=SERIES[number], label=model, xerr=_reach(values), ecolor=INK)
            for place, value in zip(places, values, strict=True):
                axes.annotate(f"{value['mean']:.3f}", (max(value["mean"], value["high"]) + 0.015, place), va="center", fontsize=8)
        axes.set(yticks=range(len(names)), yticklabels=[name.replace("_", " ") for name in names], xlim=(0, 1.15), xticks=(0, 0.25, 0.5, 0.75, 1))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        _legend(axes)
    said = "; ".join(
        f"{lang} " + ", ".join(f"{model} {_said(figures[lang][metric])}" for model, figures in systems.items() if lang in figures) for lang in names
    )
    return figure(svg[0], f"{metric} by language, 95 % intervals", said)


def reliability(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Predicted against observed probability; the size of a point grows with its pairs."""
    with _drawing("reliability", 3.6) as (axes, svg):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--")
        for colour, (name, curve) in zip(SERIES, curves.items(), strict=False):
            most = max(curve["pairs"])
            sizes = [8 + 60 * pairs / most for pairs in curve["pairs"]]
            axes.plot(curve["predicted"], curve["observed"], color=colour, linewidth=1.2, label=name)
            axes.scatter(curve["predicted"], curve["observed"], sizes, color=colour)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="how often it was so")
        _legend(axes)
    said = "; ".join(
        f"{name}: " + ", ".join(f"predicted {x:.2f}, observed {y:.2f}" for x, y in zip(curve["predicted"], curve["observed"], strict=True))
        for name, curve in curves.items()
    )
    return figure(svg[0], "Reliability: points on the dashed line are calibrated", said)


def lines(name: str, caption: str, labels: tuple[str, str], series: Mapping[str, Sequence[tuple[float, Value]]], beside: Mapping[str, float]) -> str:
    """Curves with intervals over a logarithmic axis. `labels`: of x and y; `series`: (x, value) by name; `beside`: dashed levels."""
    with _drawing(name, 3.2) as (axes, svg):
        for colour, (label, points) in zip(SERIES, series.items(), strict=False):
            values = [value for _, value in points]
            axes.errorbar(
                [x for x, _ in points], [value["mean"] for value in values], _reach(values), marker="o", markersize=4, capsize=3, color=colour, label=label
            )
        for label, level in beside.items():
            axes.axhline(level, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(label, (0.01, level), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
        places = sorted({x for points in series.values() for x, _ in points})
        axes.set(xscale="log", xlabel=labels[0], ylabel=labels[1])
        axes.set_xticks(places, [f"{x:,g}" for x in places])
        axes.minorticks_off()
        _legend(axes)
    said = "; ".join(f"{label}: " + ", ".join(f"{x:g} {labels[0]} {_said(value)}" for x, value in points) for label, points in series.items())
    return figure(svg[0], caption, "; ".join([said, *(f"{label} {level:.3f}" for label, level in beside.items())]))


def steps(name: str, caption: str, names: Sequence[str], series: Mapping[str, Sequence[Value | None]]) -> str:
    """One row per step, a point with its interval per series: for a quantity that starts far from zero."""
    with _drawing(name, 0.9 + 0.38 * len(names)) as (axes, svg):
        for number, (label, values) in enumerate(series.items()):
            shown = [(place + 0.22 * (number - (len(series) - 1) / 2), value) for place, value in enumerate(values) if value is not None]
            means = [value["mean"] for _, value in shown]
            axes.errorbar(
                means, [place for place, _ in shown], xerr=_reach([value for _, value in shown]), fmt="o", capsize=3, color=SERIES[number], label=label
            )
        axes.set(yticks=range(len(names)), yticklabels=[fill(step, 24) for step in names], ylim=(len(names) - 0.5, -0.5))
        _legend(axes)
    said = "; ".join(
        f"{step}: " + ", ".join(f"{label} {_said(values[place])}" for label, values in series.items() if values[place] is not None)
        for place, step in enumerate(names)
    )
    return figure(svg[0], caption, said)


def figure(svg: str, caption: str, said: str) -> str:
    """An SVG with its caption; `said` is read out in place of the drawing."""
    named = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(caption)}. {escape(said)}" ', 1)
    return f"<figure>{named}<figcaption>{escape(caption)}</figcaption></figure>"


@contextmanager
def _drawing(name: str, height: float) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; after the block the list holds the SVG."""
    done: list[str] = []
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        yield drawn.subplots(), done
        out = io.StringIO()
        drawn.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        done.append(_themed(out.getvalue()))


def _themed(svg: str) -> str:
    """From <svg to </svg>, in the page's colours, as wide as its column."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">', svg, count=1)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg.strip()


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.figure.legend(loc="outside upper left", frameon=False, fontsize=8)


def _reach(values: Sequence[Value]) -> list[list[float]]:
    """Distances from the means to both ends, as matplotlib wants them; a bootstrap interval may miss its mean by rounding."""
    return [[max(0.0, value["mean"] - value["low"]) for value in values], [max(0.0, value["high"] - value["mean"]) for value in values]]


def _said(value: Value) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
