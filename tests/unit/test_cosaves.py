from __future__ import annotations

from pins.cosaves import cosaves


def test_pins_count_the_users_that_they_share_with_a_pin() -> None:
    histories = {"u": {"a", "b", "c"}, "v": {"a", "b"}, "w": {"b", "d"}, "x": set[str]()}
    assert cosaves("a", histories) == {"b": 2.0, "c": 1.0}
    assert cosaves("d", histories) == {"b": 1.0}
    assert cosaves("nobody's", histories) == {}
    assert cosaves("alone", {"u": {"alone"}}) == {}
    assert cosaves("a", {}) == {}
