"""What goes over the wire: requests, answers and problems. Generated from surfaces/schemas.py by client/generate_models.py: edit it there."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_QUERY_CHARS, MAX_TEXT_CHARS, MAX_TEXTS = 500, 8_000, 64
MAX_LIMIT, MAX_ID_CHARS, MAX_LABEL_CHARS, MAX_CURSOR_CHARS = 100, 256, 200, 8_000
MAX_EVENTS, MAX_ACTIONS, MAX_DWELL_MS = 100, 100, 86_400_000

PinId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LABEL_CHARS)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT, description="Results on one page.")]
Cursor = Annotated[str, StringConstraints(max_length=MAX_CURSOR_CHARS)]
Diversity = Annotated[float, Field(ge=0, le=1, description="0: by relevance alone; 1: as unlike one another as can be (maximal marginal relevance).")]


class Request(BaseModel):
    """A body: unknown fields are refused, so that a misspelt filter cannot pass for no filter."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Filters(Request):
    """All that are given must hold."""

    lang: Label | None = Field(default=None, description="Language code of the pin, such as `en`.", examples=["en"])
    category: Label | None = Field(default=None, description="Category of the pin.", examples=["garden"])
    board: Label | None = Field(default=None, description="Title of a board that the pin is saved to.")
    created_since: datetime | None = Field(default=None, description="Only pins created at or after this time.")


class SearchRequest(Request):
    """A search."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"query": "balcony herb garden", "limit": 10, "filters": {"lang": "en"}}]}
    )

    query: Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY_CHARS)]
    limit: Limit = 20
    filters: Filters = Filters()
    cursor: Cursor | None = Field(default=None, description="From the answer before: its next page. The other fields must be the same.")
    retrieval: Literal["hybrid", "dense", "sparse"] = Field(default="hybrid", description="Vectors, words (BM25), or both, fused by reciprocal rank.")
    rerank: Literal["relevance", "late_interaction", "none"] = Field(default="relevance", description="What orders the candidates in the end.")
    min_level: int = Field(default=1, ge=1, le=5, description="Relevance level below which a result is cut or marked.")
    below: Literal["cut", "mark"] = Field(default="cut", description="What happens to results below `min_level`.")
    fold: bool = Field(default=True, description="Show one of several near-duplicates, and name the others in `duplicates`.")
    diversity: Diversity = 0.0
    explain: bool = Field(default=False, description="Say of each result where it came from and what each stage gave it.")


class EmbeddingsRequest(Request):
    """Texts to embed with the live model."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"texts": ["a red chair by a window"]}]})

    texts: Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS)]], Field(min_length=1, max_length=MAX_TEXTS)]


class PinEdit(Request):
    """New values for some of a pin's content; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"title": "Herbs on a north-facing balcony"}]})

    title: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | None = None
    description: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | None = None


class EventsRequest(Request):
    """Events as docs/events.md describes them."""

    events: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_EVENTS)]


class UserActionIn(Request):
    """One save or click."""

    pin_id: PinId
    action: Literal["save", "click"] = "save"
    time: datetime | None = Field(default=None, description="When; now, where it is left out.")
    request_id: RequestId | None = Field(default=None, description="Of the answer that showed the pin: a running experiment then counts the action.")
    dwell_ms: int | None = Field(default=None, ge=0, le=MAX_DWELL_MS, description="How long the user stayed with the pin; 10 s make a click a long one.")


class ActionsRequest(Request):
    """What a user did, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra={"examples": [{"actions": [{"pin_id": "garden-012", "action": "save"}]}]})

    actions: Annotated[list[UserActionIn], Field(min_length=1, max_length=MAX_ACTIONS)]


class Answer(BaseModel):
    """What every answer says of itself."""

    request_id: str = Field(description="Also in the header X-Request-Id; name it when you report a problem.")
    model_id: str = Field(description="The one model that this whole answer is of; a search may name another in `interleaved_with`.")
    collection: str
    timings_ms: dict[str, float] = Field(description="Milliseconds by stage, and `total`.")


class Card(BaseModel):
    """What a surface shows of a pin."""

    pin_id: str
    title: str
    lang: str
    category: str
    boards: list[str]
    image_url: str
    link_url: str
    created_at: datetime | None
    v: int = Field(description="Version of the pin's record: epoch microseconds of the features it was made from.")
    refused: str = Field(default="", description="Why a newer text of the pin could not be embedded; empty for nearly every pin.")


