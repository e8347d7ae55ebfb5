"""A data folder of 60 pins, a word-counting student and a word-counting teacher: labelling in milliseconds."""

from __future__ import annotations

import json
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pins.text import render
from training.data import RelevanceData, read
from training.labels.candidates import Catalogue, Mix
from training.labels.plan import Job, Settings
from training.labels.queries import Wanted

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
THINGS = ("chair", "bicycle", "dress", "kitchen", "cake", "garden", "lamp", "dog", "boat", "shelf")
PINS = [f"{colour} {thing}" for colour, thing in product(COLOURS, THINGS)]
CHUNK = Settings(per_query=8, shard_queries=16)
"""Shards of 16 queries, so that a run of the toy folder has nine."""
THROUGH = Settings(per_query=8, shard_queries=16, wanted=Wanted(through_english=True))
SOURCES = {"weblog": {"cls": "open"}, "wiki": {"cls": "sa"}, "papers": {"cls": "research"}}


def write_data(folder: Path, dev_every: int = 5) -> Path:
    """Each pin has an English, a German and a Japanese query of one group; every fifth group is dev. 6 judged pins a query."""
    folder.mkdir(parents=True)
    items = [{"item_id": f"p{number}", "lang": "en", "title": text, "caption": f"a photo of a {text}"} for number, text in enumerate(PINS)]
    queries, judgements = [], []
    for number, text in enumerate(PINS):
        split = "dev" if number % dev_every == 0 else "train"
        photo = "photo " if number % 3 == 2 else ""  # a word that all pins hold: such queries are the head
        said = {"en": f"one {photo}{text} alone", "de": f"ein {text[::-1]} allein", "ja": f"写真 {number} 赤い椅子"}
        for lang, words in said.items():
            query_id = f"q{number}{lang}"
            queries.append({"query_id": query_id, "group": f"g{number}", "lang": lang, "query": words, "split": split})
            for step in range(6):
                source, grade = ("own", 4) if step == 0 else ("sis", (number + step) % 4)
                judgements.append({"query_id": query_id, "item_id": f"p{(number + 7 * step) % len(PINS)}", "grade": grade, "source": source})
    for name, rows in {"items": items, "queries": queries, "judgements": judgements}.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def write_log(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_sources(path: Path) -> Path:
    path.write_text(json.dumps(SOURCES))
    return path


def encode(texts: list[str]) -> np.ndarray:
    """Unit vectors of 64 numbers: sums of one fixed random direction per word."""
    rows = [sum(np.random.default_rng(zlib.crc32(word.encode())).normal(size=64) for word in [*text.lower().split(), "."]) for text in texts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


class CountingTeacher:
    """Level probabilities by shared words. `asked` keeps every pair it was given. As a real teacher it can be asked for a head; it has its main one only."""

    teacher_id = "counting-1"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def predict(self, queries, texts, progress=True, head=None):
        assert head is None
        self.asked += zip(queries, texts, strict=True)
        shared = [len(set(query.split()) & set(text.replace(".", " ").split())) for query, text in zip(queries, texts, strict=True)]
        logits = -np.abs(np.arange(5) - np.minimum(shared, 4)[:, None]).astype(float)
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def catalogue(data: RelevanceData, mix: Mix | None = None) -> Catalogue:
    texts = [render(pin).text for pin in data.pins]
    return Catalogue(texts, [pin.lang for pin in data.pins], encode(texts), encode, mix)


def job(folder: Path, settings: Settings | None = None, **more) -> Job:
    data = read(folder)
    return Job(data, catalogue(data), "words", settings=settings or Settings(per_query=8, shard_queries=16), **more)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder of labels but the lock."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != ".lock"}
