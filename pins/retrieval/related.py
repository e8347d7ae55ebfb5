"""Related pins: the neighbours of a pin in its model's collection, each with the reason in words.

What is near comes first. Pins of the pin's own language come before those of another, which follow where the own language has no more that are
related at all; so a page changes its language only when it must. A category in common decides between pins that are about as near. What people
saved together with the pin moves up by a bonus, but brings in nothing that is not near: a save tells of the person as well as of the pin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pins.changes import IndexedPin
from pins.errors import PinNotFound
from pins.ports import Ask, Hit, PinIndex, Vector, Where
from pins.retrieval.diversity import Folded, fold_duplicates, mmr
from pins.retrieval.results import Stage, untimed

RELATED_COSINE = 0.5
"""Pins at least this near are related: 96 % of the pairs of cxc_pins that people call similar (grade 3 or 4) are, and 13 % of those they call unlike
(grade 0 or 1), by the vectors of everpin-l6-v1."""
VERY_NEAR_COSINE = 0.75
"""The median of the pairs that people call similar."""
CATEGORY_BONUS = 0.02
"""Cosine that a category in common is worth: about one place among the five nearest pins of cxc_pins."""
COSAVE_HALF = 3.0
"""Co-saves that earn half of the bonus: one person's shelf is little evidence, the hundredth adds nothing to the fiftieth."""


@dataclass(frozen=True, slots=True)
class RelatedOptions:
    """How to look for related pins. Filters in `where` hold for every result; one on the language takes the place of the rule above.

    `depth`: neighbours asked for, and at most, results; never less than `limit`, the results of one page. `diversity`, 0 to 1: see
    `pins.retrieval.diversity.mmr`. `cosave_weight`: cosine that the most co-saved pins gain, see `related_pins`.
    """

    limit: int = 20
    where: Where = Where()  # noqa: RUF009  frozen
    diversity: float = 0.0
    cosave_weight: float = 0.15
    depth: int = 100

    @property
    def results(self) -> int:
        """Results of an answer, at most."""
        return max(self.depth, self.limit)


@dataclass(frozen=True, slots=True)
class Related:
    """One related pin. `score`: what it is ordered by among pins of its kind, the cosine with its bonuses; `why` in words."""

    hit: Hit
    cosine: float
    score: float
    why: str
    cosaves: float = 0.0
    duplicates: tuple[str, ...] = ()

    @property
    def pin_id(self) -> str:
        return self.hit.pin_id


@dataclass(frozen=True, slots=True)
class RelatedPins:
    """The pin that was asked about, its near-duplicates, which are left out, and its related pins, best first."""

    pin: IndexedPin
    duplicates: tuple[str, ...]
    results: Sequence[Related]


def related_pins(
    pin_id: str, index: PinIndex, options: RelatedOptions = RelatedOptions(), cosaves: Mapping[str, float] | None = None, stage: Stage = untimed
) -> RelatedPins:
    """Pins like a pin. Everything is read now, so a pin embedded a moment ago has related pins and is one.

    `cosaves`: how many people saved each pin as well as this one. A pin's score is its cosine, plus CATEGORY_BONUS for the same category, plus
    cosave_weight * c / (c + COSAVE_HALF) for c co-saves. Stages: retrieve, rerank, fold. Raises PinNotFound, whose `reason` says which it is.
    """
    with stage("retrieve"):
        pin, vector = _source(pin_id, index)
        hits = _neighbours(pin, vector, index, options)
    with stage("rerank"):
        vectors = np.array([hit.vector for hit in hits], np.float32).reshape(len(hits), len(vector))
        scores = [_score(pin, hit, options, cosaves or {}) for hit in hits]
        kinds = [_kind(pin, hit, options.where) for hit in hits]
        order: list[int] = np.lexsort(([hit.pin_id for hit in hits], [-score for score in scores], kinds)).tolist()
    with stage("fold"):
        folded = fold_duplicates(vectors, order, shown=vector[None])
        shown = _diverse(folded, kinds, scores, vectors, options)
        results = [_related(pin, hits, folded, number, scores, cosaves or {}) for number in shown]
    return RelatedPins(pin, tuple(hits[place].pin_id for place in folded.of_shown), results)


