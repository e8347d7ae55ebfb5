"""The steps of a rollout, each safe to repeat: begin, fill, look, canary, cut over, roll back, retire.

All state is in the index (`index.rollout_state` and the alias), so any process may die between two steps. What may follow what is decided in
`pins.rollout`; this module looks and acts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import httpx

from embedder.artifact import read_manifest
from everpin.live import Installation, installation, of_model
from everpin.model_folders import model_folder
from everpin.owner import live_owner, ownership, place
from everpin.published import receipt_of
from everpin.settings import Settings
from everpin.wiring import find_broker, now_us, open_index, worker_group
from pins.errors import EverpinError, Unavailable
from pins.ports import PinIndex
from pins.rollout import Readiness, Rollout, refusals
from streams.broker import UPDATES, Offsets

TRIES = 20
"""How often a change is decided anew when another process changed the rollout first."""
POLL_S = 0.3


class Refused(EverpinError):
    """The step may not follow now; the message says why and what to do."""


class Rollouts:
    """The rollout of one installation."""

    def __init__(self, config: Settings, clock: Callable[[], int] = now_us) -> None:
        self.config, self._clock = config, clock
        self.place: Installation = installation(config)

    def now(self) -> Rollout | None:
        """The rollout that is going on. Raises Unavailable, ArtifactError."""
        return self.place.state.read()

    def required(self) -> Rollout:
        """The rollout that is going on. Raises Refused when there is none."""
        rollout = self.now()
        if rollout is None:
            raise Refused("no rollout is going on; `everpin rollout start MODEL` begins one")
        return rollout

    def begin(self, candidate: str) -> Rollout:
        """Name the candidate; where it is named already, that rollout. Raises Refused."""
        rollout = self.now()
        if rollout and rollout.candidate == candidate:
            return rollout
        live = self.place.live()
        if rollout:
            raise Refused(f"{rollout.candidate} is being rolled out; end that first: `everpin rollout retire {rollout.other(live)}`")
        if candidate == live:
            raise Refused(f"{candidate} is the live model already")
        model_folder(self.config, candidate)
        if self.place.alias.live() is None:
            self.place.alias.point(live)  # from now on the alias is what counts, whatever EVERPIN_MODEL a process is given
        begun = Rollout(candidate, live, self._clock())
        if not self.place.state.replace(None, begun):
            return self.begin(candidate)
        return begun

    def change(self, what: Callable[[Rollout], Rollout]) -> Rollout:
        """Change the state, decided on its newest version. Raises Refused, Unavailable."""
        for _ in range(TRIES):
            before = self.required()
            after = what(before)
            if after == before or self.place.state.replace(before, after):
                return after
        raise Unavailable("the rollout is being changed by others all the time; try again")

    def pause(self, *, paused: bool) -> Rollout:
        """Hold or go on with the backfill. Workers and serving are not touched."""
        return self.change(lambda now: now if now.paused == paused else now.changed(paused=paused))

    def bridge(self, digest: str) -> Rollout:
        """Let the candidate read queries for the live collection over this bridge; empty lets the live model read them again."""
        return self.change(lambda now: now if now.bridge == digest else now.changed(bridge=digest))

    def filled(self) -> Rollout:
        """Every pin was looked at."""
        return self.change(lambda now: now if now.filled_us else now.changed(filled_us=self._clock(), missed_us=0))

    def look(self) -> Readiness:
        """What can be seen of the candidate now. Raises Refused, Unavailable."""
        rollout = self.required()
        pins, done = (_pins(self.counts(model_id)) for model_id in (rollout.previous, rollout.candidate))
        return Readiness(pins or 0, done or 0, None if done is None else self._lag(rollout.candidate), self._gate(rollout.candidate))

    def canary(self, share: float, *, interleave: bool = False) -> Rollout:
        """Let the candidate answer this share of the units, or draft their searches from both models; 0 ends either. Raises Refused with every reason."""
        rollout = self.required()
        if share and self.place.live() != rollout.candidate:
            self._require(rollout)
        drafts = interleave and share > 0
        return self.change(lambda now: now if (now.share, now.interleave) == (share, drafts) else now.changed(share=share, interleave=drafts))

    def cut_over(self) -> Rollout:
        """Move the alias to the candidate, which ends canary and bridge. Raises Refused with every reason; the alias is then where it was."""
        rollout = self.required()
        if self.place.live() != rollout.candidate:
            self._require(rollout)
            self.place.alias.point(rollout.candidate)
        return self.change(
            lambda now: (
                now
                if now.cut_over_us > now.rolled_back_us and not now.share and not now.bridge
                else now.without_canary(cut_over_us=max(self._clock(), now.rolled_back_us + 1))
            )
        )

    def roll_back(self) -> Rollout:
        """Move the alias back to the model before, and end canary and bridge. Raises Refused when that collection is going or gone."""
        rollout = self.required()
        if rollout.retiring:
            raise Refused(f"{rollout.retiring} is being retired; its collection may be gone. Start a rollout of it to bring it back")
        if self.place.live() != rollout.previous:
            self.place.alias.point(rollout.previous)
        return self.change(
            lambda now: (
                now.without_canary(rolled_back_us=max(self._clock(), now.cut_over_us + 1))
                if now.share or now.bridge or now.cut_over_us > now.rolled_back_us
                else now
            )
        )

    def retire(self, model_id: str, hold_s: float, wait_s: float = 60.0) -> Rollout | None:
        """Drop the collection that is not live, which ends the rollout. Raises Refused, within the hold or for the live model.

        `hold_s`: seconds that must have passed since the alias was last moved. The order is safe to interrupt: the rollout says first that the
        model goes, its workers stop, then the collection is dropped, then the rollout is forgotten.
        """
        rollout, live = self.required(), self.place.live()
        if model_id == live:
            raise Refused(f"{model_id} is the live model; move the alias away from it first (`everpin rollout cutover` or `rollback`)")
        if model_id not in (rollout.candidate, rollout.previous):
            raise Refused(f"{model_id} is not in this rollout, which is of {rollout.candidate} and {rollout.previous}")
        moved = max(rollout.cut_over_us, rollout.rolled_back_us)
        left = hold_s - (self._clock() - moved) / 1e6 if moved else 0.0
        if left > 0 and not rollout.retiring:
            raise Refused(f"the alias moved {hold_s - left:.0f} s ago; {model_id} is kept for {left:.0f} s more, so that a roll-back stays possible")
        self.change(lambda now: now if now.retiring == model_id else now.without_canary(retiring=model_id))
        with ExitStack() if self.config.qdrant_url else self._alone(model_id, wait_s):
            self.place.alias.drop(model_id)
        ended = self.required()
        self.place.state.replace(ended, None)
        return self.now()

    def wait_for_workers(self, model_id: str, wait_s: float) -> None:
        """Wait until a worker of the model is ready. Raises Unavailable that says how to start one."""
        deadline = time.monotonic() + wait_s
        while not self._ready(model_id):
            if time.monotonic() > deadline:
                by_hand = f"EVERPIN_MODEL={model_folder(self.config, model_id)} everpin worker"
                raise Unavailable(f"no worker of {model_id} was ready within {wait_s:.0f} s; `everpin up` starts one, or run {by_hand}")
            time.sleep(POLL_S)

    def counts(self, model_id: str) -> dict[str, int] | None:
        """Pins of a model's collection by state; None where nobody serves it. Raises Unavailable."""
        if not self.config.qdrant_url and not self._url(model_id):
            return None
        with self.open(model_id) as index:
            return dict(index.counts())

    def open(self, model_id: str) -> AbstractContextManager[PinIndex]:
        """A model's collection for reading, for the time of a block. Raises Unavailable, ArtifactError."""
        folder = model_folder(self.config, model_id)
        return open_index(of_model(self.config, folder), model_id, read_manifest(folder).dimension, purpose="rollout")

    def _require(self, rollout: Rollout) -> None:
        seen = self.look()
        if why := refusals(rollout, seen):
            raise Refused("\n".join([f"{rollout.candidate} may not answer yet:", *(f"  - {line}" for line in why)]))

    def _gate(self, model_id: str) -> list[str]:
        receipt = receipt_of(self.config, model_id)
        if receipt is None:
            return [f"{model_id} is not published; `everpin model publish FOLDER` checks it first"]
        return [] if receipt.forced else [f"{line['name']}: {line['value']}, wanted {line['threshold']}" for line in receipt.gate if not line["passed"]]

    def _lag(self, model_id: str) -> int | None:
        broker = find_broker(self.config)
        if broker is None or not self._ready(model_id):
            return None
        offsets = Offsets(broker, worker_group(self.config, model_id))
        try:
            return sum(lag.messages for lag in offsets.lag((UPDATES,)))
        finally:
            offsets.close()

    def _ready(self, model_id: str) -> bool:
        """On a server workers run elsewhere: whether they do shows in their group's lag alone."""
        if self.config.qdrant_url:
            return True
        try:
            return bool(url := self._url(model_id)) and httpx.get(f"{url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def _url(self, model_id: str) -> str:
        owner = live_owner(place(self.config.home, model_id))
        return owner.url if owner else ""

    def _alone(self, model_id: str, wait_s: float) -> ExitStack:
        """Own a collection once its worker has stopped. Raises Refused when it does not stop."""
        deadline = time.monotonic() + wait_s
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(ownership(place(self.config.home, model_id), "retire"))
                except Unavailable as error:
                    if time.monotonic() > deadline:
                        raise Refused(f"the worker of {model_id} still runs ({error}); stop it, then run this again") from error
                    time.sleep(POLL_S)
                else:
                    return stack.pop_all()


def _pins(counts: dict[str, int] | None) -> int | None:
    return None if counts is None else counts["live"] + counts["textless"]
