"""A whole rollout on embedded parts while clients ask and a writer writes, with the commands as a person gives them (bench/rollout.py)."""

from __future__ import annotations

from pathlib import Path

from bench.rollout import NEW, OLD, rollout


def test_nobody_sees_a_rollout_but_by_the_model_id(tmp_path: Path) -> None:
    found = rollout(tmp_path, requests=300, rate=2, clients=2, pause_s=0.1)
    assert (found["failed"], found["mixed"], found["examples"]) == (0, 0, [])
    assert found["scores_checked"] > 100
    assert found["missing_updates"] == {OLD.name: 0, NEW.name: 0, "after retirement": 0}
    assert found["resurrected"] == 0
    assert found["events_written"] > 10
    assert all(found["canary_answers"].values()), "during the canary both models answered"
    for step in ("cutover", "rollback", "cutover again"):
        assert 0 <= found["seconds"][f"{step}, until seen by all"] <= 2.0
    assert found["collections_left"] == [f"pins__{NEW.name}"]
