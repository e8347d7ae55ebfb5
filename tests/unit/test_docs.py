"""README.md and docs/ say what the code says: every command, setting, field, reason and metric, with its meaning."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

import pins.actions
import pins.changes
import pins.events
from everpin.cli import app
from everpin.importers import BadRow, PinRow, parse_row, read_jsonl
from everpin.settings import SHIPPED_MODEL, Settings, variable
from everpin.telemetry import METRICS
from pins.features import VIEWS
from pins.reconcile import KINDS
from streams.broker import TOPICS

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/import.md", "docs/events.md", "docs/operations.md")
BESIDE = ("docs/models.md", "docs/rollout.md", "docs/bridge.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = (*DOCUMENTS, *BESIDE, *(f"docs/adr/{path.name}" for path in sorted((ROOT / "docs/adr").glob("*.md"))))
NOW_US = 1_764_000_000_000_000
REFUSALS = {
    "encoder_error": "the student could not encode the pin's text",
    "bad_vector": "the vector is not finite, all zero, or of another dimension than the index",
    "bad_version": "the version of the pin's record is beyond 2^53",
    "point_refused": "the Qdrant server refused the point",
    "defect": "the pin met a defect of Everpin's own",
    "features_behind": "the features that the event announced never came",
}
"""Dead-letter reasons beside those of pins.events: raised by the encoder, the index and the wait for features."""


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def table(name: str, under: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head; the document must have both."""
    _, found, rest = read(name).partition(f"\n{under}\n")
    assert found, f"{name} has no heading {under!r}"
    rest = re.split(r"\n#+ ", rest)[0]
    rows = re.findall(r"^\| (.*) \|$", re.split(r"\n\n(?!\|)", rest[rest.index("\n|") + 1 :])[0], re.MULTILINE)
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)] for row in rows[1:]]


def first_cells(rows: Sequence[Sequence[str]], columns: int) -> list[tuple[str, ...]]:
    return [tuple(row[:columns]) for row in rows]


