"""The contract of FeatureSource: one suite for the fake, Feast on ordered SQLite and Feast on Redis."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import typeguard

from pins.actions import FORGOTTEN, HistoryWrite, StoredHistory, UserActed, UserForgotten, history_row, record
from pins.errors import Unavailable
from pins.features import FeatureRow, UserAction
from pins.ports import FeatureSource
from streams.features import DEFAULT_YAML, FeastFeatures
from tests.fakes import FakeFeatures
from tests.faults.processes import script
from tests.files import holding

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
    features.write(
        [
            content(pin_id, "Soup"),
            caption(pin_id, "a bowl", T0 + 1),
            FeatureRow("pin_boards", pin_id, T0 + 2, {"board_titles": ["b", "a", "b"]}),
            FeatureRow("pin_engagement", pin_id, T0 + 3, {"engaged_queries": ["x", "y"], "engaged_counts": [2, 1.5], "save_count": 3, "like_count": None}),
        ]
    )
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


def test_a_caption_names_its_model_and_a_row_without_one_names_none(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    """Rows from before there was a `caption_model` stay readable, and a person's caption does not keep the name of a model."""
    old, new = unique(request, "old"), unique(request, "new")
    features.write([caption(old, "by a person"), FeatureRow("pin_caption", new, T0, {"caption": "by a model", "caption_model": "blip"})])
    assert [(pin.caption, pin.caption_model) for pin in map(features.of([old, new]).get, (old, new)) if pin] == [("by a person", ""), ("by a model", "blip")]
    features.write([caption(new, "by a person", T0 + 1)])
    assert features.of([new])[new].caption_model == ""


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
    features.write([FeatureRow("user_history", user, T0, {"pin_ids": ["p1", "p2"], "actions": ["save", "click"], "action_times_us": [T0, T0 + 1]})])
    assert features.history(user) == [UserAction("p1", "save", T0), UserAction("p2", "click", T0 + 1)]
    assert features.history(unique(request, "nobody")) == []


Features = FakeFeatures | FeastFeatures


def test_a_history_is_replaced_only_while_it_is_the_one_that_was_read(features: Features, request: pytest.FixtureRequest) -> None:
    user, other = unique(request, "é"), unique(request, "other")
    assert features.histories([user, other]) == {user: StoredHistory(), other: StoredHistory()}
    saves = [(UserAction("p1", "save", T0),), (UserAction("p1", "save", T0), UserAction("p2", "click", T0 + 1))]

    def write(name: str, actions: tuple[UserAction, ...], at: int, expected: int | None) -> HistoryWrite:
        return HistoryWrite(history_row(name, actions, at), expected)

    assert features.replace([]) == set()
    assert features.histories([]) == {}
    assert features.replace([write(user, saves[0], T0 + 5, T0)]) == set(), "nothing is there to be replaced"
    assert features.replace([write(user, saves[0], T0 + 5, None), write(other, (), T0, None)]) == {user, other}
    assert features.histories([user, other]) == {user: StoredHistory(saves[0], T0 + 5), other: StoredHistory((), T0)}
    assert features.replace([write(user, saves[1], T0 + 6, None), write(other, saves[1], T0 + 1, T0)]) == {other}, "somebody else was first"
    assert features.replace([write(user, saves[1], T0 + 9, T0 + 4)]) == set()
    assert features.replace([write(user, saves[1], T0 + 6, T0 + 5)]) == {user}
    assert features.histories([user]) == {user: StoredHistory(saves[1], T0 + 6)}
    assert list(features.history(user)) == list(saves[1])


def test_the_mark_of_a_deletion_is_no_action(features: Features, request: pytest.FixtureRequest) -> None:
    user = unique(request, "u")
    record([UserActed(user, "p", "save", T0), UserForgotten(user, T0 + 1)], features, T0)
    assert list(features.history(user)) == []
    assert features.histories([user])[user].actions == (UserAction("", FORGOTTEN, T0 + 1),)


def test_every_user_is_listed(features: Features, request: pytest.FixtureRequest) -> None:
    users = [unique(request, str(n)) for n in range(25)]
    record([UserActed(user, "p", "save", T0) for user in users], features, T0)
    features.write([content(unique(request, "a pin"), "x")])
    listed = [user for page in features.user_ids(10) for user in page if user.startswith(request.node.name)]
    assert sorted(set(listed)) == sorted(users)


