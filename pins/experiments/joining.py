"""Brings outcomes to the answers that they are about, and sums per unit. Exact whatever the order in which events were written.

An experiment is read in passes: each takes a part of the request ids, first its outcomes, then its exposures. An exposure is finished at sight, so a
pass holds the outcomes of its part, eight bytes of hash per request seen, and the sums per unit; more passes hold less.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b

from pins.experiments.exposures import ARMS, CANDIDATE, CONTROL, INTERLEAVED, Exposure, Outcome
from pins.experiments.interleaving import preference
from pins.experiments.metrics import UnitSums, facts

WINDOW_US = 86_400_000_000
"""How long after an answer an action on it still counts: 24 hours."""
EARLY_US = 300_000_000
"""How long before its answer an action may seem to be, where clocks disagree: five minutes."""
COUNTS = {
    "exposures": "answers that were shown, each once",
    "repeated_exposures": "exposures with the request id of one before: a producer or a client that tried again",
    "outcomes": "actions that were brought to an answer, each once",
    "repeated_outcomes": "the same action on the same pin of the same answer again",
    "late_outcomes": "actions outside the window after their answer",
    "unknown_outcomes": "actions on answers of which there is no exposure",
    "elsewhere_outcomes": "actions on pins that the answer did not show",
    "unreadable": "messages that are neither exposure nor outcome",
}
"""What becomes of every message about answers of the surface and the time that are asked for: each is counted in one of these."""


@dataclass(slots=True)
class Joined:
    """An experiment as far as it was read: sums per unit by arm, the shares by which two arms were dealt, the models, first and last exposure, and COUNTS."""

    arms: dict[str, UnitSums] = field(default_factory=lambda: {arm: UnitSums() for arm in ARMS})
    shares: Counter[float] = field(default_factory=Counter)
    models: dict[str, set[tuple[str, ...]]] = field(default_factory=lambda: defaultdict(set))
    surfaces: Counter[str] = field(default_factory=Counter)
    first_us: int | None = None
    last_us: int | None = None
    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTS, 0)))

    def both_arms(self) -> set[str]:
        """Units that were shown both the control's and the candidate's answers."""
        return set(self.arms[CONTROL].units) & set(self.arms[CANDIDATE].units)


class Pass:
    """One pass: all outcomes of a part of the request ids, then all exposures of that part. `close` counts what found no answer.

    `surface`: only answers of this surface are summed; those of others are counted in `Joined.surfaces`.
    """

    def __init__(self, joined: Joined, surface: str, since_us: int = 0, window_us: int = WINDOW_US) -> None:
        self._joined, self._surface, self._since_us, self._window_us = joined, surface, since_us, window_us
        self._waiting: dict[int, dict[tuple[str, str], int]] = defaultdict(dict)
        self._answered: set[int] = set()

    def act(self, outcome: Outcome) -> None:
        """Take an outcome; of the same action twice the earlier counts."""
        done = self._waiting[hashed(outcome.request_id)]
        key = outcome.pin_id, outcome.kind
        if key in done:
            self._joined.counts["repeated_outcomes"] += 1
        done[key] = min(outcome.at_us, done.get(key, outcome.at_us))

    def show(self, exposure: Exposure) -> None:
        """Take an exposure, after all outcomes of this part."""
        request, joined = hashed(exposure.request_id), self._joined
        done = self._waiting.pop(request, {})
        if request in self._answered:
            joined.counts["repeated_exposures"] += 1
            return
        self._answered.add(request)
        if exposure.at_us < self._since_us:
            return
        joined.surfaces[exposure.surface] += 1
        if exposure.surface != self._surface:
            return
        self._note(exposure)
        kinds = self._kinds(exposure, done)
        won = preference(exposure.teams, kinds) if exposure.arm == INTERLEAVED else 0
        joined.arms[exposure.arm].add(exposure.unit, facts(len(exposure.shown), kinds) | {"preferred": float(won), "credited": float(won != 0)})

    def close(self) -> None:
        """The end of this part: what still waits is about answers that nobody wrote down."""
        self._joined.counts["unknown_outcomes"] += sum(map(len, self._waiting.values()))

    def _note(self, exposure: Exposure) -> None:
        joined, at_us = self._joined, exposure.at_us
        joined.counts["exposures"] += 1
        joined.first_us = at_us if joined.first_us is None else min(joined.first_us, at_us)
        joined.last_us = at_us if joined.last_us is None else max(joined.last_us, at_us)
        joined.models[exposure.arm].add(exposure.model_ids)
        if exposure.share is not None and exposure.arm != INTERLEAVED:
            joined.shares[exposure.share] += 1

    def _kinds(self, exposure: Exposure, done: dict[tuple[str, str], int]) -> dict[int, set[str]]:
        """What was done in time with the pins shown, by place. A click that became a long one is one action, not two."""
        places = {pin_id: place for place, pin_id in enumerate(exposure.shown)}
        kinds: dict[int, set[str]] = defaultdict(set)
        for (pin_id, kind), at_us in done.items():
            if not -EARLY_US <= at_us - exposure.at_us <= self._window_us:
                self._joined.counts["late_outcomes"] += 1
            elif pin_id not in places:
                self._joined.counts["elsewhere_outcomes"] += 1
            else:
                self._joined.counts["outcomes"] += 1
                kinds[places[pin_id]].add(kind)
        for done_with_pin in kinds.values():
            if "long_click" in done_with_pin:
                done_with_pin.discard("click")
        return kinds


def hashed(request_id: str) -> int:
    """64 bits of a request id; two of a billion requests share them about once in 40 experiments, which then count as one."""
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest())
