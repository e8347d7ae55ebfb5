"""What users did, on the `user-actions` topic: how bytes become an action, and how actions become a stored history.

A history is a function of the SET of actions and of deletions ever received: which come first, twice or late makes no difference. So a
batch that is redelivered, or that a second group of workers takes too, changes nothing. Nothing here reads a clock.

Wire format (JSON, UTF-8; the Kafka key is the user id; a null value means: forget this user):

    {"type": "user_action", "user_id": "u1", "pin_id": "p1", "action": "save", "event_time_us": 1764000000000000}
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pins.errors import InvalidEvent, Unavailable
from pins.features import USER_VIEW, FeatureRow, UserAction
from pins.wire import entity_id, json_object, key_text, require_key, time_us

REASONS = {
    "bad_user_id": "the user id is missing, empty, too long, or differs from the message key",
    "bad_action": "the action is neither save nor click",
}
"""Beside those of `pins.events`, which hold here too."""
ACTIONS = ("save", "click")
FORGOTTEN = "forgotten"
"""The action, of no pin, that stands in a stored history for a deletion of the user: nothing up to its time comes back."""
MOST_ACTIONS = 500
"""Actions kept per user, the latest."""
KEPT_US = 90 * 86_400_000_000
"""How far a history reaches back from the user's latest action: 90 days (PinnerSage, arXiv 2007.03634)."""
OUTCOMES = {
    "added": "the action is in the user's history now",
    "unchanged": "the action was there already, or is too old to be kept, or from before the user was forgotten",
    "forgotten": "a deletion of a user was carried out",
}
ROUNDS = 8
"""How often a history that somebody else writes too is merged anew before the batch is put off."""
_MILLISECOND_US = 1000


@dataclass(frozen=True, slots=True)
class UserActed:
    """A user saved or clicked a pin."""

    user_id: str
    pin_id: str
    action: str
    event_time_us: int


@dataclass(frozen=True, slots=True)
class UserForgotten:
    """A user's history is to be deleted: everything up to `event_time_us`."""

    user_id: str
    event_time_us: int


UserEvent = UserActed | UserForgotten


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """A history as it is stored, deletion mark included. `as_of` is its row's event time in epoch microseconds; None: no row."""

    actions: tuple[UserAction, ...] = ()
    as_of: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryWrite:
    """One guarded write: `row` replaces the stored one only while that still has event time `expected` (None: no row)."""

    row: FeatureRow
    expected: int | None


class HistoryStore(Protocol):
    """Where histories are kept. Raises Unavailable when it does not answer."""

    def histories(self, user_ids: Sequence[str]) -> Mapping[str, StoredHistory]:
        """The stored history of each of these users; without a row, an empty one."""

    def replace(self, writes: Sequence[HistoryWrite]) -> set[str]:
        """Apply guarded writes, one per user at most, and return the users of those that landed."""


def decode(key: bytes | None, value: bytes | None, *, timestamp_us: int, now_us: int) -> UserEvent:
    """Turn one Kafka message into an event. `timestamp_us` is the broker's time of the message. Raises InvalidEvent.

    Nobody acts after the message of it was sent. So an action's time is at most that of its message, which is told in whole milliseconds:
    a clock that is fast cannot carry an action past a later deletion.
    """
    sent_us = time_us(timestamp_us, now_us)
    latest_us = sent_us - sent_us % _MILLISECOND_US + _MILLISECOND_US - 1
    if value is None:
        return UserForgotten(entity_id(key_text(key, "user"), "user"), latest_us)
    body = json_object(value)
    user_id = entity_id(body.get("user_id"), "user")
    require_key(key, user_id, "user")
    if body.get("type") != "user_action":
        raise InvalidEvent("unknown_type", f"{body.get('type')!r:.80}; use 'user_action'")
    action = body.get("action")
    if action not in ACTIONS:
        raise InvalidEvent("bad_action", f"{action!r:.80}; use one of {', '.join(ACTIONS)}")
    return UserActed(user_id, entity_id(body.get("pin_id")), action, min(time_us(body.get("event_time_us", sent_us), now_us), latest_us))


def encode(event: UserActed) -> bytes:
    """The wire form of an action: what `decode` reads back."""
    body = {"type": "user_action", "user_id": event.user_id, "pin_id": event.pin_id, "action": event.action, "event_time_us": event.event_time_us}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def merge(stored: Iterable[UserAction], events: Iterable[UserEvent]) -> tuple[UserAction, ...]:
    """A history with these events in it, oldest first: each action once, at most MOST_ACTIONS, none older than KEPT_US before the latest.

    The latest deletion stays as a mark as long as an action before it would be kept.
    """
    known = set(stored)
    for event in events:
        what = ("", FORGOTTEN) if isinstance(event, UserForgotten) else (event.pin_id, event.action)
        known.add(UserAction(*what, event.event_time_us))
    forgotten_us = max((action.time_us for action in known if action.action == FORGOTTEN), default=0)
    since_us = max((action.time_us for action in known), default=0) - KEPT_US
    mark = [UserAction("", FORGOTTEN, forgotten_us)] if forgotten_us >= max(since_us, 1) else []
    actions = sorted((a for a in known if a.action != FORGOTTEN and a.time_us > forgotten_us and a.time_us >= since_us), key=_order)
    return tuple(mark + actions[-MOST_ACTIONS:])


def record(events: Sequence[UserEvent], store: HistoryStore, now_us: int) -> Counter[str]:
    """Merge events into the stored histories; how many had each of OUTCOMES. Raises Unavailable: try again, which is harmless."""
    by_user: dict[str, list[UserEvent]] = defaultdict(list)
    for event in events:
        by_user[event.user_id].append(event)
    outcomes: Counter[str] = Counter()
    for _ in range(ROUNDS):
        if not by_user:
            break
        stored = store.histories(list(by_user))
        merged = {user: merge(stored[user].actions, some) for user, some in by_user.items()}
        writes = [
            HistoryWrite(history_row(user, actions, max(now_us, (stored[user].as_of or 0) + 1)), stored[user].as_of)
            for user, actions in merged.items()
            if actions != stored[user].actions
        ]
        lost = {write.row.key for write in writes} - store.replace(writes)
        for user in merged.keys() - lost:
            outcomes += _outcomes(by_user.pop(user), stored[user].actions, merged[user])
    if by_user:
        raise Unavailable(f"{len(by_user)} histories were changed by somebody else {ROUNDS} times in a row; is another system writing {USER_VIEW}?")
    return outcomes


def _outcomes(events: Iterable[UserEvent], before: Sequence[UserAction], after: Sequence[UserAction]) -> Counter[str]:
    new = set(after) - set(before)
    counts = Counter("forgotten" if isinstance(event, UserForgotten) else "unchanged" for event in events)
    added = sum(action.action != FORGOTTEN for action in new)
    return counts + Counter(added=added) - Counter(unchanged=added)


def usable(history: Iterable[UserAction]) -> list[UserAction]:
    """The actions of a stored history, without the mark of a deletion."""
    return [action for action in history if action.action != FORGOTTEN]


def history_row(user_id: str, actions: Sequence[UserAction], event_time_us: int) -> FeatureRow:
    """A history as the row of its view."""
    values = {"pin_ids": [a.pin_id for a in actions], "actions": [a.action for a in actions], "action_times_us": [a.time_us for a in actions]}
    return FeatureRow(USER_VIEW, user_id, event_time_us, values)


def _order(action: UserAction) -> tuple[int, str, str]:
    return action.time_us, action.pin_id, action.action
