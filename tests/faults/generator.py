"""A seeded schedule of events, as a busy and untidy platform would send them. Pure: no clock, no I/O.

Times are microseconds since the start of the run. Every change of a feature view has an event time of its own, a distinct
whole millisecond, so that the newest row of each view, and with it the truth, is well defined whatever order things arrive in.
How steps are carried out is in `driver`; what the truth is, in `oracle`.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from pins.events import PinDeleted, PinUpdated, encode
from pins.features import FeatureRow

ZIPF = 1.1
"""Exponent of pin popularity: the hottest of 300 pins gets about a fifth of all events."""
MIX = {"content": 25, "caption": 16, "boards": 14, "engagement": 22, "delete": 7, "revive": 6, "poison": 2, "late_features": 8}
"""Share of each kind, in percent."""
HINTED = 0.3
"""Share of changes that a producer with a Feast client writes itself, and announces with an event without features."""
TWICE, LATE, SHUFFLED = 0.12, 0.06, 0.25
"""Shares of deliveries that come again, seconds late, and a little out of order."""
VOCABULARY = (
    "oak walnut linen ceramic brass velvet marble bamboo copper wool garden kitchen balcony bedroom nursery porch attic loft studio "
    "lamp chair table shelf rug vase mirror curtain basket clock quilt recipe pasta soup bread salad curry cake tea coffee wedding "
    "birthday picnic autumn winter spring summer blue green red golden rustic modern vintage cosy tiny bright 木の椅子 jardín Küche été"
)
TWEAKED = 0.4
"""Share of content edits that are only corrections."""
WORDS = VOCABULARY.split()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do at `at_us`: write feature rows to Feast (event times relative to the run's start), or send one message.

    `event_us` is the event time (relative) that goes into the message and into the rows; `body` holds the message without
    times, because those are known only when the run starts. `as_of` names views whose announced time is `event_us`.
    """

    at_us: int
    kind: str
    pin_id: str
    event_us: int = 0
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    as_of: tuple[str, ...] = ()
    raw: bytes | None = None
    again: bool = False

    @property
    def sends(self) -> bool:
        return self.kind != "feast"


def feature_rows(step: Step, base_us: int) -> list[FeatureRow]:
    """The rows a step brings into Feast, by itself or by the worker that reads it."""
    if step.kind in ("delete", "tombstone"):
        return [FeatureRow("pin_status", step.pin_id, base_us + step.event_us, {"deleted": 1})]
    return [FeatureRow(view, step.pin_id, base_us + step.event_us, row) for view, row in step.rows.items()]


def message(step: Step, base_us: int) -> tuple[bytes | None, bytes | None]:
    """Key and value of a step that sends. A tombstone has no value; its event time is the message's own."""
    key, at = step.pin_id.encode(), base_us + step.event_us
    match step.kind:
        case "poison":
            return (key or None), step.raw
        case "tombstone":
            return key, None
        case "delete":
            return key, encode(PinDeleted(step.pin_id, at))
        case _:
            return key, encode(PinUpdated(step.pin_id, at, step.rows, dict.fromkeys(step.as_of, at)))


def schedule(seed: int, seconds: float, rate: float, pins: int = 300) -> list[Step]:
    """All steps of a run in the order of their times; `rate` is changes per second. Same arguments, same schedule."""
    return _Platform(seed, pins).run(seconds, rate)


