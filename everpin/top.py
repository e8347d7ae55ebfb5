"""`everpin top`: the figures of running workers, live. Scrape, compare with an earlier scrape, show.

Everything between the scrape and the screen is a pure function. A worker that goes away is shown as gone; the others go on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Values by name and sorted labels."""
WINDOW_S = 10.0
"""Rates are over the last ten seconds: over one, a batch now and then would flicker."""
GONE_S = 60.0
"""How long a worker that stopped answering stays on the screen, where nobody asked for it by name."""
TIMEOUT_S = 2.0
STEADY = 0.5
"""Messages per second of change in lag that count as no change."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What one worker answered at the monotonic second `at_s`. `error` says why it did not; then there are no samples."""

    url: str
    at_s: float
    samples: Samples = field(default_factory=dict)
    ready: bool = False
    reasons: tuple[str, ...] = ()
    error: str = ""


def parse(text: str) -> Samples:
    """Read the Prometheus text format. Raises ValueError for anything else."""
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in text_string_to_metric_families(text) for s in family.samples}


def scrape(client: httpx.Client, url: str) -> Scrape:
    """Ask one worker. Raises nothing: a worker that does not answer is a finding."""
    at_s = time.monotonic()
    try:
        samples = parse(client.get(f"{url}/metrics").raise_for_status().text)
        ready = client.get(f"{url}/readyz").json()  # 503 is an answer
        return Scrape(url, at_s, samples, bool(ready["ready"]), tuple(map(str, ready.get("reasons", ()))))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        return Scrape(url, at_s, error=f"{type(error).__name__}: {error}".rstrip(": "))


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """A metric summed by one of its labels."""
    found: dict[str, float] = {}
    for (sample, labels), value in samples.items():
        if sample == name:
            key = dict(labels).get(label, "")
            found[key] = found.get(key, 0.0) + value
    return found


def value(samples: Samples, name: str) -> float:
    """A metric summed over all its labels; 0 where it is absent."""
    return sum(amount for (sample, _), amount in samples.items() if sample == name)


def increase(now: Samples, before: Samples) -> Samples:
    """How much each sample grew. One that fell began anew when its worker did; one that was not there before began at 0."""
    return {key: amount - before.get(key, 0.0) if amount >= before.get(key, 0.0) else amount for key, amount in now.items()}


def quantile(share: float, buckets: Mapping[str, float]) -> float | None:
    """A quantile of a histogram by its cumulative counts per upper bound, interpolated as Prometheus does; None when empty."""
    ordered = sorted((float(bound), count) for bound, count in buckets.items())
    if not ordered or ordered[-1][1] <= 0:
        return None
    rank, lower, below = share * ordered[-1][1], 0.0, 0.0
    for bound, count in ordered:
        if count >= rank and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (rank - below) / (count - below)
        if bound != float("inf"):
            lower, below = bound, count
    return lower


def frame(now: Sequence[Scrape], before: Sequence[Scrape]) -> dict[str, Any]:
    """One picture of all workers, as JSON. `before` is an earlier scrape of each; a worker without one has no rates yet."""
    earlier = {one.url: one for one in before if not one.error}
    pairs = [(one, earlier[one.url]) for one in now if not one.error and one.url in earlier and one.at_s > earlier[one.url].at_s]
    grown = [(increase(one.samples, old.samples), one.at_s - old.at_s) for one, old in pairs]
    all_now = [one.samples for one in now if not one.error]
    fresh = _summed(by_label(samples, "everpin_freshness_seconds_bucket", "le") for samples, _ in grown)
    overall = _summed(by_label(samples, "everpin_freshness_seconds_bucket", "le") for samples in all_now)
    return {
        "workers": [_worker(one) for one in now],
        "lag": _lag(now, earlier),
        "per_second": {
            "events": _rate(grown, "everpin_events_total", "topic"),
            "outcomes": _rate(grown, "everpin_pins_total", "outcome"),
            "encoded_texts": _rate_sum(grown, "everpin_encoded_texts_total"),
            "encoder_calls": _rate_sum(grown, "everpin_encode_seconds_count"),
            "retries": _rate_sum(grown, "everpin_retries_total"),
            "dead_letters": _rate(grown, "everpin_dead_letters_total", "reason"),
            "parked": _rate_sum(grown, "everpin_parked_total"),
        },
        "freshness_ms": {"recent": _quantiles(fresh), "since_start": _quantiles(overall)},
        "dead_letters": {
            "open": _highest(all_now, "everpin_dead_letter_depth"),
            "oldest_s": _highest(all_now, "everpin_dead_letter_oldest_seconds"),
            "write_failures": sum(value(samples, "everpin_dead_letter_write_failures_total") for samples in all_now),
            "by_reason": _present(_summed(by_label(samples, "everpin_dead_letters_total", "reason") for samples in all_now)),
        },
        "parked": {
            "held": sum(value(samples, "everpin_parked_held") for samples in all_now),
            "oldest_s": _highest(all_now, "everpin_parked_oldest_seconds"),
        },
        "retries": sum(value(samples, "everpin_retries_total") for samples in all_now),
    }


