"""What a bridge is fitted and measured on: pins and texts like queries to learn from, other pins and other queries to be measured on.

No pin that is searched in the measurement teaches the bridge, nor does any sentence of it: a collection is mostly pins that no bridge has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

import numpy as np

from everpin.compared_texts import cxc_pins
from everpin.comparing import Text
from everpin.evaluation import Query, read_queries
from pins.changes import IndexedPin
from pins.errors import EverpinError
from pins.retrieval.language import guess_language
from pins.retrieval.late import sentences

SEARCHED = 5_000
"""Pins at most that the measurement searches."""
ASKED = 1_000
"""Held-out queries at most where nobody judged any and pins are asked for by a sentence of their own."""
PINS_SHARE = 4
"""One text in so many that a bridge is fitted on is a whole pin; the others are like queries."""
WORDS = 3
"""Words at least of a sentence that asks for its pin."""


@dataclass(frozen=True, slots=True)
class Material:
    """`pins` and `asked` (texts like queries) are fitted on; `queries` search `searched`, with grades of `judged`: `people`, or `known item`.

    In the last case a query is a sentence of a pin, and that pin is the one right answer.
    """

    pins: tuple[Text, ...]
    asked: tuple[Text, ...]
    searched: tuple[Text, ...]
    queries: tuple[Query, ...]
    judged: str


def of_data(folder: Path, extra: Sequence[Text], texts: int, seed: int) -> Material:
    """From a folder of the cxc layout: held-out queries are `dev`, and `train` ones are fitted on, where it has splits. Raises EverpinError."""
    fitted, searched = halves(cxc_pins(folder))
    searched = searched[:SEARCHED]
    queries = _answerable(read_queries(folder, None), {pin.name for pin in searched})
    train = _train(folder, {query.group for query in queries}) if queries else []
    return _material(fitted, searched, queries, [*extra, *train], "people", texts, seed)


def of_records(records: Iterable[IndexedPin], extra: Sequence[Text], texts: int, seed: int) -> Material:
    """From a collection's records, the first of them: points come in the order of hashes, so these are a random sample. Raises EverpinError."""
    live = (record for record in records if record.pin_id and record.embedded and not record.dead and record.text)
    pins = [_text(record) for record in islice(live, 2 * max(SEARCHED, texts))]
    fitted, searched = halves(pins)
    searched = searched[:SEARCHED]
    return _material(fitted, searched, known_items(searched, seed), extra, "known item", texts, seed)


def halves(pins: Sequence[Text]) -> tuple[list[Text], list[Text]]:
    """The pins that are fitted on and those that are searched, by a hash of their ids; a text that is in both is fitted on by nobody."""
    sides: tuple[list[Text], list[Text]] = [], []
    for pin in pins:
        sides[blake2b(pin.name.encode(), digest_size=1).digest()[0] & 1].append(pin)
    seen = {pin.text for pin in sides[1]}
    return [pin for pin in sides[0] if pin.text not in seen], sides[1]


def known_items(pins: Sequence[Text], seed: int) -> list[Query]:
    """For each of some pins a sentence of its own as the query."""
    random = np.random.default_rng(seed)
    long = ((pin, [sentence for sentence in sentences(pin.text) if len(sentence.split()) >= WORDS]) for pin in pins)
    asking = islice(((pin, some) for pin, some in long if some), ASKED)
    return [Query(pin.name, pin.name, pin.lang, some[int(random.integers(len(some)))], ((pin.name, 1.0, "own"),)) for pin, some in asking]


def reads(languages: Sequence[str]) -> Callable[[Text], bool]:
    """Whether a model of these languages reads a text; where neither the text's label nor its words tell the language, it does."""

    def readable(text: Text) -> bool:
        lang = guess_language(text.text) if text.lang == "?" else text.lang
        return lang is None or lang in languages

    return readable


def _material(
    fitted: Sequence[Text], searched: Sequence[Text], queries: Sequence[Query], extra: Sequence[Text], judged: str, texts: int, seed: int
) -> Material:
    held = {query.text for query in queries} | {sentence for pin in searched for sentence in sentences(pin.text)} | {pin.text for pin in searched}
    parts = (replace(pin, text=sentence) for pin in fitted for sentence in sentences(pin.text))
    asked = list({text.text: text for text in [*parts, *extra] if text.text not in held}.values())
    if not (fitted and asked and searched and queries):
        raise EverpinError(
            f"{len(fitted)} pins and {len(asked)} texts to fit a bridge on, {len(searched)} pins and {len(queries)} queries to measure it on: "
            "there must be some of each; fill the old collection, or give --data a folder of the cxc layout"
        )
    random = np.random.default_rng(seed)
    pins = _drawn(fitted, max(1, texts // PINS_SHARE), random)
    return Material(pins, _drawn(asked, max(1, texts - len(pins)), random), tuple(searched), tuple(queries), judged)


def _drawn(texts: Sequence[Text], most: int, random: np.random.Generator) -> tuple[Text, ...]:
    return tuple(texts[place] for place in random.permutation(len(texts))[:most])


def _answerable(queries: Sequence[Query], searched: set[str]) -> list[Query]:
    """The queries with their candidates among the searched pins, where one of them has a gain."""
    cut = (replace(query, candidates=tuple(one for one in query.candidates if one[0] in searched)) for query in queries)
    return [query for query in cut if any(grade > 0 for _, grade, _ in query.candidates)]


def _train(folder: Path, held: set[str]) -> list[Text]:
    """Queries of other groups than the held-out ones."""
    return [Text(query.query_id, query.text, query.lang, query.text) for query in read_queries(folder, "all") if query.group not in held]


def _text(record: IndexedPin) -> Text:
    return Text(record.pin_id, str(record.fields.get("title", "")), str(record.fields.get("lang") or "?"), record.text)
