"""Co-saves: which pins the same people acted on. A signal for related pins, counted from histories that the caller holds in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet


def cosaves(pin_id: str, histories: Mapping[str, AbstractSet[str]]) -> dict[str, float]:
    """For every pin that shares a user with this one: how many users. `histories`: the pins that each user acted on.

    Takes one look at each user, and one at each pin of the users that it is about.
    """
    together: Counter[str] = Counter()
    for saved in histories.values():
        if pin_id in saved:
            together.update(saved)
    del together[pin_id]
    return {other: float(users) for other, users in together.items()}
