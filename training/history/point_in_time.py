"""Training rows with the pin as it was: Feast's features as of the time of each judgement or log line, and proof that none is newer.

A row is (query, item_id, at_us, and a grade or levels). Every view is joined as of `at_us`; the engagement view as of a gap
before it (15 days: arXiv 2404.16260, OmniSearchSage, leaves that much before its evaluation window), since engaged queries
of the same days say which pins the query met. Beside the text stands the event time of every view that it is made of
(`training.history.features`), and `check_no_leak` refuses what is too late.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pins.features import VIEWS, PinFeatures, pin_features
from pins.text import TEMPLATE_VERSION, clean, render
from pins.wire import EARLIEST_US
from training.data import DataError
from training.history.features import EPOCH, FeatureStore, Key, Version, as_of, iso, open_repository

ENGAGEMENT = "pin_engagement"
GAP_DAYS = 15.0
DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be known of a pin at a time. `window`: start and end of the evaluation's logs, in epoch microseconds; `gap_us`: microseconds."""

    gap_us: int = int(GAP_DAYS * DAY_US)
    window: tuple[int, int] | None = None

    def latest(self, view: str, at_us: int) -> int:
        """The latest event time a row of `view` may have: the row's own, for engagement a gap before it and before the window."""
        if view != ENGAGEMENT:
            return at_us
        return min(at_us, self.window[0] if self.window else at_us) - self.gap_us


@dataclass(frozen=True, slots=True)
class Row:
    """One training row and its pin as it was. `pin.as_of` and `written_us` are the event and the writing time of each view's row."""

    query: str
    item_id: str
    at_us: int
    pin: PinFeatures
    written_us: Mapping[str, int]


def check_no_leak(rows: Sequence[Row], limits: Limits) -> None:
    """Refuse rows that know too much. Raises DataError that names the row, the view and the times.

    Refused are a feature dated later than allowed; an engaged query equal to the row's own, in a row of the engagement view
    that was written inside the gap, whatever date it carries; and a row from after the evaluation window.
    """
    for number, row in enumerate(rows):
        where = f"row {number} (query {row.query!r:.60}, pin {row.item_id!r:.40}, judged {iso(row.at_us)})"
        if limits.window and row.at_us >= limits.window[1]:
            raise DataError(f"{where}: the evaluation window ends at {iso(limits.window[1])}; what was judged later can neither train nor evaluate")
        for view, event_us in row.pin.as_of.items():
            latest = limits.latest(view, row.at_us)
            if event_us > latest:
                raise DataError(f"{where}: view {view} is of {iso(event_us)}, allowed is {iso(latest)}; join the features as of that time")
            told = view == ENGAGEMENT and row.written_us.get(view, event_us) > latest and _asked(row)
            if told:
                raise DataError(
                    f"{where}: view {view}, dated {iso(event_us)}, was written at {iso(row.written_us[view])}, inside the gap that begins at {iso(latest)}, "
                    f"and its engaged queries hold the row's own query; date the row when its counts end, or leave it out of the history"
                )


def _asked(row: Row) -> bool:
    own = clean(row.query).casefold()
    return any(clean(query).casefold() == own for query, _ in row.pin.engaged_queries)


def join(requests: Sequence[tuple[str, str, int]], store: FeatureStore, limits: Limits) -> list[Row]:
    """A row for each (query, item_id, at_us), in their order. A pin that had no features by then has an empty `pin`. Raises DataError."""
    found: dict[str, dict[Key, Version]] = {}
    for view in tqdm(VIEWS, desc="views as they were", unit="view"):
        keys = sorted({(item_id, limits.latest(view, at_us)) for _, item_id, at_us in requests})
        found[view] = as_of(store, store.get_feature_view(view), keys)
    if not any(found.values()):
        raise DataError(
            f"{store.repo_path} holds no history of these pins; each view's parquet file is named in the registry, such as offline/pin_content.parquet"
        )
    return [_row(request, found, limits) for request in requests]


def _row(request: tuple[str, str, int], found: Mapping[str, Mapping[Key, Version]], limits: Limits) -> Row:
    query, item_id, at_us = request
    known = {view: version for view in VIEWS if (version := found[view].get((item_id, limits.latest(view, at_us))))}
    values = {name: value for version in known.values() for name, value in version.values.items()}
    pin = pin_features(item_id, values, {view: version.event_us for view, version in known.items()})
    return Row(query, item_id, at_us, pin, {view: version.written_us for view, version in known.items()})


