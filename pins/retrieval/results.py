"""What every answer is made with: the encoder of its query, the timing of its stages, and when two pins are one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from pins.ports import Vector
from pins.relevance import OrdinalHead

SAME_PIN_COSINE = 0.985
"""Two pins this close show the same idea in the same words: one of them is enough."""

Stage = Callable[[str], AbstractContextManager[None]]
"""What times the stages of an answer: entered with a stage's name for as long as the stage takes."""


def untimed(stage: str) -> AbstractContextManager[None]:
    """Time nothing."""
    return nullcontext()


class QueryEncoder(Protocol):
    """Text of a query to a unit vector of the index's own model."""

    @property
    def model_id(self) -> str: ...
    @property
    def ordinal_head(self) -> OrdinalHead: ...
    def query(self, text: str) -> Vector: ...
