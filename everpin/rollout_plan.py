"""What a rollout will take, measured on this installation before it begins: pins, time, cost and disk; and how alike the two models answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from embedder.artifact import open_artifact
from embedder.query import QueryEncoder
from everpin.loading import feature_store
from everpin.rollouts import Rollouts
from everpin.settings import Settings
from everpin.wiring import build_encoder
from pins.errors import EverpinError
from pins.ports import PinIndex
from pins.text import choose_queries

MEASURED = 64
"""Texts that are encoded to measure throughput."""
RECORD_BYTES = 1200
"""Of a record beside its vector and its text: payload, ids and BM25 terms, as measured on the sample pins."""
PATH_SHARE = 0.85
"""Of the encoder's own throughput that a backfill reaches: bench/backfill.json."""
OVERLAP_AT = 10
CANDIDATE_PINS = 400
"""Pins whose searches are looked at until there are enough queries."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`texts_per_s` is of one worker's encoder on this machine; `disk_bytes` is what the new collection adds."""

    candidate: str
    previous: str
    pins: int
    texts_per_s: float
    workers: int
    seconds: float
    core_hours: float
    cost: float
    disk_bytes: int


def plan(rollouts: Rollouts, candidate: Settings, workers: int, price: float) -> Plan:
    """Measure the candidate's encoder on texts of the live collection. `price` is that of one core for an hour. Raises EverpinError."""
    encoder = build_encoder(candidate)
    live = rollouts.place.live()
    with rollouts.open(live) as index:
        counts = index.counts()
        texts = [record.text for record in next(iter(index.scan(batch=MEASURED)), []) if record.text and not record.dead] or ["an empty installation"]
    encoder.encode(texts[:8])
    began = time.perf_counter()
    encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - began)
    pins = counts["live"] + counts["textless"]
    seconds = pins / (rate * PATH_SHARE * workers)
    core_hours = seconds * candidate.threads * workers / 3600
    mean_bytes = sum(len(text.encode()) for text in texts) / len(texts)
    disk = round(pins * (4 * encoder.dimension + RECORD_BYTES + mean_bytes))
    return Plan(encoder.model_id, live, pins, rate, workers, seconds, core_hours, core_hours * price, disk)


@dataclass(frozen=True, slots=True)
class Alike:
    """How alike two models answer: mean overlap of the first ten over `queries` searches that people made."""

    queries: int
    overlap_at_10: float
    least: float


def alike(rollouts: Rollouts, models: tuple[Settings, Settings], most: int = 40) -> Alike | None:
    """Ask both collections the searches that lead to pins, from Feast. None where Feast knows of no search. Raises EverpinError."""
    queries = list(islice(live_queries(rollouts, models[0]), most))
    if not queries:
        return None
    answers = []
    for config in models:
        encoder = QueryEncoder(build_encoder(config))
        with rollouts.open(encoder.model_id) as index:
            answers.append([_first(index, encoder, query) for query in queries])
    shares = [len(old & new) / max(len(old), len(new), 1) for old, new in zip(*answers, strict=True)]
    return Alike(len(queries), float(np.mean(shares)), float(np.min(shares)))


def live_queries(rollouts: Rollouts, config: Settings) -> Iterator[str]:
    """Searches that led people to pins of the live collection, each once."""
    seen: set[str] = set()
    with feature_store(config) as features, rollouts.open(rollouts.place.live()) as index:
        records = next(iter(index.scan(batch=CANDIDATE_PINS)), [])
        found = features.of([record.pin_id for record in records if record.pin_id and not record.dead])
    for pin in found.values():
        for query in choose_queries(pin.engaged_queries):
            if query not in seen:
                seen.add(query)
                yield query


def canary_cosine(config: Settings) -> float:
    """The least cosine of the model's golden texts, encoded here and now, to their reference vectors. Raises EverpinError."""
    artifact = open_artifact(config.model)
    return float(build_encoder(config, artifact).golden_cosines(artifact).min())


def _first(index: PinIndex, encoder: QueryEncoder, query: str) -> set[str]:
    return {hit.pin_id for hit in index.search(encoder.query(query), OVERLAP_AT)}


def readable_bytes(number: int) -> str:
    """12.3 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def readable_seconds(seconds: float) -> str:
    """2 h 5 min, or 3 min 10 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def share(words: str) -> float:
    """`5` or `5%` as 0.05. Raises EverpinError."""
    try:
        percent = float(words.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise EverpinError(f"--canary {words}: write per cent of the traffic, 0 to 100, such as 5")
    return percent / 100
