"""A search whose queries another model reads: it ranks as that model does, says whose collection answers, and refuses what was not fitted for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedder.bridged import BridgedEncoder, read_bridge
from embedder.query import QueryEncoder
from pins.bridge import Bridge, Map, Side, dump
from pins.bridge_fit import fit_procrustes
from pins.changes import IndexedPin, fingerprint
from pins.errors import ArtifactError
from pins.ports import PointWrite, Vector
from pins.retrieval.search import SearchOptions, search
from tests.fakes import FakeEncoder, FakeIndex

PINS = {"red": "red chair", "blue": "blue chair", "soup": "lentil soup with lemon", "bread": "sourdough bread", "wool": "blue wool scarf"}


class Wider:
    """Another model: what FakeEncoder says, turned and set into 12 dimensions."""

    model_id = "wide-v2"
    dimension = 12
    ordinal_head = FakeEncoder.ordinal_head
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(12, 12)))[0][:8].astype(np.float32)

    def __init__(self) -> None:
        self._fake = FakeEncoder()
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vector:
        return np.asarray(self._fake.encode(texts) @ self.turn, np.float32)

    def query(self, text: str) -> Vector:
        self.asked.append(text)
        return np.asarray(self._fake.query(text) @ self.turn, np.float32)


def fitted() -> Bridge:
    texts = [
        f"{one} {other}"
        for one in ["red", "blue", "lentil", "soup", "lemon", "sourdough", "bread", "wool"]
        for other in ["chair", "scarf", "with", "a", "b", "c", "d", "e"]
    ]
    map_ = fit_procrustes(Wider().encode(texts), FakeEncoder().encode(texts))
    return Bridge(Side("wide-v2", 12, "d"), Side("fake-v1", 8, "e"), map_, slope=1.0, intercept=0.0)


def bridged(wider: Wider) -> BridgedEncoder:
    return BridgedEncoder(QueryEncoder(wider), fitted(), FakeEncoder.ordinal_head)


@pytest.fixture
def index() -> FakeIndex:
    made, encoder = FakeIndex(), FakeEncoder()
    for pin_id, text in PINS.items():
        record = IndexedPin(pin_id, 1, False, True, "fake-v1", text=text, fingerprint=fingerprint(text))
        made.write([PointWrite(record, None, encoder.query(text))])
    return made


@pytest.mark.parametrize("query", ["red chair", "blue", "lentil soup", "wool scarf"])
def test_a_search_through_a_bridge_finds_what_the_old_model_finds(index: FakeIndex, query: str) -> None:
    options = SearchOptions(retrieval="dense", rerank="none")
    through, straight = search(query, bridged(Wider()), index, options), search(query, FakeEncoder(), index, options)
    assert [found.pin_id for found in through] == [found.pin_id for found in straight]
    assert [found.cosine for found in through] == pytest.approx([found.cosine for found in straight], abs=1e-4)
    assert [found.level for found in through] == [found.level for found in straight]


def test_the_collection_answers_under_its_own_model_and_the_reader_of_queries_is_named() -> None:
    encoder = bridged(Wider())
    assert (encoder.model_id, encoder.query_model_id, encoder.bridge.digest) == ("fake-v1", "wide-v2", fitted().digest)
    vectors = encoder.encode(["red chair", "blue chair"])
    assert (vectors.shape, vectors.dtype) == ((2, 8), np.float32)
    assert vectors[0] == pytest.approx(encoder.query("red chair"), abs=1e-6)


def test_without_its_bridge_the_new_model_may_not_ask_the_old_collection(index: FakeIndex) -> None:
    with pytest.raises(ValueError, match=r"the query encoder is wide-v2, the index holds fake-v1"):
        search("red chair", Wider(), index)


def test_a_query_is_read_once(index: FakeIndex) -> None:
    wider = Wider()
    encoder = bridged(wider)
    first = encoder.query("red  chair")
    assert encoder.query("red chair").tobytes() == first.tobytes()
    assert wider.asked == ["red chair"]


def test_levels_are_those_of_corrected_cosines() -> None:
    bridge = Bridge(Side("wide-v2", 12, "d"), Side("fake-v1", 8, "e"), fitted().map, slope=1.25, intercept=0.1)
    encoder = BridgedEncoder(QueryEncoder(Wider()), bridge, FakeEncoder.ordinal_head)
    assert encoder.ordinal_head.expected(0.4) == pytest.approx(FakeEncoder.ordinal_head.expected(0.6))


def test_an_encoder_of_another_model_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"the bridge maps queries of wide-v2, the encoder is fake-v1"):
        BridgedEncoder(QueryEncoder(FakeEncoder()), fitted(), FakeEncoder.ordinal_head)


def test_a_bridge_is_read_from_its_file_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bridge.npz"
    with pytest.raises(ArtifactError, match=r"bridge\.npz cannot be read: .*make one with `everpin bridge fit NEW OLD"):
        read_bridge(path)
    path.write_bytes(dump(fitted()))
    assert read_bridge(path).digest == fitted().digest
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"bridge\.npz: the bridge is damaged"):
        read_bridge(path)


def test_a_planted_map_is_applied_to_every_vector_in_its_place() -> None:
    swap = Map(np.eye(8, dtype=np.float32)[::-1].copy())
    vectors = FakeEncoder().encode(["red", "blue"])
    assert swap.apply(vectors) == pytest.approx(vectors[:, ::-1], abs=1e-6)
