"""Searches of an index that another process owns: what travels, the connections that are kept, and what the owner holds in memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.bodies import Bodies, Body
from index.connections import Connections
from index.edge import EdgePinIndex
from index.held import Held
from index.loopback import WRITTEN_AT_ONCE, LoopbackPinIndex
from index.owner_routes import MOST_WRITES, PACKED
from index.wire import pack_answers, pack_asks, pack_writes, unpack_answers, unpack_asks, unpack_writes
from pins.changes import IndexedPin
from pins.errors import Unavailable, Unembeddable
from pins.lexical import terms_of_query
from pins.ports import Ask, Hit, PointWrite, Terms, Where
from tests.contract.records import DIMENSION, MODEL, put, record, vector
from tests.serving import serving

WHERES = st.builds(Where, lang=st.none() | st.text(max_size=3), created_since_us=st.none() | st.integers(0, 2**53), without=st.frozensets(st.text(max_size=3)))
TERMS = st.dictionaries(st.integers(0, 2**32 - 1), st.floats(0.1, 2.2), max_size=4).map(lambda held: Terms(tuple(sorted(held)), tuple(held.values())))


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 99) | TERMS, WHERES), max_size=4))
def test_searches_travel_whole(drawn: list[tuple[int, int | Terms, Where]]) -> None:
    asks = [Ask(limit, terms=by, where=where) if isinstance(by, Terms) else Ask(limit, vector(by), where=where) for limit, by, where in drawn]
    arrived = unpack_asks(pack_asks(asks))
    assert [(ask.limit, ask.terms, ask.where) for ask in arrived] == [(ask.limit, ask.terms, ask.where) for ask in asks]
    for one, other in zip(arrived, asks, strict=True):
        assert (one.vector is None) == (other.vector is None)
        assert one.vector is None or np.array_equal(one.vector, other.vector)


HITS = st.builds(
    Hit,
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=2),
    st.floats(-1, 1),
    st.dictionaries(st.text(max_size=3), st.text() | st.integers(-(2**63), 2**63 - 1)),
    st.integers(0, 2**53),
    st.none(),
    st.text(max_size=3),
)


@given(st.lists(st.lists(HITS, max_size=4, unique_by=lambda hit: hit.pin_id), max_size=3), st.data())
def test_answers_travel_whole_and_each_pin_once(answers: list[list[Hit]], data: st.DataObject) -> None:
    pins = {hit.pin_id: hit for answer in answers for hit in answer}
    vectors = {pin_id: data.draw(st.none() | st.integers(0, 9).map(vector)) for pin_id in pins}
    sent = [[replace(pins[hit.pin_id], score=hit.score, vector=vectors[hit.pin_id]) for hit in answer] for answer in answers]
    packed = pack_answers(sent)
    arrived = unpack_answers(packed)
    plain = [[(hit.pin_id, hit.score, hit.fields, hit.v, hit.refused) for hit in answer] for answer in sent]
    assert [[(hit.pin_id, hit.score, hit.fields, hit.v, hit.refused) for hit in answer] for answer in arrived] == plain
    for answer, expected in zip(arrived, sent, strict=True):
        for hit, wanted in zip(answer, expected, strict=True):
            assert (hit.vector is None) == (wanted.vector is None)
            assert hit.vector is None or np.array_equal(hit.vector, wanted.vector)
    assert len(packed.partition(b"\n")[2]) == 4 * DIMENSION * sum(held is not None for held in vectors.values())


@contextmanager
def owned(folder: Path) -> Iterator[tuple[EdgePinIndex, str]]:
    owner = EdgePinIndex(folder, MODEL, DIMENSION)
    put(owner, "p", seed=1, text="a red chair")
    put(owner, "q", seed=2, text="a blue chair")
    with serving(owner) as url:
        yield owner, url
    owner.close()


def test_readers_share_kept_connections_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    with owned(tmp_path) as (_, url):
        remote = LoopbackPinIndex(httpx.Client(base_url=url, timeout=30), MODEL)

        def ask(n: int) -> bool:
            dense, words = remote.ask([Ask(1, vector(1 + n % 2)), Ask(5, terms=terms_of_query(["red", "blue"][n % 2]))])
            return [hit.pin_id for hit in (*dense, *words)] == ["pq"[n % 2]] * 2

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(200)))
        assert 1 <= len(remote._connections._idle) <= 4
        remote.close()


def test_a_connection_that_the_owner_closed_meanwhile_costs_nothing(tmp_path: Path) -> None:
    with owned(tmp_path) as (_, url):
        remote = LoopbackPinIndex(httpx.Client(base_url=url, timeout=30), MODEL)
        assert remote.search(vector(1), 1)[0].pin_id == "p"
        for kept in remote._connections._idle:
            kept.socket.shutdown(socket.SHUT_RDWR)
        assert remote.search(vector(2), 1)[0].pin_id == "q"
    with pytest.raises(Unavailable, match=r"does not answer /index/ask.*everpin status"):
        remote.search(vector(2), 1)
    remote.close()


def test_an_owner_that_takes_too_long_is_not_asked_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = Connections(httpx.URL(f"http://127.0.0.1:{silent.getsockname()[1]}"), 0.2)
        with pytest.raises(Unavailable, match="timed out"):
            connections.post("/index/ask", b"")
        silent.settimeout(0.05)
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):
            silent.accept()


@contextmanager
def owner_that_says(answer: bytes) -> Iterator[Connections]:
    """Connections to a process that sends these bytes to whoever connects, once it was asked, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            accepted, _ = server.accept()
            with accepted:
                assert accepted.recv(65536)
                accepted.sendall(answer)

        served = pool.submit(serve)
        yield Connections(httpx.URL(f"http://127.0.0.1:{server.getsockname()[1]}"), 5.0)
        served.result(5.0)


