"""Text without grades: sentence pairs with English, captions, queries; each row with its licence class. Reading only.

`parallel/<lang>.parquet` holds (en, xx, source), `captions/*.parquet` (text, lang, source), and `sources.json` names the
licence class of every source. A student that is published trains on `open` and `sa` only (OPEN).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.data import DataError, RelevanceData

OPEN = ("open", "sa")
CLASSES = ("open", "sa", "research")
SHARED_BAGS = ("cldr_keywords", "osm_id_terms")
"""Sources that align as bags of words only: their pairs teach no sentence."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """Aligned texts, one row each: `english[i]` says in English what `texts[i]` says in `lang[i]`. `source`: where it is from."""

    english: tuple[str, ...]
    texts: tuple[str, ...]
    lang: NDArray[np.str_]
    source: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, keep: Sequence[int] | NDArray[np.int64]) -> Parallel:
        """The rows at these places."""
        places = np.asarray(keep, np.int64)
        return Parallel(tuple(self.english[place] for place in places), tuple(self.texts[place] for place in places), self.lang[places], self.source[places])

    def __add__(self, other: Parallel) -> Parallel:
        return Parallel(self.english + other.english, self.texts + other.texts, np.append(self.lang, other.lang), np.append(self.source, other.source))


def classes_of(data: Path) -> dict[str, str]:
    """Licence class by source name. Raises DataError."""
    path = data / "sources.json"
    try:
        found = {name: entry["cls"] for name, entry in json.loads(path.read_text()).items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not say the licence class (cls) of every source: {error!r}") from error
    strange = {name: cls for name, cls in found.items() if cls not in CLASSES}
    if strange:
        raise DataError(f"{path}: unknown licence classes {strange}; use one of {', '.join(CLASSES)}")
    return found


def read_parallel(data: Path, languages: Collection[str], allowed: Collection[str] = OPEN, most: int | None = None, seed: int = 7) -> Parallel:
    """Pairs of some languages from sources of the allowed classes; at most `most` a language, drawn by `seed`. Raises DataError."""
    classes = classes_of(data)
    total = Parallel((), (), np.array([], np.str_), np.array([], np.str_))
    for lang in sorted(languages):
        path = data / "parallel" / f"{lang}.parquet"
        if not path.exists():
            raise DataError(f"{path} does not exist; there is parallel text for {', '.join(sorted(file.stem for file in path.parent.glob('*.parquet')))}")
        table = pq.read_table(path).to_pydict()
        unknown = set(table["source"]) - set(classes)
        if unknown:
            raise DataError(f"{path}: sources without a licence class in sources.json: {', '.join(sorted(unknown))}")
        rows = [row for row, source in enumerate(table["source"]) if classes[source] in allowed and source not in SHARED_BAGS]
        rows = [row for row in rows if (table["en"][row] or "").strip() and (table["xx"][row] or "").strip()]
        if most is not None and len(rows) > most:
            rows = sorted(np.random.default_rng(seed).choice(rows, most, replace=False).tolist())
        english, texts = (tuple(table[name][row] for row in rows) for name in ("en", "xx"))
        total += Parallel(english, texts, np.full(len(rows), lang), np.array([table["source"][row] for row in rows]))
    return total


def same_picture(data: RelevanceData, languages: Collection[str], captions: int = 5) -> Parallel:
    """Train queries of other languages beside English texts of the same picture: the group's English query and its pin's captions.

    Queries of one group were written for one picture by different people, so these are no translations; pins of dev queries
    are left out.
    """
    dev = set(data.dev_pins.tolist())
    train = {number for number, query in enumerate(data.queries) if query.split == "train"}
    own = data.judged.own
    pin_of = {int(query): int(pin) for query, pin in zip(data.judged.query[own], data.judged.pin[own], strict=True) if int(pin) not in dev}
    english_of = {query.group: query.text for number, query in enumerate(data.queries) if query.lang == "en" and number in train}
    english, texts, langs = [], [], []
    for number in sorted(train & pin_of.keys()):
        query = data.queries[number]
        if query.lang not in languages or query.lang == "en":
            continue
        pin = data.pins[pin_of[number]]
        said = [english_of.get(query.group, ""), pin.title, pin.description, pin.caption, pin.link_description]
        for text in [text for text in said if text][:captions]:
            english.append(text)
            texts.append(query.text)
            langs.append(query.lang)
    return Parallel(tuple(english), tuple(texts), np.array(langs, np.str_), np.full(len(texts), data.folder.name))


def read_texts(data: Path, languages: Collection[str], allowed: Collection[str] = OPEN) -> Iterator[tuple[str, str, str]]:
    """(text, lang, source) of every caption and query file, of some languages and licence classes."""
    classes = classes_of(data)
    for path in sorted((data / "captions").glob("*.parquet")):
        table = pq.read_table(path, columns=["text", "lang", "source"]).to_pydict()
        for text, lang, source in zip(table["text"], table["lang"], table["source"], strict=True):
            if lang in languages and classes.get(source) in allowed and text:
                yield text, lang, source
