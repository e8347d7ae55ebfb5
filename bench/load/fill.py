"""The three settings: the sample pins, the 5,000 pins of cxc_pins, and 100,000 generated ones; with users, and pins for the writer to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from bench.sample import new_pin, rows
from everpin.importers import PinRow, read_cxc
from everpin.settings import Settings
from everpin.wiring import build_encoder, build_features, now_us, open_index
from index.points import point_id
from pins.changes import IndexedPin, fingerprint, surface_fields
from pins.events import PinUpdated
from pins.features import USER_VIEW, FeatureRow, PinFeatures, pin_features
from pins.indexer import PinIndexer
from pins.ports import Encoder, PinIndex, PointWrite, Vector
from pins.text import render

BATCH = 128
QUERIES, USERS, ACTIONS = 500, 200, 60
PROVED = 64
"""Generated pins, first in the order of point ids, that get the true vectors of their texts: a worker proves its model on some of those."""
WRITTEN = 500
"""How many pins the writer changes: the first of the sample or of cxc_pins; pins of its own beside generated ones, whose features are nowhere."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What can be asked about."""

    pins: Sequence[str]
    users: Sequence[str]
    queries: Sequence[str]
    written: Sequence[str]


def fill(config: Settings, count: int, cxc: Path | None) -> Filled:
    """Fill an empty installation: the pins of the sample, of `cxc`, or `count` generated ones and the writer's; and users."""
    encoder = build_encoder(config)
    features = build_features(config)
    with open_index(config, encoder.model_id, encoder.dimension, purpose="bench", own=True) as index:
        indexer = PinIndexer(features, encoder, index, now_us, config.vanished_limit)
        given = [row for row in read_cxc(cxc) if isinstance(row, PinRow)] if cxc else rows()
        events = [new_pin(f"p{number}", number) for number in range(WRITTEN)] if count else [_event(row) for row in given]
        for start in tqdm(range(0, len(events), BATCH), desc="pins embedded", unit=f"x{BATCH}"):
            report = indexer.apply(events[start : start + BATCH])
            if report.refused:
                raise RuntimeError(f"{len(report.refused)} pins of the setting were refused, the first because: {report.refused[0]}")
        ids = [pin.pin_id for pin in generate(index, encoder, count)] if count else [row.pin_id for row in given]
        users = [f"reader-{number}" for number in range(USERS)]
        features.write(list(histories(users, ids)))
        index.flush()
    features.close()
    return Filled(ids, users, queries(cxc), [event.pin_id for event in events][:WRITTEN])


def _event(row: PinRow) -> PinUpdated:
    at = now_us()
    return PinUpdated(row.pin_id, at, {feature.view: dict(feature.values) for feature in row.rows(at)})


def histories(users: Sequence[str], pins: Sequence[str]) -> Iterator[FeatureRow]:
    """Users with some interests each: runs of neighbours in the list of pins, which are of one subject in the sample and arbitrary otherwise."""
    chance, now = Random(3), now_us()
    for user in users:
        starts = [chance.randrange(len(pins)) for _ in range(chance.randint(1, 6))]
        saved = [pins[(chance.choice(starts) + chance.randrange(12)) % len(pins)] for _ in range(chance.randint(5, ACTIONS))]
        times = sorted(now - chance.randrange(80 * 86_400_000_000) for _ in saved)
        yield FeatureRow(USER_VIEW, user, now, {"pin_ids": saved, "actions": ["save"] * len(saved), "action_times_us": times})


def queries(cxc: Path | None) -> list[str]:
    """The pool of repeated queries: those of the folder, else captions of sample pins cut to some words."""
    if cxc:
        texts: list[str] = pq.read_table(cxc / "queries.parquet").column("query").to_pylist()
        return list(dict.fromkeys(text for text in texts if text and len(text) < 200))[:QUERIES]
    captions = [words for row in rows() if (words := (row.caption or row.title or "").split())]
    cut = [" ".join(words[start : start + 4]) for start in (0, 2) for words in captions if len(words) > start]
    return list(dict.fromkeys(cut))[:QUERIES]


def generate(index: PinIndex, encoder: Encoder, count: int) -> list[IndexedPin]:
    """Write `count` pins straight into the index: the title and caption of two sample pins, the vector of one of them turned at random."""
    now = now_us()
    base = [pin_features(row.pin_id, {name: value for feature in row.rows(now) for name, value in feature.values.items()}, {}) for row in rows()]
    vectors = encoder.encode([render(pin).text for pin in base])
    made = [_mixed(f"g{number}", base, number, encoder.model_id, now) for number in range(count)]
    true = {pin.pin_id for pin in sorted(made, key=lambda pin: point_id(pin.pin_id))[:PROVED]}
    proofs = dict(zip(sorted(true), encoder.encode([pin.text for pin in sorted(made, key=lambda pin: pin.pin_id) if pin.pin_id in true]), strict=True))
    chance = np.random.default_rng(7)
    pins = iter(enumerate(made))
    for _ in tqdm(range(0, count, BATCH), desc="pins generated", unit=f"x{BATCH}"):
        index.write([PointWrite(pin, None, proofs.get(pin.pin_id, _turned(vectors[number % len(base)], chance))) for number, pin in islice(pins, BATCH)])
    return made


def _mixed(pin_id: str, base: Sequence[PinFeatures], number: int, model_id: str, now: int) -> IndexedPin:
    one, other = base[number % len(base)], base[(number * 7 + number // len(base)) % len(base)]
    pin = PinFeatures(pin_id, one.title, other.description, f"{other.caption} {number}", lang=one.lang, category=one.category, created_at_us=now - number)
    text = render(pin)
    seen = fingerprint(text.text)
    return IndexedPin(
        pin_id, now, dead=False, embedded=True, model_id=model_id, text=text.text, fingerprint=seen, seen=seen, fields=surface_fields(pin, text),
        reason="new", embedded_at_us=now,
    )  # fmt: skip


def _turned(vector: Vector, chance: np.random.Generator) -> Vector:
    """A unit vector at a cosine of about 0.7 to `vector`."""
    noise = chance.normal(size=vector.shape).astype(np.float32)
    turned: Vector = vector + noise / np.linalg.norm(noise)
    return turned / np.linalg.norm(turned)