def test_a_connection_that_the_owner_is_about_to_close_is_not_kept() -> None:
    with owner_that_says(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi") as connections:
        assert connections.post("/index/ask", b"") == b"hi"
        assert not connections._idle


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"no HTTP at all\r\n\r\n"])
def test_half_an_answer_or_none_is_no_answer(answer: bytes) -> None:
    with owner_that_says(answer) as connections, pytest.raises(Unavailable, match="does not answer"):
        connections.post("/index/ask", b"")


def test_what_the_owner_refuses_or_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(tmp_path) as (owner, url), httpx.Client(base_url=url, timeout=30) as client:
        for body in (b"", b"{", b"[3]\n", b"[[5,8,null]]\nabc", b'[[5,[[1],[1]],{"colour":"red"}]]\n', b"[[5,8,null]]\n"):
            answer = client.post("/index/ask", content=body)
            assert answer.status_code in (400, 503), body
        remote = LoopbackPinIndex(client, MODEL)
        monkeypatch.setattr(owner, "ask", lambda asks: (_ for _ in ()).throw(Unavailable("the disk is gone")))
        with pytest.raises(Unavailable, match="the disk is gone"):
            remote.search(vector(1), 1)
        remote.close()


def test_bodies_are_read_once_held_up_to_a_limit_and_forgotten_when_written() -> None:
    bodies, asked = Bodies(held=3), []

    def read(ids: list[UUID]) -> dict[int, Body]:
        asked.extend(ids)
        return {one.int: Hit(f"p{one.int}", 0.0, {}) for one in ids}

    ids = [UUID(int=n) for n in range(5)]
    assert bodies.of([*ids[:3], ids[0]], read) == {n: Hit(f"p{n}", 0.0, {}) for n in range(3)}
    assert bodies.of([ids[0]], read).keys() == {0}
    assert asked == ids[:3]
    assert bodies.of([ids[3]], read).keys() == {3}
    assert bodies.of([ids[0], ids[2], ids[3]], read).keys() == {0, 2, 3}
    assert asked == ids[:4]
    assert bodies.of([ids[1]], read).keys() == {1}
    bodies.forget([ids[1], ids[4]])
    bodies.of([ids[1]], read)
    assert asked == [*ids[:4], ids[1], ids[1]]
    assert bodies.of(ids, read).keys() == set(range(5))


