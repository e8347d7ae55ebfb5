"""The model card of a published student: what it is for, what it was made from, how good it is and where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedder.artifact import read_manifest
from pins.manifest import Manifest
from pins.relevance import Level
from training.data import DataError
from training.folder import amend

CARD = "MODEL_CARD.md"
COLUMNS = {"ndcg@10": "nDCG@10", "ndcg@20": "nDCG@20", "p@8": "P@8", "recall@100": "recall@100", "accuracy": "five-level accuracy"}
CLASSES = {
    "open": "permissive licences",
    "sa": "share-alike licences (Creative Commons BY-SA and the like)",
    "research": "for research only: this student must not be shipped",
}
LIMITS = (
    "Short texts only: it sees the first {max_tokens} tokens of a text and nothing after them.",
    "It was judged on captions and queries of everyday photos (about ten words each); product search and long queries were not part of the figures above.",
    "Its levels are calibrated on grades of which two kinds agree on about half of all pairs: take a level as likely, not as certain.",
    "Languages other than {languages} may be read, but nothing is promised for them.",
    "It repeats what its texts and its teacher hold, biases included; do not rank people or decide about them with it.",
)


def write_card(folder: Path, notices: Sequence[Path], evaluation: Mapping[str, Any] | None) -> Manifest:
    """Write MODEL_CARD.md into a model folder and its hash into the manifest. Raises DataError when a notice cannot be read."""
    text = card(read_manifest(folder), {path.name: _text(path) for path in notices}, evaluation)
    return amend(folder, lambda fresh: _write(fresh / CARD, text), lambda manifest: manifest)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--notice {path} cannot be read: {error}; give a text file") from error


def card(manifest: Manifest, notices: Mapping[str, str], evaluation: Mapping[str, Any] | None) -> str:
    """The whole card in Markdown."""
    words = {"max_tokens": manifest.max_tokens, "languages": ", ".join(manifest.languages)}
    parts = [
        f"# {manifest.model_id}",
        f"A bi-encoder for pins and search queries: a text in, a unit vector of {manifest.dimension} numbers out. Cosines order pins by relevance; an ordinal "
        f"head turns a cosine into one of {len(Level)} levels. Precision {manifest.precision}, {manifest.metrics.get('model_megabytes', 0):.1f} MB.",
        "## Languages",
        words["languages"],
        "## Intended use",
        "Search, related pins and home feed over short texts with Everpin, which renders a pin's text in template "
        f"{manifest.template_version}. Text that was rendered otherwise is not what it was trained on.",
        "## Made from",
        _lineage(manifest),
        "## Training data",
        *_data(manifest, notices),
        "## Figures",
        *_figures(manifest, evaluation),
        "## Limits",
        "\n".join(f"- {limit.format(**words)}" for limit in LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _lineage(manifest: Manifest) -> str:
    facts = {"weights": manifest.source, "digest of the weights": manifest.data_digest, "teacher": manifest.teacher or "none"}
    if manifest.lineage is not None:
        facts |= {"labels": "none" if manifest.lineage.labels is None else ", ".join(f"{name} {value}" for name, value in manifest.lineage.labels.items())}
        facts |= {f"digest of {name}": digest for name, digest in manifest.lineage.data_digests.items()}
        facts |= {f"seed of the {stage}": str(seed) for stage, seed in manifest.lineage.seeds.items()}
        facts |= {"code version": manifest.lineage.code_version}
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts.items())])


def _data(manifest: Manifest, notices: Mapping[str, str]) -> list[str]:
    if manifest.lineage is None:
        known = "Nothing is recorded of the texts it was trained on beyond the weights named above."
    else:
        classes = (f"`{name}`: {CLASSES.get(name, 'see the notices')}" for name in manifest.lineage.licence_classes)
        known = "Licence classes of the texts: " + "; ".join(classes) + "."
    return [known, *(f"Acknowledgements, from {name}:\n\n```text\n{text}\n```" for name, text in notices.items())]


def _figures(manifest: Manifest, evaluation: Mapping[str, Any] | None) -> list[str]:
    said = []
    if evaluation is not None:
        data = evaluation["data"]
        said.append(f"On {data['folder']}, split {data['split']} (digest {data['digest'][:12]}), with 95 % intervals by bootstrap over query groups:")
        rows = {**evaluation["languages"], **({"mean of the others": evaluation["mean_other"]} if evaluation["mean_other"] else {})}
        shown = [name for name in COLUMNS if any(name in figures for figures in rows.values())]
        lines = ["| language | queries | " + " | ".join(COLUMNS[name] for name in shown) + " |", "|---|---|" + "---|" * len(shown)]
        lines += [
            "| " + " | ".join([lang, str(figures.get("queries", "")), *(_interval(figures.get(name)) for name in shown)]) + " |"
            for lang, figures in rows.items()
        ]
        said.append("\n".join(lines))
    said.append("Measured at export and calibration:")
    said.append("\n".join(["| | |", "|---|---|", *(f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items())]))
    if manifest.drift is not None:
        bound = manifest.drift
        said.append(
            f"Edits predicted to move the vector by at most {bound.threshold:.4f} keep it; at most {bound.risk:.0%} of them move it by more than {bound.bound}."
        )
    return said


def _interval(figure: Mapping[str, float] | None) -> str:
    return "" if figure is None else f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
