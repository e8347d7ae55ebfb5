"""The figures in bench/README.md are those of the committed results, and every result says how it was made."""

from __future__ import annotations

import json

import pytest

from bench.report import HERE, README, rewritten


def test_the_readme_shows_the_committed_results() -> None:
    assert README.read_text() == rewritten(README.read_text()), "run `python -m bench.report`"


@pytest.mark.parametrize("name", ["encoder", "worker", "freshness"])
def test_a_result_names_its_command_machine_and_commit(name: str) -> None:
    body = json.loads((HERE / f"{name}.json").read_text())
    assert body["command"] == f"python -m bench.{name}"
    assert {"cpu", "cores", "commit", "date", "versions"} <= set(body["machine"])
    assert f"python -m bench.{name}" in README.read_text()
