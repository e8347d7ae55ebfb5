"""Event in, search result out; and everything that arrives at three in the morning."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from everpin.loading import feature_store
from everpin.owner import live_owner, place
from everpin.settings import SHIPPED_MODEL
from everpin.wiring import now_us, open_index
from pins.errors import Unavailable
from pins.events import PinDeleted, PinUpdated, encode
from pins.features import FeatureRow
from tests.e2e.conftest import Stage, eventually
from tests.faults.processes import command

BLANK = dict.fromkeys(("description", "link_title", "link_description", "link_url", "image_url", "category"), "")


def content(title: str, **changes: Any) -> dict[str, Any]:
    return {**BLANK, "title": title, "lang": "en", "created_at_us": None, **changes}


def updated(pin_id: str, at: int | None = None, **views: dict[str, Any]) -> PinUpdated:
    return PinUpdated(pin_id, at or now_us(), {f"pin_{view}": row for view, row in views.items()})


def fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def test_a_new_pin_is_found_by_a_search_in_words(stage: Stage) -> None:
    pin_id = fresh("teapot")
    stage.producer.send(updated(pin_id, content=content("A teapot shaped like a purple rhinoceros")))
    stage.drain()
    found = stage.everpin("search", "purple rhinoceros teapot")["results"]
    assert found[0]["pin_id"] == pin_id
    assert found[0]["level"] == 5
    assert found[0]["model_id"] == SHIPPED_MODEL.name
    assert stage.record(pin_id)["reason"] == "new"  # type: ignore[index]


def test_only_a_change_of_meaning_is_embedded_again(stage: Stage) -> None:
    pin_id, other = fresh("p"), fresh("q")
    stage.producer.send(updated(pin_id, content=content("Knitted wool blanket"), boards={"board_titles": ["Cozy", "Knits", "Home"]}))
    stage.drain()
    before = stage.status()["encoder_calls"]
    stage.producer.send(updated(pin_id, engagement={"engaged_queries": [], "engaged_counts": [], "save_count": 9, "like_count": 1000}))
    stage.drain()
    stage.producer.send(updated(pin_id, boards={"board_titles": ["Home", "Knits", "Cozy"]}))
    stage.drain()
    stage.producer.send(updated(pin_id, content=content("KNITTED  wool   Blanket")))
    stage.drain()
    assert stage.status()["encoder_calls"] == before
    stage.producer.send(updated(pin_id, content=content("Recipe for lemon tart with meringue")))
    stage.producer.send(updated(other, content=content("Fog over a mountain lake")))
    stage.drain()
    assert stage.status()["encoder_calls"] == before + 2
    assert stage.record(pin_id)["reason"] == "text_changed"  # type: ignore[index]
    assert stage.everpin("search", "lemon tart meringue")["results"][0]["pin_id"] == pin_id


def test_a_reversed_event_does_not_bring_old_text_back(stage: Stage) -> None:
    pin_id, at = fresh("p"), now_us()
    stage.producer.send(updated(pin_id, at, content=content("The newer title")))
    stage.drain()
    stage.producer.send(updated(pin_id, at - 1_000_000, content=content("The older title")))
    stage.producer.send(updated(pin_id, at, content=content("The newer title")))
    stage.drain()
    assert stage.record(pin_id)["text"] == "The newer title"  # type: ignore[index]


@pytest.mark.parametrize("tombstone", [False, True], ids=["a delete event", "a Kafka tombstone"])
def test_a_deleted_pin_leaves_every_surface_and_never_comes_back(stage: Stage, tombstone: bool, tmp_path: Path) -> None:
    pin_id, neighbour, at = fresh("gone"), fresh("stays"), now_us()
    for one in (pin_id, neighbour):
        stage.producer.send(updated(one, at, content=content(f"A glass octopus lamp, {one}")))
    stage.drain()
    assert pin_id in [hit["pin_id"] for hit in stage.everpin("related", neighbour)["results"]]
    if tombstone:
        stage.producer.send_raw(pin_id.encode(), None)
    else:
        stage.producer.send(PinDeleted(pin_id, now_us()))
    stage.drain()
    stage.producer.send(updated(pin_id, at + 10, caption={"caption": "a late caption"}))
    stage.drain()
    record = stage.record(pin_id)
    assert record is not None
    assert record["dead"]
    assert record["text"] == ""
    assert pin_id not in [hit["pin_id"] for hit in stage.everpin("search", f"A glass octopus lamp {pin_id}")["results"]]
    assert pin_id not in [hit["pin_id"] for hit in stage.everpin("related", neighbour)["results"]]
    assert pin_id not in [hit["pin_id"] for hit in stage.everpin("feed", "nobody", "--limit", "1000")["results"]]
    assert "was deleted" in stage.everpin("related", pin_id, code=2)
    stage.everpin("export", str(tmp_path / "pins.jsonl"))
    exported = (tmp_path / "pins.jsonl").read_text()
    assert neighbour in exported
    assert pin_id not in exported


def test_a_search_of_an_empty_index_is_no_success(tmp_path: Path) -> None:
    environment = {"EVERPIN_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = command(["search", "chairs", "--json"], environment)
    assert done.returncode == 1
    assert json.loads(done.stdout)["results"] == []
    assert "holds no pins; run `everpin import`" in done.stderr


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"", b"{this is not json %s", "not_json"),
        (b"", b'["a", "list", "%s"]', "bad_shape"),
        (b"", b'{"type": "pin_painted", "pin_id": "x", "note": "%s"}', "unknown_type"),
        (b"", b'{"type": "pin_updated", "note": "%s"}', "bad_pin_id"),
        (b"", b'{"type": "pin_updated", "pin_id": "", "note": "%s"}', "bad_pin_id"),
        (b"", b'{"type": "pin_updated", "pin_id": "%s' + b"x" * 10_000 + b'"}', "bad_pin_id"),
        (b"", b'{"type": "pin_updated", "pin_id": "%s", "event_time_us": 9999999999999999}', "far_future"),
        (b"", b'{"type": "pin_updated", "pin_id": "%s", "features": {"pin_caption": {"capton": "x"}}}', "bad_features"),
        (b"another", b'{"type": "pin_updated", "pin_id": "%s"}', "bad_pin_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_poisoned_event_becomes_a_dead_letter_and_holds_nobody_back(stage: Stage, key: bytes, value: bytes, reason: str) -> None:
    mark, good = fresh("mark").encode(), fresh("good")
    stage.producer.send_raw(key or None, value.replace(b"%s", mark))
    stage.producer.send(updated(good, content=content("A bench in the park")))
    stage.drain()
    assert [letter["reason"] for letter in stage.dead(mark)] == [reason]
    assert stage.record(good) is not None


def test_dead_letters_are_listed_shown_and_replayed_with_their_history(stage: Stage) -> None:
    mark = fresh("mark")
    stage.producer.send_raw(None, json.dumps({"type": "pin_painted", "pin_id": mark}).encode())
    stage.drain()
    letters = stage.everpin("dlq", "list", "--reason", "unknown_type")["dead_letters"]
    mine = next(letter for letter in letters if mark in stage.everpin("dlq", "show", letter["letter"])["value"])
    assert (mine["attempts"], mine["source"].split(":")[0]) == (1, "pin-updates")
    assert stage.everpin("dlq", "replay", "--reason", "unknown_type", "--dry-run")["sent"] == 0
    assert stage.everpin("dlq", "replay", "--reason", "unknown_type")["sent"] == len(letters)
    stage.drain()
    assert sorted(int(letter["attempts"]) for letter in stage.dead(mark.encode())) == [1, 2]
    assert len({letter["first_failure_us"] for letter in stage.dead(mark.encode())}) == 1


def test_a_description_as_long_as_an_event_can_be_costs_no_other_field(stage: Stage) -> None:
    pin_id = fresh("long")
    long = "a very long story about nothing. " * 26_000
    stage.producer.send(updated(pin_id, content=content("Short title", description=long), boards={"board_titles": ["Kept board"]}))
    stage.drain()
    record = stage.record(pin_id)
    assert record is not None
    assert record["embedded"]
    assert "Kept board" in record["text"]
    assert len(record["text"]) < 2000


def test_a_pin_without_text_is_indexed_as_such(stage: Stage) -> None:
    pin_id = fresh("empty")
    stage.producer.send(updated(pin_id, content=content("  \x00 <br> ")))
    stage.drain()
    record = stage.record(pin_id)
    assert record is not None
    assert (record["embedded"], record["reason"], record["dead"]) == (False, "no_text", False)
    assert "no text" in stage.everpin("related", pin_id, code=2)


def test_an_event_for_a_pin_that_feast_does_not_know(stage: Stage) -> None:
    pin_id = fresh("unknown")
    stage.producer.send(PinUpdated(pin_id, now_us()))
    stage.drain()
    record = stage.record(pin_id)
    assert record is not None
    assert (record["dead"], record["reason"]) == (True, "deleted")


def test_an_event_ahead_of_its_features_waits_for_them(stage: Stage) -> None:
    pin_id, at = fresh("early"), now_us()
    stage.producer.send(PinUpdated(pin_id, at, features_as_of={"pin_caption": at}))
    eventually(lambda: stage.status()["parked"] > 0, "the event is parked")
    with feature_store(stage.config) as features:
        features.write([FeatureRow("pin_caption", pin_id, at, {"caption": "the caption came later"})])
    eventually(lambda: (stage.record(pin_id) or {}).get("text") == "the caption came later", "the parked event is embedded")


def test_features_that_never_come_become_a_dead_letter(stage: Stage) -> None:
    pin_id, at = fresh("never"), now_us()
    stage.producer.send(PinUpdated(pin_id, at, features_as_of={"pin_caption": at}))
    eventually(lambda: bool(stage.dead(pin_id.encode())), "a dead letter after the deadline")
    letter = stage.dead(pin_id.encode())[0]
    assert letter["reason"] == "features_behind"
    assert int(letter["attempts"]) > 2
    assert stage.record(pin_id) is None


def test_explain_tells_a_pins_story(stage: Stage) -> None:
    pin_id = fresh("story")
    stage.producer.send(updated(pin_id, content=content("Brass door handle"), caption={"caption": "a door with a round handle"}))
    stage.drain()
    story = stage.everpin("explain", pin_id)
    assert story["text"] == "Brass door handle. a door with a round handle"
    assert story["record"]["reason"] == "new"
    assert set(story["features"]["as_of"]) == {"pin_content", "pin_caption"}
    assert story["decision"] == {"action": "skip", "reason": "unchanged"}
    assert stage.everpin("explain", "nobody", code=2)["record"] is None


def test_status_is_healthy_and_counts(stage: Stage) -> None:
    stage.drain()
    body = stage.everpin("status")
    assert body["healthy"]
    assert body["broker"]["lag"] == 0
    assert {part["topic"] for part in body["broker"]["partitions"]} == {"pin-updates", "pin-updates.parked", "user-actions"}
    assert body["index"]["by_model"][SHIPPED_MODEL.name]["live"] > 0


def test_metrics_speak_prometheus(stage: Stage) -> None:
    text = stage.system.http.get("/metrics").text
    for name in ("everpin_pins_total", "everpin_dead_letters_total", "everpin_freshness_seconds_bucket", "everpin_ready 1.0", "everpin_build_info"):
        assert name in text
    assert stage.system.http.get("/livez").status_code == 200
    assert stage.system.http.get("/readyz").status_code == 200
    assert stage.system.http.get("/version").json()["model_id"] == SHIPPED_MODEL.name


def test_people_import_their_own_pins_and_bad_rows_are_reported(stage: Stage, tmp_path: Path) -> None:
    good, bad = fresh("mine"), fresh("bad")
    lines = [
        {"pin_id": good, "title": "Chess set carved from driftwood", "engaged_queries": ["driftwood chess"], "created_at": "2026-01-02T03:04:05Z"},
        {"pin_id": bad, "titel": "a typing mistake"},
        {"pin_id": "", "title": "no id"},
    ]
    file = tmp_path / "pins.jsonl"
    file.write_text("\n".join([*map(json.dumps, lines), "{not json", ""]))
    report = stage.everpin("import", "jsonl", str(file), code=1)
    assert (report["rows"], report["sent"], report["bad_rows"], report["dead_letters"]) == (4, 1, 3, 0)
    assert [(error["line"], error["field"]) for error in report["errors"]] == [(2, "titel"), (3, "pin_id"), (4, "(line)")]
    assert "title" in report["errors"][0]["instead"]
    assert stage.everpin("search", "driftwood chess set")["results"][0]["pin_id"] == good


def test_events_from_a_file_go_the_ordinary_way(stage: Stage, tmp_path: Path) -> None:
    pin_id = fresh("told")
    said = PinUpdated(pin_id, now_us(), {"pin_caption": {"caption": "an umbrella made of copper leaves", "caption_model": "blip-base"}})
    file = tmp_path / "events.jsonl"
    file.write_bytes(encode(said) + b"\n{not json\n")
    report = stage.everpin("import", "events", str(file), code=1)
    assert (report["rows"], report["sent"], report["bad_rows"], report["dead_letters"]) == (2, 1, 1, 0)
    assert stage.everpin("search", "copper leaf umbrella")["results"][0]["pin_id"] == pin_id
    with feature_store(stage.config) as features:
        assert features.of([pin_id])[pin_id].caption_model == "blip-base"


def test_a_home_feed_and_a_cold_user(stage: Stage) -> None:
    names = ["A hedgehog made of felt", "A fox made of felt", "An owl made of felt", "Ski boots for children", "Ski jacket for children"]
    ids = [fresh("feed") for _ in names]
    for pin_id, title in zip(ids, names, strict=True):
        stage.producer.send(updated(pin_id, content=content(title)))
    stage.drain()
    user = fresh("user")
    with feature_store(stage.config) as features:
        values = {"pin_ids": [ids[0]], "actions": ["save"], "action_times_us": [now_us()]}
        features.write([FeatureRow("user_history", user, now_us(), values)])
    feed = [result["pin_id"] for result in stage.everpin("feed", user)["results"]]
    assert ids[0] not in feed
    assert set(feed[:2]) == {ids[1], ids[2]}
    assert len(stage.everpin("feed", fresh("stranger"), "--limit", "3")["results"]) == 3


def test_the_state_folder_has_one_owner(stage: Stage) -> None:
    owner = live_owner(place(stage.config.home, SHIPPED_MODEL.name))
    assert owner is not None
    assert owner.pid == stage.system.worker.pid
    with pytest.raises(Unavailable, match=f"process {owner.pid}"), open_index(stage.config, SHIPPED_MODEL.name, 384, purpose="a rival", own=True):
        pass


def test_the_doctor_finds_this_machine_fit(stage: Stage) -> None:
    checks = {check["name"]: check for check in stage.everpin("doctor")["checks"]}
    assert all(check["ok"] for check in checks.values())
    assert SHIPPED_MODEL.name in checks["model folder"]["found"]
    assert f"process {stage.system.worker.pid}" in checks["state folder"]["found"]
