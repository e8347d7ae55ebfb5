"""What the index should hold: every pin's features read again, rendered, and embedded from scratch by the real student.

It shares no code with the write side but `render`, `fingerprint` and the encoder, whose own truth the golden tests hold.
Bounded: pins are compared in batches, so memory does not grow with their number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedder.onnx import OnnxEncoder
from pins.changes import Fingerprint, IndexedPin, fingerprint, surface_fields
from pins.features import FeatureRow, PinFeatures, pin_features
from pins.ports import FeatureSource, PinIndex, Vector
from pins.text import TEMPLATE_VERSION, render

BATCH = 128
SAME_VECTOR = 0.9999
"""Cosine below which two vectors are of different texts: batches of another composition move one by less than 1e-5."""
FAULTS = {
    "missing": "live in Feast, and the index has no record of it",
    "lost": "live in Feast, and the index holds a tombstone",
    "stale": "the vector is of an older text (and the newer one was not judged cosmetic)",
    "stale_fields": "what surfaces show and filter on is not what Feast says",
    "resurrected": "deleted in Feast, and the index serves it or still keeps its vector",
    "wrong_model": "the record is another model's or another template's",
    "wrong_vector": "the vector is not that of the text the record claims",
    "wrong_cosmetic": "the text was judged cosmetic, and the student's published bound says otherwise",
    "foreign": "the index serves a pin that Feast has never had",
}


@dataclass
class Verdict:
    """How many pins were compared, and the ids of those at fault, by fault."""

    pins: int = 0
    live: int = 0
    dead: int = 0
    cosmetic: int = 0
    embedded_at_us: dict[str, int] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in FAULTS})

    @property
    def equal(self) -> bool:
        return self.pins > 0 and not any(self.faults.values())

    def worst(self) -> str:
        """The faults in one line."""
        return "; ".join(f"{len(ids)} {name} such as {ids[:3]}" for name, ids in self.faults.items() if ids) or "the index equals the oracle"


def compare(pin_ids: Iterable[str], features: FeatureSource, index: PinIndex, encoder: OnnxEncoder) -> Verdict:
    """Compare every pin, and look for records of pins that should not be there. Raises Unavailable."""
    verdict, expected = Verdict(), set(pin_ids)
    for some in _batches(sorted(expected)):
        _compare(some, features, index, encoder, verdict)
    for records in index.scan():
        verdict.faults["foreign"] += [record.pin_id for record in records if record.pin_id not in expected and not record.dead]
    return verdict


def _compare(pin_ids: Sequence[str], features: FeatureSource, index: PinIndex, encoder: OnnxEncoder, verdict: Verdict) -> None:
    truth, known, vectors = features.of(pin_ids), index.known(pin_ids), index.vectors(pin_ids)
    texts = [known[pin_id].text for pin_id in pin_ids if pin_id in vectors and pin_id in known]
    fresh: dict[Fingerprint, Vector] = dict(zip(map(fingerprint, texts), encoder.encode(texts), strict=True)) if texts else {}
    for pin_id in pin_ids:
        pin, record = truth.get(pin_id), known.get(pin_id)
        verdict.pins += 1
        gone = pin is None or pin.deleted
        verdict.dead += gone
        verdict.live += not gone
        found = _gone(record, vectors.get(pin_id)) if pin is None or pin.deleted else _live(pin, record, vectors.get(pin_id), fresh, encoder, verdict)
        for fault in found:
            verdict.faults[fault].append(pin_id)


def _gone(record: IndexedPin | None, vector: Vector | None) -> Iterator[str]:
    if (record and not record.dead) or vector is not None:
        yield "resurrected"


def _live(
    pin: PinFeatures, record: IndexedPin | None, vector: Vector | None, fresh: dict[Fingerprint, Vector], encoder: OnnxEncoder, verdict: Verdict
) -> Iterator[str]:
    if record is None or record.dead:
        yield "missing" if record is None else "lost"
        return
    if record.model_id != encoder.model_id or record.template_version != TEMPLATE_VERSION:
        yield "wrong_model"
    if record.embedded:
        verdict.embedded_at_us[record.pin_id] = record.embedded_at_us
    text = render(pin)
    now = fingerprint(text.text)
    if not _true_to_itself(record, vector, fresh):
        yield "wrong_vector"
    if now not in (record.fingerprint, record.seen):
        yield "stale"
    elif now != record.fingerprint:
        verdict.cosmetic += 1
        bound = encoder.drift_threshold
        if bound is None or (not encoder.same_tokens(record.text, text.text) and encoder.drift(record.text, text.text) > bound):
            yield "wrong_cosmetic"
    if dict(record.fields) != surface_fields(pin, text):
        yield "stale_fields"


def _true_to_itself(record: IndexedPin, vector: Vector | None, fresh: dict[Fingerprint, Vector]) -> bool:
    """Whether the record's fingerprint and vector are those of the text it claims."""
    if record.fingerprint != fingerprint(record.text) or record.embedded != bool(record.text):
        return False
    return vector is None if not record.text else vector is not None and float(np.dot(vector, fresh[fingerprint(record.text)])) >= SAME_VECTOR


def versions(rows: Iterable[FeatureRow]) -> int:
    """How many texts these rows make, one after the other in the order of their event times: embeds, if none were saved or repeated."""
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    texts: set[tuple[str, Fingerprint]] = set()
    for row in sorted(rows, key=lambda row: row.event_time_us):
        values[row.key] |= row.values
        pin = pin_features(row.key, values[row.key], {})
        if not pin.deleted and (text := render(pin).text):
            texts.add((row.key, fingerprint(text)))
    return len(texts)


def _batches(pin_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    yield from (pin_ids[start : start + BATCH] for start in range(0, len(pin_ids), BATCH))