def _source(pin_id: str, index: PinIndex) -> tuple[IndexedPin, Vector]:
    pin = index.known([pin_id]).get(pin_id)
    if pin is None:
        raise PinNotFound(f"pin {pin_id!r} is unknown to {index.model_id}: it never had an event, or it has not arrived yet", "unknown")
    if pin.dead:
        raise PinNotFound(f"pin {pin_id!r} was deleted; what is left in {index.model_id} is a tombstone", "deleted")
    vector = index.vectors([pin_id]).get(pin_id)
    if vector is None:
        raise PinNotFound(f"pin {pin_id!r} has no text to embed, so nothing is near it; give it a title or a caption", "no_text")
    return pin, vector


def _neighbours(pin: IndexedPin, vector: Vector, index: PinIndex, options: RelatedOptions) -> list[Hit]:
    """Of the pin's language and of any, in one round trip; a filter on the language, or a pin without one, leaves a single search."""
    where = replace(options.where, without=options.where.without | {pin.pin_id})
    lang = str(pin.fields.get("lang") or "")
    wheres = [where] if where.lang or not lang else [replace(where, lang=lang), where]
    answers = index.ask([Ask(options.results, vector=vector, where=one) for one in wheres])
    return list({hit.pin_id: hit for hits in answers for hit in hits if hit.vector is not None}.values())


def _score(pin: IndexedPin, hit: Hit, options: RelatedOptions, cosaves: Mapping[str, float]) -> float:
    together = cosaves.get(hit.pin_id, 0.0)
    return hit.score + CATEGORY_BONUS * bool(_common(pin, hit, "category")) + options.cosave_weight * together / (together + COSAVE_HALF)


def _kind(pin: IndexedPin, hit: Hit, where: Where) -> int:
    """0: related and readable to who reads the pin; 1: related, in another language; 2: merely the nearest there is."""
    if hit.score < RELATED_COSINE:
        return 2
    return int(where.lang is None and _other_language(pin, hit))


def _other_language(pin: IndexedPin, hit: Hit) -> bool:
    mine, other = pin.fields.get("lang"), hit.fields.get("lang")
    return bool(mine and other) and mine != other


def _common(pin: IndexedPin, hit: Hit, name: str) -> str:
    value = pin.fields.get(name)
    return str(value) if value and value == hit.fields.get(name) else ""


def _diverse(folded: Folded, kinds: Sequence[int], scores: Sequence[float], vectors: Vector, options: RelatedOptions) -> list[int]:
    """Numbers of the kept places in the order to show, diverse within each kind."""
    shown: list[int] = []
    for kind in range(3):
        numbers = [number for number, place in enumerate(folded.kept) if kinds[place] == kind]
        places = [folded.kept[number] for number in numbers]
        shown += [numbers[turn] for turn in mmr([scores[place] for place in places], vectors[places], options.diversity)]
    return shown[: options.results]


def _related(pin: IndexedPin, hits: Sequence[Hit], folded: Folded, number: int, scores: Sequence[float], cosaves: Mapping[str, float]) -> Related:
    place = folded.kept[number]
    together = cosaves.get(hits[place].pin_id, 0.0)
    duplicates = tuple(hits[other].pin_id for other in folded.duplicates[number])
    return Related(hits[place], hits[place].score, scores[place], _why(pin, hits[place], together), together, duplicates)


def _why(pin: IndexedPin, hit: Hit, together: float) -> str:
    """The reason in words, strongest first."""
    near = "very close in meaning" if hit.score >= VERY_NEAR_COSINE else "close in meaning" if hit.score >= RELATED_COSINE else "the nearest there is"
    boards, category = _shared_boards(pin, hit), _common(pin, hit, "category")
    reasons = [near, f"saved together by {together:g}" if together else "", f"both on a board {boards[0]!r}" if boards else ""]
    reasons += [f"both in {category}" if category else "", f"in another language ({hit.fields['lang']})" if _other_language(pin, hit) else ""]
    return ", ".join(filter(None, reasons))


def _shared_boards(pin: IndexedPin, hit: Hit) -> list[str]:
    mine, others = (pins if isinstance(pins, (list, tuple)) else () for pins in (pin.fields.get("boards"), hit.fields.get("boards")))
    return [str(board) for board in mine if board in others]
