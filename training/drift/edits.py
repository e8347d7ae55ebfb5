"""Edits that people and upstream systems make to pins, as (kind, before, after). Generated from real captions; no vectors.

Half of the kinds are cosmetic (punctuation, casing, a typo), half change what the pin says. `MEANINGFUL` kinds count as
meaningful however little the vector moves: a pin that turned from red to blue is another pin.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from pins.features import PinFeatures
from training.drift.words import BOILERPLATE, COLOURS, EMOJI, HASHTAGS, MODIFIERS, STOP, SYNONYMS, content_words

FIELDS = ("title", "description", "caption", "link_description")
CANDIDATES = 8
MEANINGFUL = {"negation", "colour"}

TextEdit = Callable[[Random, str], str | None]
PinEdit = Callable[[Random, PinFeatures, "Corpus"], PinFeatures | None]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of one pin."""

    kind: str
    before: PinFeatures
    after: PinFeatures


class Corpus:
    """Texts that edits borrow from: captions and engaged queries, found by a content word they share with the pin."""

    def __init__(self, pins: Sequence[PinFeatures], queries: Sequence[str]) -> None:
        self.captions = [text for pin in pins for text in (pin.title, pin.description, pin.caption, pin.link_description) if text]
        self.queries = list(queries)
        self._captions_with = _by_word(self.captions)
        self._queries_with = _by_word(self.queries)

    def caption(self, rng: Random, pin: PinFeatures) -> str:
        """A caption of some pin that shares a content word with this one, where there is one."""
        return self.captions[_related(rng, pin, self._captions_with, len(self.captions))]

    def query(self, rng: Random, pin: PinFeatures) -> str:
        """A search query that led to this pin: of some that share a word with it, the one with most of its words in the pin."""
        seen = set(content_words(f"{pin.title} {pin.caption} {pin.description}"))
        found = [self.queries[_related(rng, pin, self._queries_with, len(self.queries))] for _ in range(CANDIDATES)]
        return max(found, key=lambda query: len(seen & set(content_words(query))) / (len(query.split()) + 1))

    def board(self, rng: Random, pin: PinFeatures) -> str:
        """A board title: one to three content words of a related caption, sometimes with what boards are often called."""
        words = content_words(self.caption(rng, pin)) or ["home"]
        start = rng.randrange(len(words))
        return " ".join([*words[start : start + rng.randint(1, 3)], *rng.choice([[], [], ["ideas"], ["inspiration"], ["🌿"]])])


def _by_word(texts: Sequence[str]) -> dict[str, list[int]]:
    index: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        for word in set(content_words(text)):
            index.setdefault(word, []).append(place)
    return index


def _related(rng: Random, pin: PinFeatures, index: dict[str, list[int]], total: int) -> int:
    words = [word for word in content_words(f"{pin.title} {pin.caption} {pin.description}") if word in index]
    return rng.choice(index[rng.choice(words)]) if words else rng.randrange(total)


