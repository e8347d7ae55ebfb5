"""A small Everpin with canned answers, for tests of what the page does. Its bodies are the real contract's; its vectors count letter triples."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray

import everpin
import surfaces
from surfaces import schemas
from surfaces.guard import guarded
from surfaces.schemas import Card

WEB = Path(surfaces.__file__).parent / "web"
SAMPLE = Path(everpin.__file__).parent / "sample/pins.jsonl"
MODEL = "triples-v1"
LEVELS = ("highly irrelevant", "irrelevant", "marginally relevant", "relevant", "highly relevant")
THRESHOLDS = (0.06, 0.12, 0.2, 0.3)
START = datetime(2026, 10, 1, 12, tzinfo=UTC)
READS_UNTIL_EMBEDDED = 3


@dataclass(frozen=True)
class FakePin:
    card: Card
    text: str
    vector: NDArray[np.float64]
    reason: str = "new"


@dataclass
class FakeEverpin:
    """Pins, users' saves, and the edits that are still on their way."""

    pins: dict[str, FakePin] = field(default_factory=dict)
    pending: dict[str, tuple[int, FakePin]] = field(default_factory=dict)
    saved: dict[str, list[str]] = field(default_factory=dict)
    actions: list[tuple[str, str, str]] = field(default_factory=list)
    showed: dict[str, set[str]] = field(default_factory=dict)
    """Pins of each answer, by its request id."""
    named: list[str | None] = field(default_factory=list)
    """The answer that each action names."""
    images: dict[str, str] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.pins, self.pending, self.images, self.actions = dict(sample_pins()), {}, {}, []
        self.showed, self.named = {}, []
        light = ["craft-001", "craft-003", "travel-004"]
        self.saved = {"user-01": ["garden-012", "garden-014", "garden-020", "food-001", "food-003", "home-040"], "user-02": light}

    def head(self, shown: Iterable[schemas.Card] = ()) -> dict[str, Any]:
        timings = {"resolve": 0.1, "encode": 3.2, "retrieve": 4.4, "rerank": 1.1, "total": 8.8}
        request_id = f"fake-{next(self.numbers)}"
        self.showed[request_id] = {card.pin_id for card in shown}
        return {"request_id": request_id, "model_id": MODEL, "collection": f"pins__{MODEL}", "timings_ms": timings}

    def edit(self, pin_id: str, title: str) -> None:
        pin = self.pins[pin_id]
        card = pin.card.model_copy(update={"title": title, "v": pin.card.v + 1_000_000})
        self.pending[pin_id] = READS_UNTIL_EMBEDDED, FakePin(card, title, _vector(title), "text_changed")

    def read(self, pin_id: str) -> FakePin | None:
        """A pin; an edited one is embedded after some reads."""
        if pin_id in self.pending:
            left, fresh = self.pending.pop(pin_id)
            if left <= 1:
                self.pins[pin_id] = fresh
            else:
                self.pending[pin_id] = left - 1, fresh
        return self.pins.get(pin_id)

    def card(self, pin_id: str) -> dict[str, Any]:
        image = self.images.get(pin_id, "")
        return self.pins[pin_id].card.model_dump() | {"image_url": image}

    def near(self, vector: NDArray[np.float64], without: frozenset[str] = frozenset()) -> list[tuple[float, str]]:
        scored = [(float(vector @ pin.vector), pin_id) for pin_id, pin in self.pins.items() if pin_id not in without]
        return sorted(scored, reverse=True)


@cache
def sample_pins() -> dict[str, FakePin]:
    rows = map(json.loads, SAMPLE.read_text().splitlines())
    return {row["pin_id"]: _pin(row, i) for i, row in enumerate(rows)}


def _pin(row: dict[str, Any], i: int) -> FakePin:
    text = " ".join(filter(None, [row["title"], row["description"], row["caption"], *row["board_titles"], row["category"]]))
    created = datetime.fromisoformat(row["created_at"])
    fields = {name: row[name] for name in ("pin_id", "title", "lang", "category")}
    v = int((START + timedelta(seconds=i)).timestamp() * 1e6)
    card = Card(**fields, boards=row["board_titles"], image_url="", link_url="https://example.org/idea", created_at=created, v=v)
    return FakePin(card, text, _vector(text))


