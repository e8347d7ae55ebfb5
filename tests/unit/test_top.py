"""`everpin top`: parsing, rates, quantiles, frames of several workers, and the command against real routes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from everpin.cli import app
from everpin.commands import health
from everpin.http import listening
from everpin.owner import Owner, announce, ownership, place
from everpin.settings import settings
from everpin.telemetry import Telemetry
from everpin.top import Scrape, Watcher, by_label, frame, healthy, increase, parse, quantile, scrape, screen, trend, value


def worked(**counts: int) -> Telemetry:
    """A worker's telemetry after some work: outcomes by name."""
    telemetry = Telemetry("1.0", "m1")
    for outcome, count in counts.items():
        telemetry.pins.labels(outcome).inc(count)
    return telemetry


def taken(telemetry: Telemetry, url: str = "http://a", at_s: float = 0.0) -> Scrape:
    return Scrape(url, at_s, parse(telemetry.exposition().decode()), ready=True)


def shown(document: Any) -> str:
    console = Console(width=160, record=True, file=StringIO())
    console.print(screen(document))
    return console.export_text()


def test_what_a_worker_shows_is_read_back() -> None:
    samples = parse(worked(new=3, unchanged=2).exposition().decode())
    outcomes = by_label(samples, "everpin_pins_total", "outcome")
    assert (outcomes["new"], outcomes["unchanged"], outcomes["deleted"]) == (3, 2, 0)
    assert value(samples, "everpin_pins_total") == 5
    assert value(samples, "everpin_never") == 0


def test_an_increase_survives_a_restart_and_a_new_series() -> None:
    key, other = ("c", ()), ("c", (("a", "b"),))
    assert increase({key: 7.0}, {key: 5.0}) == {key: 2.0}
    assert increase({key: 3.0}, {key: 5.0}) == {key: 3.0}, "it began anew at 0"
    assert increase({other: 4.0}, {key: 5.0}) == {other: 4.0}


def test_quantiles_are_interpolated_as_prometheus_does() -> None:
    buckets = {"0.1": 10.0, "0.2": 20.0, "+Inf": 20.0}
    assert quantile(0.5, buckets) == pytest.approx(0.1)
    assert quantile(0.75, buckets) == pytest.approx(0.15)
    assert quantile(1.0, buckets) == pytest.approx(0.2)
    assert quantile(0.99, {"1": 0.0, "5": 0.0, "+Inf": 3.0}) == 5.0, "beyond the last bucket: its bound"
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {"1": 0.0, "+Inf": 0.0}) is None


