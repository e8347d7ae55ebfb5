"""From an edit to the result that shows it, and from an action to the home feed that follows it, through the HTTP API alone.

A whole system (broker, worker, serving process) runs on embedded parts with the sample pins. One thing happens at a time:
a pin's title is changed as the web page does it (PATCH), and its new title searched for until the pin is found with the new title
and a newer `v`; a user saves the first pin of their feed, and the feed is asked for until it counts one saved pin more and shows
that pin no longer. The clock runs from before the change is sent until an answer that shows it has been read. Answers are asked
for without a pause but POLL_S, so a figure is at most that and one answer too long. The first edit and the first action are not
counted: what opens once opens in them. What is not seen within 30 s is counted apart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tqdm import tqdm

from bench.load.fill import fill
from bench.machine import machine, write
from bench.report import edit_figures
from bench.sample import rows
from everpin.settings import Settings
from everpin.system import running_system, serving

ROUNDS = 30
POLL_S = 0.01
SEEN_WITHIN_S = 30.0
PAGE = 24
"""Results that the page shows of a search."""
STRIDE, TITLE_STRIDE = 13, 37
"""How far apart in the sample the edited pins are, and each from the pin whose title it takes over: another subject."""
USER = "somebody-new"


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one kind of change: until the API had accepted it, and until an answer showed it (None: never seen)."""

    accepted: list[float] = field(default_factory=list)
    seen: list[float | None] = field(default_factory=list)

    def after_the_first(self) -> Times:
        """Without what was opened on the way."""
        return Times(self.accepted[1:], self.seen[1:])

    def summary(self, name: str) -> dict[str, Any]:
        """Percentiles under `NAME_accepted_ms` and `NAME_seen_ms`, every value, and how many were never seen."""
        seen = [one for one in self.seen if one is not None]
        return {
            f"{name}_accepted_ms": percentiles(self.accepted),
            f"{name}_seen_ms": percentiles(seen) | {"unseen_within_30_s": len(self.seen) - len(seen), "every": rounded(self.seen)},
        }


def percentiles(values: Sequence[float]) -> dict[str, Any]:
    """Count, median, 90th percentile and largest; null where there is no value."""
    if not values:
        return {"count": 0, "p50": None, "p90": None, "max": None}
    p50, p90 = np.percentile(values, [50, 90])
    return {"count": len(values), "p50": round(float(p50), 1), "p90": round(float(p90), 1), "max": round(max(values), 1)}


def rounded(values: Sequence[float | None]) -> list[float | None]:
    """Tenths of a millisecond."""
    return [None if value is None else round(value, 1) for value in values]


def timed(change: Callable[[], object], shows: Callable[[], bool], times: Times) -> None:
    """Make a change and ask until it shows; note both times."""
    started = time.perf_counter()
    change()
    times.accepted.append((time.perf_counter() - started) * 1000)
    while time.perf_counter() - started < SEEN_WITHIN_S:
        if shows():
            times.seen.append((time.perf_counter() - started) * 1000)
            return
        time.sleep(POLL_S)
    times.seen.append(None)


def new_titles(count: int) -> list[tuple[str, str]]:
    """Pins to edit, each with the title it gets: that of another pin and a number, so that no title comes twice."""
    titled = [row for row in rows() if row.title]
    pins = [titled[number * STRIDE % len(titled)].pin_id for number in range(count)]
    return [(pin_id, f"{titled[(number * STRIDE + TITLE_STRIDE) % len(titled)].title}, part {number + 2}") for number, pin_id in enumerate(pins)]


def shows_title(answer: dict[str, Any], pin_id: str, title: str, after_v: int) -> bool:
    """Whether an answer to a search has the pin with its new title and a version newer than `after_v`."""
    return any(hit["pin_id"] == pin_id and hit["title"] == title and hit["v"] > after_v for hit in answer["results"])


def acted_pins(feed: dict[str, Any]) -> int:
    """How many of the user's pins a feed knows of."""
    return sum(interest["pins"] for interest in feed["interests"])


def follows(feed: dict[str, Any], pin_id: str, before: int) -> bool:
    """Whether a feed has taken in the action on a pin: it counts more pins than before, and does not show this one."""
    return acted_pins(feed) > before and all(result["pin_id"] != pin_id for result in feed["results"])


def ask(api: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One answer. Raises httpx.HTTPError where it is none, or a problem."""
    found: dict[str, Any] = api.request(method, path, json=body).raise_for_status().json()
    return found


def edit(api: httpx.Client, pin_id: str, title: str, times: Times) -> str:
    """Edit one title and watch it arrive; gives what the worker decided of it."""
    before = ask(api, "GET", f"/v1/pins/{pin_id}")["v"]
    search = {"query": title, "limit": PAGE, "explain": True}
    timed(
        lambda: ask(api, "PATCH", f"/v1/pins/{pin_id}", {"title": title}),
        lambda: shows_title(ask(api, "POST", "/v1/search", search), pin_id, title, before),
        times,
    )
    return str(ask(api, "GET", f"/v1/pins/{pin_id}")["reason"])


def act(api: httpx.Client, times: Times) -> None:
    """Save the first pin of the user's feed and watch the feed follow."""
    address = f"/v1/users/{USER}"
    feed = ask(api, "GET", f"{address}/feed?limit={PAGE}")
    pin_id, before = feed["results"][0]["pin_id"], acted_pins(feed)
    timed(
        lambda: ask(api, "POST", f"{address}/actions", {"actions": [{"pin_id": pin_id, "action": "save"}]}),
        lambda: follows(ask(api, "GET", f"{address}/feed?limit={PAGE}"), pin_id, before),
        times,
    )


def measured(rounds: int) -> dict[str, Any]:
    """Both kinds of change on a system of their own; the user begins without a history."""
    edited, acted, reasons = Times(), Times(), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        config = Settings(home=Path(scratch), port=0)
        pins = len(fill(config, 0, None).pins)
        stack.enter_context(running_system(config, Path(scratch) / "worker.log"))
        page = stack.enter_context(serving(config, Path(scratch) / "serve.log"))
        api = stack.enter_context(httpx.Client(base_url=page.url, timeout=30))
        for number, (pin_id, title) in enumerate(tqdm(new_titles(rounds + 1), desc="edits")):
            reason = edit(api, pin_id, title, edited)
            reasons[reason] += number > 0
        for _ in tqdm(range(rounds + 1), desc="actions"):
            act(api, acted)
    found = {"pins": pins, "rounds": rounds, "poll_ms": POLL_S * 1000, "edits_decided": dict(+reasons)}
    return found | edited.after_the_first().summary("edit") | acted.after_the_first().summary("action")


def main() -> None:
    """Measure, print the table, write bench/edits.json."""
    parser = argparse.ArgumentParser(prog="python -m bench.edits", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="edits, and actions, that are counted")
    parser.add_argument("--quick", action="store_true", help="a smoke run of three rounds that writes nothing")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; give at least 1")
    versions = machine("faust-streaming", "feast", "qdrant-edge-py", "onnxruntime", "confluent-kafka", "fastapi", "uvicorn")
    document = {"command": "python -m bench.edits", "machine": versions, **measured(3 if arguments.quick else arguments.rounds)}
    write("edits", document, quick=arguments.quick)
    print("\n".join(edit_figures(document)))


if __name__ == "__main__":
    main()
