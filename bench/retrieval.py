"""nDCG@20 of search over a whole collection: dense, sparse, hybrid, re-ranked, with late interaction, per language, in the index that serves.

`python -m bench.retrieval DATA`, with DATA a folder of the cxc layout (items, queries and judgements as parquet). Every pin of it is searched;
a pin that nobody judged counts as grade 0, so the figures are lower bounds, and comparisons within one table are what they are good for. The
weights of fusion and re-ranking are chosen on the English train queries and reported on dev.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bench.machine import ROOT, machine, write
from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from embedder.query import QueryEncoder
from everpin.evaluation import Query, read_queries
from everpin.importers import PinRow, batches, read_cxc
from index.edge import EdgePinIndex
from index.points import TERMS
from pins.changes import IndexedPin, fingerprint, surface_fields
from pins.features import pin_features
from pins.lexical import terms_of_query
from pins.metrics import bootstrap, ndcg, paired_bootstrap
from pins.ports import Ask, PinIndex, PointWrite
from pins.retrieval.fusion import RRF_K, SPARSE_WEIGHT, candidates
from pins.retrieval.language import guess_language
from pins.retrieval.late import SentenceVectors
from pins.retrieval.rerank import LATE_DEPTH, LATE_WEIGHT, LEXICAL_WEIGHT, Ranking, by_fusion, by_late_interaction, by_relevance
from pins.retrieval.search import SearchOptions, search
from pins.text import render

K = 20
SYSTEMS = {
    "dense": SearchOptions(retrieval="dense", rerank="none"),
    "sparse": SearchOptions(retrieval="sparse", rerank="none"),
    "hybrid": SearchOptions(retrieval="hybrid", rerank="none"),
    "re-ranked": SearchOptions(retrieval="hybrid", rerank="relevance"),
    "late interaction": SearchOptions(retrieval="hybrid", rerank="late_interaction"),
}
COMPARED = (("hybrid", "dense"), ("hybrid", "sparse"), ("re-ranked", "dense"), ("re-ranked", "hybrid"), ("late interaction", "re-ranked"))
TRIED = {
    "SPARSE_WEIGHT": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
    "LEXICAL_WEIGHT": (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5),
    "LATE_WEIGHT": (0.0, 0.1, 0.2, 0.3, 0.5),
}
CHOSEN = {"SPARSE_WEIGHT": SPARSE_WEIGHT, "LEXICAL_WEIGHT": LEXICAL_WEIGHT, "LATE_WEIGHT": LATE_WEIGHT}
DEPTH = SearchOptions().depth


def pins_of(folder: Path, model_id: str) -> list[IndexedPin]:
    """The pins of the data as records that are yet to be embedded, rendered as the worker renders them."""
    found = []
    for row in read_cxc(folder):
        if not isinstance(row, PinRow):
            raise SystemExit(f"{folder} has a bad row: {row}")
        features = pin_features(row.pin_id, {name: value for view in row.rows(1) for name, value in view.values.items()}, {})
        text = render(features)
        found.append(
            IndexedPin(row.pin_id, 1, False, True, model_id, text=text.text, fingerprint=fingerprint(text.text), fields=surface_fields(features, text))
        )
    return found


def filled(folder: Path, encoder: OnnxEncoder, work: Path) -> EdgePinIndex:
    """An index of every pin. Kept in `work` under a digest of the texts and the model, so that only the first run embeds."""
    pins = pins_of(folder, encoder.model_id)
    digest = blake2b("\n".join([encoder.model_id, TERMS, *(f"{pin.pin_id} {pin.fingerprint}" for pin in pins)]).encode(), digest_size=8).hexdigest()
    index = EdgePinIndex(work / digest, encoder.model_id, encoder.dimension)
    there = set(index.vectors([pin.pin_id for pin in pins]))
    missing = [pin for pin in pins if pin.pin_id not in there]
    with tqdm(total=len(missing), desc="embedding pins", disable=not missing) as progress:
        for some in batches(missing):
            index.write([PointWrite(pin, None, vector) for pin, vector in zip(some, encoder.encode([pin.text for pin in some]), strict=True)])
            progress.update(len(some))
    index.flush()
    return index


def scored(query: Query, ranked: Sequence[str]) -> float:
    """nDCG@20 of a ranking of pin ids, against the best ranking of every pin that was judged for the query."""
    grades = {pin_id: grade for pin_id, grade, _ in query.candidates}
    shown = [grades.get(pin_id, 0.0) for pin_id in ranked[:K]]
    rest = [grade for pin_id, grade in grades.items() if pin_id not in set(ranked[:K])]
    return ndcg([*shown, *[0.0] * (K - len(shown)), *rest], K)


def answered(queries: Sequence[Query]) -> list[Query]:
    """The queries that have a pin of some gain; without one nDCG says nothing."""
    return [query for query in queries if any(grade > 0 for _, grade, _ in query.candidates)]


def measure(queries: Sequence[Query], encoder: QueryEncoder, index: PinIndex, late: SentenceVectors) -> dict[str, list[float]]:
    """nDCG@20 of every system on every query, in their order."""
    return {
        name: [scored(query, [found.pin_id for found in search(query.text, encoder, index, options, late)]) for query in tqdm(queries, desc=name)]
        for name, options in SYSTEMS.items()
    }


def languages(queries: Sequence[Query], figures: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Per language: each system's mean with its 95 % interval, and the differences of systems with theirs, by bootstrap over groups."""
    table = {}
    for lang in sorted({query.lang for query in queries}):
        rows = [row for row, query in enumerate(queries) if query.lang == lang]
        groups = [queries[row].group for row in rows]
        mine = {name: [values[row] for row in rows] for name, values in figures.items()}
        table[lang] = {
            "queries": len(rows),
            "ndcg@20": {name: asdict(bootstrap(values, groups)) for name, values in mine.items()},
            "differences": {f"{first} - {second}": asdict(paired_bootstrap(mine[first], mine[second], groups)) for first, second in COMPARED},
        }
    return table