def test_answers_are_of_one_version_of_a_pin_while_it_is_written(tmp_path: Path) -> None:
    owner = EdgePinIndex(tmp_path, MODEL, DIMENSION)
    put(owner, "p", 1, seed=1, text="word", fields={"n": 1})
    stop = threading.Event()

    def write() -> None:
        v = 1
        while not stop.is_set():
            assert put(owner, "p", v + 1, expected=v, seed=v + 1, text="word", fields={"n": v + 1}) == {"p"}
            v += 1

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        last = 0
        while last < 50:
            assert not writing.done(), writing.exception()
            (hit,) = owner.ask([Ask(1, terms=terms_of_query("word"))])[0]
            assert hit.fields == {"n": hit.v}
            np.testing.assert_allclose(hit.vector, vector(hit.v), atol=1e-6)
            assert hit.v >= last
            last = hit.v
        stop.set()
        writing.result(20)
    owner.close()


def test_a_reader_holds_what_it_was_shown_until_it_is_written(tmp_path: Path) -> None:
    with owned(tmp_path) as (owner, url):
        remote = LoopbackPinIndex(httpx.Client(base_url=url, timeout=30), MODEL)
        read: list[list[str]] = []
        bodies = remote._held._read
        remote._held._read = lambda pin_ids: (read.append(list(pin_ids)), bodies(pin_ids))[1]
        first = remote.ask([Ask(5, vector(1)), Ask(5, terms=terms_of_query("red"))])
        again = remote.ask([Ask(5, vector(1)), Ask(5, terms=terms_of_query("red"))])
        assert [[(hit.pin_id, hit.score, hit.fields, hit.v) for hit in answer] for answer in first] == [
            [(hit.pin_id, hit.score, hit.fields, hit.v) for hit in answer] for answer in again
        ]
        assert [sorted(batch) for batch in read] == [["p", "q"]]
        put(owner, "p", 9, expected=owner.known(["p"])["p"].v, seed=2, text="a green chair", fields={"title": "green"})
        hit = next(hit for hit in remote.ask([Ask(5, vector(2))])[0] if hit.pin_id == "p")
        assert (hit.v, hit.fields) == (9, {"title": "green"})
        np.testing.assert_allclose(hit.vector, vector(2), atol=1e-6)
        assert read[1:] == [["p"]]
        remote.close()


def test_what_a_reader_holds_is_bounded_and_what_is_gone_is_left_out() -> None:
    shown: list[list[str]] = []

    def read(pin_ids: Sequence[str]) -> list[Hit]:
        shown.append(list(pin_ids))
        return [Hit(pin_id, 0.0, {}, 1, vector(1)) for pin_id in pin_ids if pin_id != "gone"]

    held = Held(read, limit=2)
    assert [hit.pin_id for hit in held.hits([[("a", 1, 0.9), ("gone", 1, 0.8), ("b", 1, 0.7)]])[0]] == ["a", "b"]
    assert [hit.score for hit in held.hits([[("a", 1, 0.5)]])[0]] == [0.5]
    held.hits([[("c", 1, 0.1)]])
    held.hits([[("b", 1, 0.1)]])
    assert shown == [["a", "gone", "b"], ["c"], ["b"]]


PLAIN = st.text(st.characters(codec="utf-8"), max_size=5)
RECORDS = st.builds(
    IndexedPin,
    PLAIN,
    st.integers(1, 2**53),
    dead=st.booleans(),
    embedded=st.booleans(),
    model_id=PLAIN,
    text=PLAIN,
    fields=st.dictionaries(PLAIN, st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**63 - 1) | st.lists(PLAIN)),
    as_of=st.dictionaries(PLAIN, st.integers(0, 2**53)),
    refused=PLAIN,
)


@given(st.lists(st.tuples(RECORDS, st.none() | st.integers(0, 2**53) | st.just(1.5), st.none() | st.integers(0, 9), st.booleans()), max_size=4))
def test_writes_travel_whole(drawn: list[tuple[IndexedPin, int | None, int | None, bool]]) -> None:
    sent = [PointWrite(one, expected, None if seed is None else vector(seed), keep) for one, expected, seed, keep in drawn]
    arrived = unpack_writes(pack_writes(sent))
    assert [(write.record, write.expected_v, write.keep_vector) for write in arrived] == [(write.record, write.expected_v, write.keep_vector) for write in sent]
    for one, other in zip(arrived, sent, strict=True):
        assert (one.vector is None) == (other.vector is None)
        assert one.vector is None or np.array_equal(one.vector, other.vector)


