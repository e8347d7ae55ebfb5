"""A backfill beside a live writer, killed in the middle, told to pause, with a worker killed, and with pins that the index refuses."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from embedder.artifact import open_artifact
from embedder.onnx import OnnxEncoder
from everpin.http import listening
from everpin.owner import Owner, announce, live_owner, ownership, place
from everpin.settings import SHIPPED_MODEL, Settings
from everpin.wiring import now_us
from index.edge import EdgePinIndex
from index.owner_routes import offer
from pins.errors import Unembeddable
from pins.events import PinDeleted, PinEvent, PinUpdated
from pins.features import FeatureRow
from pins.indexer import PinIndexer
from pins.ports import PointWrite
from pins.text import render
from streams.broker import embedded_broker
from streams.deadletters import dead_letters
from streams.features import FeastFeatures
from tests.integration.filling import ray_processes
from tests.integration.rig import until

CANDIDATE = SHIPPED_MODEL.with_name("minilm-l6-v1")
PINS = [f"p{number:03}" for number in range(320)]
POISONED = {"p010", "p200"}
PATIENCE_S = 300


def title(pin_id: str, words: str = "first") -> FeatureRow:
    return FeatureRow("pin_caption", pin_id, now_us(), {"caption": f"the {words} caption of {pin_id}, a red chair in the garden"})


@pytest.fixture
def config(tmp_path: Path) -> Settings:
    """A state folder whose feature store holds the pins."""
    made = Settings(home=tmp_path / "home")
    features = FeastFeatures(made.feast_home, made.feast_yaml)
    features.write([title(pin_id) for pin_id in PINS])
    features.close()
    return made


def start(config: Settings, *command: str, **more: str) -> subprocess.Popen[bytes]:
    mine = {"EVERPIN_HOME": str(config.home), "EVERPIN_RETRY_BUDGET_S": "60", "RAY_worker_niceness": "0", "PYTHONWARNINGS": "ignore"}
    with (config.home / "backfill.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command], env={**os.environ, **mine, **more}, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )


def ended(process: subprocess.Popen[bytes], config: Settings) -> dict[str, Any]:
    """What a run printed."""
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert out, (config.home / "backfill.log").read_text()[-3000:]
    document: dict[str, Any] = json.loads(out)
    return document


def everpin_backfill(config: Settings, **more: str) -> subprocess.Popen[bytes]:
    return start(config, "everpin.cli", "backfill", "--model", str(CANDIDATE), "--batch", "16", "--json", **more)


class Refusing(EdgePinIndex):
    """The candidate's collection, which takes no vector of the poisoned pins."""

    def write(self, writes: Sequence[PointWrite]) -> set[str]:
        if poisoned := POISONED & {write.record.pin_id for write in writes if not write.record.dead}:
            raise Unembeddable("point_refused", f"{sorted(poisoned)}")
        return super().write(writes)


@contextmanager
def owned(config: Settings, encoder: OnnxEncoder) -> Iterator[EdgePinIndex]:
    """The candidate's collection in this process, as its worker owns it."""
    folder = place(config.home, encoder.model_id)
    with ownership(folder, "test"):
        index = Refusing(config.index_home, encoder.model_id, encoder.dimension)
        app = FastAPI()
        offer(app, index)
        with listening(app, 0) as url:
            announce(folder, Owner(os.getpid(), url, purpose="test"))
            yield index
        index.close()


def live_writer(config: Settings, encoder: OnnxEncoder, index: EdgePinIndex, stop: threading.Event) -> int:
    """Updates and deletes pins, as the candidate's worker does, until told to stop; how many events."""
    features, chance, count = FeastFeatures(config.feast_home, config.feast_yaml), random.Random(7), 0
    indexer = PinIndexer(features, encoder, index, now_us)
    while not stop.wait(0.02):
        count += 1
        chosen = chance.sample([pin_id for pin_id in PINS if pin_id not in POISONED], 3)
        events: list[PinEvent] = [PinUpdated(pin_id, now_us(), {"pin_caption": dict(title(pin_id, f"{count}th").values)}) for pin_id in chosen[:2]]
        indexer.apply([*events, PinDeleted(chosen[2], now_us())])
    features.close()
    return count


