"""docs/surfaces.md says what the application does: every route with its scope, every metric with its meaning."""

from __future__ import annotations

import re
from pathlib import Path

from surfaces.metrics import METRICS, Metrics
from tests.surfaces.parts import Running

PAGE = (Path(__file__).parents[2] / "docs" / "surfaces.md").read_text(encoding="utf-8")


def rows(under: str) -> list[list[str]]:
    """The cells of the first table after some words of the page, without its head."""
    _, found, rest = PAGE.partition(under)
    assert found, under
    table = re.search(r"\n\| .*?(?=\n\n|\Z)", rest, re.DOTALL)
    assert table, under
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.group().strip().splitlines()[2:]]


def test_every_route_is_listed_with_its_scope(run: Running) -> None:
    listed = {}
    for route, scope, _ in rows("client for Python"):
        for named in re.findall(r"`([^`]+)`", route):
            method, _, path = named.rpartition(" ")
            listed[method or "GET", path] = scope.strip("`")
    shown = {}
    for path, methods in run.client.get("/openapi.json").json()["paths"].items():
        for method, operation in methods.items():
            shown[method.upper(), re.sub(r"\{[a-z]+_id\}", "{id}", path)] = "none" if not operation.get("security") else "key"
    assert {route: "none" if scope == "none" else "key" for route, scope in listed.items() if route != ("GET", "/")} == shown


def test_every_metric_is_listed_with_its_meaning() -> None:
    assert [(name.strip("`"), meaning) for name, meaning in rows("## Metrics")] == list(METRICS.items())


def test_every_listed_metric_exists(run: Running) -> None:
    figures = run.client.get("/metrics").text
    assert all(f"# HELP {name} {meaning}" in figures for name, meaning in METRICS.items())


def test_two_processes_share_no_figures() -> None:
    assert Metrics("a").registry is not Metrics("a").registry


def test_every_operation_is_described(run: Running) -> None:
    for path, methods in run.client.get("/openapi.json").json()["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path


def test_scopes_in_the_page_are_those_of_the_routes(run: Running) -> None:
    page = {path: scope.strip("`") for route, scope, _ in rows("client for Python") for path in re.findall(r"`([^`]+)`", route)}
    assert page["PATCH /v1/pins/{id}"] == "write"
    assert page["GET /metrics"] == "admin"
    assert {scope for route, scope in page.items() if route.startswith("GET /v1")} == {"read"}
