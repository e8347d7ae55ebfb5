"""When to ask again, and when to stop: backoff with full jitter, a retry budget, Retry-After, and a deadline over all of a call. No I/O here.

Sources. Full jitter: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: of the variants there it needs the fewest
requests. Budget: "Timeouts, retries, and backoff with jitter", Amazon Builders' Library, and Finagle's RetryBudget: retries are paid from a
token bucket, by a fifth of a token for each success. Ours has no refill by time, so a server that is down gets `reserve` retries from a
client and no more until it answers again, however many calls are made.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from everpin_client.errors import DeadlineExceeded


@dataclass(frozen=True)
class Retries:
    """How a call is repeated. `attempts`: most requests for one call, the first included; 1 never repeats."""

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 2.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.base_s <= self.cap_s:
            raise ValueError(f"{self}: attempts must be 1 or more, base_s above 0 and cap_s not below base_s")

    def jitter_s(self, failed: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds to wait after `failed` attempts (1 or more): anything up to base * 2^(failed - 1), or the cap."""
        return uniform(0.0, min(self.cap_s, self.base_s * 2.0 ** min(failed - 1, 60)))


class RetryBudget:
    """A bucket of retry tokens, shared by all calls of a client: a retry takes one, a success gives `per_success` back, up to `reserve`."""

    def __init__(self, reserve: float = 10.0, per_success: float = 0.2) -> None:
        if reserve < 0 or per_success < 0:
            raise ValueError(f"reserve {reserve} and per_success {per_success} must not be negative")
        self._reserve, self._per_success = reserve, per_success
        self._tokens = reserve
        self._lock = threading.Lock()

    @property
    def tokens(self) -> float:
        return self._tokens

    def succeeded(self) -> None:
        """Pay in for a call that was answered."""
        with self._lock:
            self._tokens = min(self._reserve, self._tokens + self._per_success)

    def take(self) -> bool:
        """Whether there is a token for one more retry; then it is taken."""
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


class Attempts:
    """The attempts of one call: how long each may take, and whether there is another. `clock` counts seconds."""

    def __init__(self, retries: Retries, budget: RetryBudget, deadline_s: float, clock: Callable[[], float]) -> None:
        self._retries, self._budget, self._clock = retries, budget, clock
        self._ends = clock() + deadline_s
        self.deadline_s = deadline_s
        self.sent = 0

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; 0 after it."""
        return max(0.0, self._ends - self._clock())

    def check(self) -> None:
        """Raises DeadlineExceeded after the deadline."""
        if self.left_s <= 0:
            raise DeadlineExceeded.after(self.deadline_s, self.sent)

    def wait_s(self, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait before the next attempt, never less than the server asked for; None when there is to be none."""
        if self.sent >= self._retries.attempts:
            return None
        wait = (retry_after_s or 0.0) + self._retries.jitter_s(self.sent)
        return wait if wait < self.left_s and self._budget.take() else None


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or a date (RFC 9110, section 10.2.3). None for none or nonsense."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            at = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None