def guesses(queries: Sequence[Query]) -> dict[str, Any]:
    """How often the language of a query is guessed right, not told, or guessed wrong."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for query in queries:
        guess = guess_language(query.text)
        counts[query.lang]["right" if guess == query.lang else "not told" if guess is None else "wrong"] += 1
    return {lang: {"queries": found.total(), **{name: found[name] for name in ("right", "not told", "wrong")}} for lang, found in sorted(counts.items())}


def tune(queries: Sequence[Query], encoder: QueryEncoder, index: PinIndex, late: SentenceVectors) -> dict[str, dict[str, float]]:
    """Mean nDCG@20 of each weight tried, the others at their values: of fusion without re-ranking, of re-ranking, of late interaction."""
    figures: dict[str, dict[float, list[float]]] = {name: {weight: [] for weight in weights} for name, weights in TRIED.items()}
    for query in tqdm(queries, desc="tuning on train"):
        vector, terms = encoder.query(query.text), terms_of_query(query.text)
        dense, sparse = index.ask([Ask(DEPTH, vector=vector), Ask(DEPTH, terms=terms)])
        found, head, size = candidates(vector, dense, sparse), encoder.ordinal_head, len(terms.ids)
        makers: dict[str, Callable[[float], Ranking]] = {
            "SPARSE_WEIGHT": lambda weight: by_fusion(candidates(vector, dense, sparse, weight), head),  # noqa: B023  called at once
            "LEXICAL_WEIGHT": lambda weight: by_relevance(found, head, size, weight),  # noqa: B023
            "LATE_WEIGHT": lambda weight: by_late_interaction(found, head, size, vector, late, index, weight),  # noqa: B023
        }
        for name, weights in TRIED.items():
            for weight in weights:
                ranking = makers[name](weight)
                figures[name][weight].append(scored(query, [ranking.found.hits[place].pin_id for place in ranking.order]))
    return {name: {str(weight): round(statistics.mean(values), 5) for weight, values in by.items()} for name, by in figures.items()}


def main() -> None:
    """Measure and write bench/retrieval.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the cxc layout")
    parser.add_argument("--model", type=Path, default=ROOT / "everpin" / "models" / "everpin-l6-v1", help="model folder")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "everpin-bench-retrieval", help="where the filled index is kept")
    parser.add_argument("--quick", action="store_true", help="a smoke run on a few queries that writes nothing")
    arguments = parser.parse_args()
    student = OnnxEncoder(open_artifact(arguments.model), 2)
    encoder, late = QueryEncoder(student), SentenceVectors(student.encode, capacity=10_000)
    dev, train = (answered(read_queries(arguments.data, split)) for split in ("dev", "train"))
    train = [query for query in train if query.lang == "en"]
    if arguments.quick:
        dev, train = dev[::20], train[::100]
    index = filled(arguments.data, student, arguments.work)
    try:
        pins = index.counts()["live"]
        tuning = tune(train, encoder, index, late)
        figures = measure(dev, encoder, index, late)
    finally:
        index.close()
    body = {
        "command": "python -m bench.retrieval",
        "machine": machine("qdrant-edge-py", "onnxruntime", "tokenizers", "numpy"),
        "data": arguments.data.name,
        "model_id": student.model_id,
        "pins": pins,
        "queries": len(dev),
        "metric": "nDCG@20 over all pins, gain 2^grade - 1, unjudged pins grade 0, own pin included; 95 % bootstrap by group",
        "constants": {"RRF_K": RRF_K, "LATE_DEPTH": LATE_DEPTH, "depth": DEPTH, **CHOSEN},
        "languages": languages(dev, figures),
        "tuning": {"split": "train", "lang": "en", "queries": len(train), "mean_ndcg@20": tuning, "chosen": CHOSEN},
        "language_guess": guesses(dev),
    }
    write("retrieval", body, quick=arguments.quick)


if __name__ == "__main__":
    main()
