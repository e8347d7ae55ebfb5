from __future__ import annotations

import os
import sys
import threading

import pytest

from everpin.priority import behind, made_behind

NICE = 7

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has a priority of a thread")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_what_is_made_behind_and_the_threads_that_it_starts_stand_behind_this_thread() -> None:
    before, children = niceness(), []

    def make() -> int:
        child = threading.Thread(target=lambda: children.append(niceness()))
        child.start()
        child.join()
        return niceness()

    assert made_behind(make, NICE) == min(before + NICE, 19)
    assert children == [min(before + NICE, 19)]
    assert niceness() == before


def test_an_error_in_the_making_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        made_behind(lambda: 1 // 0, NICE)


def test_behind_is_of_the_calling_thread_alone() -> None:
    before, seen = niceness(), []
    thread = threading.Thread(target=lambda: (behind(NICE), seen.append(niceness())))
    thread.start()
    thread.join()
    assert seen == [min(before + NICE, 19)]
    assert niceness() == before
