"""`everpin backfill`: what it asks for, what it shows, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import backfill.run
from backfill.blocks import BackfillReport, Progress
from backfill.cluster import require_ray, require_reachable
from everpin.cli import app
from pins.errors import EverpinError, Unavailable


class Asked:
    """Stands in for the backfill: keeps what it was asked, tells its progress once, and answers."""

    def __init__(self, report: BackfillReport) -> None:
        self.report, self.options, self.went_on = report, dict[str, Any](), True

    def __call__(self, config: Any, model: Path, **options: Any) -> BackfillReport:
        self.options = options | {"model": model}
        options["step"](Progress(10, 5, 5, 0, 1.0, 5.0, 1.0))
        os.kill(os.getpid(), signal.SIGTERM)
        self.went_on = options["proceed"]()
        return self.report


def run(monkeypatch: pytest.MonkeyPatch, report: BackfillReport, *arguments: str) -> tuple[Asked, Any]:
    asked = Asked(report)
    monkeypatch.setattr(backfill.run, "backfill", asked)
    return asked, CliRunner().invoke(app, ["backfill", *arguments])


DONE = BackfillReport("m", pins=10, done=10, outcomes={"new": 8, "deleted": 2}, encoded=8, seconds=3.0, pins_per_second=5.0, complete=True)


def test_a_whole_backfill_shows_its_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, result = run(monkeypatch, DONE, "--workers", "3", "--batch", "64", "--model", "everpin-l6-v1", "--limit", "7")
    assert result.exit_code == 0, result.output
    assert "10 of 10 pins of m done" in result.output
    assert "the pin was not in the index" in result.output
    assert (asked.options["workers"], asked.options["batch"], asked.options["limit"], asked.options["address"]) == (3, 64, 7, None)
    assert asked.options["model"].name == "everpin-l6-v1"
    assert not asked.went_on
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"dead": 2, "dead_letters": "/x/dead.jsonl", "undelivered": 1}, 1, "2 pins could not be embedded"),
        ({"complete": False, "stopped": "paused", "done": 4}, 1, "6 pins are left, because it was told to stop"),
        ({"complete": False, "stopped": "limit", "done": 4}, 0, "--limit was reached"),
        ({"complete": False, "stopped": "problem", "problem": "the index is away", "done": 4, "resumed_at": 2}, 2, "the index is away"),
    ],
)
def test_what_is_not_done_has_its_exit_code_and_its_words(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], code: int, words: str) -> None:
    report = BackfillReport("m", pins=10, done=10, complete=True)
    for name, value in changes.items():
        setattr(report, name, value)
    _, result = run(monkeypatch, report, "--json")
    assert result.exit_code == code
    assert words in result.stderr
    assert json.loads(result.stdout)["done"] == report.done


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backfill.cluster.find_spec", lambda name: None)
    with pytest.raises(EverpinError, match=r"pip install everpin\[backfill\]"):
        require_ray()


def test_a_cluster_that_does_not_listen_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        require_reachable(address)
    with pytest.raises(Unavailable, match="check --address"):
        require_reachable(address)
    require_reachable("auto")
    with pytest.raises(EverpinError, match="--address auto"):
        require_reachable("ray://127.0.0.1:10001")
