"""Does the index say what the feature store says? The judgement of one pin: plain data in, one of a closed list of kinds out.

It is built on `decide`, so it can never disagree with the worker: what the worker would leave alone is no difference, except
where a record contradicts itself. Reading the stores, looking twice and mending: `everpin.reconciling`, `everpin.healing`.
"""

from __future__ import annotations

from hashlib import blake2b

from pins.changes import Action, IndexedPin, Remove, Skip, Student, decide, fingerprint, surface_fields
from pins.features import PinFeatures
from pins.text import TEMPLATE_VERSION, PinText

KINDS = {
    "missing": "the feature store has the pin, the index has not, or only its tombstone",
    "stale_text": "its vector is of a text that the pin no longer has",
    "stale_fields": "its vector is right, and fields that surfaces show or filter on are not",
    "wrong_model": "its vector is another model's",
    "wrong_template": "its text was rendered by another template",
    "wrong_vector": "its vector is not what the model makes of the recorded text, or is not there (`--vectors`)",
    "damaged": "its record has no usable version or fields, names another pin, or its text is not the one that was fingerprinted",
    "refused": "a newer text of it could not be embedded; the previous vector is served, and marked",
    "dead_but_served": "the feature store says that it is deleted, and the index serves it",
    "orphan": "the index serves it, and the feature store has no row of it",
}
"""Every kind of difference, with its meaning: a closed list."""
OF_REASON = {
    "new": "missing",
    "model_changed": "wrong_model",
    "template_changed": "wrong_template",
    "text_changed": "stale_text",
    "payload_only": "stale_fields",
}
FORCED = frozenset({"wrong_vector", "damaged"})
"""Kinds that a worker does not see in the record: their refresh asks for a new vector."""


def compare(pin: PinFeatures | None, text: PinText, known: IndexedPin | None, student: Student) -> str | None:
    """The kind of difference between a pin's features (None: no row in any view), rendered, and its record (None: none), or None."""
    action = decide(pin, text, known, student)
    if pin is None or pin.deleted:
        served = isinstance(action, Remove) and known is not None  # no record at all: the tombstone was swept
        return ("orphan" if pin is None else "dead_but_served") if served else None
    if known is None or known.dead:
        return "missing"
    if _damaged(known) or known.refused:
        return "damaged" if _damaged(known) else "refused"
    return _of_action(action, known.fields == surface_fields(pin, text), known.model_id == student.model_id)


def _of_action(action: Action, same_fields: bool, same_model: bool) -> str | None:
    if isinstance(action, Skip):
        return None
    if action.reason == "no_text":
        return "stale_text" if same_model else "wrong_model"
    if kind := OF_REASON.get(action.reason):
        return kind
    return None if same_fields else "stale_fields"  # the student cannot see the change of text, people can see that of the title


def draw(pin_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on the pin and the seed alone, so that the same seed draws the same pins."""
    return int.from_bytes(blake2b(f"{seed}\n{pin_id}".encode(), digest_size=8).digest(), "big") / 2**64


def _damaged(known: IndexedPin) -> bool:
    other_text = known.template_version == TEMPLATE_VERSION and known.embedded and fingerprint(known.text) != known.fingerprint
    return not known.v or not known.model_id or other_text