def read_rows(path: Path) -> pa.Table:
    """The training rows of a Parquet file, checked. Raises DataError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {error}") from error
    missing = [name for name in ("query", "item_id", "at_us") if name not in table.column_names]
    if missing or not {"grade", "levels"} & set(table.column_names):
        raise DataError(f"{path} needs the columns query, item_id, at_us, and grade or levels; it has {', '.join(table.column_names)}")
    if not len(table) or any(table[name].null_count for name in ("query", "item_id", "at_us")):
        raise DataError(f"{path} has {'nulls in query, item_id or at_us' if len(table) else 'no rows'}")
    if not pa.types.is_integer(table["at_us"].type):
        raise DataError(f"{path}: at_us is {table['at_us'].type}; times are integers in epoch microseconds")
    now_us = time.time_ns() // 1000
    odd = next(((number, at) for number, at in enumerate(table["at_us"].to_pylist()) if not EARLIEST_US <= at <= now_us), None)
    if odd:
        raise DataError(f"{path}, row {odd[0]}: at_us {odd[1]} is {'not yet' if odd[1] > now_us else 'before 2001'}; times are integers in epoch microseconds")
    return table


def with_pins(table: pa.Table, rows: Sequence[Row], limits: Limits) -> tuple[pa.Table, Counter[str]]:
    """The rows whose pin had a text, with it, the event time of each view (null where it had none), and which part of the data they are.

    Also how many rows were left out, by reason: a student learns nothing from a pin without text or one that was deleted.
    """
    texts = [render(row.pin).text for row in rows]
    why = [
        "deleted" if row.pin.deleted else "no features" if not row.pin.as_of else "no text" if not text else "" for row, text in zip(rows, texts, strict=True)
    ]
    columns: dict[str, pa.Array] = {"text": pa.array(texts, pa.string())}
    columns |= {f"{view}_us": pa.array([row.pin.as_of.get(view) for row in rows], pa.int64()) for view in VIEWS}
    if limits.window:
        columns["part"] = pa.array(["evaluation" if row.at_us >= limits.window[0] else "train" for row in rows])
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop_columns(name)
        table = table.append_column(name, values)
    about = {"gap_us": limits.gap_us, "evaluation_window_us": limits.window, "template_version": TEMPLATE_VERSION}
    table = table.replace_schema_metadata({key: str(value) for key, value in about.items()})
    return table.filter(pa.array([not reason for reason in why])), Counter(filter(None, why))


def _moment(text: str) -> int:
    at = datetime.fromisoformat(text)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def main() -> None:
    """Command line."""
    args = _arguments()
    limits = Limits(int(args.gap_days * DAY_US), tuple(args.window) if args.window else None)
    table = read_rows(args.rows)
    requests = list(zip(*(table[name].to_pylist() for name in ("query", "item_id", "at_us")), strict=True))
    rows = join(requests, open_repository(args.repo), limits)
    check_no_leak(rows, limits)
    joined, left_out = with_pins(table, rows, limits)
    if not len(joined):
        raise DataError(f"no pin of {args.rows} had a text by then ({dict(left_out)}); do the item ids and times fit the feature repository?")
    _write(joined, args.out)
    print(f"{len(joined)} of {len(table)} rows joined, engagement {args.gap_days:g} days earlier: {args.out}")
    print("rows with " + ", ".join(f"{view}: {len(joined) - joined[f'{view}_us'].null_count}" for view in VIEWS))
    if left_out:
        print("left out: " + ", ".join(f"{count} {reason}" for reason, count in left_out.items()))


def _write(table: pa.Table, path: Path) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, unfinished)
        unfinished.replace(path)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error}; name a file in a folder that has room") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.history.point_in_time",
        description="Join training rows with the pins as Feast knew them at the time of each row, and refuse rows that know what came later.",
        epilog="The output holds the rows, the pin's text as it was, and the event time of every view that the text is made of.",
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE", help="Parquet: query, item_id, at_us (epoch microseconds), grade or levels")
    parser.add_argument("--repo", type=Path, required=True, metavar="DIR", help="feature repository: feature_store.yaml, its registry, offline/*.parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file to write")
    parser.add_argument("--gap-days", type=float, default=GAP_DAYS, help="how much earlier engagement is read than the rest (default: %(default)s)")
    parser.add_argument("--window", type=_moment, nargs=2, metavar=("START", "END"), help="the evaluation's logs, ISO 8601; engagement ends a gap before START")
    args = parser.parse_args()
    if args.gap_days < 0 or (args.window and args.window[0] >= args.window[1]):
        parser.error("--gap-days must be 0 or more, and the window must end after it starts")
    return args


if __name__ == "__main__":
    main()
