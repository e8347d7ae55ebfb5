"""Label (query, pin) pairs with a teacher: many soft labels out of few human ones. Resumable; a finished shard is never scored again.

In order: `label_queries` gathers queries, `label_plan` says what will be done, `candidates` finds the pins each query is compared
with, the teacher scores the pairs, `label_shards` writes and reads them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pins.text import render
from training.corpora import OPEN
from training.data import DataError, read
from training.labels.plan import Job, Settings, Work, open_catalogue, plan, read_mix
from training.labels.queries import Wanted, licence_classes
from training.labels.shards import LabelledQuery, Labels, LabelWriter, alone, read_labels, table_of

__all__ = ["Labels", "Teacher", "Throughput", "label", "main", "read_labels"]

SHIPPED = Path(__file__).parents[1] / "everpin" / "models" / "everpin-l6-v1"
"""The student whose index proposes candidates, unless another is named."""


class Teacher(Protocol):
    """What labelling asks of a teacher (`training.teachers.teacher.open_teacher`)."""

    @property
    def teacher_id(self) -> str: ...

    def predict(self, queries: Sequence[str], texts: Sequence[str], progress: bool = True) -> NDArray[np.float64]:
        """Level probabilities of each pair, float64 of shape (n, 5)."""
        ...


@dataclass
class Throughput:
    """What this run did: rows written, pairs that the teacher scored for them, and the seconds of both halves."""

    rows: int = 0
    pairs: int = 0
    finding_s: float = 0.0
    scoring_s: float = 0.0

    def add(self, rows: int, pairs: int, finding_s: float, scoring_s: float) -> None:
        """One more shard."""
        self.rows += rows
        self.pairs += pairs
        self.finding_s += finding_s
        self.scoring_s += scoring_s

    def __str__(self) -> str:
        found, scored = self.rows / max(self.finding_s, 1e-9), self.pairs / max(self.scoring_s, 1e-9)
        return (
            f"{self.rows} rows written: {self.pairs} pairs scored in {self.scoring_s:.1f} s, {scored:.1f} pairs/s; "
            f"candidates found in {self.finding_s:.1f} s, {found:.1f} pairs/s"
        )


def label(job: Job, teacher: Teacher, out: Path) -> Throughput:
    """Write or continue the labels in `out`. Raises DataError."""
    with alone(out):
        work = plan(job, teacher.teacher_id)
        writer = LabelWriter(out, work.about, -(-len(work.queries) // job.settings.shard_queries))
        if writer.shards:
            print(f"{out}: {writer.shards} shards with {writer.rows} rows are there and stay as they are")
        return _score(job, work, teacher, writer)


def _score(job: Job, work: Work, teacher: Teacher, writer: LabelWriter) -> Throughput:
    pins, settings = job.data.pins, job.settings
    texts = [render(pin).text for pin in pins]
    done = Throughput()
    with tqdm(total=len(work.queries) * min(settings.per_query, len(pins)), initial=writer.rows, desc="label", unit="pair") as bar:
        for part in work.shards(settings.shard_queries, writer.shards):
            queries, before = work.queries[part], perf_counter()
            found = job.catalogue.candidates([query.asked for query in queries], settings.per_query, settings.seed)
            between = perf_counter()
            levels, pairs = _levels(teacher, [queries[place].asked.text for place in found.asked.tolist()], found.pin, texts)
            done.add(len(found), pairs, between - before, perf_counter() - between)
            rows = [LabelledQuery(query.text, query.lang, query.query_id, band) for query, band in zip(queries, work.bands[part], strict=True)]
            writer.write(table_of(rows, found.asked, [pins[pin].pin_id for pin in found.pin.tolist()], levels, found.source))
            bar.update(len(found))
    return done


def _levels(teacher: Teacher, read: Sequence[str], pins: NDArray[np.int64], texts: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """The teacher's distribution of each row, and how many pairs it scored: rows that read alike are scored once."""
    pairs = list(zip(read, pins.tolist(), strict=True))
    place = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
    levels = np.asarray(teacher.predict([text for text, _ in place], [texts[pin] for _, pin in place], progress=False), np.float64)
    if len(levels) != len(place):
        raise DataError(f"the teacher gave {len(levels)} rows for {len(place)} pairs; check the teacher with python -m training.evaluate before labelling")
    return levels[[place[pair] for pair in pairs]], len(place)


