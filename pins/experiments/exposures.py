"""What an experiment's topics hold: an exposure (a unit was shown these pins by this arm), and an outcome (somebody acted on one of them).

An exposure is written once per answer, an outcome once per action. They meet by `request_id`, which is also the Kafka key of both.
Nothing here reads a clock.

Wire format (JSON, UTF-8):

    {"type": "exposure", "experiment": "l6-v2", "unit": "5f0c...", "arm": "candidate", "surface": "search", "request_id": "r1",
     "model_ids": ["everpin-l6-v2"], "shown": ["p1", "p2"], "share": 0.05, "at_us": 1764000000000000}
    {"type": "exposure", ..., "arm": "interleaved", "model_ids": ["everpin-l6-v1", "everpin-l6-v2"], "teams": ["control", "candidate"], ...}
    {"type": "outcome", "experiment": "l6-v2", "unit": "91ab...", "request_id": "r1", "pin_id": "p1", "action": "click", "dwell_ms": 12000,
     "at_us": 1764000004000000}
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pins.errors import InvalidEvent
from pins.wire import MAX_ID_CHARS, entity_id, json_object, key_text, time_us

REASONS = {
    "bad_experiment": "the experiment's name is missing or is no plain name",
    "bad_unit": "the unit is missing, empty, too long, or not printable",
    "bad_arm": "the arm, or a shown pin's team, is none of those that an experiment has",
    "bad_surface": "the surface is none of search, related and feed",
    "bad_request_id": "the request id is missing, is no plain name, or differs from the message key",
    "bad_models": "the answer names no model, or more than its arm has",
    "bad_shown": "the pins shown are no list of different pin ids, or too many",
    "bad_share": "the candidate's share is not between 0 and 1",
    "bad_action": "the action is none that counts",
    "bad_dwell": "the dwell time is no whole number of milliseconds up to a day",
}
"""Beside those of `pins.events` for JSON, types, pins and times, which hold here too."""
CONTROL, CANDIDATE, INTERLEAVED = "control", "candidate", "interleaved"
TEAMS = (CONTROL, CANDIDATE)
"""The two students that are compared; also the two arms of an A/B test."""
ARMS = (*TEAMS, INTERLEAVED)
SURFACES = ("search", "related", "feed")
ACTIONS = ("click", "long_click", "save", "hide")
MAX_SHOWN = 100
MAX_DWELL_MS = 86_400_000
LONG_CLICK_MS = 10_000
"""A click that is followed by this long a stay counts as long: ten seconds, as PinnerFormer has it (arXiv 2205.04507)."""
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""What names an experiment (the candidate's model id) and a request."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """A unit was shown these pins, best first, at `at_us` (epoch microseconds).

    `unit` is what the arms were dealt by: a user, or a query where there is no user. `teams` is given for interleaved answers alone: the student that
    each shown pin came from. `share` is the candidate's share of units at that time, above 0 and below 1; None where nobody knows.
    """

    experiment: str
    unit: str
    arm: str
    surface: str
    request_id: str
    model_ids: tuple[str, ...]
    shown: tuple[str, ...]
    at_us: int
    teams: tuple[str, ...] = ()
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Somebody acted on a pin that the answer `request_id` had shown. `dwell_ms` is how long they stayed with it; None where nobody knows."""

    experiment: str
    unit: str
    request_id: str
    pin_id: str
    action: str
    at_us: int
    dwell_ms: int | None = None

    @property
    def kind(self) -> str:
        """The action as it counts: a click with a stay of `LONG_CLICK_MS` or more is a long one."""
        return "long_click" if self.action == "click" and (self.dwell_ms or 0) >= LONG_CLICK_MS else self.action


ExperimentEvent = Exposure | Outcome


def unit_name(unit: str, experiment: str) -> str:
    """A unit under a name of this experiment alone, 32 hexadecimal digits: no topic holds a user id, and two experiments cannot be laid side by side."""
    return blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=16, key=blake2b(experiment.encode(), digest_size=32).digest()).hexdigest()


