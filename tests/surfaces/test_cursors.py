from __future__ import annotations

import base64
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surfaces.cursors import MAX_UNPACKED_BYTES, BadCursor, Place, Rest, digest, pack, unpack
from surfaces.schemas import MAX_CURSOR_CHARS

ASKED = digest("soup", {"lang": "en"})


def packed(body: object) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(body).encode())).decode().rstrip("=")


def rest(places: int, id_chars: int = 4) -> Rest:
    return Rest("m-v1", [Place(f"{number:04d}".ljust(id_chars, "x"), 0.9 - number / 1000, {"bm25": 1.5}) for number in range(places)], {"kind": "interests"})


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.floats(-1, 1)), min_size=1, max_size=30))
def test_a_cursor_gives_back_the_rest_of_its_ranking(places: list[tuple[str, float]]) -> None:
    before = Rest("m-v1", [Place(pin_id, score, {}) for pin_id, score in places])
    cursor = pack(before, ASKED)
    assert cursor is not None
    after = unpack(cursor, ASKED)
    assert (after.model_id, [place.pin_id for place in after.places]) == ("m-v1", [pin_id for pin_id, _ in places])
    assert [place.score for place in after.places] == pytest.approx([score for _, score in places], abs=1e-5)


def test_what_ranking_knew_and_the_page_needs_travel_along() -> None:
    cursor = pack(rest(2), ASKED)
    assert cursor is not None
    after = unpack(cursor, ASKED)
    assert after.extra == {"kind": "interests"}
    assert after.places[0].stages == {"bm25": 1.5}


def test_no_rest_no_cursor() -> None:
    assert pack(rest(0), ASKED) is None


def test_a_cursor_never_outgrows_what_is_accepted_back() -> None:
    cursor = pack(rest(200, id_chars=256), ASKED)
    assert cursor is not None
    assert len(cursor) <= MAX_CURSOR_CHARS
    assert unpack(cursor, ASKED).places


def test_a_cursor_of_another_request_is_refused() -> None:
    cursor = pack(rest(3), ASKED)
    assert cursor is not None
    with pytest.raises(BadCursor, match="another request"):
        unpack(cursor, digest("soup", {"lang": "de"}))


@pytest.mark.parametrize(
    "body",
    [
        [], {}, {"m": 1, "q": ASKED, "r": [], "x": None}, {"m": "m", "q": ASKED, "r": [["p"]], "x": None},
        {"m": "m", "q": ASKED, "r": [["p", "s", {}]], "x": None},
        {"m": "m", "q": ASKED, "r": [["p", True, {}]], "x": None}, {"m": "m", "q": ASKED, "r": [["", 0.5, {}]], "x": None},
        {"m": "m", "q": ASKED, "r": [["p" * 257, 0.5, {}]], "x": None}, {"m": "m", "q": ASKED, "r": [["p", 1e300, {}]], "x": None},
        {"m": "m", "q": ASKED, "r": [["p", float("nan"), {}]], "x": None}, {"m": "m", "q": ASKED, "r": [["p", 0.5, []]], "x": None},
    ],
)  # fmt: skip
def test_a_body_that_no_answer_has_is_refused(body: object) -> None:
    with pytest.raises(BadCursor, match="no cursor"):
        unpack(packed(body), ASKED)


@pytest.mark.parametrize("cursor", ["", "!", "AAAA", "é", "a" * 7999, base64.urlsafe_b64encode(zlib.compress(b"\xff")).decode(), packed("[" * 50_000)])
def test_garbage_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor, match="no cursor"):
        unpack(cursor, ASKED)


def test_a_small_cursor_that_unpacks_to_much_is_refused_before_it_does() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b"[" + b" " * 50_000_000 + b"]", 9)).decode()
    assert len(bomb) > MAX_UNPACKED_BYTES / 10
    with pytest.raises(BadCursor, match="no cursor"):
        unpack(bomb, ASKED)
    with pytest.raises(BadCursor, match="no cursor"):
        unpack(base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode(), ASKED)