def healthy(document: Mapping[str, Any]) -> bool:
    """Whether every worker answers and is ready."""
    return all(worker["ready"] for worker in document["workers"])


def _worker(one: Scrape) -> dict[str, Any]:
    stores = {store: up == 1 for store, up in by_label(one.samples, "everpin_store_up", "store").items()}
    models = sorted(by_label(one.samples, "everpin_build_info", "model_id"))
    return {
        "url": one.url,
        "answers": not one.error,
        "ready": one.ready and not one.error,
        "reasons": [one.error] if one.error else list(one.reasons),
        "model_id": models[0] if models else "",
        "partitions": int(value(one.samples, "everpin_partitions_assigned")),
        "stores": stores,
    }


def _lag(now: Sequence[Scrape], earlier: Mapping[str, Scrape]) -> list[dict[str, Any]]:
    """Per partition. While it moves from one worker to another both may show it: the greater figure is the safer one."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for one in now:
        for (name, labels), messages in one.samples.items():
            if name != "everpin_lag_messages":
                continue
            place = dict(labels)
            key = (place["topic"], int(place["partition"]))
            seconds = one.samples.get(("everpin_lag_seconds", labels), 0.0)
            old = earlier.get(one.url)
            then = old.samples.get((name, labels)) if old else None
            change = (messages - then) / (one.at_s - old.at_s) if old and then is not None and one.at_s > old.at_s else None
            if key not in found or messages > found[key]["messages"]:
                found[key] = {"topic": key[0], "partition": key[1], "messages": int(messages), "seconds": round(seconds, 1),
                              "per_second": None if change is None else round(change, 1), "trend": trend(change)}  # fmt: skip
    return [found[key] for key in sorted(found)]


def trend(change: float | None) -> str:
    """Whether lag grows, in a word; empty while that is unknown."""
    if change is None:
        return ""
    return "growing" if change > STEADY else "shrinking" if change < -STEADY else "steady"


def _rate(grown: Sequence[tuple[Samples, float]], name: str, label: str) -> dict[str, float]:
    return _present(_summed({key: amount / seconds for key, amount in by_label(samples, name, label).items()} for samples, seconds in grown))


def _rate_sum(grown: Sequence[tuple[Samples, float]], name: str) -> float:
    return round(sum(value(samples, name) / seconds for samples, seconds in grown), 2)


def _summed(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        for key, amount in part.items():
            found[key] = found.get(key, 0.0) + amount
    return found


def _present(amounts: Mapping[str, float]) -> dict[str, float]:
    return {key: round(amount, 2) for key, amount in sorted(amounts.items(), key=lambda item: -item[1]) if amount}


def _highest(all_now: Sequence[Samples], name: str) -> float:
    """Of a figure that every worker sees alike."""
    return max((round(value(samples, name), 1) for samples in all_now), default=0.0)


def _quantiles(buckets: Mapping[str, float]) -> dict[str, float | None]:
    found = {"p50": quantile(0.5, buckets), "p99": quantile(0.99, buckets)}
    return {name: None if seconds is None else round(seconds * 1000, 1) for name, seconds in found.items()}


class Watcher:
    """Scrapes workers again and again. `urls` names them anew each time; `keep` keeps those that it once named."""

    def __init__(self, client: httpx.Client, urls: Callable[[], Sequence[str]], keep_s: float = GONE_S) -> None:
        self._client, self._urls, self._keep_s = client, urls, keep_s
        self._answered: dict[str, float] = {}
        self._past: deque[tuple[float, list[Scrape]]] = deque()

    def look(self) -> dict[str, Any]:
        """Scrape all workers at once and compare each with its oldest answer of the last ten seconds."""
        at_s, named = time.monotonic(), list(dict.fromkeys(self._urls()))
        gone = [url for url, answered_s in self._answered.items() if url not in named and at_s - answered_s < self._keep_s]
        with ThreadPoolExecutor(max(1, len(named) + len(gone))) as threads:
            now = list(threads.map(lambda url: scrape(self._client, url), named + gone))
        self._answered |= {one.url: at_s for one in now if not one.error}
        before: dict[str, Scrape] = {}
        for one in (one for _, past in self._past for one in past if not one.error):
            before.setdefault(one.url, one)
        self._past.append((at_s, now))
        while at_s - self._past[0][0] > WINDOW_S:
            self._past.popleft()
        return frame(now, list(before.values()))


def screen(document: Mapping[str, Any]) -> RenderableType:
    """A frame for people."""
    return Group(_workers_table(document), _lag_table(document), _rates_table(document), _summary(document))


def _workers_table(document: Mapping[str, Any]) -> Table:
    table = Table("worker", "ready", "model", "partitions", "stores", "why not", title="Workers", expand=True)
    for worker in document["workers"]:
        stores = Text(" ").join(Text(store, "green" if up else "bold red") for store, up in worker["stores"].items())
        ready = Text("yes", "green") if worker["ready"] else Text("gone" if not worker["answers"] else "no", "bold red")
        table.add_row(worker["url"], ready, worker["model_id"], str(worker["partitions"]), stores, "; ".join(worker["reasons"]))
    if not document["workers"]:
        table.add_row("none", "", "", "", "", "start `everpin up`, or name workers with --url")
    return table


def _lag_table(document: Mapping[str, Any]) -> Table:
    table = Table("topic", "partition", "messages", "seconds", "trend", title="Lag", expand=True)
    colours = {"growing": "red", "shrinking": "green"}
    for lag in document["lag"]:
        words = f"{lag['trend']} {lag['per_second']:+.1f}/s" if lag["trend"] else ""
        table.add_row(lag["topic"], str(lag["partition"]), str(lag["messages"]), f"{lag['seconds']:.1f}", Text(words, colours.get(lag["trend"], "")))
    return table


def _rates_table(document: Mapping[str, Any]) -> Table:
    rates = document["per_second"]
    table = Table("per second", "all", "by", title="Rates", expand=True)
    for name, parts in (("events", rates["events"]), ("outcomes", rates["outcomes"]), ("dead letters", rates["dead_letters"])):
        table.add_row(name, f"{sum(parts.values()):.1f}", "  ".join(f"{part} {amount:.1f}" for part, amount in parts.items()))
    encoder = f"{rates['encoder_calls']:.1f} calls"
    table.add_row("texts encoded", f"{rates['encoded_texts']:.1f}", encoder)
    table.add_row("batches tried again", f"{rates['retries']:.1f}", f"{document['retries']:.0f} since the start")
    return table


def _summary(document: Mapping[str, Any]) -> Table:
    dead, parked, fresh = document["dead_letters"], document["parked"], document["freshness_ms"]
    table = Table(show_header=False, expand=True)
    table.add_row("freshness", f"p50 {_ms(fresh['recent']['p50'])}, p99 {_ms(fresh['recent']['p99'])}",
                  f"since the start p50 {_ms(fresh['since_start']['p50'])}, p99 {_ms(fresh['since_start']['p99'])}")  # fmt: skip
    reasons = "  ".join(f"{reason} {count:.0f}" for reason, count in dead["by_reason"].items())
    failures = f"  {dead['write_failures']:.0f} WRITES FAILED" if dead["write_failures"] else ""
    table.add_row("dead letters", Text(f"{dead['open']:.0f} open, oldest {dead['oldest_s']:.0f} s{failures}", "red" if failures else ""), reasons)
    table.add_row("parked", f"{parked['held']:.0f} held, oldest {parked['oldest_s']:.0f} s", f"{document['per_second']['parked']:.1f} per second")
    return table


def _ms(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else f"{milliseconds:.0f} ms"
