"""Who sees the canary: a unit (a user, or a query where there is no user) always falls on the same side, whatever process asks."""

from __future__ import annotations

from hashlib import blake2b

_STEPS = 1 << 64


def position(unit: str, experiment: str) -> float:
    """Where a unit lies in this experiment, uniform in [0, 1): another experiment deals the units anew."""
    digest = blake2b(unit.encode(), digest_size=8, key=blake2b(experiment.encode(), digest_size=32).digest()).digest()
    return int.from_bytes(digest, "big") / _STEPS


def in_canary(unit: str, experiment: str, share: float) -> bool:
    """Whether this unit belongs to the `share` (0 to 1) that the candidate answers. Units of a smaller share stay in a larger one."""
    return position(unit, experiment) < share
