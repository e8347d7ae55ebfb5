"""The pin's text: what the student reads. The worker and the training pipeline render with this one function.

Fields after Pinterest's published search-relevance model (arXiv 2410.17152): title, description, caption, boards, engaged
queries, link. Board titles are chosen by the OmniSearchSage rule (arXiv 2404.16260, section 4.1). Each field has a budget,
so that a long description cannot push boards and queries out of the student's window. The order of lists never matters.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pins.features import PinFeatures

TEMPLATE_VERSION = 1
"""Raised by any change that alters the rendered text of any pin. Points of another version are embedded anew."""

BUDGETS = {"title": 28, "caption": 32, "boards": 32, "queries": 40, "link_title": 12, "description": 60, "link_description": 24}
"""Share of each field, in estimated student tokens (`_costs`), in the order of the text.

Together they fit a window of 256 tokens in English. A tokeniser spends up to 1.7 tokens on an estimated one in languages it
was not made for; so the descriptions, whose length their authors choose, come last and are what a full window cuts off.
"""
MAX_BOARDS = 10
MAX_QUERIES = 20
MAX_FIELD_CHARS = 20_000
"""Characters of a raw field that are looked at: a megabyte of text costs no more than a page."""

_TAG = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b[^<>]*>.*?(?:</\1\s*>|\Z)|</?[a-zA-Z][^<>]*>", re.DOTALL | re.IGNORECASE)
"""A tag, a whole comment, or a script with its body. One that is never closed ends with the text, which keeps this linear."""
_HUGE_REFERENCE = re.compile(r"&#[0-9]{100,};?")
"""A character reference that is no character. Python refuses to read numbers of thousands of digits."""
_UNIT = re.compile(r"[^\W_]+|[^\w\s]|_")
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_SPACES = re.compile(r"\s+")
_KEPT_FORMATS = {"\u200d", "\ufe0f"}
"""Zero-width joiner and emoji selector: parts of emoji."""
_LETTERS_PER_TOKEN = 6


@dataclass(frozen=True, slots=True)
class PinText:
    """The rendered text of one pin, and the board titles that were chosen for it."""

    text: str
    boards: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text)


def render(pin: PinFeatures) -> PinText:
    """The text of a pin: its non-empty fields as sentences. Same features in any order, same text, byte for byte."""
    boards = choose_boards(pin.board_titles)
    fields = {
        "title": clean(pin.title),
        "caption": clean(pin.caption),
        "boards": ", ".join(boards),
        "queries": ", ".join(choose_queries(pin.engaged_queries)),
        "link_title": clean(pin.link_title),
        "description": clean(pin.description),
        "link_description": clean(pin.link_description),
    }
    sentences = (cut(fields[name], budget).rstrip(" .,") for name, budget in BUDGETS.items())
    return PinText(". ".join(sentence for sentence in sentences if sentence), boards)


def clean(raw: str) -> str:
    """Unicode NFKC, without HTML, control characters and lone surrogates; white space collapsed; emoji kept."""
    if raw.isascii() and raw.isprintable() and "<" not in raw and "&" not in raw:
        return " ".join(raw[:MAX_FIELD_CHARS].split())  # nothing below changes such a text in any other way
    text = html.unescape(_HUGE_REFERENCE.sub("\ufffd", _TAG.sub(" ", raw[:MAX_FIELD_CHARS])))
    text = unicodedata.normalize("NFKC", _TAG.sub(" ", text))
    visible = text if text.isprintable() else "".join(map(_visible, text))  # printable: nothing of category C, as nearly every text
    return _SPACES.sub(" ", visible).strip()


def _visible(char: str) -> str:
    if char in _KEPT_FORMATS:
        return char
    category = unicodedata.category(char)
    return (" " if char.isspace() or category == "Cc" else "") if category[0] == "C" else char


def cut(text: str, budget: int) -> str:
    """The longest prefix of whole words that is estimated to cost at most `budget` student tokens."""
    if len(text) <= budget or (not _WIDE.search(text) and sum(map(_cost, _UNIT.findall(text))) <= budget):
        return text
    end = 0
    for stop, cost in _costs(text):
        budget -= cost
        if budget < 0:
            return text[:end].rstrip(" ,")
        end = stop
    return text


def _costs(text: str) -> Iterator[tuple[int, int]]:
    """(end, estimated tokens) per word, wide character or mark: one token per mark or wide character, else by length."""
    for unit in _UNIT.finditer(text):
        if _WIDE.search(unit.group()):
            yield from ((unit.start() + offset, 1) for offset in range(1, len(unit.group()) + 1))
        else:
            yield unit.end(), _cost(unit.group())


def _cost(unit: str) -> int:
    return -(-len(unit) // _LETTERS_PER_TOKEN)


def choose_boards(titles: Iterable[str]) -> tuple[str, ...]:
    """At most 10 unique board titles, by the OmniSearchSage rule.

    Score ascending, then word count descending, then characters descending (then the title, so that ties have an order).
    The published score is made of the title's frequency and its words' prevalence; here it is minus the mean, over the
    title's words, of the share of this pin's boards that hold the word, minus the title's own share. Titles that many
    boards agree on come first; private jokes and noise fall off the end.
    """
    shown: dict[str, str] = {}
    frequency: Counter[str] = Counter()
    for title in sorted(filter(None, map(clean, titles))):
        shown.setdefault(title.casefold(), title)
        frequency[title.casefold()] += 1
    words = {title: _UNIT.findall(title) or [title] for title in frequency}
    prevalence: Counter[str] = Counter()
    for title, count in frequency.items():
        prevalence.update(dict.fromkeys(words[title], count))
    total = frequency.total()

    def order(title: str) -> tuple[float, int, int, str]:
        shared = sum(prevalence[word] for word in words[title]) / len(words[title])
        return -(shared + frequency[title]) / total, -len(words[title]), -len(title), title

    return tuple(shown[title] for title in sorted(frequency, key=order)[:MAX_BOARDS])


def choose_queries(queries: Iterable[tuple[str, float]]) -> tuple[str, ...]:
    """The 20 queries with the most engagement, counts of equal queries added; equal counts in alphabetical order."""
    counts: Counter[str] = Counter()
    for query, count in sorted(queries):
        counts[clean(query).casefold()] += count  # type: ignore[assignment]  # Counter holds floats as well
    del counts[""]
    return tuple(sorted(counts, key=lambda query: (-counts[query], query))[:MAX_QUERIES])
