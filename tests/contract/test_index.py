"""The contract of PinIndex: one suite for the fake, the embedded engine, the client's local mode and a real server."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient

from index.edge import EdgePinIndex
from index.loopback import LoopbackPinIndex
from index.qdrant import QdrantPinIndex, connect
from pins.errors import ArtifactError, Unavailable, Unembeddable
from pins.ports import PinIndex, PointWrite, Where
from tests.contract.records import DIMENSION, MODEL, put, record, vector
from tests.fakes import FakeIndex
from tests.serving import serving


def test_a_written_record_reads_back_whole(index: PinIndex) -> None:
    fields = {"lang": "ja", "category": "food", "boards": ["弁当"], "created_at_us": 1_700_000_000_000_000}
    wanted = record("p1", 1_764_000_000_000_001, fields=fields, as_of={"pin_content": 1_764_000_000_000_000}, reason="new", embedded_at_us=5)
    assert index.write([PointWrite(wanted, None, vector(1))]) == {"p1"}
    assert index.known(["p1", "p2"]) == {"p1": wanted}
    np.testing.assert_allclose(index.vectors(["p1"])["p1"], vector(1), atol=1e-6)


def test_a_write_lands_only_on_the_record_it_was_decided_on(index: PinIndex) -> None:
    put(index, "p", 10)
    assert put(index, "p", 99, expected=None, text="inserted twice") == set()
    assert put(index, "p", 99, expected=9, text="decided on an older record") == set()
    assert index.known(["p"])["p"].v == 10
    assert put(index, "p", 11, expected=10, text="fresh") == {"p"}
    assert put(index, "p", 11, expected=10, text="redelivered") == set()
    assert index.known(["p"])["p"].text == "fresh"


def test_rivals_with_the_same_version_are_told_apart(index: PinIndex) -> None:
    put(index, "p", 10)
    assert put(index, "p", 11, expected=10, text="mine") == {"p"}
    assert put(index, "p", 11, expected=10, text="theirs") == set()
    assert index.known(["p"])["p"].text == "mine"


def test_one_lost_race_does_not_hold_back_the_batch(index: PinIndex) -> None:
    put(index, "a", 5)
    writes = [PointWrite(record("a", 9), 4, vector(1)), PointWrite(record("b", 9), None, vector(2)), PointWrite(record("c", 9), None, vector(3))]
    assert index.write(writes) == {"b", "c"}
    assert index.known(["a"])["a"].v == 5


def test_versions_are_told_apart_to_the_microsecond(index: PinIndex) -> None:
    now = 1_764_000_000_000_000
    put(index, "p", now)
    assert put(index, "p", now + 5, expected=now - 1) == set()
    assert put(index, "p", now + 5, expected=now + 1) == set()
    assert put(index, "p", now + 5, expected=now) == {"p"}


def test_a_touch_keeps_the_vector(index: PinIndex) -> None:
    put(index, "p", 1, seed=7)
    assert index.write([PointWrite(record("p", 2, fields={"lang": "de"}), 1, keep_vector=True)]) == {"p"}
    np.testing.assert_allclose(index.vectors(["p"])["p"], vector(7), atol=1e-6)
    assert index.search(vector(7), 1)[0].fields == {"lang": "de"}


def test_a_tombstone_is_known_and_never_found(index: PinIndex) -> None:
    put(index, "p", 1)
    put(index, "q", 1, seed=2)
    assert index.write([PointWrite(record("p", 2, dead=True, embedded=False, text=""), 1)]) == {"p"}
    assert [hit.pin_id for hit in index.search(vector(0), 10)] == ["q"]
    assert index.vectors(["p"]) == {}
    assert index.known(["p"])["p"].dead
    assert index.counts() == {"live": 1, "textless": 0, "dead": 1, "refused": 0}


def test_a_record_without_text_is_known_and_never_found(index: PinIndex) -> None:
    index.write([PointWrite(record("p", 1, embedded=False, text=""), None)])
    assert index.search(vector(0), 10) == []
    assert index.counts() == {"live": 0, "textless": 1, "dead": 0, "refused": 0}


def test_a_refused_pin_is_found_with_its_mark_and_counted(index: PinIndex) -> None:
    put(index, "p", 1)
    put(index, "q", 1, seed=2)
    index.write([PointWrite(record("p", 2, refused="encoder_error"), 1, keep_vector=True)])
    assert {hit.pin_id: hit.refused for hit in index.search(vector(0), 10)} == {"p": "encoder_error", "q": ""}
    assert index.known(["p"])["p"].refused == "encoder_error"
    assert index.counts() == {"live": 2, "textless": 0, "dead": 0, "refused": 1}
    assert index.write([PointWrite(record("p", 3), 2, vector(5))]) == {"p"}
    assert index.counts()["refused"] == 0


def test_search_ranks_by_cosine_and_filters(index: PinIndex) -> None:
    for n, (lang, category, boards, created) in enumerate(
        [("en", "food", ["soups"], 100), ("de", "food", ["suppen", "winter"], 200), ("en", "craft", [], 300)], start=1
    ):
        put(index, f"p{n}", seed=n, fields={"lang": lang, "category": category, "boards": boards, "created_at_us": created})
    hits = index.search(vector(2), 10)
    assert hits[0].pin_id == "p2"
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].vector is not None
    np.testing.assert_allclose(hits[0].vector, vector(2), atol=1e-6)

    def found(where: Where) -> set[str]:
        return {hit.pin_id for hit in index.search(vector(2), 10, where)}

    assert found(Where(lang="en")) == {"p1", "p3"}
    assert found(Where(category="food", lang="de")) == {"p2"}
    assert found(Where(board="winter")) == {"p2"}
    assert found(Where(created_since_us=200)) == {"p2", "p3"}
    assert found(Where(without=frozenset({"p1", "p2"}))) == {"p3"}


def test_a_bad_vector_is_refused_before_the_engine_sees_it(index: PinIndex) -> None:
    if isinstance(index, FakeIndex):
        return  # the fake has no engine to protect
    bad = [np.full(DIMENSION, np.nan, np.float32), np.zeros(DIMENSION, np.float32), np.ones(DIMENSION + 1, np.float32)]
    for values in bad:
        with pytest.raises(Unembeddable):
            index.write([PointWrite(record("good"), None, vector(1)), PointWrite(record("bad"), None, values)])
    with pytest.raises(Unembeddable, match=r"2\^53"):
        put(index, "p", 2**53)
    with pytest.raises(ValueError, match="one write per pin"):
        index.write([PointWrite(record("p"), None, vector(1)), PointWrite(record("p"), None, vector(2))])
    assert index.counts()["live"] == 0


def test_empty_requests_are_harmless(index: PinIndex) -> None:
    assert index.write([]) == set()
    assert index.known([]) == {}
    assert index.vectors([]) == {}
    assert index.search(vector(0), 3) == []


def test_scan_passes_every_record_once(index: PinIndex) -> None:
    for n in range(25):
        put(index, f"p{n}", seed=n)
    seen = [pin.pin_id for batch in index.scan(batch=10) for pin in batch]
    assert sorted(seen) == sorted(f"p{n}" for n in range(25))


def test_a_scan_goes_on_from_its_cursor(index: PinIndex) -> None:
    for n in range(25):
        put(index, f"p{n}", seed=n)
    first, cursor = index.page("", 10)
    assert cursor
    put(index, "p3", 2, expected=1, text="written between two pages")
    second, cursor = index.page(cursor, 10)
    third, cursor = index.page(cursor, 10)
    assert cursor == ""
    assert sorted(pin.pin_id for pin in [*first, *second, *third]) == sorted(f"p{n}" for n in range(25))


def test_a_sweep_removes_old_tombstones_and_nothing_else(index: PinIndex) -> None:
    for n, (v, dead) in enumerate([(10, True), (19, True), (20, True), (5, False), (30, True)]):
        put(index, f"p{n}", v, seed=n)
        if dead:
            index.write([PointWrite(record(f"p{n}", v + 1, dead=True, embedded=False, text=""), v)])
    index.write([PointWrite(record("textless", 7, embedded=False, text=""), None)])
    assert index.sweep(21) == {"dead": 2, "nameless": 0}
    assert index.sweep(21) == {"dead": 0, "nameless": 0}
    assert sorted(index.known(["p0", "p1", "p2", "p3", "p4", "textless"])) == ["p2", "p3", "p4", "textless"]
    assert index.counts() == {"live": 1, "textless": 1, "dead": 2, "refused": 0}
    np.testing.assert_allclose(index.vectors(["p3"])["p3"], vector(3), atol=1e-6)
    assert put(index, "p0", 50) == {"p0"}
    assert put(index, "p3", 51, expected=5) == {"p3"}
    assert {hit.pin_id for hit in index.search(vector(0), 9)} == {"p0", "p3"}


def test_histories_converge_however_they_are_batched(index: PinIndex) -> None:
    for v in range(1, 6):
        writes = [PointWrite(record(f"p{n}", v * 10 + n, text=f"{v}"), (v - 1) * 10 + n if v > 1 else None, vector(n + v)) for n in range(17)]
        assert len(index.write(writes)) == 17
    assert {pin.text for pin in index.known([f"p{n}" for n in range(17)]).values()} == {"5"}


def test_edge_survives_a_reopen_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    put(index, "p", 7)
    with pytest.raises(Unavailable, match="another process"):
        EdgePinIndex(tmp_path, MODEL, DIMENSION)
    index.close()
    index.close()
    with pytest.raises(ArtifactError, match="8 dimensions, the model makes 16"):
        EdgePinIndex(tmp_path, MODEL, 16)
    reopened = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    assert reopened.known(["p"])["p"].v == 7
    reopened.close()


def test_edge_writes_nothing_on_a_full_disk(tmp_path: Path) -> None:
    index = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    index._min_free = 1 << 62
    with pytest.raises(Unavailable, match="free some space"):
        put(index, "p")
    index._min_free = 0
    assert put(index, "p") == {"p"}
    index.close()


def test_qdrant_refuses_a_collection_of_another_dimension_and_says_when_it_is_down() -> None:
    client = QdrantClient(":memory:")
    QdrantPinIndex(client, MODEL, DIMENSION)
    with pytest.raises(ArtifactError, match="8 dimensions, the model makes 16"):
        QdrantPinIndex(client, MODEL, 16)
    with pytest.raises(Unavailable, match="QDRANT_URL"):
        QdrantPinIndex(connect("http://127.0.0.1:1"), MODEL, DIMENSION)


def test_the_loopback_reads_what_the_owner_wrote(tmp_path: Path) -> None:
    owner = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    put(owner, "p1", 3, seed=1, fields={"lang": "en", "category": "food"})
    put(owner, "p2", 4, seed=2, fields={"lang": "de", "category": "food"})
    with serving(owner) as url, httpx.Client(base_url=url) as client:
        _read_through(owner, client)
    with httpx.Client(base_url=url) as client, pytest.raises(Unavailable, match="owns the index"):
        LoopbackPinIndex(client, MODEL)
    owner.close()


def _read_through(owner: EdgePinIndex, client: httpx.Client) -> None:
    remote = LoopbackPinIndex(client, MODEL)
    assert remote.known(["p1", "no"]) == owner.known(["p1"])
    assert remote.counts() == owner.counts()
    np.testing.assert_array_equal(remote.vectors(["p1"])["p1"], owner.vectors(["p1"])["p1"])
    mine, theirs = remote.search(vector(1), 5, Where(lang="en", without=frozenset({"p2"}))), owner.search(vector(1), 5, Where(lang="en"))
    assert [(hit.pin_id, hit.score, hit.fields) for hit in mine] == [(hit.pin_id, hit.score, hit.fields) for hit in theirs]
    assert [pin.pin_id for batch in remote.scan(1) for pin in batch] == [pin.pin_id for batch in owner.scan() for pin in batch]
    put(owner, "p3", 5, dead=True, embedded=False)
    assert remote.sweep(6) == {"dead": 1, "nameless": 0}
    assert owner.known(["p3"]) == {}
    assert remote.write([PointWrite(record("p3"), None, vector(3))]) == {"p3"}
    assert owner.known(["p3"]) == {"p3": record("p3")}
    with pytest.raises(ArtifactError, match="other-model"):
        LoopbackPinIndex(client, "other-model")
    remote.close()
