"""Writes the figures of bench/*.json into bench/README.md, between its markers, so that no figure is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def result(name: str) -> dict[str, Any]:
    """One committed result."""
    body: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return body


def figures() -> str:
    """The block between the markers."""
    encoder, worker, freshness = result("encoder"), result("worker"), result("freshness")
    lines = [f"Measured on {encoder['machine']['cores']} cores ({encoder['machine']['cpu']}), {encoder['machine']['date']}.", ""]
    lines += ["| encoder | texts/s (median) | everpin fp32 is faster by | min cosine to sentence-transformers |", "|---|---|---|---|"]
    for name, speed in encoder["median_texts_per_second"].items():
        ratio = encoder["ratio_of_everpin_fp32_to"].get(name)
        lines.append(f"| {name} | {speed:.0f} | {f'{ratio:.2f} x' if ratio else ''} | {encoder['min_cosine_to_sentence_transformers'][name]:.5f} |")
    lines += ["", "| worker path | events/s (median) | share of each step |", "|---|---|---|"]
    for path, speed in worker["median_events_per_second"].items():
        shares = sorted(worker["share"][path].items(), key=lambda item: -item[1])
        lines.append(f"| {path} | {speed:.0f} | {', '.join(f'{name} {share:.1%}' for name, share in shares)} |")
    lines += ["", f"| freshness at {freshness['rate_per_second']:g} events/s | events | p50 | p90 | p99 | max |", "|---|---|---|---|---|---|"]
    for label, key in (("event produced to searchable, by the worker", "freshness_ms"), ("seen from outside, a sample", "freshness_seen_from_outside_ms")):
        part = freshness[key]
        lines.append(f"| {label} | {part['events']} | " + " | ".join(f"{part[name]:.0f} ms" for name in ("p50", "p90", "p99", "max")) + " |")
    return "\n".join(lines)


def rewritten(text: str) -> str:
    """The README with fresh figures."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{figures()}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Rewrite bench/README.md."""
    README.write_text(rewritten(README.read_text()))


if __name__ == "__main__":
    main()
