"""`everpin experiment simulate`, and that docs/experiments.md says what the code says."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from everpin.commands import experiments
from pins.errors import EverpinError
from pins.experiments.analysis import analyse
from pins.experiments.exposures import CANDIDATE, CONTROL, INTERLEAVED, Exposure, Outcome, decode
from pins.experiments.joining import Joined, Pass
from pins.experiments.metrics import METRICS, PRIMARY
from pins.experiments.verdict import KINDS
from streams.experiments import Reading, Topics
from tests.unit.samples import T0

PAGE = Path(__file__).parents[2] / "docs/experiments.md"


def simulate(*arguments: str, code: int = 0) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(experiments.experiment_simulate)
    done = CliRunner().invoke(app, arguments)
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.stdout + done.stderr
    return done.stdout


def test_a_lift_is_found_by_interleaving_with_fewer_people() -> None:
    document = json.loads(simulate("--tests", "12", "--units", "1500", "--lift", "15", "--json"))
    ab, interleaving = document["modes"]["ab"], document["modes"]["interleaving"]
    assert interleaving["found_better"] == 1.0
    assert ab["found"] < 1.0
    assert interleaving["low"] < interleaving["found"] == interleaving["high"] == 1.0
    assert ab["mean_difference"] > 0


def test_a_null_is_told_to_be_within_bounds() -> None:
    text = simulate("--tests", "60", "--units", "300", "--mode", "ab")
    assert "nothing planted" in text
    assert "within bounds" in text


def test_a_null_out_of_bounds_is_told_by_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "wilson", lambda found, of: (0.5, 0.6))
    assert "OUT OF BOUNDS" in simulate("--tests", "20", "--units", "100", "--mode", "interleaving", code=1).replace("\n", " ")


def interleaved(*pairs: tuple[str, str]) -> Joined:
    """An interleaved answer of each of some pairs of models, won by the candidate."""
    joined = Joined()
    one = Pass(joined, "search")
    for number, models in enumerate(pairs):
        one.act(Outcome("x", "someone", f"r{number}", "p2", "save", T0 + 9))
        one.show(Exposure("x", f"u{number}", INTERLEAVED, "search", f"r{number}", models, ("p1", "p2"), T0, (CONTROL, CANDIDATE), 0.05))
    one.close()
    return joined


def shown(joined: Joined) -> tuple[dict[str, Any], str]:
    """The report's document and what people see of it."""
    document = experiments._document(Reading("x"), cast("Topics", SimpleNamespace(gone=0)), joined, analyse(joined))
    console = Console(record=True, width=200, file=io.StringIO())
    experiments._show_report(console, document)
    return document, console.export_text()


def test_interleaved_answers_alone_are_a_preference_without_a_sample_ratio() -> None:
    document, text = shown(interleaved(*[("old", "new")] * 8))
    assert (document["verdicts"].keys(), document["sample_ratio"], document["preference"]["candidate_wins"]) == ({"interleaving"}, None, 8)
    assert "Interleaving: 8 searches won by the candidate, 0 by the control" in text
    assert "Sample ratio" not in text


def test_interleaved_answers_of_several_pairs_of_models_are_not_to_be_read() -> None:
    document, text = shown(interleaved(("old", "new"), ("older", "new")))
    assert document["verdicts"]["ab"]["kind"] == "broken"
    assert "The arm interleaved was answered by several models (old+new, older+new)" in text


def test_an_impossible_lift_is_refused() -> None:
    with pytest.raises(EverpinError, match="--lift 400: no ranking lifts fulfilment by"):
        simulate("--lift", "400")


def test_the_page_lists_every_metric_and_verdict() -> None:
    rows = re.findall(r"^\| `([\w@]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    metrics = {metric.name: metric.meaning for metric in METRICS}
    roles = {name: f"{meaning} | {'primary: the verdict is about this one' if name == PRIMARY else 'guardrail'}" for name, meaning in metrics.items()}
    assert [row for row in rows if row[0] in metrics] == list(roles.items())
    assert [row for row in rows if row[0] in KINDS] == list(KINDS.items())


def test_the_events_of_the_page_are_events() -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    read = [decode(b"r1", event.encode(), now_us=T0 + 10_000_000) for event in re.split(r"\n(?=\{)", block.strip())]
    assert [event.experiment for event in read] == ["everpin-l6-v2"] * 2
