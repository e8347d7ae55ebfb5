"""How people act on a ranking, for simulations: chances of a click, a long click and a save by the relevance level of a pin and by its place.

Two ways of looking: each place by itself (position-based model) or down the list until one has enough (cascade with stopping, after the dependent
click model of Guo, Liu and Wang, WSDM 2009); Chuklin, Markov and de Rijke, "Click Models for Web Search" (2015), describe both. The chances are
chosen, not measured: they make a search fulfilled about one time in four, and only comparisons between rankings mean anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Levels = NDArray[np.int8]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Actions:
    """What was done with each shown pin: flags of shape (n, k). A long click is a click too."""

    clicks: Flags
    long_clicks: Flags
    saves: Flags

    @property
    def fulfilled(self) -> Flags:
        """Which searches ended in a save or a long click, shape (n,)."""
        fulfilled: Flags = np.logical_or.reduce(self.long_clicks | self.saves, axis=1)
        return fulfilled


@dataclass(frozen=True, slots=True)
class ClickModel:
    """Chances by level, lowest first: of a click on a pin that is looked at, and, given a click, of a long one and of a save.

    `looking` "position": the chance to look at place r, from 1, is r ** -`decay`. "cascade": one looks on after a pin without a click with the chance
    `onward`, after a click with `onward_clicked`, after a long click or a save with `onward_content`.
    """

    looking: Literal["position", "cascade"] = "position"
    click: tuple[float, ...] = (0.01, 0.02, 0.05, 0.10, 0.16)
    long_click: tuple[float, ...] = (0.05, 0.10, 0.25, 0.45, 0.60)
    save: tuple[float, ...] = (0.01, 0.03, 0.08, 0.18, 0.30)
    decay: float = 0.6
    onward: float = 0.93
    onward_clicked: float = 0.85
    onward_content: float = 0.5

    def act(self, levels: Levels, generosity: Floats, rng: np.random.Generator) -> Actions:
        """Act on rankings. `levels` (n, k): 1 to 5, best place first. `generosity` (n,): a factor on the chance to click, 1 on average."""
        click, long_click, save = self._chances(levels, generosity)
        drawn = rng.random((3, *levels.shape), np.float32)
        clicked = drawn[0] < click
        content_long, content_save = clicked & (drawn[1] < long_click), clicked & (drawn[2] < save)
        if self.looking == "position":
            seen = rng.random(levels.shape, np.float32) < self._examined(levels.shape[1])
        else:
            seen = self._followed(clicked, content_long | content_save, rng)
        return Actions(clicked & seen, content_long & seen, content_save & seen)

    def fulfilment(self, levels: Levels, generosity: Floats) -> Floats:
        """The chance that each search ends in a save or a long click, shape (n,): exact, where `act` draws."""
        click, long_click, save = self._chances(levels, generosity)
        content = click * (1 - (1 - long_click) * (1 - save))
        if self.looking == "position":
            missed: Floats = np.multiply.reduce(1 - self._examined(levels.shape[1]) * content, axis=1)
            return 1 - missed
        found, looking = np.zeros(len(levels)), np.ones(len(levels))
        for place in range(levels.shape[1]):
            found += looking * content[:, place]
            looking *= (1 - click[:, place]) * self.onward + (click[:, place] - content[:, place]) * self.onward_clicked
        return found

    def _chances(self, levels: Levels, generosity: Floats) -> tuple[Floats, Floats, Floats]:
        click, long_click, save = (np.asarray(chances)[levels - 1] for chances in (self.click, self.long_click, self.save))
        return np.minimum(click * generosity[:, None], 1.0), long_click, save

    def _examined(self, places: int) -> Floats:
        examined: Floats = np.arange(1.0, places + 1) ** -self.decay
        return examined

    def _followed(self, clicked: Flags, content: Flags, rng: np.random.Generator) -> Flags:
        """Which places one who looks down the list comes to, given what would be done at each."""
        chance = np.where(content, self.onward_content, np.where(clicked, self.onward_clicked, self.onward))
        goes_on = rng.random(clicked.shape, np.float32) < chance
        seen = np.ones(clicked.shape, np.bool_)
        seen[:, 1:] = np.logical_and.accumulate(goes_on[:, :-1], axis=1)
        return seen
