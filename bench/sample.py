"""Pins and events of the stream benchmarks: the sample pins with all their fields, repeated under ids of their own.

A pin of realistic length matters: a caption alone is 16 tokens, a rendered sample pin 88 (median), and encoding is most of
the embed path. Copies of one sample pin get different captions, so that no two pins of a batch share a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import everpin
from everpin.importers import PinRow, read_jsonl
from everpin.wiring import now_us
from pins.events import PinEvent, PinUpdated

SAMPLE = Path(everpin.__file__).parent / "sample" / "pins.jsonl"
COPY_STRIDE, ROUND_STRIDE = 101, 37
"""How far apart in the list the captions of a pin's copies, and of its rounds, are: whole other subjects."""


@cache
def rows() -> Sequence[PinRow]:
    """The sample pins."""
    return [row for row in read_jsonl(SAMPLE) if isinstance(row, PinRow)]


def caption(number: int, round_number: int) -> str:
    """The caption of pin `number` in a round: that of another sample pin each time."""
    some = rows()
    return some[(number + COPY_STRIDE * (number // len(some)) + ROUND_STRIDE * round_number) % len(some)].caption or "a photograph"


def new_pin(pin_id: str, number: int) -> PinUpdated:
    """A whole pin, every view carried by its event."""
    at = now_us()
    row = rows()[number % len(rows())].model_copy(update={"pin_id": pin_id, "caption": caption(number, 0)})
    return PinUpdated(pin_id, at, {feature.view: dict(feature.values) for feature in row.rows(at)})


def new_pins(count: int) -> list[PinEvent]:
    """The pins p0, p1, ... as they are first seen."""
    return [new_pin(f"p{number}", number) for number in range(count)]


def changed_captions(count: int, round_number: int) -> list[PinEvent]:
    """Each event carries a new caption of its pin; rounds count from 1, and neighbours differ."""
    at = now_us()
    return [PinUpdated(f"p{number}", at, {"pin_caption": {"caption": caption(number, round_number)}}) for number in range(count)]


def hints(count: int) -> list[PinEvent]:
    """Events about pins whose features did not change."""
    at = now_us()
    return [PinUpdated(f"p{number}", at) for number in range(count)]
