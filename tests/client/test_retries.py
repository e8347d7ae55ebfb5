"""The arithmetic of retries, without a server: jitter, budget, deadline, Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpin_client.errors import DeadlineExceeded
from everpin_client.retries import Attempts, Retries, RetryBudget, retry_after_s

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_full_jitter_is_anything_from_nothing_to_a_bound_that_doubles_up_to_the_cap() -> None:
    retries = Retries(base_s=0.1, cap_s=0.5)
    assert [retries.jitter_s(failed, lambda low, high: high) for failed in (1, 2, 3, 4, 10_000)] == [0.1, 0.2, 0.4, 0.5, 0.5]
    assert retries.jitter_s(3, lambda low, high: low) == 0.0
    assert len({retries.jitter_s(3) for _ in range(20)}) > 10


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"base_s": 0.0}, {"base_s": 3.0}, {"cap_s": -1.0}])
def test_retries_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="attempts must be 1 or more"):
        Retries(**wrong)


def test_a_budget_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        RetryBudget(reserve=-1)


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 20))
def test_retries_never_outnumber_the_reserve_and_a_fifth_of_the_successes(events: list[bool], reserve: int) -> None:
    budget, taken, succeeded = RetryBudget(reserve=reserve), 0, 0
    for success in events:
        if success:
            budget.succeeded()
            succeeded += 1
        else:
            taken += budget.take()
        assert taken <= reserve + 0.2 * succeeded + 1e-9
        assert 0 <= budget.tokens <= reserve


def test_an_attempt_follows_while_attempts_time_and_budget_last() -> None:
    clock, budget = Clock(), RetryBudget(reserve=2)
    attempts = Attempts(Retries(attempts=3, base_s=0.1, cap_s=0.1), budget, 10, clock)
    attempts.sent = 1
    waited = attempts.wait_s()
    assert waited is not None
    assert 0 <= waited <= 0.1
    attempts.sent = 2
    waited = attempts.wait_s(retry_after_s=4)
    assert waited is not None
    assert 4 <= waited <= 4.1
    assert attempts.wait_s() is None
    assert budget.tokens == 0
    attempts.sent = 3
    assert attempts.wait_s() is None


def test_what_cannot_be_waited_for_costs_no_token() -> None:
    clock, budget = Clock(), RetryBudget(reserve=2)
    attempts = Attempts(Retries(), budget, 10, clock)
    attempts.sent = 1
    assert attempts.wait_s(retry_after_s=10) is None
    assert budget.tokens == 2


def test_the_deadline_passes() -> None:
    clock = Clock()
    attempts = Attempts(Retries(), RetryBudget(), 10, clock)
    clock.now += 9
    attempts.check()
    assert attempts.left_s == 1
    clock.now += 2
    assert attempts.left_s == 0
    with pytest.raises(DeadlineExceeded, match="no answer within 10 s"):
        attempts.check()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("0", 0), ("3", 3), ("0.5", 0.5), ("-4", 0), ("nan", None), ("inf", None), ("", None), ("soon", None),
        ("Mon, 04 May 2026 12:00:30 GMT", 30), ("Mon, 04 May 2026 11:00:00 GMT", 0), ("Mon, 99 May 2026 12:00:30 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
