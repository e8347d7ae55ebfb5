"""Train a student: vocabulary, target space, static table, then alignment, anchors and relevance in one run.

1. A vocabulary of English and the other languages (`training.students.vocabulary`), where the base has none for them.
2. The target space: unit vectors of the target model for every English text, turned to their principal axes. A pin lies at a mix of
   the vector of its whole text and the centroid of its fields' vectors.
3. A static student, aligned with the targets; it is the speed end, and it tells where new tokens of a transformer start.
4. The student, static or a transformer: texts of other languages go where their English lies, English stays, and queries are moved so that
   cosines order pins as the teacher's labels say; an ordinal head turns the cosine into five levels.

Everything that took long is kept in the work folder, by what it was made of, so that a second run starts further on.
"""

from __future__ import annotations

import argparse
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from torch import nn

from pins.relevance import OrdinalHead
from pins.text import render
from training.calibrate_levels import fit_head
from training.corpora import Parallel, classes_of, read_parallel, read_texts, same_picture
from training.data import DataError, RelevanceData, read
from training.export import PROVISIONAL_HEAD
from training.label import Labels, read_labels
from training.source import resolve
from training.students.config import StudentConfig, load
from training.students.distill import Aligned, Relevant, learn
from training.students.model import Vectors, base_tokenizer, encode, principal_axes, save, static_student, static_table, transformer_student
from training.students.published import embed, open_student
from training.students.vocabulary import Vocabulary, choose, tokenizer_of
from training.teachers.features import sentences

SENTENCE_WORDS = 4
VOCABULARY_TEXTS = 70_000
"""Most texts a language that its tokens are learnt from: about as many for each."""


@dataclass(frozen=True, slots=True)
class Material:
    """Everything a student reads: aligned texts, English texts, and what a teacher or people say of queries and pins."""

    data: RelevanceData
    parallel: Parallel
    sentences: Parallel
    anchors: tuple[str, ...]
    vocabulary_texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Queries with up to k candidates: texts (n), `pins` (n, k) rows of pins, -1 where there is none, `levels` (n, k, 5) float32."""

    texts: list[str]
    pins: NDArray[np.int64]
    levels: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Targets:
    """Unit vectors of English texts in the target space: `vectors` float16 (n, d), `place` of each text, `axes` (d, d)."""

    vectors: NDArray[np.float16]
    place: dict[str, int]
    axes: Vectors

    def rows(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Row of each text."""
        return np.array([self.place[text] for text in texts], np.int64)


def gather(config: StudentConfig, data_home: Path, data: RelevanceData, seed: int) -> Material:
    """Read the texts of a configuration. Nothing of a language that is left out is ever trained on; its tokens are learnt all the same."""
    corpus = config.corpus
    pairs = read_parallel(data_home, config.taught, corpus.classes, corpus.parallel, seed)
    pictures = same_picture(data, config.taught)
    sentences = _sentences(pairs, corpus.sentences, seed)
    pairs += pictures
    for _ in range(corpus.same_picture):
        sentences += pictures
    english = sorted({text for text, _, _ in read_texts(data_home, ("en",), corpus.classes)} | {query.text for query in _english_queries(data)})
    chance = Random(seed)
    anchors = sorted({render(pin).text for pin in data.pins} | set(chance.sample(english, min(len(english), corpus.anchors))))
    return Material(data, pairs, sentences, tuple(anchors), tuple(_vocabulary_texts(config, data_home, data, seed)))


def _sentences(pairs: Parallel, most: int, seed: int) -> Parallel:
    long = np.array([text.count(" ") >= SENTENCE_WORDS - 1 for text in pairs.english], bool)
    chance = np.random.default_rng(seed)
    kept: list[int] = []
    for lang in sorted(set(pairs.lang.tolist())):
        rows = np.flatnonzero(long & (pairs.lang == lang))
        kept += sorted(chance.choice(rows, min(most, len(rows)), replace=False).tolist())
    return pairs.where(kept)


def _english_queries(data: RelevanceData) -> list[Any]:
    return [query for query in data.queries if query.lang == "en" and query.split == "train"]


