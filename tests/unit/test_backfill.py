"""The parts of a backfill that need no Ray: what is left to do, blocks of a scan, a worker's patience, and a run whose workers fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backfill import checkpoint, scan
from backfill.blocks import BackfillReport, Block, BlockReport, Dead, Progress
from backfill.checkpoint import Checkpoint, left, united
from backfill.letters import Graveyard, letter
from backfill.run import CRASHED, Files, Run
from backfill.worker import FIRST_RETRY_S, BlockWorker
from pins.errors import Unavailable
from pins.events import PinUpdated, decode
from pins.features import FeatureRow
from streams.broker import DEAD
from tests.fakes import FakeIndex
from tests.unit.house import NOW, House

SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)))


@given(SPANS, st.integers(0, 40))
def test_what_is_done_and_what_is_left_divide_a_scan(spans: list[tuple[int, int]], pins: int) -> None:
    done = united(spans)
    assert {place for span in done for place in range(*span)} == {place for span in spans for place in range(*span)}
    assert all(before[1] < after[0] for before, after in pairwise(done))
    rest = [place for span in left(done, pins) for place in range(*span)]
    assert rest == [place for place in range(pins) if not any(start <= place < end for start, end in spans)]


def test_a_checkpoint_reads_back_and_one_that_does_not_fit_is_none(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    assert checkpoint.read(file) is None
    point = Checkpoint("m", "", NOW, 10).with_done([(4, 6), (0, 2), (2, 4)])
    assert (point.done, point.done_pins, point.complete) == (((0, 6),), 6, False)
    point.write(file)
    assert checkpoint.read(file) == point
    assert point.with_done([(6, 10)]).complete
    for damage in ("", "{", "[]", json.dumps({"done": [[1]]}), file.read_text().replace('"format": 1', '"format": 0')):
        file.write_text(damage)
        assert checkpoint.read(file) is None, damage
    replace(point, template_version=0).write(file)
    assert checkpoint.read(file) is None


def test_blocks_hold_the_pins_of_their_places_and_never_cross_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "GROUP", 8)
    file = tmp_path / "pins.parquet"
    assert scan.write(((f"p{number}", "{}" if number > 20 else "") for number in range(30)), file) == 30
    blocks = list(scan.blocks(file, [(3, 12), (14, 30)], 5))
    assert [(block.start, block.end) for block in blocks] == [(3, 8), (8, 12), (14, 16), (16, 21), (21, 24), (24, 29), (29, 30)]
    assert [pin_id for block in blocks for pin_id in block.pin_ids] == [f"p{number}" for number in [*range(3, 12), *range(14, 30)]]
    assert [bool(block.snapshots) for block in blocks] == [False] * 4 + [True] * 3
    assert scan.sample(file, [(0, 30)], 3) == ["p0", "p10", "p20"]
    assert scan.sample(file, [(2, 4), (7, 8)], 9) == ["p2", "p3", "p7"]
    assert scan.sample(file, [], 9) == []


def test_an_empty_store_is_an_empty_scan(tmp_path: Path) -> None:
    assert scan.write((), tmp_path / "pins.parquet") == 0
    assert list(scan.blocks(tmp_path / "pins.parquet", [], 5)) == []


class HouseParts:
    """A worker's outsides: those of a house. `away` is how often the index does not answer, from now on."""

    def __init__(self, house: House) -> None:
        self.encoder, self.features, self.house = house.encoder, house.features, house
        self.away, self.opened = 0, 0
        house.index.on_write = self._write

    def index(self) -> FakeIndex:
        self.opened += 1
        return self.house.index

    def lost(self) -> None: ...

    def _write(self) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("the index is away")


def worker(parts: HouseParts, patience_s: float = 10.0) -> tuple[BlockWorker, list[float]]:
    slept: list[float] = []
    return BlockWorker(parts, patience_s, 2, lambda: parts.house.now, slept.append, lambda: sum(slept)), slept


def titles(*pin_ids: str, at_us: int = NOW) -> list[FeatureRow]:
    return [FeatureRow("pin_content", pin_id, at_us, {"title": f"title of {pin_id}"}) for pin_id in pin_ids]


