"""When must a vector change? The record of what was embedded, and `decide`: plain data in, plain data out.

Rules, in order (docs/adr/0001): a deleted pin leaves a tombstone; a pin with nothing to embed leaves a record without a
vector; no live record, another model or another template is embedded; equal text is at most a payload write; differing
text that the student cannot see, or that moves its vector less than its published bound, keeps the vector. Drift is always
predicted against the text last EMBEDDED, never last seen, so that small changes cannot add up unseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NewType, Protocol

from pins.features import PinFeatures
from pins.text import TEMPLATE_VERSION, PinText, clean

Fingerprint = NewType("Fingerprint", str)


def fingerprint(text: str) -> Fingerprint:
    """128 bits, in hex, of the rendered text and the template that made it."""
    return Fingerprint(blake2b(f"{TEMPLATE_VERSION}\n{text}".encode(), digest_size=16).hexdigest())


@dataclass(frozen=True, slots=True)
class IndexedPin:
    """The record of one pin in the index: what was embedded, when, why and from which features.

    `text` is the text last embedded and `fingerprint` its fingerprint; `seen` is the fingerprint of the text last seen,
    which differs after a cosmetic change. `v` orders the writes of one pin. `fields` is what surfaces filter on and show.
    `refused`: the reason why a newer text of the pin could not be embedded; its previous vector is then served, and marked.
    """

    pin_id: str
    v: int
    dead: bool
    embedded: bool
    model_id: str
    template_version: int = TEMPLATE_VERSION
    text: str = ""
    fingerprint: str = ""
    seen: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    embedded_at_us: int = 0
    as_of: Mapping[str, int] = field(default_factory=dict)
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Embed:
    """Write a new vector."""

    reason: str


@dataclass(frozen=True, slots=True)
class Touch:
    """Write the record without calling the encoder, with the vector that is there (or, for `no_text`, without one).

    `settled`: the vector stands for the new text exactly, so the new text becomes the one last embedded.
    """

    reason: str
    settled: bool = True


@dataclass(frozen=True, slots=True)
class Remove:
    """Leave a tombstone."""

    reason: str = "deleted"


@dataclass(frozen=True, slots=True)
class Skip:
    """Write nothing."""

    reason: str


Action = Embed | Touch | Remove | Skip

REASONS = {
    "new": "the pin was not in the index",
    "model_changed": "its vector was another model's",
    "template_changed": "its text was rendered by another template",
    "text_changed": "its text changed in meaning",
    "reembedded": "somebody asked for a new vector",
    "no_text": "there is nothing to embed",
    "unchanged": "nothing that is indexed has changed",
    "payload_only": "only fields beside the text changed",
    "same_tokens": "the text changed in a way the student cannot see",
    "cosmetic": "the text changed less than the student's published bound",
    "deleted": "the pin is deleted, or was never there",
    "vanished": "the index had the pin, and the feature store has no row of it, not even a deletion",
    "stale": "another worker's newer snapshot was there first, with the same text",
}
"""Every outcome of a pin, with its meaning: a closed list."""


class Student(Protocol):
    """What a decision asks of the live student. `drift_threshold` is None where cosmetic changes must be embedded."""

    @property
    def model_id(self) -> str: ...
    @property
    def drift_threshold(self) -> float | None: ...
    def same_tokens(self, before: str, after: str) -> bool: ...
    def drift(self, before: str, after: str) -> float: ...


def surface_fields(pin: PinFeatures, text: PinText) -> dict[str, Any]:
    """The payload beside the text: what surfaces show and filter on. Counters stay out, or every like would be a write."""
    return {
        "title": clean(pin.title),
        "category": pin.category,
        "lang": pin.lang,
        "boards": list(text.boards),
        "created_at_us": pin.created_at_us,
        "image_url": pin.image_url,
        "link_url": pin.link_url,
    }


def decide(pin: PinFeatures | None, text: PinText, known: IndexedPin | None, student: Student, *, reembed: bool = False) -> Action:
    """What to do about a pin, given its features now (None: never there), its rendered text and its record (None: none).

    `reembed`: somebody asked for a new vector, so an unchanged text is embedded too.
    """
    if pin is None or pin.deleted:
        return _decide_gone(pin, known)
    live = known if known and not known.dead else None
    mine = live if live and live.model_id == student.model_id and live.template_version == TEMPLATE_VERSION else None
    same_fields = mine is not None and mine.fields == surface_fields(pin, text) and not mine.refused
    now = fingerprint(text.text)
    if mine and text and reembed:
        return Embed("reembedded")
    if mine and now in (mine.fingerprint, mine.seen) and mine.embedded == bool(text):
        return Skip("unchanged") if same_fields else Touch("payload_only", settled=now == mine.fingerprint)
    if not text:
        return Touch("no_text")
    if mine is None:
        return Embed("new" if live is None else "model_changed" if live.model_id != student.model_id else "template_changed")
    return _decide_text(text.text, mine, student)


def _decide_gone(pin: PinFeatures | None, known: IndexedPin | None) -> Action:
    if known and known.dead:
        return Skip("deleted")
    return Remove("vanished" if pin is None and known else "deleted")


def _decide_text(text: str, mine: IndexedPin, student: Student) -> Action:
    if not mine.embedded:
        return Embed("text_changed")
    if student.same_tokens(mine.text, text):
        return Touch("same_tokens")
    if student.drift_threshold is not None and student.drift(mine.text, text) <= student.drift_threshold:
        return Touch("cosmetic", settled=False)
    return Embed("text_changed")