def commands(command: Any, path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each command as it is typed, with its help sentence."""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from commands(child, [*path, name])
        return
    words = list(path)
    for param in command.params:
        if param.param_type_name == "argument":
            words.append(param.name.upper())
        else:
            words.append(f"[{'/'.join([*param.opts, *param.secondary_opts])}]")
    yield f"`{' '.join(words)}`", inspect.cleandoc(command.help)


def shown(default: object) -> str:
    """A default as the table writes it."""
    if default == SHIPPED_MODEL:
        return f"`{SHIPPED_MODEL.relative_to(ROOT).as_posix()}`"
    if default in ("", None):
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_readme_lists_every_command_with_its_help() -> None:
    assert first_cells(table("README.md", "## Commands"), 2) == list(commands(typer.main.get_command(app), ["everpin"]))


def test_the_readme_lists_every_setting_with_its_default() -> None:
    expected = [(f"`{variable(name)}`", shown(field.default), field.description) for name, field in Settings.model_fields.items()]
    assert first_cells(table("README.md", "## Settings"), 3) == expected


def test_every_command_that_a_document_shows_exists() -> None:
    known: dict[str, set[str]] = {}
    for usage, _ in commands(typer.main.get_command(app), ["everpin"]):
        name = re.match(r"`everpin ([a-z ]+)", usage)
        assert name
        known[name[1].strip()] = set(re.findall(r"--[a-z-]+", usage)) | {"--help"}
    seen = set()
    for page in PAGES:
        for line in re.findall(r"(?:^|`|\w |/)everpin ((?:[a-z]+(?=[ `]|$).*?))(?:`|$)", read(page), re.MULTILINE):
            words = re.split(r" +#", line)[0].split()
            name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in known), None)
            groups = {command.split()[0] for command in known if " " in command}
            assert name or words in [[group] for group in groups], f"{page}: everpin {line}"
            if name:
                seen.add(name)
                assert {word for word in words if word.startswith("--")} <= known[name], f"{page}: everpin {line}"
    assert seen == set(known)


def test_every_make_target_that_a_document_shows_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z]+)", read(page), re.MULTILINE)) <= targets, page


def test_every_variable_that_a_document_names_exists() -> None:
    known = {variable(name) for name in Settings.model_fields} | {"EVERPIN_REDIS"}  # feast's own yaml reads that one
    for name in DOCUMENTS:
        assert set(re.findall(r"\bEVERPIN_[A-Z][A-Z_]*\b|\bQDRANT_URL\b", read(name))) - {"EVERPIN_TEST_KAFKA", "EVERPIN_TEST_REDIS"} <= known, name


def test_the_import_page_lists_every_field() -> None:
    expected = [(f"`{name}`", field.description) for name, field in PinRow.model_fields.items()]
    assert [(row[0], row[3]) for row in table("docs/import.md", "## Fields")] == expected
    defaults = ["required" if field.is_required() else f"`{json.dumps(field.default)}`" for field in PinRow.model_fields.values()]
    assert [row[2] for row in table("docs/import.md", "## Fields")] == defaults


def test_the_examples_of_the_import_page_are_what_they_say() -> None:
    page = read("docs/import.md")
    good = re.findall(r"```json\n((?:\{\"pin_id\".*\n)+)```", page)[0].splitlines()
    assert all(isinstance(parse_row(1, json.loads(line)), PinRow) for line in good)


def test_the_bad_rows_of_the_import_page_are_reported_as_it_shows(tmp_path: Path) -> None:
    rows, report = re.findall(r"```text\n(.*?)```", read("docs/import.md"), re.DOTALL)[:2]
    (tmp_path / "pins.jsonl").write_text(rows, encoding="utf-8")
    bad = [row for row in read_jsonl(tmp_path / "pins.jsonl") if isinstance(row, BadRow)]
    assert [re.split(r" {2,}", line) for line in report.splitlines()[3:]] == [[str(row.line), row.field, row.problem, row.instead] for row in bad]


def test_the_events_of_the_documents_are_events() -> None:
    events = [block for name in DOCUMENTS for block in re.findall(r"```json\n(\{\"type\".*?)```", read(name), re.DOTALL)]
    actions = [event for event in events if '"user_action"' in event]
    assert (len(events), len(actions)) == (4, 1)
    assert pins.actions.decode(b"u1", actions[0].encode(), timestamp_us=NOW_US, now_us=NOW_US).user_id == "u1"
    for event in set(events) - set(actions):
        assert pins.events.decode(b"p1", event.encode(), timestamp_us=NOW_US, now_us=NOW_US).pin_id == "p1"


def test_the_operations_page_lists_every_difference() -> None:
    assert first_cells(table("docs/operations.md", "## Healing the index"), 2)[:-1] == [(f"`{kind}`", meaning) for kind, meaning in KINDS.items()]


def test_the_operations_page_lists_every_route() -> None:
    routes = re.findall(r'@app\.get\("(.*?)"\)', read("everpin/http.py"))
    assert [row[0] for row in table("docs/operations.md", "## Health routes")] == [*(f"`{route}`" for route in routes), "`/index/...`"]


def test_the_events_page_lists_every_dead_letter_reason() -> None:
    expected = [(f"`{name}`", meaning) for name, meaning in (pins.events.REASONS | pins.actions.REASONS | REFUSALS).items()]
    assert first_cells(table("docs/events.md", "## Dead letters"), 2) == expected


def test_the_reasons_of_refusals_are_those_in_the_code() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for folder in ("pins", "embedder", "index") for path in (ROOT / folder).glob("*.py"))
    raised = set(re.findall(r'Unembeddable\(\s*"(\w+)"', sources)) | set(re.findall(r'^    reason = "(\w+)"', sources, re.MULTILINE))
    assert raised == set(REFUSALS)


def test_the_events_page_lists_every_topic_and_view() -> None:
    assert [row[0] for row in table("docs/events.md", "## Topics")] == [f"`{topic}`" for topic in TOPICS]
    expected = [(f"`{view}`", ", ".join(f"`{name}`" for name in columns)) for view, columns in VIEWS.items()]
    assert first_cells(table("docs/events.md", "### Views"), 2) == expected


def test_the_operations_page_lists_every_metric_with_what_to_do() -> None:
    expected = [(f"`{m.name}`", f"{m.kind}, {m.unit}", m.meaning, ", ".join(f"`{label}`" for label in m.labels), m.do) for m in METRICS]
    assert first_cells(table("docs/operations.md", "## Metrics"), 5) == expected


def test_the_operations_page_lists_every_exit_code_of_a_worker() -> None:
    codes = [re.search(rf"^{name} = (\d+)", read("streams/app.py"), re.MULTILINE) for name in ("CANNOT_START", "STOPPED_UNACKED")]
    assert [row[0] for row in table("docs/operations.md", "## Running workers")] == ["0", *(code[1] for code in codes if code)]


def test_the_operations_page_lists_every_outcome() -> None:
    expected = [(f"`{name}`", meaning) for name, meaning in pins.changes.REASONS.items()]
    assert first_cells(table("docs/operations.md", "## Outcomes"), 2) == expected


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    for target, fragment in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", read(name)):
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), f"{name} links to {target}"
        if fragment:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment[1:] in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}, f"{name}: {fragment}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_paths_exist(name: str) -> None:
    folders = "pins|embedder|index|streams|tests|bench|docs|docker|everpin|feature_repo|ops|training|requirements"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", read(name)):
        assert (ROOT / path).exists(), f"{name}: {path}"
    for test in re.findall(r"`(test_\w+\.py)`", read(name)):
        assert list((ROOT / "tests").rglob(test)), f"{name}: {test}"