def furnished(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures:
    """The pin with generated boards and engaged queries, and some of its fields missing, as in a real catalogue."""
    shares = {"description": 0.6, "caption": 0.85, "link_description": 0.3}
    kept: dict[str, Any] = {name: getattr(pin, name) if rng.random() < share else "" for name, share in shares.items()}
    boards = tuple(corpus.board(rng, pin) for _ in range(rng.choice([0, 0, 1, 2, 4, 8])))
    queries = tuple((corpus.query(rng, pin), float(rng.randint(1, 200))) for _ in range(rng.choice([0, 0, 1, 3, 6, 15])))
    return replace(pin, **kept, board_titles=boards, engaged_queries=queries)


def edits_of(rng: Random, pin: PinFeatures, corpus: Corpus, kinds: Sequence[str]) -> Iterator[Edit]:
    """One edit per kind that applies to the pin."""
    for kind in kinds:
        after = EDITS[kind](rng, pin, corpus)
        if after is not None and after != pin:
            yield Edit(kind, after, pin) if kind.endswith(("_undone", "_removed")) else Edit(kind, pin, after)


def _field(edit: TextEdit) -> PinEdit:
    """A text edit of one random field that has text."""

    def apply(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures | None:
        del corpus
        name = rng.choice([name for name in FIELDS if getattr(pin, name)])
        text = edit(rng, getattr(pin, name))
        return None if text is None else _with(pin, {name: text})

    return apply


def _word(edit: Callable[[Random, str], str | None], suits: Callable[[str], bool]) -> PinEdit:
    """An edit of one random word that suits."""

    def apply(rng: Random, text: str) -> str | None:
        words = text.split(" ")
        places = [place for place, word in enumerate(words) if suits(word)]
        if not places:
            return None
        place = rng.choice(places)
        changed = edit(rng, words[place])
        return None if changed is None else " ".join([*words[:place], *([changed] if changed else []), *words[place + 1 :]])

    return _field(apply)


def _insert(rng: Random, text: str, word: str) -> str:
    words = text.split(" ")
    place = rng.randint(0, len(words))
    return " ".join([*words[:place], word, *words[place:]])


def _punctuation(rng: Random, text: str) -> str | None:
    if text.endswith((".", "!")):
        return rng.choice([text[:-1], text[:-1] + "!", text[:-1] + "..."])
    return rng.choice([text + ".", text + "!", text.replace(" and ", " & "), text.replace(" ", ", ", 1), f'"{text}"', f"- {text}"])


def _typo(rng: Random, word: str) -> str:
    place = rng.randrange(1, len(word) - 1)
    dropped, doubled = word[:place] + word[place + 1 :], word[: place + 1] + word[place:]
    return rng.choice([dropped, doubled, word[:place] + word[place + 1] + word[place] + word[place + 2 :]])


def _number(rng: Random, word: str) -> str:
    names = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    return rng.choice([name for name in names if name != word.lower()]) if word.lower() in names else str(rng.randint(2, 99))


def _colour(rng: Random, word: str) -> str:
    old = re.sub(r"\W", "", word).lower()
    return re.sub(r"\w+", rng.choice([colour for colour in COLOURS if colour != old]), word, count=1)


def _negation(rng: Random, text: str) -> str | None:
    swaps = [(" with ", " without "), (" is ", " is not "), (" are ", " are not "), (" has ", " has no "), ("A ", "No "), ("a ", "not a ")]
    fitting = [swap for swap in swaps if swap[0] in text]
    return text.replace(*rng.choice(fitting), 1) if fitting else None


def _word_added(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures | None:
    word = rng.choice(content_words(corpus.caption(rng, pin)) or ["home"])
    return _field(lambda same, text: _insert(same, text, word))(rng, pin, corpus)


def _sentence(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures:
    return replace(pin, description=f"{pin.description.rstrip('.')}. {corpus.caption(rng, pin)}".lstrip(". "))


def _reorder(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures | None:
    """The same sentences in another order: two fields change places."""
    del corpus
    first, second = rng.sample(FIELDS, 2)
    if not (getattr(pin, first) and getattr(pin, second)):
        return None
    return _with(pin, {first: getattr(pin, second), second: getattr(pin, first)})


def _with(pin: PinFeatures, fields: dict[str, Any]) -> PinFeatures:
    return replace(pin, **fields)


def _board(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures:
    return replace(pin, board_titles=(*pin.board_titles, corpus.board(rng, pin)))


def _query(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures:
    return replace(pin, engaged_queries=(*pin.engaged_queries, (corpus.query(rng, pin), float(rng.randint(1, 200)))))


def _replaced(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures:
    name = rng.choice([name for name in FIELDS if getattr(pin, name)])
    return _with(pin, {name: rng.choice(corpus.captions)})


def _several(rng: Random, pin: PinFeatures, corpus: Corpus) -> PinFeatures | None:
    """Two to four small edits since the pin was last embedded."""
    for kind in rng.choices(SMALL, k=rng.randint(2, 4)):
        pin = EDITS[kind](rng, pin, corpus) or pin
    return pin


def _is_word(word: str) -> bool:
    return len(word) > 4 and word.isalpha()


EDITS: dict[str, PinEdit] = {
    "punctuation": _field(_punctuation),
    "emoji": _field(lambda rng, text: rng.choice([f"{text} {rng.choice(EMOJI)}", f"{rng.choice(EMOJI)} {text}"])),
    "casing": _field(lambda rng, text: rng.choice([text.upper(), text.title(), text.lower(), text.capitalize()])),
    "white_space": _field(lambda rng, text: rng.choice([text.replace(" ", "  "), f" {text}\n", text.replace(" ", "\u00a0", 1)])),
    "markup": _field(lambda rng, text: rng.choice([f"<p>{text}</p>", text.replace(" ", "<br> ", 1), text.replace("'", "&#39;").replace(" ", "-", 1)])),
    "plural": _word(lambda _, word: word[:-1] if word.endswith("s") else f"{word}s", _is_word),
    "typo_made": _word(_typo, _is_word),
    "typo_undone": _word(_typo, _is_word),
    "stop_word_added": _field(lambda rng, text: _insert(rng, text, rng.choice(STOP))),
    "stop_word_dropped": _word(lambda *_: "", lambda word: word.lower() in STOP),
    "synonym": _word(lambda _, word: SYNONYMS[word.lower()], lambda word: word.lower() in SYNONYMS),
    "modifier_added": _field(lambda rng, text: _insert(rng, text, rng.choice(MODIFIERS))),
    "word_added": _word_added,
    "word_dropped": _word(lambda *_: "", _is_word),
    "number": _word(_number, lambda word: word.lower() in ("one", "two", "three", "four", "five", "six") or word.isdigit()),
    "boilerplate_added": lambda rng, pin, _: replace(pin, description=f"{pin.description} {rng.choice(BOILERPLATE)}".strip()),
    "boilerplate_removed": lambda rng, pin, _: replace(pin, description=f"{pin.description} {rng.choice(BOILERPLATE)}".strip()),
    "hashtags_added": lambda rng, pin, _: replace(pin, description=f"{pin.description} {' '.join(rng.sample(HASHTAGS, rng.randint(1, 3)))}".strip()),
    "sentence_added": _sentence,
    "sentence_removed": _sentence,
    "sentences_reordered": _reorder,
    "board_added": _board,
    "board_removed": _board,
    "query_added": _query,
    "query_removed": _query,
    "colour": _word(_colour, lambda word: re.sub(r"\W", "", word).lower() in COLOURS),
    "negation": _field(_negation),
    "field_replaced": _replaced,
    "several": _several,
}
SMALL = ("punctuation", "emoji", "casing", "plural", "typo_made", "stop_word_added", "stop_word_dropped", "synonym", "board_added", "query_added")