def test_a_block_is_embedded_once_and_then_unchanged(house: House) -> None:
    house.features.write([*titles("a", "b", "gone", "bad"), FeatureRow("pin_status", "gone", NOW, {"deleted": 1})])
    house.features.write([FeatureRow("pin_caption", "bad", NOW, {"caption": "broken"})])
    mine, _ = worker(HouseParts(house))
    report = mine.work(Block(7, ["a", "b", "gone", "bad"]))
    assert (report.start, report.end, report.outcomes, report.encoded) == (7, 11, {"new": 2, "deleted": 1}, 3)
    assert [(dead.pin_id, dead.reason, dead.place) for dead in report.dead] == [("bad", "encoder_error", 10)]
    assert not report.problem
    assert BlockReport.from_json(report.to_json()) == replace(report, dead=tuple(report.dead))
    again = mine.work(Block(7, ["a", "b", "gone"]))
    assert (again.outcomes, again.encoded) == ({"unchanged": 2, "deleted": 1}, 0)
    assert house.record("gone").dead


def test_a_dead_store_is_waited_for_and_opened_anew(house: House) -> None:
    house.features.write(titles("a"))
    parts = HouseParts(house)
    mine, slept = worker(parts)
    parts.away = 3
    assert mine.work(Block(0, ["a"])).outcomes == {"new": 1}
    assert slept == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S]
    assert parts.opened == 4


def test_patience_ends(house: House) -> None:
    house.features.write(titles("a"))
    parts = HouseParts(house)
    mine, slept = worker(parts, patience_s=2.0)
    parts.away = 99
    report = mine.work(Block(0, ["a"]))
    assert report.problem == "the index is away"
    assert sum(slept) <= 2.0
    parts.away = 0
    assert mine.work(Block(0, ["a"])).outcomes == {"new": 1}


def test_a_feature_store_that_lost_its_data_is_a_problem_and_nothing_is_removed(house: House) -> None:
    house.features.write(titles("a", "b"))
    mine, _ = worker(HouseParts(house))
    mine.work(Block(0, ["a", "b"]))
    house.features.rows.clear()
    report = mine.work(Block(0, ["a", "b"]))
    assert "EVERPIN_VANISHED_LIMIT" in report.problem
    assert not house.record("a").dead


class FakePool:
    """Workers that do their blocks with `act`; those that hold a pin of `deadly` die of it and have no report."""

    def __init__(self, act: Callable[[Block], BlockReport], deadly: frozenset[str] = frozenset()) -> None:
        self.act, self.deadly = act, deadly
        self.blocks: list[list[Block]] = []

    def run(self, blocks: Sequence[Block]) -> Iterator[BlockReport]:
        self.blocks.append(list(blocks))
        return (self.act(block) for block in reversed(blocks) if not self.deadly & set(block.pin_ids))


def fine(block: Block) -> BlockReport:
    return BlockReport(block.start, block.end, {"new": len(block.pin_ids)}, len(block.pin_ids), began_s=100.0 + block.start, ended_s=101.0 + block.start)


class Stage:
    """A run over a scan of 40 pins."""

    def __init__(self, folder: Path, proceed: Callable[[], bool] = lambda: True, dead_limit: int = 100) -> None:
        self.files = Files(folder, "m")
        scan.write(((f"p{number}", "") for number in range(40)), self.files.scan)
        self.point = checkpoint.read(self.files.checkpoint) or Checkpoint("m", "", NOW, 40)
        self.report = BackfillReport("m", 40, self.point.done_pins)
        self.told: list[Progress] = []
        self.graveyard = Graveyard(self.files.dead.open("a", encoding="utf-8"), None)
        self.flushes = 0
        self.run = Run(self.point, self.files, self.graveyard, self._flush, self.report, dead_limit, proceed, self.told.append)

    def _flush(self) -> None:
        self.flushes += 1

    def go(self, pool: FakePool, batch: int = 16, limit: int | None = None) -> BackfillReport:
        self.run.go(pool, batch, 1, limit)
        self.graveyard.close()
        return self.report

    def buried(self) -> list[str]:
        return [json.loads(line)["pin_id"] for line in self.files.dead.read_text().splitlines()]


def test_a_run_does_every_pin_once_and_says_how_far_it_is(tmp_path: Path) -> None:
    stage, pool = Stage(tmp_path), FakePool(fine)
    report = stage.go(pool)
    assert (report.complete, report.done, report.encoded, report.outcomes, report.stopped) == (True, 40, 40, {"new": 40}, "")
    assert [[(block.start, block.end) for block in some] for some in pool.blocks] == [[(0, 16), (16, 32), (32, 40)]]
    assert report.pins_per_second == pytest.approx(40 / 33)
    assert [now.done for now in stage.told] == [8, 24, 40]
    assert stage.told[-1].eta_s == 0
    found = checkpoint.read(stage.files.checkpoint)
    assert found
    assert found.complete
    assert stage.flushes


