"""The contract of FeatureSource: one suite for the fake, Feast on ordered SQLite and Feast on Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pins.errors import Unavailable
from pins.features import FeatureRow, UserAction
from pins.ports import FeatureSource
from streams.features import DEFAULT_YAML, FeastFeatures
from tests.fakes import FakeFeatures

T0 = 1_764_000_000_000_000
REDIS_YAML = DEFAULT_YAML.with_name("feature_store.redis.yaml")


@pytest.fixture(params=["fake", "sqlite", "redis"])
def features(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FeatureSource]:
    if request.param == "fake":
        yield FakeFeatures()
        return
    if request.param == "redis":
        monkeypatch.setenv("EVERPIN_REDIS", request.getfixturevalue("redis_url").removeprefix("redis://").split("/")[0])
    made = FeastFeatures(tmp_path / "feast", REDIS_YAML if request.param == "redis" else None)
    yield made
    made.close()


def content(pin_id: str, title: str, at: int = T0) -> FeatureRow:
    blank = dict.fromkeys(("description", "link_title", "link_description", "link_url", "image_url"), "")
    return FeatureRow("pin_content", pin_id, at, {**blank, "title": title, "category": "food", "lang": "en", "created_at_us": T0 - 5})


def caption(pin_id: str, text: str | None, at: int = T0) -> FeatureRow:
    return FeatureRow("pin_caption", pin_id, at, {"caption": text})


def unique(request: pytest.FixtureRequest, name: str) -> str:
    return f"{request.node.name}-{name}"


def test_rows_of_all_views_come_back_as_one_pin(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    pin_id = unique(request, "é日本😀")
    features.write([
        content(pin_id, "Soup"),
        caption(pin_id, "a bowl", T0 + 1),
        FeatureRow("pin_boards", pin_id, T0 + 2, {"board_titles": ["b", "a", "b"]}),
        FeatureRow("pin_engagement", pin_id, T0 + 3, {"engaged_queries": ["x", "y"], "engaged_counts": [2, 1.5], "save_count": 3, "like_count": None}),
    ])
    pin = features.of([pin_id])[pin_id]
    assert (pin.title, pin.caption, pin.board_titles, pin.created_at_us, pin.save_count, pin.like_count) == ("Soup", "a bowl", ("b", "a", "b"), T0 - 5, 3, 0)
    assert pin.engaged_queries == (("x", 2.0), ("y", 1.5))
    assert pin.as_of == {"pin_content": T0, "pin_caption": T0 + 1, "pin_boards": T0 + 2, "pin_engagement": T0 + 3}
    assert not pin.deleted


def test_missing_pins_are_absent(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    assert features.of([unique(request, "nobody")]) == {}
    assert features.of([]) == {}


def test_an_older_row_never_replaces_a_newer_one(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    pin_id = unique(request, "p")
    features.write([caption(pin_id, "newer", T0 + 1)])
    features.write([caption(pin_id, "older", T0)])
    assert features.of([pin_id])[pin_id].caption == "newer"
    features.write([caption(pin_id, "newest", T0 + 9), caption(pin_id, "late in the same batch", T0 + 8)])
    assert features.of([pin_id])[pin_id].caption == "newest"
    features.write([caption(pin_id, "the same time again", T0 + 9)])
    assert features.of([pin_id])[pin_id].caption == "the same time again"
    assert features.of([pin_id])[pin_id].as_of == {"pin_caption": T0 + 9}


def test_a_row_replaces_the_whole_row(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    pin_id = unique(request, "p")
    features.write([caption(pin_id, "there"), FeatureRow("pin_boards", pin_id, T0, {"board_titles": ["a"]})])
    features.write([caption(pin_id, None, T0 + 1), FeatureRow("pin_boards", pin_id, T0 + 1, {"board_titles": []})])
    pin = features.of([pin_id])[pin_id]
    assert (pin.caption, pin.board_titles) == ("", ())
    assert pin.as_of["pin_caption"] == T0 + 1


def test_deletion_is_a_feature(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    pin_id = unique(request, "p")
    features.write([content(pin_id, "Soup"), FeatureRow("pin_status", pin_id, T0 + 1, {"deleted": 1})])
    assert features.of([pin_id])[pin_id].deleted


def test_answers_do_not_mix_pins(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    ids = [unique(request, str(n)) for n in range(300)]
    features.write([content(pin_id, f"title {pin_id}") for pin_id in ids[::2]])
    found = features.of(ids)
    assert set(found) == set(ids[::2])
    assert all(pin.title == f"title {pin_id}" for pin_id, pin in found.items())


def test_a_history_reads_back_in_order(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    user = unique(request, "u")
    if isinstance(features, FakeFeatures):
        features.histories[user] = [UserAction("p1", "save", T0), UserAction("p2", "click", T0 + 1)]
    features.write([FeatureRow("user_history", user, T0, {"pin_ids": ["p1", "p2"], "actions": ["save", "click"], "action_times_us": [T0, T0 + 1]})])
    assert features.history(user) == [UserAction("p1", "save", T0), UserAction("p2", "click", T0 + 1)]
    assert features.history(unique(request, "nobody")) == []


RACER = """
import sys
from pathlib import Path
from pins.features import FeatureRow
from streams.features import FeastFeatures
home, yaml, parity = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
features = FeastFeatures(home, yaml)
for at in range(parity, 400, 2):
    features.write([FeatureRow("pin_caption", f"race{n}", 1_764_000_000_000_000 + at, {"caption": str(at)}) for n in range(8)])
"""


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_the_newest_row_wins_between_two_writing_processes(store: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    environment, yaml = dict(os.environ), DEFAULT_YAML
    if store == "redis":
        environment["EVERPIN_REDIS"] = request.getfixturevalue("redis_url").removeprefix("redis://").split("/")[0]
        os.environ["EVERPIN_REDIS"], yaml = environment["EVERPIN_REDIS"], REDIS_YAML
    features = FeastFeatures(tmp_path, yaml)
    racers = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", RACER, str(tmp_path), str(yaml), str(parity)], env=environment) for parity in (0, 1)]
    assert [racer.wait(120) for racer in racers] == [0, 0]
    assert {pin.caption for pin in features.of([f"race{n}" for n in range(8)]).values()} == {"399"}
    features.close()


def test_a_dead_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERPIN_REDIS", "127.0.0.1:1")
    with pytest.raises(Unavailable, match="EVERPIN_FEAST_YAML"):
        FeastFeatures(tmp_path, REDIS_YAML)