class _Platform:
    """What a platform's producers do in one run."""

    def __init__(self, seed: int, pins: int) -> None:
        self.chance = random.Random(seed)
        self.pins = [f"pin-{number:04d}" for number in range(pins)]
        self.chance.shuffle(self.pins)
        self.weights = list(accumulate((rank + 1) ** -ZIPF for rank in range(pins)))
        self.boards: dict[str, list[str]] = {}
        self.likes: Counter[str] = Counter()
        self.contents: dict[str, dict[str, Any]] = {}
        self.steps: list[Step] = []
        self.poisoned = 0

    def run(self, seconds: float, rate: float) -> list[Step]:
        for pin_id in self.pins:  # every pin exists from the first second on, so that no pin is never looked at
            self.change("content", pin_id, self.chance.randrange(1_000_000))
        kinds, shares = list(MIX), list(MIX.values())
        for number in range(int(seconds * rate)):
            at_us = 1_000_000 + int(number / rate * 1e6)
            pin_id = self.chance.choices(self.pins, cum_weights=self.weights)[0]
            self.change(self.chance.choices(kinds, shares)[0], pin_id, at_us)
        self.steps.sort(key=lambda step: step.at_us)
        return self.steps

    def change(self, kind: str, pin_id: str, at_us: int) -> None:
        event_us = 1000 * (1 + len(self.steps))  # distinct, and rising with the time of the change
        if kind == "poison":
            self.poison(pin_id, at_us, event_us)
        elif kind == "delete" and self.chance.random() < 0.6:
            self.deliver(Step(at_us, self.chance.choice(["delete", "tombstone"]), pin_id, event_us))
        else:
            view, row = self.row(kind, pin_id)
            self.announce(Step(at_us, "update", pin_id, event_us, {view: row}), late=kind == "late_features")

    def announce(self, step: Step, *, late: bool) -> None:
        """Send the change with its features; or write them first and send a hint; or send first and write them late."""
        feast, view = Step(step.at_us, "feast", step.pin_id, step.event_us, step.rows), next(iter(step.rows))
        hint = Step(step.at_us, "hint", step.pin_id, step.event_us, as_of=(view,) if late or self.chance.random() < 0.5 else ())
        if late:
            self.steps.append(self.moved(feast, self.chance.randint(500_000, 6_000_000)))
            self.deliver(Step(step.at_us, "late_features", step.pin_id, step.event_us, as_of=(view,)))
        elif self.chance.random() < HINTED:
            self.steps.append(feast)
            self.deliver(self.moved(hint, 1))
        else:
            self.deliver(step)

    def deliver(self, step: Step) -> None:
        """Send now, or a little later, or much later; and some twice."""
        draw = self.chance.random()
        delay = self.chance.randint(2_000_000, 8_000_000) if draw < LATE else self.chance.randint(1, 400_000) if draw < LATE + SHUFFLED else 0
        self.steps.append(self.moved(step, delay))
        if self.chance.random() < TWICE:
            self.steps.append(self.moved(step, delay + self.chance.randint(1, 5_000_000), again=True))

    @staticmethod
    def moved(step: Step, by_us: int, *, again: bool = False) -> Step:
        return Step(step.at_us + by_us, step.kind, step.pin_id, step.event_us, step.rows, step.as_of, step.raw, again)

    def row(self, kind: str, pin_id: str) -> tuple[str, dict[str, Any]]:
        """The view that a change rewrites, and its new row."""
        if kind in ("delete", "revive"):
            return "pin_status", {"deleted": int(kind == "delete")}
        if kind == "late_features":
            kind = self.chance.choice(["content", "caption"])
        match kind:
            case "caption":
                return "pin_caption", {"caption": self.words(4, 14)}
            case "boards":
                saved = self.boards.setdefault(pin_id, [])
                saved.append(self.words(1, 3))
                return "pin_boards", {"board_titles": list(saved[-12:])}
            case "engagement":
                return "pin_engagement", self.engagement(pin_id)
            case _:
                return "pin_content", self.content(pin_id)

    def engagement(self, pin_id: str) -> dict[str, Any]:
        """Mostly counters, which are in no text; now and then another query."""
        self.likes[pin_id] += 1
        asked = self.likes[pin_id] // 3
        queries = [f"{WORDS[(asked + number) % len(WORDS)]} ideas" for number in range(min(asked, 3))]
        return {"engaged_queries": queries, "engaged_counts": [float(asked)] * len(queries), "save_count": self.likes[pin_id], "like_count": self.likes[pin_id]}

    def content(self, pin_id: str) -> dict[str, Any]:
        """A new text; or, for some edits, a small correction of the old one, which may not be worth a new vector."""
        before = self.contents.get(pin_id)
        if before and self.chance.random() < TWEAKED:
            self.contents[pin_id] = before | self.tweaked(before)
        else:
            self.contents[pin_id] = self.written(pin_id)
        return self.contents[pin_id]

    def tweaked(self, before: dict[str, Any]) -> dict[str, Any]:
        """A correction: invisible to the student, or below its published bound, or just above it, or a new word."""
        title, more = before["title"], self.words(1, 1)
        changes = [{"title": title.upper()}, {"title": title.replace(" ", "  ")}, {"title": f"{title}!"}, {"title": f"{title} {more}"}]
        return self.chance.choice([*changes, *[{"description": f"{before['description']} {word}"} for word in ("and", "the", "with", "of")]])

    def written(self, pin_id: str) -> dict[str, Any]:
        return {
            "title": self.words(2, 6), "description": self.words(5, 45), "link_title": self.words(1, 4), "link_description": None,
            "link_url": f"https://example.org/{pin_id}", "image_url": f"https://example.org/{pin_id}.jpg",
            "category": self.chance.choice(["home", "food", "events"]), "lang": "en", "created_at_us": 1_700_000_000_000_000,
        }  # fmt: skip

    def words(self, least: int, most: int) -> str:
        return " ".join(self.chance.choice(WORDS) for _ in range(self.chance.randint(least, most)))

    def poison(self, pin_id: str, at_us: int, event_us: int) -> None:
        """A message nobody can use. Each carries a serial number, so that its dead letter is recognised."""
        serial = f"poison-{self.poisoned:05d}"
        self.poisoned += 1
        body: dict[str, Any] = {"type": "pin_updated", "pin_id": pin_id, "note": serial}
        broken = [
            f"{{not json {serial}".encode(),
            f'["{serial}"]'.encode(),
            json.dumps(body | {"type": "pin_exploded"}).encode(),
            json.dumps(body | {"pin_id": serial}).encode(),
            json.dumps(body | {"event_time_us": 12}).encode(),
            json.dumps(body | {"features": {"pin_caption": {"caption": 7}}}).encode(),
            json.dumps(body | {"features": {"pin_weather": {}}}).encode(),
        ]
        self.deliver(Step(at_us, "poison", pin_id, event_us, raw=self.chance.choice(broken)))


def counts(steps: Sequence[Step]) -> dict[str, int]:
    """How much of what a schedule holds: messages by kind, and the distinct pins and poisons among them."""
    sent = Counter(step.kind for step in steps if step.sends)
    return dict(sent) | {
        "messages": sent.total(),
        "duplicates": sum(step.again for step in steps),
        "unique_pins": len({step.pin_id for step in steps}),
        "poison_unique": len({step.raw for step in steps if step.kind == "poison"}),
        "written_to_feast": sum(not step.sends for step in steps),
    }