class Explanation(BaseModel):
    """Where a result came from and what each stage gave it. Ranks count from 1; null where a stage did not find the pin."""

    dense_rank: int | None = None
    cosine: float | None = None
    sparse_rank: int | None = None
    bm25: float | None = None
    fused: float | None = None
    late_interaction: float | None = None
    level_probabilities: list[float] = Field(default_factory=list, description="Of levels 1 to 5.")
    matched_terms: list[str] = Field(default_factory=list)


class SearchResult(Card):
    """One pin of a search, with its relevance."""

    score: float = Field(description="Cosine of query and pin.")
    relevance: float = Field(description="Expected relevance level, 1.0 to 5.0; grows with the cosine.")
    level: int = Field(ge=1, le=5, description="Most probable relevance level.")
    level_label: str
    below_level: bool = Field(default=False, description="Below `min_level`, and marked rather than cut.")
    duplicates: list[str] = Field(default_factory=list, description="Near-duplicates that were folded into this result.")
    explain: Explanation | None = None
    model_id: str | None = Field(default=None, description="The model that ranked and scored this result; only in an interleaved answer.")


class RelatedResult(Card):
    """One related pin, with the reason in words."""

    score: float
    why: str
    duplicates: list[str] = Field(default_factory=list)


class FeedResult(Card):
    """One pin of a home feed, with the interest it belongs to."""

    score: float
    why: str
    interest: str | None = Field(default=None, description="Medoid (a real pin) of the interest; null for fresh pins and for users without a history.")


class Interest(BaseModel):
    """One interest of a user."""

    medoid: str
    title: str
    importance: float = Field(description="Share of the user's decayed actions, 0 to 1.")
    pins: int = Field(description="Actions' pins in it.")
    sampled: bool = Field(description="Whether this answer drew on it.")


class SearchAnswer(Answer):
    """Results of a search, best first."""

    query: str = Field(description="The query as it was normalised.")
    query_model_id: str | None = Field(default=None, description="The model that read the query, where a rollout's bridge let another than `model_id`.")
    interleaved_with: str | None = Field(default=None, description="The model that ranked the other results, where a canary drafts answers from two models.")
    lang_guess: str | None = Field(description="Language of the query as guessed from its letters and words; null when it cannot be told.")
    results: list[SearchResult]
    cursor: str | None = Field(description="Of the next page; null after the last.")


class RelatedAnswer(Answer):
    """Pins like a pin."""

    pin_id: str
    results: list[RelatedResult]
    cursor: str | None


class FeedAnswer(Answer):
    """A user's home feed."""

    user_id: str
    kind: Literal["interests", "newest"] = Field(description="`newest`: the user has no usable history.")
    interests: list[Interest]
    results: list[FeedResult]
    cursor: str | None


class EmbeddingsAnswer(Answer):
    """Unit vectors, in the order of the texts."""

    dimension: int
    vectors: list[list[float]]


class PinAnswer(Answer):
    """A pin's own story: what was embedded, when and why."""

    pin: Card
    state: Literal["live", "no_text", "deleted"]
    text: str = Field(description="The text last embedded.")
    v: int
    embedded_at: datetime | None
    age_s: float | None = Field(description="Seconds since the vector was made.")
    reason: str = Field(description="Why it was last embedded or looked at, as a code.")
    reason_meaning: str
    features_as_of: dict[str, datetime] = Field(description="Event time of each feature view that the record was made from.")
    features: dict[str, Any] | None = Field(default=None, description="The pin's features now; only with `?features=true`.")


class Accepted(BaseModel):
    """The broker has the events. They take effect when the worker has handled them; watch `v` of `GET /v1/pins/{id}`."""

    request_id: str
    accepted: int
    event_time_us: int = Field(description="Event time that was given to what had none, epoch microseconds.")


class MapPoint(BaseModel):
    """One pin on the embedding map; x and y lie within -1 and 1."""

    pin_id: str
    title: str
    lang: str
    category: str
    x: float
    y: float


class MapAnswer(Answer):
    """The embeddings, projected onto a plane."""

    projection: str = Field(description="How the plane was chosen, in words.")
    made_at: datetime
    points: list[MapPoint]


class Problem(BaseModel):
    """An error, as RFC 9457 describes it (`application/problem+json`)."""

    type: str = Field(description="A stable name of the kind of problem, as a relative URI.", examples=["/problems/pin-not-found"])
    title: str
    status: int
    detail: str = Field(description="What was wrong, with which value, and what to change.")
    instance: str = Field(description="The request id.")
    errors: list[dict[str, Any]] = Field(default_factory=list, description="For a body or parameter that does not fit: where and why.")