def test_guarded_writes_through_the_owner_race_its_own(tmp_path: Path) -> None:
    with owned(tmp_path) as (owner, url):
        remote = LoopbackPinIndex(httpx.Client(base_url=url, timeout=30), MODEL)
        known = remote.known(["p"])["p"]
        put(owner, "p", known.v + 1, expected=known.v, seed=7, text="the owner was faster")
        late = PointWrite(record("p", known.v + 2, text="decided on an older record"), known.v, vector(3))
        fresh = PointWrite(record("r", 5, text="a new pin", fields={"lang": "ja", "boards": ["弁当"]}), None, vector(4))
        dead = PointWrite(record("s", 5, dead=True, embedded=False, text=""), None)
        assert remote.write([late, fresh, dead]) == {"r", "s"}
        assert owner.known(["p"])["p"].text == "the owner was faster"
        assert owner.known(["r"])["r"] == fresh.record
        assert owner.known(["s"])["s"].dead
        np.testing.assert_allclose(owner.vectors(["r"])["r"], vector(4), atol=1e-6)
        assert remote.write([PointWrite(record("r", 6, text="a new pin", fields={}), 5, keep_vector=True)]) == {"r"}
        np.testing.assert_allclose(owner.vectors(["r"])["r"], vector(4), atol=1e-6)
        assert remote.write([]) == set()
        remote.flush()
        remote.close()


def test_many_writes_go_in_parts_and_all_land(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(tmp_path) as (owner, url):
        parts: list[int] = []
        write = owner.write
        monkeypatch.setattr(owner, "write", lambda some: (parts.append(len(some)), write(some))[1])
        remote = LoopbackPinIndex(httpx.Client(base_url=url, timeout=30), MODEL)
        count = 2 * WRITTEN_AT_ONCE + 3
        assert len(remote.write([PointWrite(record(f"n{number}"), None, vector(number)) for number in range(count)])) == count
        assert parts == [WRITTEN_AT_ONCE, WRITTEN_AT_ONCE, 3]
        assert owner.counts()["live"] == count + 2
        remote.close()


def test_a_refused_point_is_told_as_such_and_nothing_else_is_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with owned(tmp_path) as (owner, url):
        client = httpx.Client(base_url=url, timeout=30)
        remote = LoopbackPinIndex(client, MODEL)
        with pytest.raises(Unembeddable, match="not finite") as refused:
            remote.write([PointWrite(record("n"), None, np.full(DIMENSION, np.nan, np.float32))])
        assert refused.value.reason == "bad_vector"
        assert owner.known(["n"]) == {}
        good = pack_writes([PointWrite(record("n"), None, vector(1))])
        packed = {"Content-Type": PACKED}
        for body in (b"", b"{", b"[3]\n", b"[[{},null,-1,false]]\n", good + b"abcd", good[:-4], good.replace(b'"dead":false', b'"dead":"no"')):
            answer = client.post("/index/write", content=body, headers=packed)
            assert answer.status_code == 400, body
        too_many = pack_writes([PointWrite(record(f"n{number}"), None) for number in range(MOST_WRITES + 1)])
        assert client.post("/index/write", content=too_many, headers=packed).status_code == 400
        assert client.post("/index/write", content=good, headers={"Content-Type": "text/plain"}).status_code == 415
        assert owner.counts()["live"] == 2
        with pytest.raises(ValueError, match="one write per pin"):
            remote.write([PointWrite(record("n"), None, vector(1))] * 2)
        monkeypatch.setattr(owner, "write", lambda writes: (_ for _ in ()).throw(Unavailable("the disk is full")))
        with pytest.raises(Unavailable, match="the disk is full"):
            remote.write([PointWrite(record("n"), None, vector(1))])
    with pytest.raises(Unavailable, match="everpin status"):
        remote.write([PointWrite(record("n"), None, vector(1))])
    remote.close()