def test_every_pin_is_listed_in_bounded_batches(features: FeatureSource, request: pytest.FixtureRequest) -> None:
    ids = [unique(request, f"{n}é") for n in range(57)]
    features.write([content(pin_id, "x") for pin_id in ids[:40]] + [caption(pin_id, "y") for pin_id in ids[20:]])
    features.write([FeatureRow("pin_status", ids[7], T0, {"deleted": 1}), FeatureRow("pin_status", ids[50], T0, {"deleted": 0})])
    features.write([FeatureRow("user_history", unique(request, "u"), T0, {"pin_ids": [], "actions": [], "action_times_us": []})])

    def listed(view: str = "") -> list[str]:
        pages = [list(page) for page in features.pin_ids(10, view)]
        assert max(map(len, pages)) <= 20  # Redis may give some more than asked for
        return [pin_id for page in pages for pin_id in page if pin_id.startswith(request.node.name)]

    assert sorted(set(listed())) == sorted(ids)
    assert sorted(set(listed("pin_status"))) == sorted([ids[7], ids[50]])
    assert sorted(set(listed("pin_content"))) == sorted(ids[:40])
    assert features.present([*ids, unique(request, "nobody"), unique(request, "u")]) == set(ids)
    assert features.present([]) == set()
    if "redis" not in request.node.name:
        assert len(listed()) == len(ids)


@pytest.mark.parametrize("busy", [False, True])
def test_overwritten_text_leaves_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    """Many pins in many orders, so that pages split and merge; then every text is replaced, and a scrub follows."""
    monkeypatch.setattr("streams.online_store.SCRUB_PATIENCE_S", 0.2)
    features, order = FeastFeatures(tmp_path), random.Random(7)
    ids = [f"pin-{n}" for n in range(400)]
    for words in ("wort", "zweitwort"):
        features.write([caption(pin_id, f"quetzalcoatl {words} {'lang ' * order.choice((1, 40, 2000))}{pin_id}", T0) for pin_id in order.sample(ids, 400)])
    assert holding(tmp_path, b"quetzalcoatl")
    reader = sqlite3.connect(tmp_path / "online.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute('SELECT count(*) FROM "everpin_pin_caption"').fetchone()
    if not busy:
        reader.execute("COMMIT")
    features.write([caption(pin_id, None, T0 + 1) for pin_id in order.sample(ids, 400)])
    assert features.scrub() is not busy
    assert bool(holding(tmp_path, b"quetzalcoatl")) is busy
    reader.close()
    assert features.scrub()
    assert not holding(tmp_path, b"quetzalcoatl")
    features.close()


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


ACTOR = """
import sys
from pathlib import Path
from pins.actions import UserActed, record
from pins.errors import Unavailable
from streams.features import FeastFeatures
features = FeastFeatures(Path(sys.argv[1]), Path(sys.argv[2]))
for at in range(int(sys.argv[3]), 60, 2):
    while True:
        try:
            record([UserActed(f"acting{n}", f"p{at}", "save", 1_764_000_000_000_000 + at) for n in range(4)], features, 1_764_000_000_000_000)
            break
        except Unavailable:
            continue  # put off, and tried again, as a worker does
"""


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_no_action_is_lost_between_two_writing_processes(store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = REDIS_YAML if store == "redis" else DEFAULT_YAML
    if store == "redis":
        monkeypatch.setenv("EVERPIN_REDIS", request.getfixturevalue("redis_url").removeprefix("redis://").split("/")[0])
    features = FeastFeatures(tmp_path, yaml)
    actors = [script(ACTOR, [tmp_path, yaml, parity], tmp_path / "log") for parity in (0, 1)]
    assert [actor.wait(120) for actor in actors] == [0, 0], (tmp_path / "log").read_text()
    for n in range(4):
        assert [action.pin_id for action in features.history(f"acting{n}")] == [f"p{at}" for at in range(60)]
    features.close()


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_the_newest_row_wins_between_two_writing_processes(store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    yaml = REDIS_YAML if store == "redis" else DEFAULT_YAML
    if store == "redis":
        monkeypatch.setenv("EVERPIN_REDIS", request.getfixturevalue("redis_url").removeprefix("redis://").split("/")[0])
    features = FeastFeatures(tmp_path, yaml)
    racers = [script(RACER, [tmp_path, yaml, parity], tmp_path / "log") for parity in (0, 1)]
    assert [racer.wait(120) for racer in racers] == [0, 0], (tmp_path / "log").read_text()
    assert {pin.caption for pin in features.of([f"race{n}" for n in range(8)]).values()} == {"399"}
    features.close()


def test_a_dead_store_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERPIN_REDIS", "127.0.0.1:1")
    with pytest.raises(Unavailable, match="EVERPIN_FEAST_YAML"):
        FeastFeatures(tmp_path, REDIS_YAML)


def test_feast_is_taken_as_it_is_written() -> None:
    """Checks compiled into Feast's classes at import would cost every worker and command 4 s of processor time."""
    from feast import Entity

    assert "TypeCheckMemo" not in Entity.__init__.__code__.co_names
    assert typeguard.typechecked.__name__ == "typechecked", "whoever else uses typeguard has it whole"