def test_a_limit_ends_a_run_and_the_next_goes_on_there(tmp_path: Path) -> None:
    report = Stage(tmp_path).go(FakePool(fine), limit=20)
    assert (report.complete, report.stopped, report.done) == (False, "limit", 20)
    pool = FakePool(fine)
    report = Stage(tmp_path).go(pool, batch=100)
    assert [(block.start, block.end) for block in pool.blocks[0]] == [(20, 40)]
    assert (report.complete, report.done, report.encoded) == (True, 40, 20)


def test_a_run_that_may_not_proceed_stops_between_blocks(tmp_path: Path) -> None:
    answers = iter([True, True, False])
    stage = Stage(tmp_path, lambda: next(answers, False))
    report = stage.go(FakePool(fine))
    assert (report.complete, report.stopped, report.done) == (False, "paused", 8)
    found = checkpoint.read(stage.files.checkpoint)
    assert found
    assert found.done == ((32, 40),)
    never = Stage(tmp_path, lambda: False).go(FakePool(fine))
    assert (never.stopped, never.done) == ("paused", 8)


def test_a_problem_stops_a_run_and_its_block_is_not_done(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    report = stage.go(FakePool(lambda block: replace(fine(block), problem="the index is away") if block.start == 16 else fine(block)))
    assert (report.complete, report.stopped, report.problem, report.done) == (False, "problem", "the index is away", 8)


def test_a_pin_that_kills_its_worker_is_found_and_becomes_a_dead_letter(tmp_path: Path) -> None:
    stage, pool = Stage(tmp_path), FakePool(fine, frozenset({"p17"}))
    report = stage.go(pool)
    assert report.complete
    assert (report.done, report.dead, report.encoded) == (40, 1, 39)
    assert stage.buried() == ["p17"]
    assert [len(some) for some in pool.blocks] == [3, 16]
    assert json.loads(stage.files.dead.read_text())["reason"] == CRASHED


def test_a_wave_of_dead_pins_stops_the_run_and_a_trickle_does_not(tmp_path: Path) -> None:
    def poisoned(share: int) -> Callable[[Block], BlockReport]:
        def act(block: Block) -> BlockReport:
            dead = tuple(Dead(pin_id, "Unembeddable", "encoder_error", "no", block.start, NOW) for pin_id in block.pin_ids[::share])
            return replace(fine(block), dead=dead)

        return act

    for name in "ab":
        (tmp_path / name).mkdir()
    trickle = Stage(tmp_path / "a", dead_limit=5)
    assert trickle.go(FakePool(poisoned(4))).complete
    assert len(trickle.buried()) == 10
    wave = Stage(tmp_path / "b", dead_limit=5)
    report = wave.go(FakePool(poisoned(1)))
    assert report.stopped == "problem"
    assert "EVERPIN_DEAD_LETTER_LIMIT=5" in report.problem
    assert wave.buried() == []


def test_a_flush_that_fails_leaves_the_checkpoint_behind(tmp_path: Path) -> None:
    stage = Stage(tmp_path)

    def away() -> None:
        raise Unavailable("the disk is full")

    stage.run._flush = away
    report = stage.go(FakePool(fine))
    assert (report.complete, report.stopped, report.problem) == (False, "problem", "the disk is full")
    assert checkpoint.read(stage.files.checkpoint) is None


def test_a_letter_is_a_dead_letter_whose_replay_looks_at_the_pin_again() -> None:
    post = letter(Dead("p", "Unembeddable", "encoder_error", "no", 5, NOW))
    assert post.topic == DEAD
    event = decode(post.key, post.value, timestamp_us=NOW, now_us=NOW)
    assert event == PinUpdated("p", NOW)
    assert {"source_topic", "source_offset", "error", "reason", "detail", "attempts", "first_failure_us"} <= set(post.headers)


def test_letters_that_the_broker_does_not_take_are_counted(tmp_path: Path) -> None:
    class Away:
        def deliver(self, posts: object) -> list[str]:
            raise Unavailable("away")

        def close(self) -> None: ...

    graveyard = Graveyard((tmp_path / "dead.jsonl").open("w"), Away())  # type: ignore[arg-type]
    graveyard.bury([Dead("p", "Unembeddable", "encoder_error", "no", 5, NOW)] * 2)
    graveyard.close()
    assert graveyard.undelivered == 2
    assert len((tmp_path / "dead.jsonl").read_text().splitlines()) == 2
