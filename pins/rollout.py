"""A rollout: a candidate model beside the live one, from its first pin to the end of the old collection. Which step may follow which, and why not.

Which model is live is not kept here: the alias says so, and moving it is one atomic step. What is kept are the facts nobody could see from
outside, so that any process may die at any point and the next reads the same state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pins.errors import ArtifactError

Phase = Literal["filling", "paused", "ready", "canary", "live", "rolled back", "retiring"]
MISSED_SHARE = 0.001
"""Pins that two counts of a changing installation may differ by, beside the events still in flight."""
CAUGHT_UP_MESSAGES = 100
"""Lag of the candidate's workers up to which they count as caught up: two seconds at 50 updates a second."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """What is kept of a rollout. Times are epoch microseconds, 0 for not yet; `version` counts its changes.

    `previous`: the model that was live when it began, and that a roll-back returns to. `share`: what the candidate answers of the traffic before
    the cut-over, 0 to 1; with `interleave` searches of that share are drafted from both models' rankings instead. `bridge`: digest of the bridge
    over which the candidate reads queries for the collection of `previous`, empty for none. `filled_us`: when the backfill had looked at every pin;
    `missed_us`: when events may have passed the candidate by since then, so that it has to look again. `retiring`: the model whose collection is
    being dropped.
    """

    candidate: str
    previous: str
    started_us: int
    version: int = 1
    paused: bool = False
    share: float = 0.0
    filled_us: int = 0
    missed_us: int = 0
    cut_over_us: int = 0
    rolled_back_us: int = 0
    retiring: str = ""
    bridge: str = ""
    interleave: bool = False

    def phase(self, live: str) -> Phase:
        """Where the rollout is, given the model that the alias names."""
        if self.retiring:
            return "retiring"
        if live == self.candidate:
            return "live"
        if self.share:
            return "canary"
        if self.rolled_back_us > self.cut_over_us:
            return "rolled back"
        if self.filled_us:
            return "ready"
        return "paused" if self.paused else "filling"

    def crossing(self, live: str) -> str:
        """Digest of the bridge that queries of the live model's collection cross now, given the model that the alias names; empty for none."""
        return self.bridge if live == self.previous and not self.retiring else ""

    def models(self) -> tuple[str, ...]:
        """The models whose collections are kept up to date."""
        return tuple(model for model in (self.candidate, self.previous) if model != self.retiring)

    def other(self, live: str) -> str:
        """The model of the two that is not live."""
        return self.previous if live == self.candidate else self.candidate

    def changed(self, **changes: Any) -> Rollout:
        """The next version."""
        return replace(self, **changes, version=self.version + 1)

    def without_canary(self, **changes: Any) -> Rollout:
        """The next version, with nothing left of canary and bridge."""
        return self.changed(share=0.0, interleave=False, bridge="", **changes)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was seen of the candidate: pins of the live collection and of its own, deleted ones left out of both; how many messages its workers lag
    behind (None: they were not reached); why its gate is not passed."""

    pins: int
    done: int
    lag: int | None
    gate: Sequence[str] = ()

    @property
    def missing(self) -> int:
        return max(0, self.pins - self.done)

    @property
    def coverage(self) -> float:
        """Share of the live collection's pins that the candidate's holds, 0 to 1."""
        return min(1.0, self.done / self.pins) if self.pins else 1.0


def refusals(rollout: Rollout, seen: Readiness) -> list[str]:
    """Why the candidate may not answer anybody yet; empty when it may."""
    why = []
    if rollout.retiring:
        why.append(f"{rollout.retiring} is being retired; `everpin rollout retire {rollout.retiring}` ends that, then start a new rollout")
    if rollout.paused:
        why.append("the rollout is paused; `everpin rollout resume`")
    if not rollout.filled_us:
        again = f"`everpin rollout start {rollout.candidate} --yes` goes on with it"
        why.append(f"the backfill has not looked at every pin yet ({seen.coverage:.1%} there); {again}")
    if seen.lag is None:
        why.append(f"no worker of {rollout.candidate} answers; start one with EVERPIN_MODEL")
    elif seen.lag > CAUGHT_UP_MESSAGES:
        why.append(f"its workers are {seen.lag} events behind, at most {CAUGHT_UP_MESSAGES} are allowed; wait, or start more")
    if rollout.filled_us and seen.missing > (seen.lag or 0) + MISSED_SHARE * seen.pins:
        why.append(f"{seen.missing} of {seen.pins} pins are missing from its collection; `everpin backfill --model {rollout.candidate}` finds them")
    return why + [f"gate: {line}" for line in seen.gate]


def stored(rollout: Rollout) -> dict[str, Any]:
    """A rollout as plain data."""
    return asdict(rollout)


def read(data: Mapping[str, Any]) -> Rollout:
    """What `stored` made plain data of; names it does not know are left out. Raises ArtifactError."""
    try:
        rollout = Rollout(**{field.name: data[field.name] for field in fields(Rollout) if field.name in data})
    except TypeError as error:
        raise ArtifactError(f"the state of the rollout is damaged: {error}") from error
    numbers = rollout.started_us, rollout.version, rollout.filled_us, rollout.missed_us, rollout.cut_over_us, rollout.rolled_back_us
    texts = rollout.candidate, rollout.previous, rollout.retiring, rollout.bridge
    switches = rollout.paused, rollout.interleave
    share_is_one = isinstance(rollout.share, int | float) and 0 <= rollout.share <= 1
    kinds = (numbers, int), (texts, str), (switches, bool)
    if not (share_is_one and all(isinstance(one, kind) for values, kind in kinds for one in values)):
        raise ArtifactError(f"the state of the rollout is damaged: {dict(data)}")
    return rollout
