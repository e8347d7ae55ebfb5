"""Search, related pins, home feed and `explain` for the command line: open the parts, ask, and shape the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from embedder.artifact import read_manifest
from embedder.query import QueryEncoder
from everpin.loading import feature_store
from everpin.settings import Settings
from everpin.wiring import build_encoder, now_us, open_index
from pins.changes import Skip, decide, fingerprint
from pins.ports import Hit, PinIndex
from pins.relevance import Level
from pins.retrieval.feed import FeedOptions, feed_seed, home_feed
from pins.retrieval.late import SentenceVectors
from pins.retrieval.related import RelatedOptions, related_pins
from pins.retrieval.search import Found, SearchOptions, search, with_matched_terms
from pins.text import PinText, render


@contextmanager
def reading(config: Settings) -> Iterator[PinIndex]:
    """The live model's index, for reading."""
    manifest = read_manifest(config.model)
    with open_index(config, manifest.model_id, manifest.dimension, purpose="a reading command") as index:
        yield index


def answer_search(config: Settings, text: str, options: SearchOptions, *, explained: bool = False) -> list[dict[str, Any]]:
    """Shown results of a query, one page. Raises EverpinError, ValueError for an empty query."""
    encoder = build_encoder(config)
    with reading(config) as index:
        page = search(text, QueryEncoder(encoder), index, options, SentenceVectors(encoder.encode))[: options.limit]
        page = with_matched_terms(page, text, index) if explained else page
        return [_found(result, index.model_id, explained) for result in page]


def answer_related(config: Settings, pin_id: str, options: RelatedOptions) -> list[dict[str, Any]]:
    """Shown related pins, one page. Raises PinNotFound."""
    with reading(config) as index:
        page = related_pins(pin_id, index, options).results[: options.limit]
        return [_named(_result(r.hit, index.model_id, r.why), r.cosine, r.duplicates) for r in page]


def answer_feed(config: Settings, user_id: str, limit: int) -> dict[str, Any]:
    """A shown home feed, one page: its kind, the user's interests, and the results."""
    now = now_us()
    with feature_store(config) as features, reading(config) as index:
        feed = home_feed(features.history(user_id), index, now, FeedOptions(limit=limit), feed_seed(user_id, now))
        results = [_named(_result(r.hit, index.model_id, r.why), r.score, ()) | {"interest": r.interest} for r in feed.results[:limit]]
    return {"kind": feed.kind, "interests": [asdict(interest) for interest in feed.interests], "results": results}


@dataclass(frozen=True, slots=True)
class Result:
    """One pin of an answer. `score` is the cosine; relevance and level only where there is a query; `why` in words.

    `refused`: why the pin's newer text could not be embedded; it is then found by its previous one.
    """

    pin_id: str
    title: str
    score: float
    model_id: str
    fields: Mapping[str, Any]
    relevance: float | None = None
    level: Level | None = None
    why: str = ""
    refused: str = ""


def _result(hit: Hit, model_id: str, why: str = "") -> Result:
    return Result(hit.pin_id, str(hit.fields.get("title", "")), hit.score, model_id, hit.fields, why=why, refused=hit.refused)


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


def _found(found: Found, model_id: str, explained: bool) -> dict[str, Any]:
    result = replace(_result(found.hit, model_id), relevance=found.relevance, level=found.level)
    body = _named(result, found.cosine, found.duplicates) | ({"below_level": True} if found.below_level else {})
    return body | ({"explain": _explanation(found)} if explained else {})


def _named(result: Result, cosine: float, duplicates: Sequence[str]) -> dict[str, Any]:
    return shown(replace(result, score=cosine)) | ({"duplicates": list(duplicates)} if duplicates else {})


def _explanation(found: Found) -> dict[str, Any]:
    """Where a result came from and what each stage gave it."""
    numbers = {name: getattr(found, name) for name in ("dense_rank", "cosine", "sparse_rank", "bm25", "fused", "late_interaction")}
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in numbers.items()}
    levels = [round(probability, 3) for probability in found.level_probabilities]
    return rounded | {"ranked_by": round(found.score, 4), "level_probabilities": levels, "matched_terms": list(found.matched_terms)}


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
