"""Ranking figures of one model, as `python -m training.evaluate --json` and `everpin evaluate cxc --json` print them: read, checked, kept small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pins.errors import EverpinError
from pins.metrics import Interval

HOW = "make one with python -m training.evaluate MODEL --data DIR --baseline LIVE_MODEL --json"

Languages = Mapping[str, Mapping[str, Interval]]
"""Figures with their 95 % intervals, by language and metric."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one model. `data` names folder, digest and split, empty where the file does not say.

    `baseline` is another model on the same pairs, and `minus_baseline` the paired differences to it.
    """

    model_id: str
    data: str
    languages: Languages
    baseline: str = ""
    minus_baseline: Languages = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The part of an evaluation that a later comparison needs, in the shape in which it was read."""
        return {"model_id": self.model_id, "data": self.data, "languages": _plain(self.languages)}


def read_figures(path: Path) -> Figures:
    """Read an evaluation. Raises EverpinError that says how to make one."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EverpinError(f"{path} is no evaluation ({error}); {HOW}") from error
    return figures(body, str(path))


def figures(body: Any, where: str) -> Figures:
    """Read a parsed evaluation; `where` is named in the EverpinError of one that is none."""
    try:
        baseline = body.get("baseline") or {}
        differences = baseline["difference"]["languages"] if baseline else {}
        return Figures(
            model_id=str(body["model_id"]),
            data=_data(body.get("data")),
            languages=_languages(body["languages"]),
            baseline=str(baseline.get("model_id", "")),
            minus_baseline=_languages({lang: found for lang, found in differences.items() if lang != "mean_other"}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EverpinError(f"{where} is no evaluation ({type(error).__name__}: {error}); {HOW}") from error


def _data(body: Any) -> str:
    if isinstance(body, Mapping):
        return f"{body['folder']} {str(body['digest'])[:12]} {body['split']}"
    return str(body or "")


def _languages(body: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Interval]]:
    """Counts beside the figures, such as the number of queries, are left out, and so is what could not be measured."""
    return {lang: {name: _interval(value) for name, value in found.items() if isinstance(value, Mapping) and _whole(value)} for lang, found in body.items()}


def _whole(value: Mapping[str, Any]) -> bool:
    return all(value[end] is not None and value[end] == value[end] for end in ("mean", "low", "high"))  # NaN is unequal to itself


def _interval(value: Mapping[str, Any]) -> Interval:
    return Interval(*(float(value[end]) for end in ("mean", "low", "high")))


def _plain(languages: Languages) -> dict[str, dict[str, Any]]:
    return {lang: {name: asdict(value) for name, value in found.items()} for lang, found in languages.items()}