def _vocabulary_texts(config: StudentConfig, data_home: Path, data: RelevanceData, seed: int) -> list[str]:
    by_lang: dict[str, list[str]] = defaultdict(list)
    pairs = read_parallel(data_home, config.languages, config.corpus.classes, VOCABULARY_TEXTS, seed)
    for text, lang in zip(pairs.texts, pairs.lang.tolist(), strict=True):
        by_lang[lang].append(text)
    for text, lang, _ in read_texts(data_home, config.languages, config.corpus.classes):
        by_lang[lang] += [text, text]
    for query in data.queries:
        if query.lang in config.taught and query.split == "train":
            by_lang[query.lang] += [query.text] * 10
    return [text for lang in sorted(by_lang) for text in by_lang[lang]]


def made_vocabulary(config: StudentConfig, material: Material, work: Path) -> tuple[Vocabulary, Tokenizer]:
    """The vocabulary and its tokeniser, from the work folder where they were made before."""
    base = base_tokenizer(config.base)
    english = sorted(set(material.parallel.english) | set(material.anchors))
    name = f"vocabulary-{_key(config.base, config.vocabulary, english, material.vocabulary_texts)}"
    if (work / f"{name}.npz").exists():
        kept = np.load(work / f"{name}.npz")
        vocabulary = Vocabulary(tuple(kept["tokens"].tolist()), kept["base"])
    else:
        vocabulary = choose(base, english, material.vocabulary_texts, config.vocabulary)
        np.savez_compressed(work / f"{name}.npz", tokens=np.array(vocabulary.tokens), base=vocabulary.base)
    return vocabulary, tokenizer_of(vocabulary, base)


