"""Parked messages come when they are due, are acknowledged in the order of their partition, and no copy of one is kept twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

import pytest

from streams.parking import Parked, Parking, wait_s

T = TypeVar("T")


class Lot:
    """A parking with a clock that a test sets, and what was acknowledged."""

    def __init__(self, most: int = 4096, clock: Callable[[], int] | None = None) -> None:
        self.now = 0
        self.acked: list[str] = []
        self.parking: Parking[str] = Parking(clock or (lambda: self.now), self.acked.append, most)

    def hold(self, *messages: tuple[int, str], place: Hashable = 0) -> None:
        """Messages as (due, name); the source of a message is its name without the number of the copy, as in `a#2`."""
        self.parking.hold(Parked(due_us, place, name.split("#")[0], name) for due_us, name in messages)

    async def take(self, most: int = 99) -> list[Parked[str]]:
        return await self.parking.due(most)


def names(taken: list[Parked[str]]) -> list[str]:
    return [one.message for one in taken]


def loop_us() -> int:
    return int(asyncio.get_running_loop().time() * 1e6)


def run(act: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(act(), 10)

    return asyncio.run(bounded())


@pytest.mark.parametrize(
    ("waited", "left", "expected"), [(0, 600, 1.0), (1, 599, 1.0), (2, 598, 2.0), (7.5, 590, 7.5), (59, 500, 59.0), (300, 300, 60.0), (599, 0.5, 0.5)]
)
def test_each_wait_is_as_long_as_all_before_it_up_to_a_minute_and_never_past_the_deadline(waited: float, left: float, expected: float) -> None:
    assert wait_s(waited, 1.0, left) == expected


def test_waits_add_up_to_the_deadline_in_few_looks() -> None:
    waited, looks = 0.0, 0
    while waited < 600:
        waited += wait_s(waited, 1.0, 600 - waited)
        looks += 1
    assert waited == 600
    assert looks == 16


def test_messages_come_in_the_order_of_their_times_and_only_when_due() -> None:
    async def act() -> tuple[list[str], list[str], int]:
        lot = Lot()
        lot.hold((300, "c"), (100, "a"), (200, "b"), (100, "d"))
        lot.now = 200
        return names(await lot.take(2)), names(await lot.take()), len(lot.parking)

    assert run(act) == (["a", "d"], ["b"], 4), "those in hand are held until they are finished"


def test_a_message_that_is_not_due_is_waited_for_and_an_earlier_one_overtakes_it() -> None:
    async def act() -> list[list[str]]:
        lot = Lot(clock=loop_us)
        now = loop_us()
        lot.hold((now + 200_000, "late"))
        first = asyncio.create_task(lot.take(1))
        await asyncio.sleep(0)
        lot.hold((now + 20_000, "early"))
        return [names(await first), names(await lot.take(1))]

    assert run(act) == [["early"], ["late"]]


def test_nothing_due_waits_until_something_is_held() -> None:
    async def act() -> list[str]:
        lot = Lot()
        waiting = asyncio.create_task(lot.take(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        lot.hold((0, "a"))
        return names(await waiting)

    assert run(act) == ["a"]


def test_nothing_is_acknowledged_before_what_came_before_it_on_its_partition() -> None:
    """Faust would commit past the one that still waits, and a crash would lose it."""

    async def act() -> list[list[str]]:
        lot, seen = Lot(), []
        lot.hold((100, "a"), (0, "b"), (0, "c"))
        lot.hold((0, "other"), place=1)
        lot.parking.finish(await lot.take())
        seen.append(list(lot.acked))
        lot.now = 100
        lot.parking.finish(await lot.take())
        return [*seen, lot.acked]

    assert run(act) == [["other"], ["other", "a", "b", "c"]]


@pytest.mark.parametrize("seed", range(20))
def test_acknowledgements_are_in_order_whatever_is_due_when(seed: int) -> None:
    async def act() -> None:
        chance, lot = random.Random(seed), Lot()
        held = 0
        while len(lot.acked) < 200:
            if held < 200 and chance.random() < 0.5:
                lot.hold((lot.now + chance.randrange(50), str(held)))
                held += 1
            lot.now += chance.randrange(5) if held < 200 else 100
            if lot.parking._due and lot.parking._due[0][0] <= lot.now:
                lot.parking.finish(await lot.take(chance.randint(1, 8)))
            assert lot.acked == [str(n) for n in range(len(lot.acked))]
        assert len(lot.parking) == 0

    run(act)


def test_of_two_copies_of_one_event_the_later_stands_for_both() -> None:
    async def act() -> tuple[list[str], list[str]]:
        lot = Lot()
        lot.hold((0, "a#1"), (0, "b"), (0, "a#2"))
        taken = await lot.take()
        lot.parking.finish(taken)
        return names(taken), lot.acked

    assert run(act) == (["b", "a#2"], ["a#1", "b", "a#2"])


def test_a_copy_that_comes_while_the_first_is_in_hand_is_looked_at_too() -> None:
    async def act() -> list[str]:
        lot = Lot()
        lot.hold((0, "a#1"))
        taken = await lot.take()
        lot.hold((0, "a#2"))
        lot.parking.finish(taken)
        lot.parking.finish(await lot.take())
        return lot.acked

    assert run(act) == ["a#1", "a#2"]


def test_full_says_when_to_stop_reading_and_roomy_when_to_go_on() -> None:
    async def act() -> list[tuple[bool, bool]]:
        lot, seen = Lot(most=4), []
        for name in "abcd":
            lot.hold((0, name))
            seen.append((lot.parking.full, lot.parking.roomy))
        lot.parking.finish(await lot.take(2))
        return [*seen, (lot.parking.full, lot.parking.roomy)]

    assert run(act) == [(False, True), (False, True), (False, False), (True, False), (False, True)]


def test_messages_of_a_partition_that_is_another_worker_s_are_dropped_and_never_acknowledged() -> None:
    async def act() -> tuple[list[str], list[str], int]:
        lot = Lot()
        lot.hold((0, "theirs, in hand"), (50, "theirs"), place="gone")
        in_hand = await lot.take()
        lot.hold((0, "mine"))
        lot.parking.forget(lambda place: place == "gone")
        lot.hold((60, "theirs, come back"), place="gone")
        lot.parking.finish(in_hand)
        lot.now = 100
        rest = await lot.take()
        lot.parking.finish(rest)
        return names(rest), lot.acked, len(lot.parking)

    assert run(act) == (["mine", "theirs, come back"], ["mine", "theirs, come back"], 0)
