"""Events on the `pin-updates` topic: what they are, how bytes become one, which of many speak of one pin.

An event is a hint: "look at this pin again". It may carry the changed views' rows, which are then written to the feature
store, ordered by their event time, before anything is read. It may name `features_as_of`, the view times it speaks of.
Nothing here reads a clock: `now_us` is an argument.

Wire format (JSON, UTF-8; the Kafka key is the pin id; a null value means the pin is deleted):

    {"type": "pin_updated", "pin_id": "p1", "event_time_us": 1764000000000000,
     "features": {"pin_caption": {"caption": "a red chair"}}, "features_as_of": {"pin_caption": 1764000000000000}}
    {"type": "pin_updated", "pin_id": "p1", "reembed": true}
    {"type": "pin_deleted", "pin_id": "p1", "event_time_us": 1764000000000000}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pins.errors import InvalidEvent
from pins.features import VIEWS
from pins.wire import entity_id, json_object, key_text, require_key, time_us

REASONS = {
    "not_json": "the value is not UTF-8 JSON",
    "bad_shape": "the JSON is not an object with the fields of an event",
    "unknown_type": "the type is none that its topic knows",
    "bad_pin_id": "the pin id is missing, empty, too long, or differs from the message key",
    "bad_time": "a time is not epoch microseconds",
    "far_future": "a time lies further ahead than clocks may disagree",
    "bad_features": "a carried view is unknown, incomplete, or has a field of the wrong type",
    "too_large": "the event is larger than a dead letter can hold",
}


@dataclass(frozen=True, slots=True)
class PinUpdated:
    """A pin changed. `features` holds whole rows by view; `features_as_of` is epoch microseconds by view.

    `reembed` asks for a new vector even where nothing changed.
    """

    pin_id: str
    event_time_us: int
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    features_as_of: Mapping[str, int] = field(default_factory=dict)
    reembed: bool = False


@dataclass(frozen=True, slots=True)
class PinDeleted:
    """A pin was deleted at `event_time_us`."""

    pin_id: str
    event_time_us: int


PinEvent = PinUpdated | PinDeleted


def decode(key: bytes | None, value: bytes | None, *, timestamp_us: int, now_us: int) -> PinEvent:
    """Turn one Kafka message into an event.

    `timestamp_us` is the broker's message time, used where the event names no time of its own. Raises InvalidEvent.
    """
    if value is None:
        return PinDeleted(entity_id(key_text(key)), time_us(timestamp_us, now_us))
    body = json_object(value)
    pin_id = entity_id(body.get("pin_id"))
    require_key(key, pin_id)
    event_time_us = time_us(body.get("event_time_us", timestamp_us), now_us)
    match body.get("type"):
        case "pin_updated":
            return PinUpdated(pin_id, event_time_us, _features(body.get("features")), _as_of(body.get("features_as_of"), now_us), _flag(body, "reembed"))
        case "pin_deleted":
            return PinDeleted(pin_id, event_time_us)
        case other:
            raise InvalidEvent("unknown_type", f"{other!r:.80}; use 'pin_updated' or 'pin_deleted'")


def encode(event: PinEvent) -> bytes:
    """The wire form of an event: what `decode` reads back."""
    body: dict[str, Any] = {
        "type": "pin_deleted" if isinstance(event, PinDeleted) else "pin_updated",
        "pin_id": event.pin_id,
        "event_time_us": event.event_time_us,
    }
    if isinstance(event, PinUpdated):
        optional = {"features": event.features, "features_as_of": event.features_as_of, "reembed": event.reembed}
        body |= {name: value for name, value in optional.items() if value}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def by_pin(events: Iterable[PinEvent]) -> dict[str, list[PinEvent]]:
    """The events of each pin, pins in order of first sight. One decision is made per pin, whatever its events' order."""
    grouped: dict[str, list[PinEvent]] = {}
    for event in events:
        grouped.setdefault(event.pin_id, []).append(event)
    return grouped


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidEvent("bad_shape", f"{name} must be true or false, got {value!r:.40}")
    return value


def _as_of(value: object, now_us: int) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not set(value) <= set(VIEWS):
        raise InvalidEvent("bad_features", f"features_as_of must map views of {sorted(VIEWS)} to epoch microseconds, got {value!r:.80}")
    return {view: time_us(as_of, now_us) for view, as_of in value.items()}


def _features(value: object) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEvent("bad_features", f"features must be an object of views, got {type(value).__name__}")
    return {view: _row(view, row) for view, row in value.items()}


def _row(view: str, row: object) -> dict[str, Any]:
    columns = VIEWS.get(view)
    if columns is None:
        raise InvalidEvent("bad_features", f"unknown view {view!r:.40}; known are {sorted(VIEWS)}")
    optional = {name for name, kind in columns.items() if kind.optional}
    if not isinstance(row, dict) or set(row) | optional != set(columns):
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        more = f" and at will {sorted(optional)}" if optional else ""
        needed = sorted(columns.keys() - optional)
        raise InvalidEvent("bad_features", f"{view} needs exactly the columns {needed}{more} (a row replaces the whole row), got {got!r:.200}")
    for name, value in row.items():
        if not columns[name].accepts(value):
            raise InvalidEvent("bad_features", f"{view}.{name} must be {columns[name].wanted}, got {value!r:.80}")
    return row