def main() -> None:
    """Command line."""
    args = _parser().parse_args()
    if args.log and args.sources is None:
        raise DataError("--log needs --sources, the file that names the licence class of every source")
    if args.logs_only and not args.log:
        raise DataError("--logs-only without a --log leaves nothing to label")
    from training.teachers.teacher import open_teacher  # noqa: PLC0415  # torch; whoever only reads labels does without

    wanted = Wanted(_listed(args.licences) or OPEN, _listed(args.languages), _listed(args.only_sources), args.through_english, not args.logs_only)
    settings = Settings(args.per_query, args.limit, args.seed, args.shard_queries, wanted)
    data, mix = read(args.data), read_mix(args.mix)
    classes = licence_classes(args.sources) if args.log else {}
    teacher = open_teacher(args.teacher)
    try:
        job = Job(data, *open_catalogue(data, args.index, mix), args.log, classes, settings)
        done = label(job, teacher, args.out)
    except KeyboardInterrupt:
        raise SystemExit(f"interrupted; finished shards are in {args.out}: give the same command again to continue") from None
    print(f"{args.out}: {done}")


def _listed(words: str | None) -> tuple[str, ...] | None:
    return tuple(sorted(filter(None, words.split(",")))) if words else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.label",
        description="Score (query, pin) pairs with a teacher: soft labels for a student. Queries come from a data folder's train split and from search "
        "logs; a query that equals one outside the train split is never labelled. Interrupted, the same command continues.",
        epilog="A log is a parquet file with columns text, lang, source (and count), or aligned text with en, xx, source. "
        "Next: python -m training.scaling draws quality against number of labels, python -m training.train_student trains on all of them.",
    )
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="teacher made by python -m training.train_teacher")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with items, queries and judgements as parquet")
    parser.add_argument("--log", type=Path, nargs="+", default=[], action="extend", metavar="FILE", help="search logs to take queries from")
    parser.add_argument("--sources", type=Path, metavar="FILE", help="JSON with the licence class (cls) of every source; needed with --log")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of labels to write or continue")
    parser.add_argument("--per-query", type=int, default=32, metavar="N", help="pins compared with each query (default: 32)")
    parser.add_argument("--limit", type=int, metavar="N", help="queries at most, stratified by language and popularity (default: all)")
    parser.add_argument("--licences", default=",".join(OPEN), help="licence classes of logs (default: open,sa: a student may be published)")
    parser.add_argument("--languages", help="comma-separated languages of queries (default: all), to leave some out of training")
    parser.add_argument("--only-sources", help="comma-separated sources of logs (default: all of the licence classes)")
    parser.add_argument(
        "--through-english", action="store_true", help="the teacher reads English for queries of other languages; without English they are left out"
    )
    parser.add_argument("--logs-only", action="store_true", help="leave the folder's own train queries out")
    parser.add_argument("--mix", type=Path, metavar="FILE", help="TOML with whole parts: judged, bm25, index, hard, random; ranks: hard_from, hard_to")
    parser.add_argument(
        "--index", type=Path, default=SHIPPED, metavar="DIR", help="published student whose index proposes candidates (default: the shipped one)"
    )
    parser.add_argument("--shard-queries", type=int, default=128, metavar="N", help="queries per shard: what a kill may cost (default: 128)")
    parser.add_argument("--seed", type=int, default=7, help="seed of every chance (default: 7)")
    return parser


if __name__ == "__main__":
    main()