def made_targets(config: StudentConfig, material: Material, work: Path) -> Targets:
    """The target space, from the work folder where it was made before."""
    texts = sorted(set(material.parallel.english) | set(material.anchors))
    path = work / f"targets-{_key(config.target or config.base, texts)}.npz"
    if path.exists():
        kept = np.load(path)
        turned, axes = kept["vectors"], kept["axes"]
    else:
        vectors = _embedded(config.target or config.base, texts)
        axes = principal_axes(vectors[:: max(1, len(vectors) // 50_000)])
        turned = np.asarray(vectors @ axes, np.float16)
        np.savez(path, vectors=turned, axes=axes)
    targets = Targets(turned, {text: row for row, text in enumerate(texts)}, axes)
    return _with_fields(config, targets, [render(pin).text for pin in material.data.pins], work) if config.fields else targets


def _with_fields(config: StudentConfig, targets: Targets, pins: Sequence[str], work: Path) -> Targets:
    """The targets, those of pins mixed with the centroid of their fields' vectors: it ranks better than the vector of the whole text,
    and a student learns to make it from the whole text alone."""
    parts = [sentences(text) for text in pins]
    unique = sorted({part for some in parts for part in some})
    path = work / f"fields-{_key(config.target or config.base, unique)}.npy"
    if not path.exists():
        np.save(path, _embedded(config.target or config.base, unique).astype(np.float16))
    vectors, place = np.load(path).astype(np.float32) @ targets.axes, {part: row for row, part in enumerate(unique)}
    centroids = _unit(np.stack([vectors[[place[part] for part in some]].mean(axis=0) for some in parts]))
    rows, mixed = targets.rows(pins), targets.vectors.copy()
    mixed[rows] = _unit((1 - config.fields) * targets.vectors[rows].astype(np.float32) + config.fields * centroids)
    return replace(targets, vectors=mixed)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)


def _embedded(target: str, texts: Sequence[str]) -> Vectors:
    folder = Path(target)
    if (folder / "manifest.json").exists():
        return embed(open_student(folder), texts, "targets")
    return encode(SentenceTransformer(resolve(target).place, device="cpu"), texts)


def human_candidates(data: RelevanceData, languages: Sequence[str], most: int, seed: int) -> Candidates:
    """People's grades of train queries as level distributions: a raw grade between two levels is shared between them."""
    pairs = data.pairs("train", languages)
    raw = np.where(np.isnan(pairs.raw), pairs.grade, np.minimum(pairs.raw, data.levels - 1)).astype(np.float32)
    low = np.clip(np.floor(raw), 0, data.levels - 2).astype(int)
    levels = np.zeros((len(pairs), data.levels), np.float32)
    np.put_along_axis(levels, low[:, None], (1 - (raw - low))[:, None], axis=1)
    np.put_along_axis(levels, low[:, None] + 1, (raw - low)[:, None], axis=1)
    texts = [query.text for query in data.queries]
    return _candidates(texts, pairs.query, pairs.pin, levels, most, seed)


def labelled_candidates(labels: Labels, data: RelevanceData, languages: Sequence[str], most: int, seed: int) -> Candidates:
    """A teacher's labels of queries in some languages; pins that the folder does not hold are left out."""
    place = {pin.pin_id: number for number, pin in enumerate(data.pins)}
    pin = np.array([place.get(item, -1) for item in labels.items], np.int64)[labels.item]
    spoken = np.array([query.lang in (*languages, "en") for query in labels.queries])[labels.query]
    keep = np.flatnonzero((pin >= 0) & spoken)
    if not len(keep):
        raise DataError(f"the labels of {labels.teacher_id} hold no pin of {data.folder} in {', '.join(languages)}; label that folder's pins")
    return _candidates([query.text for query in labels.queries], labels.query[keep], pin[keep], labels.levels[keep], most, seed)


def _candidates(texts: Sequence[str], query: NDArray[np.int64], pin: NDArray[np.int64], levels: NDArray[np.float32], most: int, seed: int) -> Candidates:
    chance = np.random.default_rng(seed)
    order = np.argsort(query, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(query[order])) + 1)
    pins, wanted = np.full((len(groups), most), -1, np.int64), np.zeros((len(groups), most, levels.shape[1]), np.float32)
    for row, some in enumerate(groups):
        chosen = some if len(some) <= most else chance.choice(some, most, replace=False)
        pins[row, : len(chosen)], wanted[row, : len(chosen)] = pin[chosen], levels[chosen]
    return Candidates([texts[query[some[0]]] for some in groups], pins, wanted)


def fit(config: StudentConfig, material: Material, candidates: Candidates | None, work: Path, seed: int) -> SentenceTransformer:
    """Train one student; `work` keeps what took long."""
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    vocabulary, tokenizer = made_vocabulary(config, material, work) if config.vocabulary else (None, None)
    targets = made_targets(config, material, work)
    anchors = list(material.anchors) + [render(pin).text for pin in material.data.pins] * (config.corpus.pins - 1)
    texts = {"align": list(material.parallel.texts), "anchor": anchors}
    rows = {"align": targets.rows(material.parallel.english), "anchor": targets.rows(anchors)}
    static = None if tokenizer is None else _static(config, tokenizer, targets, texts, rows, work, seed)
    if config.kind == "static" and static is not None:
        if candidates is None:
            return static
        student = static
    else:
        table = None if static is None else static_table(static)
        student = transformer_student(config.base, config.layers, config.max_tokens, targets.axes, work / f"start-{config.model_id}", vocabulary, table)
    texts["align"], rows["align"] = list(material.sentences.texts), targets.rows(material.sentences.english)
    losses: dict[str, nn.Module] = {name: Aligned(student, targets.vectors, rows[name], config.contrast, config.temperature) for name in rows}
    if candidates is not None:
        pins = np.asarray(targets.vectors[targets.rows([render(pin).text for pin in material.data.pins])], np.float32)
        fewest = -(-config.align.batch // len(candidates.texts))  # a set smaller than a batch would never be seen
        again = np.tile(np.arange(len(candidates.texts)), max(config.corpus.relevance, fewest))
        texts["relevance"] = [candidates.texts[row] for row in again]
        losses["relevance"] = Relevant(
            student, pins, candidates.pins[again], candidates.levels[again], config.relevance, PROVISIONAL_HEAD, config.negatives, config.temperature
        )  # type: ignore[arg-type]  # `none` comes without candidates
    seen = (candidates.texts, sha256(candidates.pins.tobytes() + candidates.levels.tobytes()).hexdigest()) if candidates else ()
    run = work / f"run-{config.model_id}-{_key(config.as_json(), texts, seen, seed)}"  # a checkpoint of other inputs is none of this run's
    learn(student, texts, losses, config.align, run, seed)
    return student


def _static(config: StudentConfig, tokenizer: Tokenizer, targets: Targets, texts: dict[str, list[str]], rows: dict[str, NDArray[np.int64]],
            work: Path, seed: int) -> SentenceTransformer:  # fmt: skip
    inputs = _key(
        config.vocabulary, config.static, sorted(tokenizer.get_vocab().items()), sorted(texts["align"]), config.contrast, config.corpus.pins, config.fields
    )
    folder = work / f"static-{inputs}"
    if (folder / "modules.json").exists():
        return SentenceTransformer(str(folder), device="cpu")
    static = static_student(tokenizer, targets.vectors.shape[1], seed)
    losses = {name: Aligned(static, targets.vectors, rows[name], config.contrast, config.temperature) for name in rows}
    learn(static, texts, losses, config.static, work / f"run-{folder.name}", seed)
    static.save(str(folder), create_model_card=False)
    return static


def level_head(student: SentenceTransformer, data: RelevanceData, languages: Sequence[str]) -> OrdinalHead:
    """The maximum-likelihood ordinal head on people's grades of train pairs."""
    pairs = data.pairs("train", (*languages, "en"))
    queries = encode(student, [query.text for query in data.queries])
    pins = encode(student, [render(pin).text for pin in data.pins])
    return fit_head(np.asarray(np.einsum("nd,nd->n", queries[pairs.query], pins[pairs.pin]), np.float64), pairs.grade)


def train(config: StudentConfig, data_home: Path, folder: Path, out: Path, work: Path, labels: Labels | None, seed: int) -> Path:
    """Train, fit the levels, write the student's folder. Raises DataError."""
    data = read(folder)
    if data.levels != len(PROVISIONAL_HEAD.thresholds) + 1:
        raise DataError(f"{folder} has {data.levels} levels; a student's ordinal head is trained on a folder with five")
    material = gather(config, data_home, data, seed)
    candidates = None
    if config.relevance != "none":
        spoken = ("en", *config.taught)
        wanted = labelled_candidates(labels, data, spoken, config.candidates, seed) if labels else human_candidates(data, spoken, config.candidates, seed)
        candidates = wanted
    student = fit(config, material, candidates, work, seed)
    save(student, out, level_head(student, data, config.taught), config.dimensions, ("en", *config.taught), _lineage(config, data_home, data, labels, seed))
    return out


def _lineage(config: StudentConfig, data_home: Path, data: RelevanceData, labels: Labels | None, seed: int) -> dict[str, Any]:
    known = classes_of(data_home)
    used = sorted({known[source] for source in known if known[source] in config.corpus.classes})
    version = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "teacher": labels.teacher_id if labels else "human grades",
        "labels": dict(labels.about) if labels else None,
        "data_digests": {data.folder.name: data.digest},
        "licence_classes": used,
        "seed": seed,
        "config": config.as_json(),
        "code_version": version or "unknown",
    }


def _key(*parts: Any) -> str:
    return sha256(repr(parts).encode()).hexdigest()[:12]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train_student",
        description="Train a student: a bi-encoder (or a static table of token vectors) that reads several languages and orders pins by relevance.",
        epilog="Next: python -m training.evaluate OUT --data DIR/cxc_pins, then python -m training.export --source OUT --out MODEL_FOLDER.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="what to train: a file of training/configs")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with cxc_pins/, parallel/, captions/ and sources.json")
    parser.add_argument("--graded", default="cxc_pins", metavar="NAME", help="folder in DIR with queries, pins and five levels of grades (default: cxc_pins)")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="a teacher's labels (training.label); people's grades where not given")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the student's folder")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keeps vocabularies, targets and checkpoints (default: OUT.work)")
    parser.add_argument("--steps", type=int, help="optimiser steps of [align] instead of the configuration's")
    parser.add_argument("--relevance", choices=("none", "kl", "margin_mse", "both"), help="loss on the labels instead of the configuration's, to compare them")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    config = load(args.config, **({"relevance": args.relevance} if args.relevance else {}))
    if args.steps:
        config = replace(config, align=replace(config.align, steps=args.steps))
    work = args.work or args.out.with_name(args.out.name + ".work")
    labels = read_labels(args.labels) if args.labels else None
    folder = train(config, args.data, args.data / args.graded, args.out, work, labels, args.seed)
    print(f"{folder}: trained; next: python -m training.evaluate {folder} --data {args.data / args.graded}")


if __name__ == "__main__":
    main()
