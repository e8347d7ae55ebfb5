"""What every message on a topic has to be, whatever it says: JSON, an id that Kafka and Feast can hold, a time in epoch microseconds."""

from __future__ import annotations

import json
from typing import Any

from pins.errors import InvalidEvent

MAX_EVENT_BYTES = 900_000
"""Kafka's default `message.max.bytes` is 1,048,588, headers included: a larger event might not fit when it is parked or dead."""
MAX_ID_CHARS = 256
FUTURE_TOLERANCE_US = 300_000_000
"""Five minutes. A time beyond it would outrank every honest write to come, so it is refused."""
EARLIEST_US = 1_000_000_000_000_000
"""2001-09-09 in epoch microseconds: anything smaller was given in another unit."""


def json_object(value: bytes) -> dict[str, Any]:
    """The JSON object that a message's value is. Raises InvalidEvent."""
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidEvent("too_large", f"{len(value)} bytes; send at most {MAX_EVENT_BYTES}")
    try:
        body = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("not_json", f"{error}; value starts with {value[:60]!r}") from error
    if not isinstance(body, dict):
        raise InvalidEvent("bad_shape", f"expected a JSON object, got {type(body).__name__}")
    return body


def entity_id(value: object, kind: str = "pin") -> str:
    """The id of a pin or a user. Raises InvalidEvent."""
    reason = f"bad_{kind}_id"
    if not isinstance(value, str) or not value.strip():
        raise InvalidEvent(reason, f"{value!r:.80}; send a non-empty string as {kind}_id and as message key")
    if len(value) > MAX_ID_CHARS:
        raise InvalidEvent(reason, f"{len(value)} characters; at most {MAX_ID_CHARS} are allowed")
    if not value.isascii() and any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InvalidEvent(reason, f"{value!a:.80} holds a lone surrogate, which has no UTF-8 form")
    return value


def key_text(key: bytes | None, kind: str = "pin") -> str | None:
    """A message's key as text; None where there is none. Raises InvalidEvent."""
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"bad_{kind}_id", f"message key {key!r:.80} is not UTF-8") from error


def require_key(key: bytes | None, wanted: str, kind: str = "pin") -> None:
    """Raises InvalidEvent when a message has a key and it is another id than its value names."""
    if key and key_text(key, kind) != wanted:
        raise InvalidEvent(f"bad_{kind}_id", f"message key {key[:64]!r} is not the event's {kind} id {wanted[:64]!r}; use the {kind} id as key")


def time_us(value: object, now_us: int) -> int:
    """Epoch microseconds, hardly ahead of `now_us`. Raises InvalidEvent."""
    if not isinstance(value, int) or isinstance(value, bool) or value < EARLIEST_US:
        raise InvalidEvent("bad_time", f"{value!r:.40}; times are integers in epoch microseconds")
    if value > now_us + FUTURE_TOLERANCE_US:
        ahead_s = (value - now_us) // 1_000_000  # whole numbers: JSON's may be too large for a float
        accepted_s = FUTURE_TOLERANCE_US // 1_000_000
        raise InvalidEvent("far_future", f"{value!r:.40} us is {ahead_s!r:.40} s ahead of this worker; at most {accepted_s} s is accepted")
    return value
