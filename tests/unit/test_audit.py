"""The dependency audit says what it found, and never lets a database that it could not ask pass for a clean bill."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements/audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answering(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, known: dict[str, list[Any]], silent: set[str]) -> list[list[str]]:
    """A database that knows these advisories and says nothing of the `silent` packages; returns what it is asked."""
    questions: list[list[str]] = []

    def audited(lines: list[str]) -> list[dict[str, Any]]:
        questions.append(list(lines))
        named = [line.split("==") for line in lines]
        return [{"name": n, "skip_reason": "?"} if n in silent else {"name": n, "version": v, "vulns": known.get(n, [])} for n, v in named]

    monkeypatch.setattr(audit, "audited", audited)
    return questions


FLAW = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["9.9"]}


def test_a_clean_bill_covers_every_pinned_version(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    questions = answering(audit, monkeypatch, {}, set())
    assert audit.main(["--require"]) == 0
    assert questions[-1] == [line for line in (ROOT / "requirements/constraints.txt").read_text().split() if "==" in line]
    assert f"{len(questions[-1])} pinned versions have no known vulnerability" in capsys.readouterr().out


def test_a_known_vulnerability_fails_the_check(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answering(audit, monkeypatch, {"httpx": [FLAW]}, set())
    assert audit.main([]) == 1
    said = capsys.readouterr()
    assert "vulnerable: httpx" in said.err
    assert "PYSEC-1, fixed in 9.9" in said.err
    assert "no known vulnerability" not in said.out


def test_an_accepted_advisory_is_let_through_by_any_of_its_names(audit: ModuleType) -> None:
    found = [{"name": "httpx", "version": "1", "vulns": [FLAW]}]
    assert audit.vulnerable(found, {}) == ["httpx 1: PYSEC-1, fixed in 9.9"]
    assert audit.vulnerable(found, {"CVE-1": "no code of ours calls it"}) == []


def test_a_database_out_of_reach_is_said_and_costs_one_question(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    questions = answering(audit, monkeypatch, {}, {"fastapi"})
    assert audit.main([]) == 0
    assert audit.main(["--require"]) == 3
    assert [len(asked) for asked in questions] == [1, 1]
    said = capsys.readouterr()
    assert said.err.count("SKIPPED") == 2
    assert not said.out


def test_packages_that_the_database_does_not_know_are_counted(audit: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answering(audit, monkeypatch, {}, {"httpx", "numpy"})
    assert audit.main([]) == 0
    assert audit.main(["--require"]) == 3
    assert "nothing is known of 2 of" in capsys.readouterr().err


def test_no_answer_at_all_is_no_answer(audit: ModuleType) -> None:
    assert audit.unanswered([], 1) == 1
