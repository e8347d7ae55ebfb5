"""Fuzz what reads bytes and texts from outside: `pins.events.decode` and `pins.text.render`.

    python -m tests.faults.fuzz --inputs 1000000 --seed 1

Inputs are random bytes, valid events with bytes or values changed, deep nesting, huge numbers, lone surrogates, odd Unicode,
long strings, half-open HTML. Promises checked: `decode` raises InvalidEvent with a known reason or returns an event that can be
encoded and decoded again; `render` returns a text without control characters or surrogates, within its budgets, the same on
every call and in any order of lists; no input takes longer than --limit-ms; memory does not grow with the number of inputs.
Exit codes: 0 all held, 1 a promise was broken (the input is printed), 2 wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.machine import machine
from pins.errors import InvalidEvent
from pins.events import REASONS, PinEvent, decode, encode
from pins.features import PinFeatures, pin_features
from pins.text import BUDGETS, MAX_BOARDS, MAX_FIELD_CHARS, render

NOW_US = 1_764_000_000_000_000
LONG = (100, 1_000, 20_000, 100_000)
LONG_SHARE = 0.002
"""Share of inputs with a text of up to 100,000 characters: more would measure nothing but those."""
GROWTH_MIB = 64.0
"""Memory that a whole run may add after its first tenth."""
MAX_TEXT_CHARS = MAX_FIELD_CHARS * len(BUDGETS)
MODELS: Sequence[dict[str, Any]] = (
    {"type": "pin_deleted", "pin_id": "p", "event_time_us": NOW_US},
    {"type": "pin_updated", "pin_id": "p", "event_time_us": NOW_US, "features": {"pin_caption": {"caption": "a red chair"}}},
    {"type": "pin_updated", "pin_id": "p", "features_as_of": {"pin_content": NOW_US}, "features": {"pin_boards": {"board_titles": ["a", "b"]}}},
    {"type": "pin_updated", "pin_id": "p",
     "features": {"pin_engagement": {"engaged_queries": ["x"], "engaged_counts": [1.5], "save_count": 1, "like_count": None}}},
    {"type": "pin_updated", "pin_id": "p", "features": {"pin_status": {"deleted": 0}}},
)  # fmt: skip
ODD = (
    "\x00", "\x7f", "\ud800", "\udfff", "\ufeff", "\u202e", "\u200d", "\ufe0f", "\U0001f469\u200d\U0001f4bb", "a\u0301" * 40, "\u0344" * 30, "ﷺ" * 20, "ﬃ", "①",
    "\u1e9e", "İ", "ß", "木の椅子", "&#x110000;", "&#" + "9" * 400 + ";", "&amp;lt;b&amp;gt;", "<script>", "</script", "<!--", "-->", "<" * 50, "<a href='",
    "<style>x</style>", "&nbsp;", "\u2028", "\t\r\n",
    "𝔘𝔫𝔦", "\U000e0041", "\ue000", "\uffff", ". ,", "_" * 20, "e\u0300\u0301\u0302" * 30, "\u115f", "１２３",
)  # fmt: skip
ODD_VALUES: Sequence[Any] = (
    None, True, False, 0, -1, 1.5, 1e308, -0.0, 2**63, 10**400, "", "x", [], {}, [[]], {"": None}, NOW_US, NOW_US * 10, "\ud800", ["\udfff"],
    float("nan"), float("inf"),
)  # fmt: skip


@dataclass
class Tally:
    """What a run of the fuzzer saw."""

    inputs: int = 0
    seed: int = 0
    events: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    rendered: int = 0
    textless: int = 0
    seconds: float = 0.0
    slowest_ms: dict[str, float] = field(default_factory=dict)
    memory_mib: float = 0.0
    growth_mib: float = 0.0
    broken: list[str] = field(default_factory=list)


class Broken(Exception):
    """A promise does not hold for this input."""


def fuzz(inputs: int, seed: int, limit_ms: float, each: Callable[[int], None] = lambda done: None) -> Tally:
    """Half of the inputs go to `decode`, half to `render`. Stops at the tenth broken promise."""
    chance, tally = random.Random(seed), Tally(inputs, seed)
    refused: Counter[str] = Counter()
    slowest = {"decode": (0.0, ""), "render": (0.0, "")}
    started, settled_mib = time.perf_counter(), 0.0
    for number in range(inputs):
        name = "decode" if number % 2 else "render"
        given: Any = raw_event(chance) if name == "decode" else pin(chance)
        before = time.process_time()
        try:
            _decode(given, refused, tally) if name == "decode" else _render(given, chance, tally)
        except Exception as error:  # whatever it is, it is what we are looking for
            tally.broken.append(f"{name} of {given!r:.600}: {error!r:.300}")
        took_ms = (time.process_time() - before) * 1000
        if took_ms > slowest[name][0]:
            slowest[name] = took_ms, f"{given!a:.160}"
        if took_ms > limit_ms:
            tally.broken.append(f"{name} took {took_ms:.0f} ms (limit {limit_ms:.0f}): {given!r:.600}")
        if number == inputs // 10:
            settled_mib = rss_mib()
        if number % 1000 == 0:
            each(number)
        if len(tally.broken) >= 10:
            break
    tally.refused, tally.seconds = dict(refused.most_common()), round(time.perf_counter() - started, 1)
    tally.slowest_ms = {f"{name}: {given}": round(took, 2) for name, (took, given) in slowest.items()}
    tally.memory_mib = round(rss_mib(), 1)
    tally.growth_mib = round(max(0.0, rss_mib() - settled_mib), 1)
    if tally.growth_mib > GROWTH_MIB:
        tally.broken.append(f"memory grew by {tally.growth_mib} MiB after the first tenth of the inputs (limit {GROWTH_MIB})")
    return tally


def check_decode(key: bytes | None, value: bytes | None) -> PinEvent | str:
    """The event, or the reason it was refused for. Raises Broken, or whatever `decode` should not raise."""
    try:
        event = decode(key, value, timestamp_us=NOW_US, now_us=NOW_US)
    except InvalidEvent as error:
        if error.reason not in REASONS:
            raise Broken(f"unknown reason {error.reason!r}") from error
        str(error).encode("utf-8", "replace")
        return error.reason
    if value is not None and _encodable(event) and decode(None, encode(event), timestamp_us=NOW_US, now_us=NOW_US) != event:
        raise Broken("the event does not survive its own wire form")
    return event


def check_render(features: PinFeatures, shuffled: PinFeatures) -> str:
    """The text. Raises Broken, or whatever `render` should not raise."""
    made = render(features)
    if render(shuffled) != made:
        raise Broken("the order of lists changed the text")
    bad = [char for char in made.text if unicodedata.category(char) in ("Cc", "Cs")]
    if bad:
        raise Broken(f"control characters or surrogates in the text: {bad[:5]!r}")
    if len(made.boards) > MAX_BOARDS or len(made.text) > MAX_TEXT_CHARS:
        raise Broken(f"{len(made.boards)} boards, {len(made.text)} characters")
    made.text.encode()
    return made.text


def raw_event(chance: random.Random) -> tuple[bytes | None, bytes | None]:
    """Key and value of a message."""
    kind = chance.random()
    key = chance.choice([None, b"p"]) if chance.random() < 0.9 else chance.choice([b"", b"\xff", chance.randbytes(3)])
    if kind < 0.02:
        return key, None
    if kind < 0.12:
        return key, chance.randbytes(chance.randrange(60))
    body: Any = json.loads(json.dumps(chance.choice(MODELS)))
    if kind < 0.14:
        depth = chance.choice([10, 500, 5_000, 50_000])
        return key, chance.choice([b"[", b'{"a":', b'{"features":{"pin_caption":']) * depth
    if kind < 0.16:
        body["event_time_us"] = 0
        digits = str(chance.randrange(1, 10)) * chance.choice([10, 400, 5_000])
        return key, json.dumps(body).replace('_us": 0', f'_us": {digits}').encode()
    for _ in range(chance.choice([0, 1, 1, 2])):
        _mutate(body, chance)
    value = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", chance.choice(["replace", "surrogatepass"]))
    return key, _scratched(value, chance) if kind < 0.4 else value


def pin(chance: random.Random) -> PinFeatures:
    """Features of a pin, of any strings."""
    many = chance.random() < 0.01
    boards = [text(chance) for _ in range(60 if many else chance.choice([0, 0, 1, 3, 12]))]
    queries = [text(chance) for _ in range(30 if many else chance.choice([0, 0, 1, 4]))]
    counted = [chance.choice([0.0, 1.0, -3.5, 1e308, 5e-324]) for _ in queries]
    texts = {name: text(chance) for name in ("title", "description", "caption", "link_title", "link_description") if chance.random() < 0.4}
    return pin_features("p", texts | {"board_titles": boards, "engaged_queries": queries, "engaged_counts": counted}, {"pin_content": NOW_US})


def text(chance: random.Random) -> str:
    """A string: words, odd pieces, any code points, long repetitions of any of them."""
    pieces = [_piece(chance) for _ in range(chance.choice([0, 1, 1, 2, 5]))]
    whole = chance.choice(["", " "]).join(pieces)
    if whole and chance.random() < LONG_SHARE:
        return (whole * (1 + chance.choice(LONG) // len(whole)))[: max(LONG)]
    return whole


def _piece(chance: random.Random) -> str:
    match chance.randrange(4):
        case 0:
            return chance.choice(ODD)
        case 1:
            return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(8)))
        case 2:
            return "".join(chr(chance.randrange(0x20, 0x7F)) for _ in range(chance.randrange(30)))
        case _:
            return chance.choice(["red", "chair", "garden", "Küche", "über", "the", "木"])


def _mutate(body: Any, chance: random.Random) -> None:
    """Change one value somewhere in the object, or drop it, or add a strange one."""
    while isinstance(body, dict) and body:
        name = chance.choice(list(body))
        if isinstance(body[name], dict) and body[name] and chance.random() < 0.6:
            body = body[name]
            continue
        draw = chance.random()
        if draw < 0.2:
            del body[name]
        elif draw < 0.3:
            body[text(chance)] = deepcopy(chance.choice(ODD_VALUES))
        else:
            body[name] = text(chance) if draw < 0.5 else deepcopy(chance.choice(ODD_VALUES))
        return


def _scratched(value: bytes, chance: random.Random) -> bytes:
    """The same bytes with some changed, dropped or doubled."""
    data = bytearray(value)
    for _ in range(chance.randrange(1, 4)):
        if data:
            at = chance.randrange(len(data))
            match chance.randrange(3):
                case 0:
                    data[at] = chance.randrange(256)
                case 1:
                    del data[at : at + chance.randrange(1, 9)]
                case _:
                    data[at:at] = data[: chance.randrange(9)]
    return bytes(data)


def _encodable(event: PinEvent) -> bool:
    """Lone surrogates inside features have no UTF-8 form; the feature store drops them."""
    try:
        encode(event)
    except UnicodeEncodeError:
        return False
    return True


def _decode(given: tuple[bytes | None, bytes | None], refused: Counter[str], tally: Tally) -> None:
    outcome = check_decode(*given)
    if isinstance(outcome, str):
        refused[outcome] += 1
    else:
        tally.events += 1


def _render(features: PinFeatures, chance: random.Random, tally: Tally) -> None:
    boards, queries = list(features.board_titles), list(features.engaged_queries)
    chance.shuffle(boards)
    chance.shuffle(queries)
    made = check_render(features, replace(features, board_titles=tuple(boards), engaged_queries=tuple(queries)))
    tally.rendered += 1
    tally.textless += not made


def rss_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs (default 100000; the long form is 1000000)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same inputs (default 1)")
    parser.add_argument("--limit-ms", type=float, default=1000.0, help="processor time one input may take, in milliseconds (default 1000)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the result as a JSON document")
    asked = parser.parse_args(arguments)
    console = Console(stderr=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("fuzzing", total=asked.inputs)
        tally = fuzz(asked.inputs, asked.seed, asked.limit_ms, lambda done: progress.update(task, completed=done))
    show(tally, Console(width=140))
    if asked.json:
        made = {"command": " ".join(["python -m tests.faults.fuzz", *(arguments or sys.argv[1:])]), "machine": machine()}
        asked.json.write_text(json.dumps(made | asdict(tally), indent=2) + "\n")
    return 1 if tally.broken else 0


def show(tally: Tally, console: Console) -> None:
    """The table."""
    table = Table(title=f"decode and render, seed {tally.seed}", show_header=False, title_justify="left")
    table.add_row("inputs", f"{tally.inputs} in {tally.seconds} s")
    table.add_row("decode", f"{tally.events} events; refused {tally.refused}")
    table.add_row("render", f"{tally.rendered} texts, {tally.textless} of them empty")
    for given, took in tally.slowest_ms.items():
        table.add_row("slowest", f"{took} ms for {given}", end_section=False)
    table.add_row("memory", f"{tally.memory_mib} MiB, grown by {tally.growth_mib} MiB after the first tenth")
    table.add_row("broken promises", str(len(tally.broken)))
    console.print(table)
    for words in tally.broken:
        console.print(f"BROKEN {words}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