def assert_true(config: Settings, encoder: OnnxEncoder, index: EdgePinIndex, pin_ids: Sequence[str]) -> None:
    """Every pin's record and vector are what rendering and embedding its features from scratch gives."""
    features = FeastFeatures(config.feast_home, config.feast_yaml)
    truth, known, vectors = features.of(pin_ids), index.known(pin_ids), index.vectors(pin_ids)
    features.close()
    assert set(known) == set(pin_ids), f"{len(set(pin_ids) - set(known))} pins are lost"
    live = [pin_id for pin_id in pin_ids if not truth[pin_id].deleted]
    assert {pin_id for pin_id, record in known.items() if record.dead} == set(pin_ids) - set(live)
    assert set(vectors) == set(live)
    texts = [render(truth[pin_id]).text for pin_id in live]
    assert [known[pin_id].text for pin_id in live] == texts
    cosines = (encoder.encode(texts) * np.stack([vectors[pin_id] for pin_id in live])).sum(axis=1)
    assert cosines.min() > 0.999


def test_beside_a_live_writer_nothing_is_lost_or_brought_back_and_a_refused_pin_stops_nobody(config: Settings) -> None:
    encoder = OnnxEncoder(open_artifact(CANDIDATE), 1)
    stop, written = threading.Event(), []
    with owned(config, encoder) as index, embedded_broker() as broker:
        writer = threading.Thread(target=lambda: written.append(live_writer(config, encoder, index, stop)))
        process = everpin_backfill(config, EVERPIN_KAFKA=str(broker))
        writer.start()
        try:
            document = ended(process, config)
        finally:
            stop.set()
            writer.join(60)
        assert written[0] > 0
        assert document["complete"], document
        assert process.returncode == 1
        assert (document["pins"], document["done"], document["dead"], document["undelivered"]) == (len(PINS), len(PINS), 2, 0)
        assert_true(config, encoder, index, [pin_id for pin_id in PINS if pin_id not in POISONED])
        lines = [json.loads(line) for line in Path(document["dead_letters"]).read_text().splitlines()]
        assert {(line["pin_id"], line["reason"]) for line in lines} == {(pin_id, "point_refused") for pin_id in POISONED}
        assert {(one.pin_id, one.reason, one.topic) for one in dead_letters(broker)} == {(pin_id, "point_refused", "pin-updates") for pin_id in POISONED}


def served(config: Settings, model_id: str) -> int:
    """Live pins of the collection that a running backfill owns; 0 before it serves them."""
    owner = live_owner(place(config.home, model_id))
    try:
        return int(httpx.get(f"{owner.url}/index/counts", timeout=5).json()["counts"]["live"]) if owner and owner.url else 0
    except httpx.HTTPError:
        return 0


def test_killed_in_the_middle_it_goes_on_and_encodes_nothing_twice(config: Settings) -> None:
    encoder = OnnxEncoder(open_artifact(CANDIDATE), 1)
    process = everpin_backfill(config)
    until(lambda: served(config, encoder.model_id) >= 32 or process.poll() is not None, "the backfill writes", PATIENCE_S)
    process.send_signal(signal.SIGSTOP)  # or it might be done before its rival has begun
    rivals = everpin_backfill(config)
    rivals.communicate(timeout=PATIENCE_S)
    assert rivals.returncode == 2
    assert "another backfill" in (config.home / "backfill.log").read_text()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout
    process.stdout.close()
    until(lambda: not ray_processes(process.pid), "what the killed run started is gone", PATIENCE_S)
    index = EdgePinIndex(config.index_home, encoder.model_id, encoder.dimension)
    before = index.counts()["live"]
    index.close()
    assert before >= 32
    document = ended(everpin_backfill(config), config)
    assert document["complete"]
    assert document["encoded"] == len(PINS) - before
    index = EdgePinIndex(config.index_home, encoder.model_id, encoder.dimension)
    assert_true(config, encoder, index, PINS)
    index.close()


def test_told_to_pause_it_pauses_and_a_killed_worker_is_replaced(config: Settings) -> None:
    encoder = OnnxEncoder(open_artifact(CANDIDATE), 1)
    paused = ended(start(config, "tests.integration.filling", str(CANDIDATE), "2", "-"), config)
    assert (paused["stopped"], paused["complete"], paused["done"]) == ("paused", False, 32)
    process = start(config, "tests.integration.filling", str(CANDIDATE), "0", "kill")
    document = ended(process, config)
    assert document["killed"]
    assert (document["complete"], document["resumed_at"], document["done"]) == (True, 32, len(PINS))
    index = EdgePinIndex(config.index_home, encoder.model_id, encoder.dimension)
    assert_true(config, encoder, index, PINS)
    index.close()
    until(lambda: not ray_processes(process.pid), "nothing of Ray is left", 60)
    assert not list((config.home / "backfill").glob("*.parquet"))


def test_without_a_model_that_is_whole_nothing_starts(config: Settings, tmp_path: Path) -> None:
    process = start(config, "everpin.cli", "backfill", "--model", str(tmp_path / "nowhere"), "--json")
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (out, process.returncode) == (b"", 2)
    assert "neither a model folder" in (config.home / "backfill.log").read_text()