def _vector(text: str) -> NDArray[np.float64]:
    vector = np.zeros(512)
    padded = f"  {text.lower()}  "
    for i in range(len(padded) - 2):
        vector[hash_of(padded[i : i + 3]) % 512] += 1
    vector = np.sqrt(vector)
    return cast("NDArray[np.float64]", vector / np.linalg.norm(vector))


def hash_of(triple: str) -> int:
    return sum(ord(letter) * factor for letter, factor in zip(triple, (1, 31, 961), strict=True))


def _level(score: float) -> int:
    return 1 + sum(score > threshold for threshold in THRESHOLDS)


def build_app(fake: FakeEverpin) -> Any:
    """The page under the real security headers, and the routes that it asks."""
    app = FastAPI()
    app.mount("/web", StaticFiles(directory=WEB))

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(WEB / "index.html")

    @app.post("/v1/search")
    def search(wanted: schemas.SearchRequest) -> schemas.SearchAnswer:
        near = [] if "nothing" in wanted.query else fake.near(_vector(wanted.query))
        least = 0.05 if wanted.below == "mark" else max(0.05, _least(wanted.min_level))
        kept = [(score, pin_id) for score, pin_id in near if _fits(fake.pins[pin_id].card, wanted.filters) and score > least]
        page, cursor = _page(kept, wanted.limit, wanted.cursor)
        results = [_result(fake, score, pin_id, rank, wanted.min_level) for rank, (score, pin_id) in enumerate(page, 1)]
        return schemas.SearchAnswer(**fake.head(results), query=wanted.query.lower(), lang_guess="en", results=results, cursor=cursor)

    @app.get("/v1/pins/{pin_id}/related")
    def related(pin_id: str, limit: int = 20, lang: str | None = None, category: str | None = None, cursor: str | None = None) -> Any:
        if pin_id not in fake.pins:
            return _problem(404, "No such pin", f"pin {pin_id!r} is unknown")
        pin = fake.pins[pin_id]
        wanted = schemas.Filters(lang=lang, category=category)
        near = [(score, other) for score, other in fake.near(pin.vector, frozenset({pin_id})) if _fits(fake.pins[other].card, wanted)]
        page, after = _page(near[:20], limit, cursor)
        found = [schemas.RelatedResult(**fake.card(near_id), score=score, why=_why(pin, fake.pins[near_id])) for score, near_id in page]
        return schemas.RelatedAnswer(**fake.head(), pin_id=pin_id, results=found, cursor=after)

    @app.get("/v1/users/{user_id}/feed")
    def feed(user_id: str, limit: int = 20, cursor: str | None = None) -> schemas.FeedAnswer:
        return _feed(fake, user_id, limit, cursor)

    @app.get("/v1/pins/{pin_id}")
    def pin(pin_id: str) -> Any:
        found = fake.read(pin_id)
        if found is None:
            return _problem(404, "No such pin", f"pin {pin_id!r} is unknown")
        meaning = "the pin was not in the index" if found.reason == "new" else "its text changed in meaning"
        return schemas.PinAnswer(
            **fake.head(),
            pin=Card(**fake.card(pin_id)),
            state="live",
            text=found.text,
            v=found.card.v,
            embedded_at=START,
            age_s=3.0,
            reason=found.reason,
            reason_meaning=meaning,
            features_as_of={"pin_content": START},
        )

    @app.get("/v1/map")
    def embedding_map() -> schemas.MapAnswer:
        pins = list(fake.pins.values())
        matrix = np.stack([pin.vector for pin in pins])
        places = (matrix - matrix.mean(axis=0)) @ np.random.default_rng(3).normal(size=(512, 2))
        places /= np.abs(places).max(axis=0)
        points = [
            schemas.MapPoint(pin_id=one.card.pin_id, title=one.card.title, lang=one.card.lang, category=one.card.category, x=x, y=y)
            for one, (x, y) in zip(pins, places.tolist(), strict=True)
        ]
        return schemas.MapAnswer(**fake.head(), projection="two directions by chance", made_at=START, points=points)

    @app.patch("/v1/pins/{pin_id}", status_code=202)
    def patch(pin_id: str, wanted: schemas.PinEdit) -> schemas.Accepted:
        fake.edit(pin_id, wanted.title or "")
        return schemas.Accepted(request_id="fake", accepted=1, event_time_us=1)

    @app.post("/v1/users/{user_id}/actions", status_code=202)
    def act(user_id: str, wanted: schemas.ActionsRequest) -> schemas.Accepted:
        for action in wanted.actions:
            fake.actions.append((user_id, action.pin_id, action.action))
            fake.named.append(action.request_id)
            fake.saved.setdefault(user_id, []).append(action.pin_id)
        return schemas.Accepted(request_id="fake", accepted=len(wanted.actions), event_time_us=1)

    return guarded(app, images=("https:",))


