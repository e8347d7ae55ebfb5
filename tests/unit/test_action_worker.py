from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from pins.actions import UserActed, encode
from pins.errors import Unavailable
from pins.events import PinUpdated
from streams.actions import ActionWorker
from streams.broker import DEAD, USER_ACTIONS
from streams.worker import Message, TooManyDeadLetters
from tests.unit.samples import T0
from tests.unit.stream import SECOND_US, Stream, Time, failing, message


class Actors:
    """An action worker beside a worker on fakes, and the outcomes it told."""

    def __init__(self) -> None:
        self.stream = Stream()
        self.outcomes: Counter[str] = Counter()
        self.worker = ActionWorker(self.stream.worker, self.stream.features, self.outcomes.update)

    def handle(self, *values: bytes | None) -> None:
        asyncio.run(self.worker.handle([taken(value, offset) for offset, value in enumerate(values)]))

    def saved(self) -> list[str]:
        return [action.pin_id for action in self.stream.features.history("u")]


def taken(value: bytes | None, offset: int = 0) -> Message:
    return Message(USER_ACTIONS, 1, offset, b"u", value, T0 + SECOND_US, {})


def save(pin_id: str, at: int = 0) -> bytes:
    return encode(UserActed("u", pin_id, "save", T0 + at))


def test_actions_are_in_the_store_when_a_batch_was_handled() -> None:
    actors = Actors()
    actors.handle(save("a", 1), save("b", 2), save("a", 1))
    assert actors.saved() == ["a", "b"]
    assert actors.outcomes == {"added": 2, "unchanged": 1}
    actors.handle(save("a", 1), None)
    assert actors.saved() == []
    assert actors.outcomes == {"added": 2, "unchanged": 2, "forgotten": 1}
    assert actors.stream.sent == []


def test_what_is_no_action_is_a_dead_letter_and_holds_up_nobody() -> None:
    actors = Actors()
    actors.handle(b"nonsense", save("a"))
    assert actors.saved() == ["a"]
    (dead,) = actors.stream.on(DEAD)
    assert (dead.key, dead.value) == (b"u", b"nonsense")
    origin = [dead.headers[name] for name in ("reason", "source_topic", "source_partition", "source_offset", "attempts")]
    assert origin == [b"not_json", b"user-actions", b"1", b"0", b"1"]
    assert actors.stream.seen.dead == ["not_json"]


def test_a_wave_of_nonsense_stops_the_worker_and_good_actions_forgive() -> None:
    actors = Actors()
    for _ in range(3):
        actors.handle(*[b"nonsense"] * 4, *(save(str(n)) for n in range(4)))
    with pytest.raises(TooManyDeadLetters):
        actors.handle(*[b"nonsense"] * 5)


def test_a_store_that_is_away_is_waited_for(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = Actors()
    features = actors.stream.features
    monkeypatch.setattr(features, "replace", failing(Unavailable("away"), 2, features.replace))
    actors.handle(save("a"), b"nonsense")
    assert actors.saved() == ["a"]
    assert (len(time.waits), actors.stream.seen.times_retried, actors.stream.seen.states) == (2, 2, [False, False, True])
    assert len(actors.stream.on(DEAD)) == 1


def test_a_store_that_stays_away_raises_and_nothing_is_told(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    actors = Actors()
    monkeypatch.setattr(actors.stream.features, "histories", failing(Unavailable("away"), 99, dict))
    with pytest.raises(Unavailable, match="away"):
        actors.handle(save("a"), b"nonsense")
    assert actors.outcomes == {}
    assert actors.stream.sent == []


def test_pins_and_actions_use_the_feature_store_from_one_thread() -> None:
    actors, threads = Actors(), set[str]()
    features = actors.stream.features

    def note() -> None:
        import threading

        threads.add(threading.current_thread().name)

    features.on_replace = note
    actors.stream.index.on_write = note
    actors.handle(save("a"))
    actors.stream.handle(message(PinUpdated("p", T0, {"pin_caption": {"caption": "soup"}})))
    assert threads == {"everpin-indexer_0"}


def test_the_letter_of_an_action_says_what_a_person_needs() -> None:
    actors = Actors()
    actors.handle(json.dumps({"type": "user_action", "user_id": "u", "pin_id": "p", "action": "like"}).encode())
    (dead,) = actors.stream.on(DEAD)
    assert dead.headers["reason"] == b"bad_action"
    assert b"use one of save, click" in dead.headers["detail"]
