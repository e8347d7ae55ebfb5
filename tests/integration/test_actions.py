"""User actions through real workers: into Feast once each, whatever happens, and from there into the home feed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from everpin.wiring import build_artifact, now_us, open_index
from pins.actions import UserActed
from pins.retrieval.feed import Feed, home_feed
from streams.broker import USER_ACTIONS, Broker, EventProducer, Post, embedded_broker, ensure_topics, send_actions
from streams.deadletters import dead_letters, replay
from streams.features import FeastFeatures
from tests.integration.rig import Rig, captions, until
from tests.services.kafka import RunningKafka

PINS = {f"{thing}-{n}": f"{words} number {n}" for thing, words in {"soup": "a bowl of tomato soup", "bike": "a red racing bicycle"}.items() for n in range(3)}


@pytest.fixture(params=["embedded", "kafka"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "embedded":
        with embedded_broker() as broker:
            made = Rig(broker, tmp_path / "home")
            yield made
            made.stop()
    else:
        kafka: RunningKafka = request.getfixturevalue("kafka")
        made = Rig(Broker(kafka.address), tmp_path / "home")
        yield made
        made.stop()


class Reader:
    """What a serving process sees: Feast, and the worker's index."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.features = rig, FeastFeatures(rig.config.feast_home, rig.config.feast_yaml)

    def saved(self, user_id: str) -> list[str]:
        return [action.pin_id for action in self.features.history(user_id)]

    def feed(self, user_id: str) -> Feed:
        manifest = build_artifact(self.rig.config).manifest
        with open_index(self.rig.config, manifest.model_id, manifest.dimension, purpose="test") as index:
            return home_feed(self.features.history(user_id), index, now_us())

    def interests(self, user_id: str) -> set[str]:
        return {interest.medoid for interest in self.feed(user_id).interests}


def act(rig: Rig, *actions: UserActed) -> None:
    producer = EventProducer(rig.broker, rig.group)
    send_actions(producer, actions)
    producer.close()


def saves(user_id: str, pin_ids: Sequence[str]) -> list[UserActed]:
    at = now_us() - len(pin_ids)
    return [UserActed(user_id, pin_id, "save", at + place) for place, pin_id in enumerate(pin_ids)]


def test_an_action_changes_the_feed(rig: Rig) -> None:
    rig.url(rig.start())
    for pin_id, words in PINS.items():
        rig.send(captions([pin_id], words))
    rig.drain()
    reader = Reader(rig)
    assert reader.feed("u").kind == "newest"

    act(rig, *saves("u", ["soup-0"]))
    until(lambda: reader.interests("u") == {"soup-0"}, "the feed is the user's own")
    assert {result.pin_id for result in reader.feed("u").results[:2]} == {"soup-1", "soup-2"}

    act(rig, *saves("u", ["bike-0"]))
    until(lambda: reader.interests("u") == {"soup-0", "bike-0"}, "the new interest is there")
    feed = reader.feed("u")
    assert {result.interest for result in feed.results[:2]} == {"soup-0", "bike-0"}
    assert "bike-0" not in [result.pin_id for result in feed.results]
    assert rig.stop() == [0]


def test_a_killed_worker_loses_no_action_and_doubles_none(rig: Rig) -> None:
    users = [f"user-{n}" for n in range(20)]
    sent: dict[str, list[UserActed]] = {user: [] for user in users}
    for round_number in range(2):
        worker = rig.start()
        rig.url(worker)
        batch = [action for user in users for action in saves(user, [f"p{round_number}-{n}" for n in range(5)])]
        for action in batch:
            sent[action.user_id].append(action)
        act(rig, *batch, *batch)
        until(lambda: rig.lag() < 200, "the worker is at its work", 60)
        rig.kill(worker)
    rig.url(rig.start())
    rig.drain()
    reader = Reader(rig)
    for user in users:
        assert [(a.pin_id, a.time_us) for a in reader.features.history(user)] == sorted(
            ((a.pin_id, a.event_time_us) for a in sent[user]), key=lambda one: (one[1], one[0])
        )
    assert rig.stop()[-1] == 0


def test_a_forgotten_user_stays_forgotten_and_letters_come_back(rig: Rig) -> None:
    ensure_topics(rig.broker, 4, 1)
    old, again = saves("u", ["a", "b"]), now_us()
    act(rig, *old)
    producer = EventProducer(rig.broker, rig.group)
    producer.forget("u")
    producer.flush()
    until(lambda: now_us() > again + 2000, "a later millisecond")
    send_actions(producer, [*old, UserActed("u", "c", "click", now_us())])
    late = b'{"type": "user_action", "user_id": "v", "pin_id": "p", "action": "adore"}'
    assert producer.deliver([Post(USER_ACTIONS, b"v", late, {})]) == [""]
    rig.url(rig.start())
    rig.drain()
    reader = Reader(rig)
    until(lambda: reader.saved("u") == ["c"], "only what came after the deletion is there")
    (letter,) = until(lambda: list(dead_letters(rig.broker)), "the letter is there")
    assert (letter.pin_id, letter.reason, letter.source.split(":")[0], letter.topic) == ("v", "bad_action", USER_ACTIONS, USER_ACTIONS)
    assert replay([letter], producer, now_us, lambda done: None).done == 1
    rig.drain()
    (second,) = until(lambda: [found for found in dead_letters(rig.broker) if found.attempts == 2], "it failed again, in the same topic")
    assert second.source == letter.source
    producer.close()
    assert rig.stop() == [0]
