from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import numpy as np
import pytest

from embedder.query import QueryEncoder, normalise
from pins.errors import Unembeddable
from pins.ports import Vector
from tests.fakes import FakeEncoder


class Student(FakeEncoder):
    """Counts its calls; `meanwhile` runs inside each."""

    def __init__(self, meanwhile: Callable[[str], None] = lambda text: None) -> None:
        super().__init__()
        self.meanwhile = meanwhile
        self.asked: list[str] = []

    def query(self, text: str) -> Vector:
        self.asked.append(text)
        self.meanwhile(text)
        return super().query(text)


def queries_of(student: Any, capacity: int = 20_000) -> QueryEncoder:
    return QueryEncoder(student, capacity)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline, tick = monotonic() + 10, threading.Event()
    while not holds():
        assert monotonic() < deadline
        tick.wait(0.001)


def must(happen: bool) -> None:
    assert happen


def test_a_query_is_encoded_once() -> None:
    student = Student()
    queries = queries_of(student)
    first = queries.query("red chair")
    assert queries.query("red chair") is first
    np.testing.assert_array_equal(first, FakeEncoder().query("red chair"))
    assert student.asked == ["red chair"]
    assert (queries.hits, queries.misses) == (1, 1)


def test_it_speaks_for_its_model() -> None:
    queries = queries_of(Student())
    assert (queries.model_id, queries.ordinal_head) == (FakeEncoder.model_id, FakeEncoder.ordinal_head)


@pytest.mark.parametrize("writing", [" red  chair\n", "red\u3000chair", "ｒｅｄ chair", "red\u00a0chair"])
def test_writings_of_one_query_share_a_vector(writing: str) -> None:
    student = Student()
    queries = queries_of(student)
    assert queries.query(writing) is queries.query("red chair")
    assert student.asked == ["red chair"]


def test_case_and_order_make_another_query() -> None:
    assert len({normalise(text) for text in ("red chair", "Red chair", "chair red", "redchair")}) == 4


def test_a_failure_reaches_the_asker_and_is_not_cached() -> None:
    failures = [Unembeddable("encoder_error", "refused")]

    def fail_once(text: str) -> None:
        if failures:
            raise failures.pop()

    student = Student(fail_once)
    queries = queries_of(student)
    with pytest.raises(Unembeddable, match="refused"):
        queries.query("red chair")
    np.testing.assert_array_equal(queries.query("red chair"), FakeEncoder().query("red chair"))
    assert student.asked == ["red chair"] * 2


def test_the_query_asked_longest_ago_is_forgotten_first() -> None:
    student = Student()
    queries = queries_of(student, capacity=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        queries.query(text)
    assert student.asked == ["a", "b", "c", "b"]
    assert (queries.hits, queries.misses) == (2, 4)


def test_equal_queries_at_the_same_time_are_encoded_once() -> None:
    go = threading.Event()
    student = Student(lambda text: must(go.wait(10)))
    queries = queries_of(student)
    with ThreadPoolExecutor(8) as askers:
        answers = [askers.submit(queries.query, "red chair") for _ in range(8)]
        wait_until(lambda: queries.hits + queries.misses == 8)
        go.set()
        vectors = [answer.result(10) for answer in answers]
    assert student.asked == ["red chair"]
    assert all(vector is vectors[0] for vector in vectors)


def test_different_queries_do_not_wait_for_each_other() -> None:
    together = threading.Barrier(2, timeout=10)
    queries = queries_of(Student(lambda text: must(together.wait() >= 0)))
    with ThreadPoolExecutor(2) as askers:
        assert all(answer is not None for answer in askers.map(queries.query, ["red chair", "tomato soup"], timeout=10))


def test_everyone_who_waits_for_a_query_that_fails_is_told() -> None:
    go = threading.Event()

    def fail(text: str) -> None:
        go.wait(10)
        raise Unembeddable("encoder_error", "refused")

    student = Student(fail)
    queries = queries_of(student)
    with ThreadPoolExecutor(4) as askers:
        answers = [askers.submit(queries.query, "red chair") for _ in range(4)]
        wait_until(lambda: queries.hits + queries.misses == 4)
        go.set()
        assert all(isinstance(answer.exception(10), Unembeddable) for answer in answers)
    assert student.asked == ["red chair"]


def test_a_query_forgotten_while_it_is_encoded_still_reaches_its_asker() -> None:
    other = threading.Event()
    queries = queries_of(Student(lambda text: must(other.wait(10)) if text == "slow" else None), capacity=1)
    with ThreadPoolExecutor(1) as asker:
        slow = asker.submit(queries.query, "slow")
        wait_until(lambda: queries.misses == 1)
        queries.query("quick")
        other.set()
        np.testing.assert_array_equal(slow.result(10), FakeEncoder().query("slow"))


def test_an_interrupted_query_holds_nobody_up() -> None:
    class Interrupted(BaseException):
        pass

    interruptions = [Interrupted()]

    def interrupt_once(text: str) -> None:
        if interruptions:
            raise interruptions.pop()

    queries = queries_of(Student(interrupt_once))
    with pytest.raises(Interrupted):
        queries.query("red chair")
    again = threading.Thread(target=queries.query, args=["red chair"], daemon=True)
    again.start()
    again.join(10)
    assert not again.is_alive()
