"""Ten thousand hostile requests to the real application over real sockets: each is answered as the contract says, and nothing of it stays."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic_core import from_json

from pins.events import encode
from surfaces.arrival import Limits
from surfaces.schemas import Problem
from tests.hostile.generator import FAMILIES, Attack, attacks, packed
from tests.hostile.values import SECRET
from tests.hostile.wire import Answer, Line
from tests.surfaces.parts import Running, running

COUNT = int(os.environ.get("EVERPIN_TEST_HOSTILE", "10000"))
SEED, LINES = 20_261, 4
GOOD = {"query": "sourdough bread for beginners", "limit": 5}
SECURITY = ("content-security-policy", "x-content-type-options", "x-request-id")
LIMITS = Limits(head_s=2.0, body_s=2.0, queue_ms=60_000)
"""An attack that promises more than it sends is waited for two seconds; nothing is shed, however slow the machine."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("hostile"), limits=LIMITS) as made:
        yield made


class Logs(logging.Handler):
    """Every line that any logger writes."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.formatted = logging.Formatter("%(levelname)s %(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.formatted.format(record))


@pytest.fixture
def logs() -> Iterator[Logs]:
    handler = Logs()
    loggers = [logging.getLogger(name) for name in ("", "uvicorn.error", "uvicorn.access")]
    loggers = [logger for logger in loggers if logger.name == "root" or not logger.propagate]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def wrongs(attack: Attack, answer: Answer | None) -> list[str]:
    """What is wrong with an answer; an attack below HTTP may get none."""
    if answer is None:
        return [] if attack.family in ("no_http", "headers", "a_method", "an_address", "a_size") else ["no answer"]
    found = [f"no {name}" for name in SECURITY if not answer.header(name) and not (name == SECURITY[0] and answer.header("connection") == "close")]
    found += [f"header {name} came of the request" for name, _ in answer.headers if name in ("x-injected", "set-cookie", "server")]
    if answer.status >= 500:
        found.append(f"status {answer.status}")
    if answer.status >= 400 and answer.body:
        if answer.header("content-type") != "application/problem+json":
            return [*found, f"{answer.status} as {answer.header('content-type')}"]
        problem = Problem.model_validate_json(answer.body)
        found += [] if problem.status == answer.status else ["another status inside"]
        found += [] if problem.instance == answer.header("x-request-id") else ["another request id inside"]
        found += [] if problem.detail and len(answer.body) < 20_000 else ["no detail, or far too much"]
    elif answer.header("content-type").endswith("json") and answer.body:
        from_json(answer.body, allow_inf_nan=False)
    return found


@dataclass
class Tally:
    """What came of all attacks."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, attack: Attack, answer: Answer | None, lock: threading.Lock) -> None:
        try:
            found = wrongs(attack, answer)
        except (ValueError, AssertionError) as error:
            found = [f"unreadable answer: {error}"[:300]]
        with lock:
            self.statuses[attack.family, answer.status if answer else 0] += 1
            for one in found:
                self.wrong[f"{attack.family}: {one}"].append(f"{attack.raw[:400]!r} -> {answer.body[:300] if answer else b''!r}")


def sent(url: str, made: Sequence[Attack]) -> Tally:
    """Send all of them, over some connections at once."""
    address, tally, lock, left = urlsplit(url), Tally(), threading.Lock(), iter(made)

    def worker() -> None:
        line = Line(str(address.hostname), address.port or 80)
        while True:
            with lock:
                attack = next(left, None)
            if attack is None:
                break
            try:
                tally.add(attack, line.ask(attack.raw), lock)
            except Exception as error:
                with lock:
                    tally.wrong[f"{attack.family}: {type(error).__name__}: {error}"].append(f"{attack.raw[:400]!r}")
                line.close()
        line.close()

    threads = [threading.Thread(target=worker) for _ in range(LINES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def cursors(app: Running) -> list[str]:
    """Real cursors of the three routes that have them."""
    answers = [
        app.client.post("/v1/search", json={"query": "bread", "limit": 2}),
        app.client.get("/v1/pins/food-001/related", params={"limit": 2}),
        app.client.get("/v1/users/fan/feed", params={"limit": 2}),
    ]
    assert all(answer.status_code == 200 for answer in answers), [answer.text for answer in answers]
    return [str(answer.json()["cursor"]) for answer in answers if answer.json()["cursor"]]


def good(app: Running) -> Any:
    """What a good request is answered, without what differs each time."""
    answer = app.client.post("/v1/search", json=GOOD)
    assert answer.status_code == 200, answer.text
    return [(result["pin_id"], result["level"]) for result in answer.json()["results"]]


def test_the_generator_makes_the_same_requests_again_no_two_alike() -> None:
    cursor = [packed({"m": "everpin-l6-v1", "q": "abc", "r": [["food-001", 0.5, {"level": 4}]] * 3, "x": None})]
    some = list(attacks(3, 300, cursor))
    assert some == list(attacks(3, 300, cursor))
    assert some != list(attacks(4, 300, cursor))
    assert len({attack.raw for attack in some}) == 300
    assert {attack.family for attack in some} == {family.__name__ for family in FAMILIES}


def test_hostile_requests_are_answered_by_the_contract_and_leave_nothing_behind(app: Running, logs: Logs) -> None:
    before, held = good(app), threading.active_count()
    made = list(attacks(SEED, COUNT, cursors(app)))
    tally = sent(str(app.client.base_url), made)
    families = Counter(attack.family for attack in made)
    assert not tally.wrong, json.dumps({what: [len(which), *which[:2]] for what, which in tally.wrong.items()}, indent=1)
    assert sum(tally.statuses.values()) == COUNT
    refused = Counter({family: sum(number for (named, status), number in tally.statuses.items() if named == family and status >= 400) for family in families})
    assert refused.total() > COUNT * 0.6, f"the generator has grown tame: {tally.statuses}"
    assert all(refused[family] for family in families), f"a family of attacks is let through: {refused}"
    leaks = [line for line in logs.lines if SECRET in line]
    assert not leaks, leaks[:3]
    assert not [line for line in logs.lines if line.startswith(("ERROR", "CRITICAL"))], logs.lines[:5]
    assert all("\n" not in line for line in logs.lines), "a request wrote more than one line into the log"
    assert good(app) == before, "a good request is answered otherwise than before"
    assert threading.active_count() <= held + 40 + LINES, "threads were left behind"
    for event in app.sent.events:
        encode(event)
