"""API keys: how fast each may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from everpin.keys import NOBODY, Key, RateLimiter
from tests.unit.keys import NOW, READ, Clock


def made(rate: float, burst: float, identity: str = "0" * 12) -> Key:
    return Key(id=identity, name="n", scopes=READ, rate=rate, burst=burst, created_at=NOW, digest=NOBODY)


@given(
    st.floats(0.1, 1000), st.floats(1, 100), st.lists(st.one_of(st.floats(0, 0.01), st.floats(0, 10), st.just(0.0)), min_size=1, max_size=200)
)  # fmt: skip
def test_no_stretch_of_time_lets_more_through_than_burst_and_rate(rate: float, burst: float, pauses: list[float]) -> None:
    clock = Clock()
    limiter, key, through = RateLimiter(clock), made(rate, burst), []
    for pause in pauses:
        clock.now += pause
        if limiter.take(key) == 0:
            through.append(clock.now)
    for first, begun in enumerate(through):
        for last in range(first, len(through)):
            assert last - first + 1 <= burst + rate * (through[last] - begun) + 1e-3


@given(st.floats(0.1, 1000), st.floats(1, 100), st.lists(st.floats(0, 1), max_size=100))
def test_whoever_waits_as_told_is_let_through_and_no_earlier(rate: float, burst: float, pauses: list[float]) -> None:
    clock = Clock()
    limiter, key = RateLimiter(clock), made(rate, burst)
    for pause in pauses:
        clock.now += pause
        wait = limiter.take(key)
        assert 0 <= wait <= 1 / rate + 1e-9
        if wait > 1e-3:
            clock.now += wait * 0.5
            assert limiter.take(key) > 0
            clock.now += wait * 0.5
            assert limiter.take(key) == 0


@given(st.floats(0.1, 1000), st.floats(1, 100))
def test_a_steady_caller_within_the_rate_is_never_refused(rate: float, burst: float) -> None:
    clock = Clock()
    limiter, key = RateLimiter(clock), made(rate, burst)
    for _ in range(300):
        assert limiter.take(key) == 0
        clock.now += 1 / rate


def test_each_key_has_a_bucket_of_its_own_and_rate_0_has_no_limit() -> None:
    limiter = RateLimiter(Clock())
    one, other, free = made(1, 1, "0" * 12), made(1, 1, "1" * 12), made(0, 1, "2" * 12)
    assert limiter.take(one) == 0
    assert limiter.take(one) == 1
    assert limiter.take(other) == 0
    assert {limiter.take(free) for _ in range(1000)} == {0}


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    clock = Clock()
    limiter, key = RateLimiter(clock), made(1, 2)
    assert [limiter.take(key), limiter.take(key)] == [0, 0]
    clock.now -= 50
    assert limiter.take(key) == 1
    clock.now += 50
    assert limiter.take(key) == 1
    clock.now += 1
    assert limiter.take(key) == 0