@given(st.lists(st.integers(0, 50), min_size=3, max_size=8), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_quantiles_rise_and_stay_inside(counts: list[int], one: float, other: float) -> None:
    buckets, total = {}, 0
    for number, count in enumerate(counts):
        total += count
        buckets["+Inf" if number == len(counts) - 1 else str(2.0**number)] = float(total)
    low, high = quantile(min(one, other), buckets), quantile(max(one, other), buckets)
    assert (low is None) == (high is None) == (total == 0)
    if low is not None and high is not None:
        assert 0 <= low <= high + 1e-9 <= 2.0 ** (len(counts) - 2) + 1e-9


def test_rates_are_over_two_scrapes_of_all_workers() -> None:
    now = [taken(worked(new=30, unchanged=10), "http://a", 5.0), taken(worked(new=8), "http://b", 5.0)]
    before = [taken(worked(new=10, unchanged=10), "http://a", 0.0), taken(worked(), "http://b", 1.0)]
    assert frame(now, before)["per_second"]["outcomes"] == {"new": 6.0}


def test_a_worker_without_an_earlier_scrape_has_no_rates() -> None:
    document = frame([taken(worked(new=30))], [])
    assert document["per_second"]["outcomes"] == {}
    assert document["per_second"]["encoded_texts"] == 0
    assert [worker["ready"] for worker in document["workers"]] == [True]


def test_lag_has_a_trend_per_partition() -> None:
    def lagging(messages: int, seconds: float) -> Telemetry:
        telemetry = worked()
        telemetry.show_lag({("pin-updates", "10"): (messages, seconds, 7), ("pin-updates", "2"): (0, 0.0, 7)})
        return telemetry

    document = frame([taken(lagging(60, 3.5), at_s=10.0)], [taken(lagging(20, 1.0), at_s=0.0)])
    assert document["lag"] == [
        {"topic": "pin-updates", "partition": 2, "messages": 0, "seconds": 0.0, "per_second": 0.0, "trend": "steady"},
        {"topic": "pin-updates", "partition": 10, "messages": 60, "seconds": 3.5, "per_second": 4.0, "trend": "growing"},
    ]
    assert "growing +4.0/s" in shown(document)


def test_a_partition_between_two_workers_is_shown_once() -> None:
    one, other = worked(), worked()
    one.show_lag({("pin-updates", "0"): (5, 1.0, 0)})
    other.show_lag({("pin-updates", "0"): (50, 9.0, 0)})
    document = frame([taken(one, "http://a"), taken(other, "http://b")], [])
    assert [(lag["messages"], lag["seconds"], lag["trend"]) for lag in document["lag"]] == [(50, 9.0, "")]


@pytest.mark.parametrize(("change", "word"), [(None, ""), (0.5, "steady"), (0.6, "growing"), (-0.6, "shrinking"), (0.0, "steady")])
def test_trends(change: float | None, word: str) -> None:
    assert trend(change) == word


def test_freshness_is_of_the_window_and_since_the_start() -> None:
    before, now = worked(), worked()
    for telemetry in (before, now):
        telemetry.observe_freshness([40.0] * 100)
    now.observe_freshness([0.08] * 100)
    document = frame([taken(now, at_s=5.0)], [taken(before, at_s=0.0)])
    assert document["freshness_ms"]["recent"]["p99"] < 100
    assert document["freshness_ms"]["since_start"]["p99"] > 30_000
    idle = frame([taken(now, at_s=5.0)], [taken(now, at_s=0.0)])
    assert idle["freshness_ms"]["recent"] == {"p50": None, "p99": None}


def test_dead_letters_are_counted_once_and_their_reasons_summed() -> None:
    one, other = worked(), worked()
    for telemetry in (one, other):
        telemetry.dead_letter_depth.set(7)
        telemetry.dead_letters.labels("not_json").inc(2)
        telemetry.parked_held.set(3)
    other.dead_letter_write_failures.inc()
    document = frame([taken(one, "http://a"), taken(other, "http://b")], [])
    assert document["dead_letters"]["open"] == 7
    assert document["dead_letters"]["by_reason"] == {"not_json": 4}
    assert document["parked"]["held"] == 6
    assert "1 WRITES FAILED" in shown(document)


def test_a_worker_that_went_away_is_shown_and_the_others_go_on() -> None:
    stays = [taken(worked(new=10), "http://a", 5.0), Scrape("http://b", 5.0, error="ConnectError: refused")]
    document = frame(stays, [taken(worked(), "http://a", 0.0), taken(worked(new=100), "http://b", 0.0)])
    assert document["per_second"]["outcomes"] == {"new": 2.0}
    assert not healthy(document)
    text = shown(document)
    assert "gone" in text
    assert "refused" in text


def test_reasons_and_stores_are_shown() -> None:
    telemetry = worked()
    telemetry.answers("index", False)
    document = frame([replace(taken(telemetry), ready=False, reasons=("index does not answer",))], [])
    assert document["workers"][0]["stores"] == {"features": True, "index": False, "kafka": True}
    assert "index does not answer" in shown(document)
    assert not healthy(document)


def test_a_document_is_json_and_every_screen_can_be_drawn() -> None:
    empty = frame([], [])
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    assert "everpin up" in shown(empty)
    assert healthy(empty)


# --- against real routes


class Worker:
    """The routes of a worker that says what it is told to."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry, self.reasons, self.text = telemetry, [], ""  # type: tuple[Telemetry, list[str], str]
        self.app = FastAPI()
        self.app.get("/metrics")(lambda: Response(self.text or telemetry.exposition()))
        self.app.get("/readyz")(self.readyz)

    def readyz(self, response: Response) -> dict[str, Any]:
        response.status_code = 503 if self.reasons else 200
        return {"ready": not self.reasons, "reasons": self.reasons}


@pytest.fixture
def worker() -> Worker:
    return Worker(worked(new=3))


@pytest.fixture
def url(worker: Worker) -> Iterator[str]:
    with listening(worker.app, 0) as url:
        yield url


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5) as client:
        yield client


def test_an_unready_worker_still_answers(client: httpx.Client, worker: Worker, url: str) -> None:
    worker.reasons = ["kafka does not answer"]
    found = scrape(client, url)
    assert (found.ready, found.reasons, found.error) == (False, ("kafka does not answer",), "")
    assert value(found.samples, "everpin_pins_total") == 3


@pytest.mark.parametrize("text", ["<html>", "everpin_pins_total nonsense"])
def test_what_is_no_worker_is_said_not_raised(client: httpx.Client, worker: Worker, url: str, text: str) -> None:
    worker.text = text
    assert "ValueError" in scrape(client, url).error


def test_a_port_without_a_listener_is_said_not_raised(client: httpx.Client) -> None:
    assert "ConnectError" in scrape(client, "http://127.0.0.1:1").error
    assert scrape(client, "http://[").error


def test_a_watcher_goes_on_when_a_worker_goes_and_another_comes(client: httpx.Client) -> None:
    named: list[str] = []
    watcher = Watcher(client, lambda: named)
    with ExitStack() as second:
        with listening(Worker(worked(new=1)).app, 0) as first_url:
            named.append(first_url)
            assert healthy(watcher.look())
        second_url = second.enter_context(listening(Worker(worked(new=5)).app, 0))
        named[:] = [second_url]
        document = watcher.look()
    states = {one["url"]: one["answers"] for one in document["workers"]}
    assert states == {second_url: True, first_url: False}


def test_a_worker_that_was_never_seen_and_is_not_named_any_more_is_dropped(client: httpx.Client) -> None:
    named: Sequence[str] = ["http://127.0.0.1:1"]
    watcher = Watcher(client, lambda: named)
    watcher.look()
    named = []
    assert watcher.look()["workers"] == []


def test_the_watcher_counts_what_happened_between_two_looks(client: httpx.Client, worker: Worker, url: str) -> None:
    watcher = Watcher(client, lambda: [url])
    assert watcher.look()["per_second"]["outcomes"] == {}
    worker.telemetry.pins.labels("unchanged").inc(1_000_000)
    rate = watcher.look()["per_second"]["outcomes"]["unchanged"]
    assert rate > 100
    assert math.isfinite(rate)


@pytest.fixture
def home(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("EVERPIN_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def top(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["top", "--interval", "0.2", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_the_command_prints_one_document(home: Any, worker: Worker, url: str) -> None:
    code, text = top("--json", "--url", f"{url}/metrics", "--url", url.removeprefix("http://"))
    document = json.loads(text)
    assert code == 0
    assert [one["url"] for one in document["workers"]] == [url], "one worker, however it is named"


def test_the_command_exits_1_when_a_named_worker_is_gone(home: Any, url: str) -> None:
    code, text = top("--once", "--url", url, "--url", "127.0.0.1:1")
    assert code == 1
    assert "gone" in text


def test_the_command_finds_the_owner_of_the_home(home: Any, worker: Worker, url: str) -> None:
    worker.reasons = ["this worker has not joined its group yet, or is between two assignments"]
    folder = place(home, "m")
    with ownership(folder, "test"):
        announce(folder, Owner(1, url, "", "worker"))
        code, text = top("--json")
    assert code == 1
    assert json.loads(text)["workers"][0]["reasons"] == worker.reasons


def test_the_command_says_when_there_is_no_worker(home: Any) -> None:
    with pytest.raises(health.Unavailable, match="everpin up"):
        top("--once")


def test_ctrl_c_is_a_good_end(home: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(health, "_one_frame", interrupted)
    assert top("--url", url)[0] == 0
