"""An export beside a writer that embeds and deletes all the while is the state between two of its writes, on every engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from everpin.exports import moment
from everpin.exports.manifest import Head, Model
from everpin.exports.moment import Patience
from everpin.exports.reading import live_pins
from everpin.exports.writing import Wanted, following, write_export
from everpin.wiring import now_us
from pins.ports import PinIndex, PointWrite
from tests.contract.records import DIMENSION, record, vector

PINS, AT_ONCE, ENOUGH = 200, 5, 120
State = dict[str, int]


@dataclass
class Writer:
    """Writes random pins until it is told to stop; `states` are those of the index, each with the times before and after the write that made it.

    A vector's seed is the last digits of its version, so that a vector tells of which version it is. `most`: writes, where it would go on for ever.
    """

    index: PinIndex
    most: int = 10**9
    states: list[tuple[int, int, State]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)

    def write(self, pins: list[str], dead: list[bool]) -> None:
        before, known = now_us(), self.index.known(pins)
        writes = []
        for pin_id, gone in zip(pins, dead, strict=True):
            expected = known[pin_id].v if pin_id in known else None
            v = max(before, (expected or 0) + 1)
            made = record(pin_id, v, dead=gone, embedded=not gone, model_id=self.index.model_id)
            writes.append(PointWrite(made, expected, None if gone else vector(v % 1000)))
        assert self.index.write(writes) == set(pins)
        state = dict(self.states[-1][2]) if self.states else {}
        for one in writes:
            state[one.record.pin_id] = one.record.v
            if one.record.dead:
                del state[one.record.pin_id]
        self.states.append((before, now_us(), state))

    def run(self) -> None:
        chance = np.random.default_rng(5)
        while not self.stop.is_set() and len(self.states) < self.most:
            pins = [f"p{number}" for number in chance.choice(PINS, AT_ONCE, replace=False)]
            self.write(pins, (chance.random(AT_ONCE) < 0.3).tolist())
            self.started.set()


@contextmanager
def writing(index: PinIndex, most: int) -> Iterator[Writer]:
    writer = Writer(index)
    for start in range(0, PINS, 50):
        writer.write([f"p{number}" for number in range(start, start + 50)], [False] * 50)
    writer.most = len(writer.states) + most
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(writer.run)
        assert writer.started.wait(30)
        try:
            yield writer
        finally:
            writer.stop.set()
            running.result(30)


@pytest.mark.parametrize(("index", "most"), [("edge", 10**9), ("loopback", 10**9), ("rest", ENOUGH)], indirect=["index"])
def test_an_export_is_one_state_and_the_incremental_one_after_it_another(
    index: PinIndex, most: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment, "PAGE", 8)  # so that the scan takes long enough to be overtaken
    at_once = most > ENOUGH
    model = Model(model_id=index.model_id, template_version=1, dimension=DIMENSION, ordinal_head=Head(scale=1.0, thresholds=(1.0, 2.0, 3.0, 4.0)))
    patience = Patience(at_once)
    with writing(index, most) as writer:
        before = len(writer.states)
        first = write_export(index, tmp_path / "full", Wanted(model, 2), now_us, patience)
        assert len(writer.states) > before + 2, "nothing was written meanwhile: this proves nothing"
        second = write_export(index, tmp_path / "more", following(first, tmp_path / "full", model, None, text=False), now_us, patience)
    for folders, at_us in (([tmp_path / "full"], first.as_of_us), ([tmp_path / "full", tmp_path / "more"], second.as_of_us)):
        rows = {row["pin_id"]: row for table in live_pins(folders) for row in table.to_pylist()}
        found = {pin_id: row["v"] for pin_id, row in rows.items()}
        places = [place for place, (_, _, state) in enumerate(writer.states) if state == found]
        assert len(places) == 1, "the export is no state that the index was in"
        ended = writer.states[places[0] + 1][1] if places[0] + 1 < len(writer.states) else at_us
        assert writer.states[places[0]][0] <= at_us
        assert ended >= at_us - (1_000_000 if at_once else 0), "the moment that is named is another state's"
        for row in rows.values():
            np.testing.assert_allclose(row["vector"], vector(row["v"] % 1000), atol=1e-6)
