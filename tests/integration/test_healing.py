"""Promise 5: whatever happens to the index, reconcile finds it and --fix heals it. Promise 9: what is swept is in no file.

On the embedded engine with Feast on SQLite, and on the Qdrant stand-in with Feast on Redis; a real worker does the healing.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge

from embedder.onnx import OnnxEncoder
from everpin.healing import Healing, Line, heal, write_lines
from everpin.reconciling import Scope, Stores, Tally, differences
from everpin.settings import Settings
from everpin.wiring import build_encoder, build_features, now_us, open_index
from index.edge import EdgePinIndex
from index.points import collection_name, payload, point_id
from index.qdrant import QdrantPinIndex, connect
from pins.changes import IndexedPin, fingerprint
from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.ports import PinIndex, PointWrite, Vector
from streams.broker import embedded_broker
from streams.features import DEFAULT_YAML
from tests.faults.processes import command
from tests.files import holding_each
from tests.integration.rig import Rig, captions, deletions, until
from tests.services import ServiceUnavailable, unavailable
from tests.services.process import free_port
from tests.services.qdrant import qdrant_double
from tests.services.redis import start_redis

SCOPE = Scope(settle_s=0.5, vectors=1000)


@dataclass
class House:
    """A running system, and the hands to harm it."""

    rig: Rig
    config: Settings
    encoder: OnnxEncoder

    def start(self) -> None:
        worker = self.rig.start()
        if port := self.rig.environment.get("EVERPIN_HTTP_PORT"):  # a worker that owns no embedded index announces itself to nobody
            until(lambda: self.rig.ready(f"http://127.0.0.1:{port}"), "the worker is ready", 90)
        else:
            self.rig.url(worker)

    def tell(self, events: Sequence[PinEvent]) -> None:
        self.rig.send(events)
        self.rig.drain()

    @contextmanager
    def stores(self) -> Iterator[Stores]:
        features = build_features(self.config)
        with open_index(self.config, self.encoder.model_id, self.encoder.dimension, purpose="test") as index:
            yield Stores(features, index, self.encoder)
        features.close()

    @contextmanager
    def harming(self) -> Iterator[PinIndex]:
        """The engine itself, in our hands. The embedded one has one owner, so its worker stops first."""
        if self.config.qdrant_url:
            yield QdrantPinIndex(connect(self.config.qdrant_url), self.encoder.model_id, self.encoder.dimension)
            return
        self.rig.stop()
        index = EdgePinIndex(self.config.index_home, self.encoder.model_id, self.encoder.dimension)
        yield index
        index.close()
        self.start()

    def wipe(self) -> None:
        if self.config.qdrant_url:
            connect(self.config.qdrant_url).delete_collection(collection_name(self.encoder.model_id))
        else:
            self.rig.stop()
            shutil.rmtree(self.config.index_home)
            self.start()

    def reconcile(self) -> tuple[dict[str, str], Tally]:
        tally = Tally()
        with self.stores() as stores:
            return {one.pin_id: one.kind for one in differences(stores, SCOPE, tally)}, tally

    def fix(self) -> Healing:
        """Reconcile and heal; what was done."""
        file = io.StringIO()
        with self.stores() as stores:
            write_lines(file, differences(stores, SCOPE, Tally()))
            return heal(file, stores, SCOPE, Line(self.rig.broker, self.rig.group), self.config.vanished_limit)

    def assert_heals(self, expected: Mapping[str, int]) -> None:
        kinds, _ = self.reconcile()
        assert Counter(kinds.values()) == expected
        healing = self.fix()
        assert (healing.sent, healing.left, healing.held_back) == (len(kinds), {}, 0)
        assert self.reconcile()[0] == {}

    def everpin(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        environment = {**os.environ, "EVERPIN_HOME": str(self.rig.home), "EVERPIN_KAFKA": str(self.rig.broker), **self.rig.environment}
        done = command([*arguments, "--json"], environment)
        assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        return document


@pytest.fixture(scope="module", params=["edge and sqlite", "rest and redis"])
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("home")
    with embedded_broker() as broker, pytest.MonkeyPatch.context() as environment:
        if request.param == "edge and sqlite":
            yield from _running(Rig(broker, home), Settings(home=home))
            return
        try:
            redis = start_redis(home)
        except ServiceUnavailable as reason:
            unavailable(reason)
        yaml = home / "feast.yaml"
        yaml.write_text(DEFAULT_YAML.with_name("feature_store.redis.yaml").read_text().replace("project: everpin", f"project: healing{uuid.uuid4().hex}"))
        with redis, qdrant_double() as (url, _):
            address = redis.url.removeprefix("redis://").split("/")[0]
            environment.setenv("EVERPIN_REDIS", address)
            named = {"EVERPIN_REDIS": address, "EVERPIN_FEAST_YAML": str(yaml), "QDRANT_URL": url, "EVERPIN_HTTP_PORT": str(free_port())}
            yield from _running(Rig(broker, home / "state", named), Settings(home=home / "state", feast_yaml=yaml, qdrant_url=url))


def _running(rig: Rig, config: Settings) -> Iterator[House]:
    made = House(rig, config, build_encoder(config))
    try:
        made.start()
        yield made
    finally:
        codes = rig.stop()
    assert codes[-1] == 0


def ids(name: str, count: int = 12) -> list[str]:
    return [f"{name}-{n}" for n in range(count)]


def test_a_wiped_index_is_rebuilt(house: House) -> None:
    house.tell([*captions(ids("wiped"), "a chair"), *deletions(ids("wiped")[:2])])
    everybody = house.reconcile()[1].records
    assert everybody >= 10
    house.wipe()
    house.assert_heals({"missing": everybody})


def test_a_restored_old_copy_is_brought_up_to_date(house: House) -> None:
    pins = ids("old")
    house.tell(captions(pins, "a chair"))
    with house.harming() as index:
        copy = {pin.pin_id: pin for batch in index.scan() for pin in batch}
        vectors = index.vectors(list(copy))
        if isinstance(index, EdgePinIndex):
            index.flush()
            shutil.copytree(house.config.index_home, house.rig.home / "copy")
    house.tell([*captions(pins[:3], "a quite different lamp, made of green glass"), *deletions(pins[3:5]), *captions(ids("later", 4), "soup")])
    if house.config.qdrant_url:
        house.wipe()
        with house.harming() as index:
            index.write([PointWrite(pin, None, vectors.get(pin_id)) for pin_id, pin in copy.items()])
    else:
        house.rig.stop()
        shutil.rmtree(house.config.index_home)
        shutil.move(house.rig.home / "copy", house.config.index_home)
        house.start()
    house.assert_heals({"stale_text": 3, "dead_but_served": 2, "missing": 4})


def test_every_damage_is_found_and_healed_by_the_command(house: House, tmp_path: Path) -> None:
    pins = ids("harmed", 14)
    house.tell([*captions(pins, "a chair"), *deletions(pins[:1])])
    with house.harming() as index:
        known, vectors = index.known(pins), index.vectors(pins)

        def put(pin_id: str, like: str, vector: Vector | None = None, **changes: object) -> None:
            stored = index.known([pin_id]).get(pin_id)
            record = replace(known[like], pin_id=pin_id, v=now_us(), **changes)  # type: ignore[arg-type]
            assert index.write([PointWrite(record, stored.v if stored else None, vectors[like] if vector is None else vector)]) == {pin_id}

        put(pins[0], like=pins[1])
        put("ghost", like=pins[1])
        put(pins[2], like=pins[2], model_id="another-model")
        put(pins[3], like=pins[3], template_version=0)
        put(pins[4], like=pins[4], fields={"title": "old"})
        put(pins[5], like=pins[5], text="a poem", fingerprint=fingerprint("a poem"), seen=fingerprint("a poem"))
        put(pins[6], like=pins[6], text="not what was embedded")
        put(pins[7], like=pins[7], vector=vectors[pins[1]][::-1].copy())
        put(pins[8], like=pins[8], refused="encoder_error")
        damage(index, pins[9], {})
        damage(index, pins[10], {"v": "x", "pin_id": pins[10]})
        damage(index, pins[11], {**stored_payload(known[pins[11]]), "pin_id": pins[1]})
        damage(index, pins[12], {**stored_payload(known[pins[12]]), "dead": 1})
    expected = {
        pins[0]: "dead_but_served",
        "ghost": "orphan",
        pins[2]: "wrong_model",
        pins[3]: "wrong_template",
        pins[4]: "stale_fields",
        pins[5]: "stale_text",
        pins[6]: "damaged",
        pins[7]: "wrong_vector",
        pins[8]: "refused",
        pins[9]: "damaged",
        pins[10]: "damaged",
        pins[11]: "damaged",
        pins[12]: "missing",
    }
    out = tmp_path / "differences.jsonl"
    found = house.everpin("reconcile", "--vectors", "1000", "--settle-s", "0.5", "--out", str(out), code=1)
    assert {one["pin_id"]: one["kind"] for one in map(json.loads, out.read_text().splitlines())} == expected
    assert found["differences"] == Counter(expected.values())
    assert found["nameless"] == 2
    fixed = house.everpin("reconcile", "--vectors", "1000", "--settle-s", "0.5", "--fix", code=1)
    assert fixed["fix"] == {"sent": 13, "fixed": 13, "not_fixed": {}, "examples": {}, "held_back": 0}
    after = house.everpin("reconcile", "--vectors", "1000", "--settle-s", "0.5")
    assert (after["healthy"], after["differences"], after["nameless"]) == (True, {}, 0)
    with house.stores() as stores:
        again = stores.index.vectors(pins[1:])
        for pin_id in pins[1:]:
            np.testing.assert_allclose(again[pin_id], vectors[pin_id], atol=1e-4)
        assert stores.index.known(["ghost"])["ghost"].dead


def test_many_orphans_are_left_alone(house: House) -> None:
    house.tell(captions(ids("parent", 1), "a chair"))
    with house.harming() as index:
        parent, vector = index.known(["parent-0"])["parent-0"], index.vectors(["parent-0"])["parent-0"]
        ghosts = [f"ghost-{n}" for n in range(house.config.vanished_limit)]
        index.write([PointWrite(replace(parent, pin_id=pin_id), None, vector) for pin_id in ghosts])
    healing = house.fix()
    assert (healing.sent, healing.held_back, healing.left) == (0, len(ghosts), {"orphan": len(ghosts)})
    house.tell(deletions(ghosts))
    assert house.reconcile()[0] == {}


def test_reembed_makes_new_vectors_and_names_the_unknown(house: House) -> None:
    pins = ids("again", 3)
    house.tell([*captions(pins, "a chair"), *deletions(pins[2:])])
    with house.stores() as stores:
        before = stores.index.known(pins)
    report = house.everpin("reembed", *pins, "nobody", code=1)
    assert (report["sent"], report["deleted"], report["unknown"], report["failed_pins"]) == (2, 1, ["nobody"], 0)
    with house.stores() as stores:
        after = stores.index.known(pins)
        marked = [record.pin_id for page in stores.index.scan() for record in page if record.reason == "reembedded"]
    assert [after[pin_id].reason for pin_id in pins[:2]] == ["reembedded"] * 2
    assert all(after[pin_id].embedded_at_us > before[pin_id].embedded_at_us for pin_id in pins[:2])
    assert after[pins[2]].dead
    counted = house.everpin("reembed", "--where", "reason=reembedded", "--dry-run")
    assert (counted["matched"], counted["sent"]) == (len(marked), 0)


SECRET = ("quetzalcoatl", "xochimilco", "popocatepetl")


def test_what_is_swept_is_in_no_file_and_does_not_come_back(house: House, tmp_path: Path) -> None:
    """Words in every view, some replaced before the delete; the words, the ids' vectors, and an older event afterwards."""
    pins, at = ids("secret", 6), now_us()
    house.tell([*captions(ids("kept"), "a chair"), *(PinUpdated(pin_id, at, {"pin_caption": {"caption": f"{SECRET[0]} of {pin_id}"}}) for pin_id in pins)])
    with house.stores() as stores:
        vectors = [*stores.index.vectors(pins).values()]
    rows = {
        "pin_caption": {"caption": f"{SECRET[1]} on a hill"},
        "pin_boards": {"board_titles": [SECRET[2]]},
        "pin_engagement": {"engaged_queries": [f"{SECRET[2]} map"], "engaged_counts": [2.0], "save_count": 1, "like_count": 1},
    }
    house.tell([PinUpdated(pin_id, at + 1, rows) for pin_id in pins])
    with house.stores() as stores:
        vectors += [*stores.index.vectors(pins).values()]
        assert len(vectors) == 12
    house.tell([PinDeleted(pin_id, at + 2) for pin_id in pins])
    needles = [*(word.encode() for word in SECRET), *(vector.astype("<f4").tobytes() for vector in vectors)]
    on_disk = house.rig.home if house.config.feast_yaml is None else None
    if on_disk:
        there = [bool(found) for found in holding_each(on_disk, needles)]
        assert all(there[: len(SECRET)]), "the search would not find the words that are there"
        assert all(there[-len(pins) :]), "the search would not find the vectors that are there"  # earlier ones may be overwritten in place
    exported = tmp_path / "pins.jsonl"
    house.everpin("export", str(exported))
    assert "kept-0" in exported.read_text()
    assert not any(word in exported.read_text() for word in [*SECRET, *pins])

    assert house.everpin("sweep", "--hold", "0s", "--dry-run")["erased"] >= 6
    done = house.everpin("sweep", "--hold", "0s", "--yes")
    assert (done["complete"], done["still_served"]) == (True, 0)
    assert done["tombstones"] >= 6
    house.tell([PinUpdated(pin_id, at + 1, {"pin_caption": {"caption": f"{SECRET[0]} late"}}) for pin_id in pins])
    if on_disk:
        assert [path for found in holding_each(on_disk, needles) for path in found] == []
    with house.stores() as stores:
        assert all(pin.dead and not pin.text for pin in stores.index.known(pins).values())
        assert all(pin.deleted and not pin.caption and not pin.board_titles and not pin.engaged_queries for pin in stores.features.of(pins).values())
        assert not {hit.pin_id for vector in vectors for hit in stores.index.search(vector, 50)} & set(pins)
        assert len(stores.index.vectors(ids("kept"))) == 12
    assert house.reconcile()[0] == {}


def damage(index: PinIndex, pin_id: str, left: dict[str, Any]) -> None:
    """Overwrite a point's payload behind the adapter's back."""
    if isinstance(index, EdgePinIndex):
        point = uuid.UUID(point_id(pin_id))
        index._shard.update(edge.UpdateOperation.overwrite_payload([point], left))
    else:
        assert isinstance(index, QdrantPinIndex)
        index._client.overwrite_payload(index._name, left or {"nothing": 1}, [point_id(pin_id)])


def stored_payload(record: IndexedPin) -> dict[str, Any]:
    return payload(record, "mark")
