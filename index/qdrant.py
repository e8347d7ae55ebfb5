"""QdrantPinIndex: the same contract on a Qdrant server (QDRANT_URL), and on `:memory:` for tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from index import points
from pins.changes import IndexedPin
from pins.errors import ArtifactError, Unavailable, Unembeddable
from pins.ports import Ask, Hit, PointWrite, Terms, Vector, Where

T = TypeVar("T")
INDEXED = {"v": "float"} | dict.fromkeys(("dead", "embedded", "outdated", *points.INTEGERS), "integer") | dict.fromkeys(points.KEYWORDS, "keyword")
"""Payload fields that searches and guards filter on. An integer index passes over a damaged version with a fraction, which nothing could then replace."""
FILLED_AT_ONCE = 500
"""Points per step of an upgrade."""


def connect(url: str, timeout_s: int = 10) -> QdrantClient:
    """A client of the server at `url`; the server is first spoken to by QdrantPinIndex."""
    return QdrantClient(url=url, timeout=timeout_s, check_compatibility=False)


class QdrantPinIndex:
    """One model's collection on a server. Creates the collection when it is missing."""

    def __init__(self, client: QdrantClient, model_id: str, dimension: int) -> None:
        self.model_id, self.dimension = model_id, dimension
        self._client, self._name = client, points.collection_name(model_id)
        self._call(self._ensure)

    def known(self, pin_ids: Sequence[str]) -> Mapping[str, IndexedPin]:
        return {pin_id: points.record(pin_id, stored) for pin_id, stored in self._payloads(pin_ids).items()}

    def write(self, writes: Sequence[PointWrite]) -> set[str]:
        points.check(writes, self.dimension)
        if not writes:
            return set()
        mark = points.nonce()
        kept = self.vectors([write.record.pin_id for write in writes if write.keep_vector])
        batch = [_point(write, kept.get(write.record.pin_id), mark) for write in writes]
        self._call(
            lambda: self._client.upsert(self._name, points=batch, wait=True, ordering=models.WriteOrdering.STRONG, update_filter=_unchanged_since_read(writes))
        )
        stored = self._payloads([write.record.pin_id for write in writes])
        return {pin_id for pin_id, body in stored.items() if body.get("mark") == mark}

    def search(self, vector: Vector, limit: int, where: Where = Where()) -> Sequence[Hit]:
        return self.ask([Ask(limit, vector, where=where)])[0]

    def ask(self, asks: Sequence[Ask]) -> Sequence[Sequence[Hit]]:
        def run(worth: Sequence[Ask]) -> list[list[points.Found]]:
            found = self._call(lambda: self._client.query_batch_points(self._name, [_query(ask) for ask in worth]))
            return [[(p.score, points.shown(_payload(p), _vector(p.vector))) for p in one.points] for one in found]

        return points.answers(asks, run)

    def vectors(self, pin_ids: Sequence[str]) -> Mapping[str, Vector]:
        vectors = {pin_id: _vector(p.vector) for pin_id, p in self._retrieve(pin_ids, with_vectors=[points.VECTOR]).items()}
        return {pin_id: vector for pin_id, vector in vectors.items() if vector is not None}

    def page(self, cursor: str = "", limit: int = 1000) -> tuple[Sequence[IndexedPin], str]:
        found, following = self._scroll(cursor, limit)
        return [points.scanned(str(p.id), _payload(p)) for p in found], following

    def page_of_points(
        self, cursor: str = "", limit: int = 1000, newer_than: int = 0, *, bare: bool = False
    ) -> tuple[Sequence[tuple[IndexedPin, Vector | None]], str]:
        newer = models.Filter(must=[models.FieldCondition(key="v", range=models.Range(gt=newer_than))]) if newer_than else None
        found, following = self._scroll(cursor, limit, newer, **({"with_payload": list(points.BARE)} if bare else {"with_vectors": [points.VECTOR]}))
        return [(points.scanned(str(p.id), _payload(p)), _vector(p.vector)) for p in found], following

    def scan(self, batch: int = 1000) -> Iterator[Sequence[IndexedPin]]:
        return points.pages(self.page, batch)

    def sweep(self, before_v: int) -> Mapping[str, int]:
        gone: Counter[str] = Counter()
        cursor = ""
        while True:
            found, cursor = self._scroll(cursor, 1000)
            verdicts = {str(p.id): points.doomed(str(p.id), _payload(p), before_v) for p in found}
            doomed = [p for p in found if verdicts[str(p.id)]]
            if doomed:
                as_read = models.Filter(should=[_unchanged(str(p.id), points.record("", _payload(p)).v) for p in doomed])
                self._call(lambda: self._client.delete(self._name, models.FilterSelector(filter=as_read), wait=True))  # noqa: B023  called now
                left = {str(p.id) for p in self._call(lambda: self._client.retrieve(self._name, [p.id for p in doomed], with_payload=False))}  # noqa: B023
                gone.update(verdicts[str(p.id)] for p in doomed if str(p.id) not in left)
            if not cursor:
                return points.swept(gone)

    def counts(self) -> Mapping[str, int]:
        def count(**fields: int) -> int:
            must: list[Any] = [_is(key, value) for key, value in fields.items()]
            return self._call(lambda: self._client.count(self._name, count_filter=models.Filter(must=must), exact=True)).count

        return {
            "live": count(dead=0, embedded=1),
            "textless": count(dead=0, embedded=0),
            "dead": count(dead=1),
            "refused": count(dead=0, outdated=1),
        }

    def flush(self) -> None:
        """The server makes acknowledged writes durable by itself."""

    def close(self) -> None:
        self._client.close()

    def _ensure(self) -> None:
        if not self._client.collection_exists(self._name):
            self._create()
        there = self._client.get_collection(self._name)
        vectors = there.config.params.vectors
        size = vectors[points.VECTOR].size if isinstance(vectors, dict) and points.VECTOR in vectors else None
        if size != self.dimension:
            made = self.dimension
            raise ArtifactError(f"collection {self._name} holds vectors of {size} dimensions, the model makes {made}; publish it under a new model_id")
        if self._client.init_options.get("location") != ":memory:":
            kept = {field: index.data_type for field, index in (there.payload_schema or {}).items()}
            for field, kind in INDEXED.items():
                if kept.get(field) != kind:
                    self._client.create_payload_index(self._name, field, models.PayloadSchemaType(kind))
        if points.TERMS not in (there.config.params.sparse_vectors or {}):
            self._add_terms()
        self._fill_terms()

    def _create(self) -> None:
        dense = models.VectorParams(size=self.dimension, distance=models.Distance.COSINE)
        sparse = models.SparseVectorParams(modifier=models.Modifier.IDF)
        try:
            self._client.create_collection(self._name, vectors_config={points.VECTOR: dense}, sparse_vectors_config={points.TERMS: sparse})
        except UnexpectedResponse as error:
            if error.status_code != httpx.codes.CONFLICT:  # another worker created it first
                raise

    def _add_terms(self) -> None:
        sparse = models.SparseVectorNameConfig(sparse=models.SparseVectorConfig(modifier=models.Modifier.IDF))
        try:
            self._client.create_vector_name(self._name, points.TERMS, sparse)
        except UnexpectedResponse as error:
            if points.TERMS in (self._client.get_collection(self._name).config.params.sparse_vectors or {}):
                return  # another process added it first
            raise ArtifactError(
                f"collection {self._name} was made by an earlier release and has no terms for word search, and this server cannot add them ({error}); "
                f"bring the server to 1.18 or later, or delete the collection and run `everpin reconcile --fix`, which fills it anew"
            ) from error

    def _fill_terms(self) -> None:
        """Give every text of an earlier release its terms. What is there already is passed over, so a crash costs nothing."""
        lacking = models.Filter(must=[_is("embedded", 1)], must_not=[models.HasVectorCondition(has_vector=points.TERMS)])
        offset: Any = None
        while True:
            found, offset = self._client.scroll(self._name, scroll_filter=lacking, limit=FILLED_AT_ONCE, offset=offset, with_payload=True)
            read = [(str(p.id), _payload(p)) for p in found]
            vectors = [models.PointVectors(id=point, vector=named) for point, stored in read if (named := _named(points.terms(stored)))]
            if vectors:
                as_read = models.Filter(should=[_unchanged(point, points.record("", stored).v) for point, stored in read])
                self._client.update_vectors(self._name, vectors, wait=True, update_filter=as_read)
            if offset is None:
                return

    def _scroll(self, cursor: str, limit: int, which: models.Filter | None = None, **what: list[str]) -> tuple[list[Any], str]:
        asked: dict[str, Any] = {"with_payload": True} | what
        found, following = self._call(lambda: self._client.scroll(self._name, which, limit=limit, offset=cursor or None, **asked))
        return found, str(following or "")

    def _retrieve(self, pin_ids: Sequence[str], *, with_vectors: bool | list[str]) -> dict[str, Any]:
        ids = {points.point_id(pin_id): pin_id for pin_id in pin_ids}
        found = self._call(lambda: self._client.retrieve(self._name, list(ids), with_payload=True, with_vectors=with_vectors)) if ids else []
        return points.by_pin(ids, found)

    def _payloads(self, pin_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        return {pin_id: _payload(p) for pin_id, p in self._retrieve(pin_ids, with_vectors=False).items()}

    def _call(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except UnexpectedResponse as error:
            if error.status_code in (400, 413, 422):
                raise Unembeddable("point_refused", f"Qdrant refused the points of {self._name}: {error}") from error
            if error.status_code == httpx.codes.NOT_FOUND:
                self._ensure()  # the collection was dropped under us: the next try writes into a new one
            raise Unavailable(f"Qdrant answered {error.status_code} for {self._name}: {error}") from error
        except (ResponseHandlingException, ApiException, httpx.HTTPError, OSError) as error:
            raise Unavailable(f"Qdrant does not answer for {self._name}: {error}; check QDRANT_URL and the server") from error


def _point(write: PointWrite, kept: Vector | None, mark: str) -> models.PointStruct:
    vector = kept if write.keep_vector else write.vector
    stored = points.payload(write.record, mark) | {"embedded": int(vector is not None)}
    vectors: dict[str, Any] = {} if vector is None else {points.VECTOR: vector.tolist()}
    return models.PointStruct(id=points.point_id(write.record.pin_id), vector=vectors | _named(points.terms(stored)), payload=stored)


def _named(terms: Terms) -> dict[str, Any]:
    """Terms as the sparse vector of a point; nothing where there is no term."""
    return {points.TERMS: _sparse(terms)} if terms.ids else {}


def _sparse(terms: Terms) -> models.SparseVector:
    return models.SparseVector(indices=list(terms.ids), values=list(terms.weights))


def _query(ask: Ask) -> models.QueryRequest:
    by = points.goes_by(ask)
    return models.QueryRequest(
        query=_sparse(by) if isinstance(by, Terms) else by.tolist(),
        using=points.TERMS if isinstance(by, Terms) else points.VECTOR,
        limit=ask.limit,
        filter=_filter(ask.where),
        with_payload=list(points.SHOWN),
        with_vector=[points.VECTOR],
    )


def _unchanged_since_read(writes: Sequence[PointWrite]) -> models.Filter:
    """Matches exactly the stored points that are still the ones each write was decided on; new ids are always inserted."""
    clauses: list[Any] = [models.FieldCondition(key="v", range=models.Range(lt=0))]  # matches nothing, so the filter is never empty
    clauses += [_unchanged(points.point_id(write.record.pin_id), write.expected_v) for write in writes if write.expected_v is not None]
    return models.Filter(should=clauses)


def _unchanged(point: str, v: int) -> models.Filter:
    mine = models.HasIdCondition(has_id=[point])
    if v:
        return models.Filter(must=[mine, models.FieldCondition(key="v", range=models.Range(gte=v, lte=v))])
    return models.Filter(must=[mine], must_not=[models.FieldCondition(key="v", range=models.Range(gte=1))])  # a damaged record without a version


def _is(key: str, value: str | int) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _filter(where: Where) -> models.Filter:
    must: list[Any] = [_is(f"fields.{key}", value) for key, value in points.equalities(where)]
    if where.created_since_us is not None:
        must.append(models.FieldCondition(key="fields.created_at_us", range=models.Range(gte=where.created_since_us)))
    without: list[Any] = [models.HasIdCondition(has_id=[points.point_id(pin_id) for pin_id in sorted(where.without)])] if where.without else []
    return models.Filter(must=must, must_not=[_is("dead", 1), *without])


def _payload(point: Any) -> dict[str, Any]:
    return dict(point.payload or {})


def _vector(stored: Any) -> Vector | None:
    values = stored.get(points.VECTOR) if isinstance(stored, dict) else None
    return None if values is None else np.asarray(values, np.float32)
