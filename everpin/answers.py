"""Search, related pins, home feed and `explain` for the command line: open the parts, ask, and shape the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from embedder.artifact import read_manifest
from embedder.query import QueryEncoder
from everpin.loading import feature_store
from everpin.settings import Settings
from everpin.wiring import build_encoder, now_us, open_index
from pins.changes import Skip, decide, fingerprint
from pins.ports import PinIndex, Where
from pins.retrieval.feed import home_feed
from pins.retrieval.related import related_pins
from pins.retrieval.results import Result
from pins.retrieval.search import search
from pins.text import PinText, render


@contextmanager
def reading(config: Settings) -> Iterator[PinIndex]:
    """The live model's index, for reading."""
    manifest = read_manifest(config.model)
    with open_index(config, manifest.model_id, manifest.dimension, purpose="a reading command") as index:
        yield index


def answer_search(config: Settings, text: str, limit: int, where: Where) -> list[dict[str, Any]]:
    """Shown results of a query. Raises EverpinError, ValueError for an empty query."""
    with reading(config) as index:
        return [shown(result) for result in search(text, QueryEncoder(build_encoder(config)), index, limit, where)]


def answer_related(config: Settings, pin_id: str, limit: int) -> list[dict[str, Any]]:
    """Shown related pins. Raises PinNotFound."""
    with reading(config) as index:
        return [shown(result) for result in related_pins(pin_id, index, limit)]


def answer_feed(config: Settings, user_id: str, limit: int) -> list[dict[str, Any]]:
    """A shown home feed."""
    with feature_store(config) as features, reading(config) as index:
        return [shown(result) for result in home_feed(features.history(user_id), index, now_us(), limit)]


def shown(result: Result) -> dict[str, Any]:
    """A result as JSON: pin id, title, score, model id, and level and relevance where there was a query."""
    body: dict[str, Any] = {
        "pin_id": result.pin_id,
        "title": result.title,
        "score": round(result.score, 4),
        "model_id": result.model_id,
        "lang": result.fields.get("lang", ""),
        "category": result.fields.get("category", ""),
    }
    if result.level is not None:
        body |= {"level": int(result.level), "level_label": result.level.label, "relevance": round(result.relevance or 0.0, 3)}
    return body | {name: value for name, value in (("why", result.why), ("refused", result.refused)) if value}


def explain(config: Settings, pin_id: str) -> dict[str, Any]:
    """A pin's own story: its features with their times, its text, its record, and what would be decided now and why."""
    encoder = build_encoder(config)
    with feature_store(config) as features, reading(config) as index:
        known = index.known([pin_id]).get(pin_id)
        pin = features.of([pin_id]).get(pin_id)
    text = render(pin) if pin else PinText("")
    action = decide(pin, text, known, encoder)
    body: dict[str, Any] = {
        "pin_id": pin_id,
        "features": asdict(pin) | {"as_of": _times(pin.as_of)} if pin else None,
        "text": text.text,
        "fingerprint": fingerprint(text.text),
        "record": asdict(known) | {"embedded_at": _time(known.embedded_at_us), "as_of": _times(known.as_of)} if known else None,
        "decision": {"action": type(action).__name__.lower(), "reason": action.reason},
        "model_id": encoder.model_id,
    }
    if known and known.embedded and text and not isinstance(action, Skip):
        body["decision"] |= {"predicted_drift": round(encoder.drift(known.text, text.text), 5), "drift_threshold": encoder.drift_threshold}
    return body


def _times(as_of: Mapping[str, int]) -> dict[str, str]:
    return {view: _time(at_us) for view, at_us in as_of.items()}


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds") if at_us else ""
