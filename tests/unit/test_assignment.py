from __future__ import annotations

import numpy as np
import pytest

from pins.assignment import in_canary, position

UNITS = [f"user-{n}" for n in range(20_000)]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_canary_gets_its_share(share: float) -> None:
    got = np.mean([in_canary(unit, "everpin-l6-v2", share) for unit in UNITS])
    assert got == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / len(UNITS)))


def test_a_unit_stays_where_it_is_and_a_larger_share_keeps_the_smaller_ones() -> None:
    small, large = ({unit for unit in UNITS if in_canary(unit, "m", share)} for share in (0.05, 0.2))
    assert small
    assert small < large


def test_another_experiment_deals_anew() -> None:
    places = np.array([[position(unit, name) for unit in UNITS] for name in ("one", "other")])
    assert abs(np.corrcoef(places)[0, 1]) < 4 / np.sqrt(len(UNITS))
    assert (places >= 0).all()
    assert (places < 1).all()
