"""Alert rules, dashboard and runbook speak of metrics that exist, and promtool runs the rules' own tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faust
import pytest
import yaml

from everpin.telemetry import DEAD_REASONS, METRICS, OPEN, Telemetry
from streams.sensors import faust_sensor
from tests.services import unavailable

ROOT = Path(__file__).parents[2]
RULES, RULE_TESTS = ROOT / "ops/prometheus/alerts.yaml", ROOT / "ops/prometheus/alerts_test.yaml"
CONFIG, DASHBOARD = ROOT / "ops/prometheus/prometheus.yaml", ROOT / "ops/grafana/everpin.json"
ROWS = ["Stream", "Freshness", "Encoder", "Stores", "Dead letters", "Workers"]
SEVERITIES = {"page", "warning"}
KNOWN = {metric.name: metric for metric in METRICS}
SERIES = re.compile(r"\b(?:everpin|faust)_\w+")
MATCHER = re.compile(r"\b(everpin_\w+)\{(.*?)\}")


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[str]:
    yield from (alert["expr"] for alert in alerts())
    for panel in panels():
        yield from (target["expr"] for target in panel.get("targets", ()))


def base(series: str) -> str:
    """A metric by one of its series: a histogram has three."""
    name = re.sub(r"_(bucket|sum|count)$", "", series)
    return name if KNOWN.get(name) and KNOWN[name].kind == "histogram" else series


@pytest.fixture(scope="module")
def faust_names() -> set[str]:
    """What Faust's own sensor really registers."""
    telemetry = Telemetry("0", "m")
    app = faust.App("sensor-names", broker="memory://", autodiscover=False, web_enabled=False)
    faust_sensor(app, telemetry)
    exposition = telemetry.exposition().decode()
    assert app.monitor.__class__.__name__ == "_Sensor"
    return set(re.findall(r"^# TYPE (faust_\w+)", exposition, re.MULTILINE))


def test_every_metric_that_is_looked_at_exists(faust_names: set[str]) -> None:
    looked_at = {series for expression in expressions() for series in SERIES.findall(expression)}
    assert {base(series) for series in looked_at if series.startswith("everpin_")} <= KNOWN.keys()
    assert {re.sub(r"_(bucket|sum|count)$", "", series) for series in looked_at if series.startswith("faust_")} <= faust_names


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {base(series) for panel in panels() for target in panel.get("targets", ()) for series in SERIES.findall(target["expr"])}
    assert KNOWN.keys() - shown == set()


def test_every_label_that_is_matched_exists_with_that_value() -> None:
    for expression in expressions():
        for series, matchers in MATCHER.findall(expression):
            for label, operator, wanted in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(.*?)"', matchers):
                if label in ("instance", "job"):
                    continue
                labels = KNOWN[base(series)].labels
                assert label in labels, f"{series}: {label}"
                if labels[label] != OPEN and "$" not in wanted:
                    assert set(wanted.split("|") if "~" in operator else [wanted]) <= set(labels[label]), f"{series}: {wanted}"


def test_counters_are_read_as_increases_and_gauges_are_not() -> None:
    for expression in expressions():
        for series in SERIES.findall(expression):
            metric = KNOWN.get(base(series))
            if metric and metric.kind == "counter":
                assert re.search(rf"(rate|increase)\({series}", expression), expression
            elif metric and metric.kind == "gauge":
                assert not re.search(rf"(rate|increase)\({series}", expression), expression


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_what_where_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in SEVERITIES
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", (ROOT / page).read_text(), re.MULTILINE)}
    assert anchor == alert["alert"].lower()
    assert anchor in headings, f"{page} has no section {alert['alert']}"


def test_every_alert_has_a_row_and_a_runbook_and_no_runbook_is_for_nothing() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    names = [alert["alert"] for alert in alerts()]
    assert re.findall(r"^\| \[(Everpin\w+)\]\(#\w+\) \|", page, re.MULTILINE) == names
    assert re.findall(r"^### (Everpin\w+)$", page, re.MULTILINE) == names
    severities = dict(re.findall(r"^\| \[(Everpin\w+)\]\(#\w+\) \| (\w+) \|", page, re.MULTILINE))
    assert severities == {alert["alert"]: alert["labels"]["severity"] for alert in alerts()}


def test_every_runbook_says_what_is_seen_and_what_to_do() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    for name, body in re.findall(r"^### (Everpin\w+)\n(.*?)(?=^#{2,3} |\Z)", page, re.MULTILINE | re.DOTALL):
        assert "*Seen:*" in body, name
        assert "*Means:*" in body, name
        assert "*Do:*" in body, name


def test_every_alert_is_tested_both_ways() -> None:
    fires, silent = set(), set()
    for case in yaml.safe_load(RULE_TESTS.read_text())["tests"]:
        for check in case.get("promql_expr_test", ()):
            name = re.findall(r'alertname="(\w+)"', check["expr"])[0]
            (fires if check["exp_samples"] else silent).add(name)
    names = {alert["alert"] for alert in alerts()}
    assert fires == names
    assert silent == names


def test_every_dead_letter_reason_alarms_once() -> None:
    """features_behind has an alert of its own; every other reason belongs to EverpinDeadLettersNew."""
    by_name = {alert["alert"]: alert["expr"] for alert in alerts()}
    assert 'reason!="features_behind"' in by_name["EverpinDeadLettersNew"]
    assert 'reason="features_behind"' in by_name["EverpinFeaturesBehind"]
    assert "features_behind" in DEAD_REASONS


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    board = json.loads(DASHBOARD.read_text())
    assert board["schemaVersion"] >= 39
    assert [panel["title"] for panel in panels() if panel["type"] == "row"] == ROWS
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance"]
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            assert panel["targets"], panel["title"]


def test_no_two_panels_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in panels()]
    for number, (title, one) in enumerate(places):
        assert one["x"] + one["w"] <= 24, title
        for other_title, other in places[:number]:
            apart_x = one["x"] >= other["x"] + other["w"] or other["x"] >= one["x"] + one["w"]
            assert apart_x or one["y"] >= other["y"] + other["h"] or other["y"] >= one["y"] + one["h"], f"{title} lies on {other_title}"


@pytest.mark.parametrize("command", [["check", "config", str(CONFIG)], ["check", "rules", str(RULES)], ["test", "rules", str(RULE_TESTS)]], ids=" ".join)
def test_promtool(command: list[str]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is missing: apt-get install prometheus (see .ci/services.sh)")
    done = subprocess.run([promtool, *command], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
