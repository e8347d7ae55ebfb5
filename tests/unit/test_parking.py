"""Parked messages come when they are due, in order of their times, and never more are held than fit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from streams.parking import Parking, wait_s

T = TypeVar("T")


class Clock:
    """Microseconds that a test sets, or that pass with the loop's own time."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


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
        clock = Clock()
        parking: Parking[str] = Parking(clock)
        await parking.hold([(300, "c"), (100, "a"), (200, "b"), (100, "a2")])
        clock.now = 200
        first = await parking.due(2)
        return first, await parking.due(9), len(parking)

    assert run(act) == (["a", "a2"], ["b"], 1)


def test_a_message_that_is_not_due_is_waited_for_and_an_earlier_one_overtakes_it() -> None:
    async def act() -> list[list[str]]:
        parking: Parking[str] = Parking(loop_us)
        now = loop_us()
        await parking.hold([(now + 200_000, "late")])
        first = asyncio.create_task(parking.due(1))
        await asyncio.sleep(0)
        await parking.hold([(now + 20_000, "early")])
        return [await first, await parking.due(1)]

    assert run(act) == [["early"], ["late"]]


def test_nothing_due_waits_until_something_is_held() -> None:
    async def act() -> list[str]:
        parking: Parking[str] = Parking(Clock())
        waiting = asyncio.create_task(parking.due(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await parking.hold([(0, "a")])
        return await waiting

    assert run(act) == ["a"]


def test_no_more_are_held_than_fit_and_none_is_lost() -> None:
    async def act() -> tuple[int, list[str]]:
        parking: Parking[str] = Parking(Clock(), most=2)
        holding = asyncio.create_task(parking.hold([(0, str(n)) for n in range(5)]))
        await asyncio.sleep(0)
        full = len(parking)
        taken: list[str] = []
        while len(taken) < 5:
            taken += await parking.due(1)
            await asyncio.sleep(0)
        await holding
        return full, taken

    assert run(act) == (2, ["0", "1", "2", "3", "4"])


def test_messages_of_a_partition_that_is_another_worker_s_are_dropped_and_make_room() -> None:
    async def act() -> list[str]:
        parking: Parking[str] = Parking(Clock(), most=2)
        holding = asyncio.create_task(parking.hold([(0, "mine 1"), (0, "theirs"), (0, "mine 2")]))
        await asyncio.sleep(0)
        parking.forget(lambda message: message == "theirs")
        await holding
        return await parking.due(9)

    assert run(act) == ["mine 1", "mine 2"]
