"""A toy slice in the layout of real data, made of Everpin's own sample pins: enough to run every stage in minutes.

Grades follow a rule, not people: a query that led to the pin 4, a pin with a board in common 3, two words in common 2, its
category 1, else 0. The
parallel text is no language either: `xx` is English with its letters moved on by a fixed alphabet. Figures on this slice say that
the stages fit together, and nothing about quality.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLE = Path(__file__).parents[2] / "everpin" / "sample" / "pins.jsonl"
GROUPS = 100
CANDIDATES = 12
SOURCE = "everpin_sample"
PLAIN, MOVED = "abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm"


def foreign(text: str) -> str:
    """The text in the toy language."""
    return text.lower().translate(str.maketrans(PLAIN, MOVED))


def grade(query: str, source: dict[str, Any], pin: dict[str, Any]) -> int:
    """0 to 4: how well `pin` answers a query that led to the pin `source`."""
    if pin["pin_id"] == source["pin_id"]:
        return 4
    if set(pin["board_titles"]) & set(source["board_titles"]):
        return 3
    shared = set(query.lower().split()) & set(f"{pin['title']} {pin['caption']}".lower().split())
    return 2 if len(shared) >= 2 else int(pin["category"] == source["category"])


def write(out: Path, seed: int) -> None:
    """Write OUT/toy (items, queries, judgements), OUT/parallel/xx, OUT/captions/queries_en and OUT/sources.json."""
    pins = [row for row in map(json.loads, SAMPLE.read_text().splitlines()) if row["lang"] == "en" and row["title"]]
    chance = Random(seed)
    queries, judgements = [], []
    for number, source in enumerate(chance.sample([pin for pin in pins if pin["engaged_queries"]], GROUPS)):
        asked = max(source["engaged_queries"], key=lambda query: source["engaged_queries"][query])
        near = sorted(pins, key=lambda pin: (-grade(asked, source, pin), pin["pin_id"]))[: CANDIDATES // 2]
        judged = {pin["pin_id"]: pin for pin in [*near, *chance.sample(pins, CANDIDATES // 2)]}
        for lang, text in (("en", asked), ("xx", foreign(asked))):
            query_id = f"q{number}-{lang}"
            split = "dev" if number % 4 == 3 else "train"
            queries.append({"query_id": query_id, "query": text, "group": f"g{number}", "lang": lang, "split": split})
            for pin_id, pin in judged.items():
                found = grade(asked, source, pin)
                own = pin_id == source["pin_id"]
                judgements.append({"query_id": query_id, "item_id": pin_id, "grade": found, "raw": float(found), "source": "own" if own else "rule"})
    english = sorted({text for pin in pins for text in (pin["title"], pin["caption"], pin["description"]) if text})
    items = [{"item_id": pin["pin_id"], "lang": "en", **{name: pin[name] for name in ("title", "description", "caption", "category")}} for pin in pins]
    _table(out / "toy" / "items.parquet", items)
    _table(out / "toy" / "queries.parquet", queries)
    _table(out / "toy" / "judgements.parquet", judgements)
    _table(out / "parallel" / "xx.parquet", [{"en": text, "xx": foreign(text), "source": SOURCE} for text in english])
    _table(out / "captions" / "queries_en.parquet", [{"text": text, "lang": "en", "source": SOURCE} for text in english])
    (out / "sources.json").write_text(json.dumps({SOURCE: {"cls": "open"}}))


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m training.runs.toy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    write(args.out, args.seed)
    print(f"{args.out}: a toy slice of {GROUPS} queries in two languages")


if __name__ == "__main__":
    main()