def encode(event: ExperimentEvent) -> bytes:
    """The wire form of an exposure or an outcome: what `decode` reads back."""
    if isinstance(event, Exposure):
        body: dict[str, Any] = {"type": "exposure", "experiment": event.experiment, "unit": event.unit, "arm": event.arm, "surface": event.surface}
        body |= {"request_id": event.request_id, "model_ids": event.model_ids, "shown": event.shown, "at_us": event.at_us}
        body |= {name: value for name, value in (("teams", event.teams), ("share", event.share)) if value}
    else:
        body = {"type": "outcome", "experiment": event.experiment, "unit": event.unit, "request_id": event.request_id, "pin_id": event.pin_id}
        body |= {"action": event.action, "at_us": event.at_us} | ({} if event.dwell_ms is None else {"dwell_ms": event.dwell_ms})
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def decode(key: bytes | None, value: bytes | None, *, now_us: int) -> ExperimentEvent:
    """Turn one Kafka message into an exposure or an outcome. Raises InvalidEvent."""
    if value is None:
        raise InvalidEvent("bad_shape", "a message without a value says nothing of an experiment; send an exposure or an outcome")
    body = json_object(value)
    request_id = _plain(body.get("request_id"), "request_id")
    if key and key_text(key, "request") != request_id:
        raise InvalidEvent("bad_request_id", f"message key {key[:64]!r} is not the event's request id {request_id!r}; use the request id as key")
    match body.get("type"):
        case "exposure":
            return _exposure(body, request_id, now_us)
        case "outcome":
            return _outcome(body, request_id, now_us)
        case other:
            raise InvalidEvent("unknown_type", f"{other!r:.80}; use 'exposure' or 'outcome'")


def _exposure(body: Mapping[str, Any], request_id: str, now_us: int) -> Exposure:
    arm, shown = _one_of(ARMS, body.get("arm"), "arm"), _pins(body.get("shown"))
    return Exposure(
        experiment=_plain(body.get("experiment"), "experiment"),
        unit=_unit(body.get("unit")),
        arm=arm,
        surface=_one_of(SURFACES, body.get("surface"), "surface"),
        request_id=request_id,
        model_ids=_models(body.get("model_ids"), arm),
        shown=shown,
        at_us=time_us(body.get("at_us"), now_us),
        teams=_teams(body.get("teams"), arm, len(shown)),
        share=_share(body.get("share")),
    )


def _outcome(body: Mapping[str, Any], request_id: str, now_us: int) -> Outcome:
    return Outcome(
        experiment=_plain(body.get("experiment"), "experiment"),
        unit=_unit(body.get("unit")),
        request_id=request_id,
        pin_id=entity_id(body.get("pin_id")),
        action=_one_of(ACTIONS, body.get("action"), "action"),
        at_us=time_us(body.get("at_us"), now_us),
        dwell_ms=_dwell(body.get("dwell_ms")),
    )


def _plain(value: object, kind: str) -> str:
    if not isinstance(value, str) or not PLAIN.fullmatch(value):
        raise InvalidEvent(f"bad_{kind}", f"{value!r:.80}; use 1 to 100 letters, digits, points, hyphens and underscores")
    return value


def _one_of(known: tuple[str, ...], value: object, kind: str) -> str:
    if not isinstance(value, str) or value not in known:
        raise InvalidEvent(f"bad_{kind}", f"{value!r:.80}; use one of {', '.join(known)}")
    return value


def _unit(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARS or not value.isprintable():
        raise InvalidEvent("bad_unit", f"{value!a:.80}; send 1 to {MAX_ID_CHARS} printable characters")
    return value


def _pins(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_SHOWN:
        raise InvalidEvent("bad_shown", f"{value!r:.80}; send the list of at most {MAX_SHOWN} pin ids that were shown, best first")
    shown = tuple(entity_id(pin_id) for pin_id in value)
    if len(set(shown)) < len(shown):
        raise InvalidEvent("bad_shown", f"{value!r:.80} holds a pin twice; an answer shows each pin once")
    return shown


def _models(value: object, arm: str) -> tuple[str, ...]:
    most = 2 if arm == INTERLEAVED else 1
    if not isinstance(value, list) or len(value) != most or not all(isinstance(model, str) and 0 < len(model) <= MAX_ID_CHARS for model in value):
        raise InvalidEvent("bad_models", f"{value!r:.80}; an answer of the arm {arm!r} names {most} model ids")
    return tuple(value)


def _teams(value: object, arm: str, shown: int) -> tuple[str, ...]:
    if arm != INTERLEAVED:
        if value:
            raise InvalidEvent("bad_arm", f"teams {value!r:.80} in the arm {arm!r}; only interleaved answers have teams")
        return ()
    if value is None and not shown:
        return ()
    if not isinstance(value, list) or len(value) != shown:
        raise InvalidEvent("bad_arm", f"teams {value!r:.80}; name the team of each of the {shown} shown pins")
    return tuple(_one_of(TEAMS, team, "arm") for team in value)


def _share(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise InvalidEvent("bad_share", f"{value!r:.40}; the candidate's share is above 0 and below 1")
    return float(value)


def _dwell(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DWELL_MS:
        raise InvalidEvent("bad_dwell", f"{value!r:.40}; dwell times are whole milliseconds, 0 to {MAX_DWELL_MS}")
    return value