def _fits(card: Card, filters: schemas.Filters) -> bool:
    new = filters.created_since is None or (card.created_at is not None and card.created_at >= filters.created_since)
    return new and filters.lang in (None, card.lang) and filters.category in (None, card.category) and filters.board in (None, *card.boards)


def _page(found: list[tuple[float, str]], limit: int, cursor: str | None) -> tuple[list[tuple[float, str]], str | None]:
    start = int(cursor or 0)
    return found[start : start + limit], str(start + limit) if start + limit < len(found) else None


def _least(level: int) -> float:
    """Above this score a pin is of the level or of a higher one."""
    return -1.0 if level == 1 else THRESHOLDS[level - 2]


def _result(fake: FakeEverpin, score: float, pin_id: str, rank: int, min_level: int) -> schemas.SearchResult:
    level = _level(score)
    shares = [0.6 if step == level else 0.1 for step in range(1, 6)]
    explain = schemas.Explanation(dense_rank=rank, cosine=score, sparse_rank=None, level_probabilities=shares, matched_terms=["herb"])
    words = {"level": level, "level_label": LEVELS[level - 1], "relevance": float(level), "below_level": level < min_level, "explain": explain}
    return schemas.SearchResult(**fake.card(pin_id), score=score, **words)


def _why(pin: FakePin, other: FakePin) -> str:
    shared = sorted(set(pin.card.boards) & set(other.card.boards))
    return f"also saved to {shared[0]}" if shared else f"close in meaning, {other.card.category}"


def _feed(fake: FakeEverpin, user_id: str, limit: int, cursor: str | None) -> schemas.FeedAnswer:
    saved = [pin_id for pin_id in fake.saved.get(user_id, []) if pin_id in fake.pins]
    if not saved:
        newest = sorted(fake.pins, key=lambda pin_id: str(fake.pins[pin_id].card.created_at), reverse=True)
        page, after = _page([(0.0, pin_id) for pin_id in newest], limit, cursor)
        results = [schemas.FeedResult(**fake.card(pin_id), score=0.0, why="new") for _, pin_id in page]
        return schemas.FeedAnswer(**fake.head(results), user_id=user_id, kind="newest", interests=[], results=results, cursor=after)
    groups: dict[str, list[str]] = {}
    for pin_id in saved:
        groups.setdefault(fake.pins[pin_id].card.category, []).append(pin_id)
    order = sorted(groups.values(), key=len, reverse=True)
    lists = [[(score, pin_id, group[0]) for score, pin_id in fake.near(fake.pins[group[0]].vector, frozenset(saved))[:30]] for group in order[:3]]
    merged = {pin_id: (score, medoid) for row in zip(*lists, strict=True) for score, pin_id, medoid in reversed(row)}
    page, after = _page([(merged[pin_id][0], pin_id) for pin_id in merged], limit, cursor)
    results = [
        schemas.FeedResult(**fake.card(pin_id), score=score, why=f"like {fake.pins[merged[pin_id][1]].card.title}", interest=merged[pin_id][1])
        for score, pin_id in page
    ]
    interests = [
        schemas.Interest(medoid=group[0], title=fake.pins[group[0]].card.title, importance=len(group) / len(saved), pins=len(group), sampled=i < 3)
        for i, group in enumerate(order)
    ]
    return schemas.FeedAnswer(**fake.head(results), user_id=user_id, kind="interests", interests=interests, results=results, cursor=after)


def _problem(status: int, title: str, detail: str) -> Any:

    body = schemas.Problem(type=f"/problems/{status}", title=title, status=status, detail=detail, instance="fake").model_dump()
    return JSONResponse(body, status, media_type="application/problem+json")
