"""Hostile requests, the same for the same seed: `attacks(seed, count, cursors)`. Each is raw bytes, so that it can be wrong at every level."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from urllib.parse import quote, quote_from_bytes

from tests.hostile.values import BROKEN, NUMBERS, SECRET, TIMES, flipped, json_text, nested, string

SEARCH = {
    "query": '"bread"', "limit": "5", "filters": "{}", "retrieval": '"hybrid"', "rerank": '"relevance"', "min_level": "1", "below": '"cut"', "fold": "true",
    "diversity": "0.2", "explain": "true",
}  # fmt: skip
BODIES: Mapping[str, Mapping[str, str]] = {
    "/v1/search": SEARCH,
    "/v1/embeddings": {"texts": '["a red chair"]'},
    "/v1/events": {"events": '[{"schema": 1, "type": "pin_updated", "pin_id": "food-001"}]'},
    "/v1/users/fan/actions": {"actions": '[{"pin_id": "food-001", "action": "save"}]'},
    "/v1/pins/food-001": {"title": '"Bread"', "description": '"d"'},
}
"""Bodies that are in order, as JSON texts by field."""
INSIDE = {
    "filters": ("lang", "category", "board", "created_since", "more"),
    "texts": ("",),
    "events": ("schema", "type", "pin_id", "event_time", "features", "features_as_of", "view", "title"),
    "actions": ("pin_id", "action", "time", "more"),
}
PARAMETERS = ("limit", "lang", "category", "diversity", "cosaves", "cursor", "features", "nobody", "")
PATHS = ("/v1/pins/{}/related", "/v1/users/{}/feed", "/v1/pins/{}", "/v1/users/{}/actions", "/v1/{}", "/web/{}", "/{}")
METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "G\x00T", "A" * 300)
ESCAPES = (
    "%2e%2e%2f" * 5, "..%2f", "%2F", "%00", "%", "%zz", "%c0%af", "%ed%a0%80", "%ff", "a%2Fb%2Frelated", "food-001%2F", "%0d%0aX-Injected:1", ";a=b", "%u0041",
    "food-001/related/related", "a//b", "/", ".", "..", "%e2%80%ae", "a" * 300, "food-001%20", "%F4%90%80%80",
)  # fmt: skip
HEADERS = (
    "X-Request-Id", "Authorization", "Host", "Origin", "Content-Type", "Accept", "Accept-Encoding", "Content-Encoding", "Transfer-Encoding", "Expect", "Range",
    "If-None-Match", "If-Modified-Since", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Cookie", "Upgrade", "Connection", "Content-Length",
    "X-HTTP-Method-Override", "Access-Control-Request-Method", "Referer", "User-Agent", "TE", "Trailer", "X-Original-URL",
)  # fmt: skip
HEADER_VALUES = (
    "chunked", "identity, chunked", "gzip", "100-continue", "websocket", "Upgrade, keep-alive", "bytes=0-", "bytes=9-1,-", "*", "0", "-1",
    "99999999999999999999", "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-16",
    "multipart/form-data; boundary=", "Bearer ", "Basic Og==", "null",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attack:
    """One request as bytes, and which family it is of."""

    family: str
    raw: bytes


def request(method: str, target: str | bytes, body: bytes | None = None, headers: Sequence[tuple[str, str]] = (("Content-Type", "application/json"),)) -> bytes:
    """A request as bytes; what is no ASCII goes as UTF-8, whatever the standard says."""
    head = [method.encode() + b" " + (target if isinstance(target, bytes) else target.encode("utf-8", "surrogatepass")) + b" HTTP/1.1", b"Host: localhost"]
    head += [f"{name}: {value}".encode("utf-8", "surrogatepass") for name, value in headers]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + (body or b"")


def sent_to(path: str) -> str:
    return "PATCH" if path == "/v1/pins/food-001" else "POST"


def assembled(fields: Sequence[tuple[str, str]]) -> bytes:
    """An object from JSON texts; names may come twice."""
    return ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields) + "}").encode("utf-8", "surrogatepass")


def body_of(chance: Random, path: str) -> bytes:
    """A body of one or two fields that are not in order."""
    fields = list(BODIES[path].items())
    for _ in range(chance.randint(1, 2)):
        at = chance.randrange(len(fields))
        name = fields[at][0]
        wrong = inside(chance, name) if name in INSIDE and chance.random() < 0.7 else json_text(chance)
        fields[at] = (name if chance.random() < 0.95 else string(chance), wrong)
    if chance.random() < 0.15:
        fields.append((chance.choice([name for name, _ in fields]), json_text(chance)))
    return assembled(fields)


def inside(chance: Random, name: str) -> str:
    """The text of a field that holds more: one thing in it not in order."""
    within = chance.choice(INSIDE[name])
    if name == "filters":
        return assembled([(within, json_text(chance))]).decode("utf-8", "surrogatepass")
    if name == "texts":
        return "[" + ", ".join(json_text(chance) for _ in range(chance.choice([0, 1, 1, 2, 65]))) + "]"
    if name == "actions":
        fields = {"pin_id": '"food-001"', "action": '"save"', within: json_text(chance)}
        return "[" + assembled(list(fields.items())).decode("utf-8", "surrogatepass") + "]" + ("" if chance.random() < 0.9 else "]")
    return "[" + event(chance, within) + "]"


def event(chance: Random, within: str) -> str:
    fields = {"schema": "1", "type": '"pin_updated"', "pin_id": '"food-001"'}
    if within in ("view", "title"):
        view = chance.choice(["pin_content", "pin_caption", "pin_boards", "pin_engagement", "pin_status", string(chance)])
        column = chance.choice(["title", "caption", "board_titles", "engaged_queries", "save_count", "deleted", "lang", "created_at_us", string(chance)])
        fields["features"] = json.dumps({view: "HERE"}).replace('"HERE"', assembled([(column, json_text(chance))]).decode("utf-8", "surrogatepass"))
    else:
        fields[within] = json_text(chance)
    return assembled(list(fields.items())).decode("utf-8", "surrogatepass")


def a_body(chance: Random, cursors: Sequence[str]) -> bytes:
    path = chance.choice(list(BODIES))
    return request(sent_to(path), path, body_of(chance, path))


def a_flipped_body(chance: Random, cursors: Sequence[str]) -> bytes:
    path = chance.choice(list(BODIES))
    return request(sent_to(path), path, flipped(chance, assembled(list(BODIES[path].items()))))


def no_object(chance: Random, cursors: Sequence[str]) -> bytes:
    path = chance.choice(list(BODIES))
    text = chance.choice([json_text(chance), nested(chance), chance.choice(BROKEN)]).encode("utf-8", "surrogatepass")
    wide = text.decode("utf-8", "replace").encode("utf-16")
    return request(sent_to(path), path, chance.choice([text, text[: chance.randrange(len(text) + 1)], b"\xff\xfe" + text, wide]))


def a_size(chance: Random, cursors: Sequence[str]) -> bytes:
    filling = chance.choice([" ", "[", "a", "[],", '"a",', "\\u0000", "ﷺ", '{"a":'])
    length = chance.choice([70_000, 200_000, 2_200_000]) if chance.random() < 0.3 else chance.choice([1000, 8000, 20_000])
    text = (filling * (length // len(filling.encode()))).rstrip(",")
    query = json.dumps({"query": text}) if chance.random() < 0.5 else '{"query": "a", "filters": [' + text + "]}"
    return request("POST", chance.choice(["/v1/search", "/v1/embeddings", "/v1/events"]), query.encode())


def escaped(chance: Random, text: str) -> str:
    """A string in an address: escaped as it should be, doubly, or in ways that some readers take for something else."""
    kind = chance.random()
    encoded = quote_from_bytes(text.encode("utf-8", "surrogatepass"), "")
    if kind < 0.5:
        return encoded
    if kind < 0.7:
        return quote(encoded, "")
    return chance.choice(ESCAPES)


def an_address(chance: Random, cursors: Sequence[str]) -> bytes:
    path = chance.choice(PATHS).format(escaped(chance, string(chance)))
    return request(chance.choice(["GET", "GET", "GET", "POST", "PATCH"]), path[:20_000], b'{"title": "a"}' if chance.random() < 0.3 else None)


def parameters(chance: Random, cursors: Sequence[str]) -> bytes:
    path = chance.choice(["/v1/pins/food-001/related", "/v1/users/fan/feed", "/v1/map", "/v1/pins/food-001", "/metrics", "/v1/users/nobody/feed"])
    pairs = []
    for _ in range(chance.randint(1, 4)):
        name = escaped(chance, string(chance)) if chance.random() < 0.1 else chance.choice(PARAMETERS)
        pairs.append(f"{name}={escaped(chance, chance.choice([string(chance), chance.choice(NUMBERS), chance.choice(TIMES)]))}")
    return request("GET", f"{path}?{chance.choice(['&', '&', ';', '&&']).join(pairs)}"[:20_000])


def packed(body: object) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(body).encode())).decode().rstrip("=")


def opened(cursor: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(zlib.decompress(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
    return found


@cache
def bomb(filling: bytes, times: int) -> str:
    """A small cursor that unpacks to much."""
    return base64.urlsafe_b64encode(zlib.compress(filling * times)).decode().rstrip("=")


def a_cursor(chance: Random, cursors: Sequence[str]) -> bytes:
    """A real cursor with bits flipped, a bomb, or one that was forged to pass for this request's own."""
    real = chance.choice(cursors)
    kind = chance.random()
    if kind < 0.35:
        made = flipped(chance, real.encode()).decode("latin-1")
    elif kind < 0.45:
        made = bomb(chance.choice([b"0", b"[", b" ", b'{"m":']), chance.choice([10_000, 3_000_000]))
    elif kind < 0.55:
        made = base64.urlsafe_b64encode(flipped(chance, base64.urlsafe_b64decode(real + "=" * (-len(real) % 4)))).decode().rstrip("=")
    elif kind < 0.62:
        made = base64.urlsafe_b64encode(zlib.compress(json_text(chance).encode("utf-8", "surrogatepass"))).decode().rstrip("=")
    else:
        made = forged(chance, opened(real))
    if chance.random() < 0.5:
        return request("POST", "/v1/search", json.dumps({"query": "bread", "limit": 2, "cursor": made}).encode())
    path = chance.choice(["/v1/pins/food-001/related?limit=2", "/v1/users/fan/feed?limit=2"])
    return request("GET", f"{path}&cursor={quote(made, '')}"[:20_000])


def forged(chance: Random, body: dict[str, object]) -> str:
    """A cursor's content with one part replaced, packed again."""
    wrong: list[object] = [None, 1, "a", [], {}, [[]], [["food-001", 1.0, {}]] * 3, 1e308, -1, True, "\x00", SECRET, ["a"] * 1000, {"a": {"b": [1, {}]}}]
    wrong.append(string(chance))
    part = chance.choice(list(body))
    rows = body.get("r")
    if part == "r" and isinstance(rows, list) and rows and chance.random() < 0.7:
        row = list(chance.choice(rows))
        row[chance.randrange(len(row))] = chance.choice([*wrong, float("nan"), float("inf"), 10**400])
        stages = row[-1]
        if isinstance(stages, dict) and stages and chance.random() < 0.6:
            row[-1] = stages | {chance.choice(list(stages)): chance.choice([*wrong, float("nan")])}
        body["r"] = [row, *rows[:3]]
    else:
        body[part] = chance.choice(wrong)
    return packed(body)


def headers(chance: Random, cursors: Sequence[str]) -> bytes:
    given = []
    for _ in range(chance.randint(1, 4)):
        value = chance.choice([string(chance), chance.choice(HEADER_VALUES), f"Bearer {SECRET}", f"Bearer ep_000000000000_{SECRET}"])
        given.append((chance.choice(HEADERS), value))
    if chance.random() < 0.1:
        given += [(f"X-{number}", "a" * 100) for number in range(chance.choice([50, 200, 1000]))]
    path = chance.choice(["/v1/search", "/v1/pins/food-001", "/", "/livez", "/web/main.js", "/v1/events"])
    return request(chance.choice(["GET", "POST", "OPTIONS"]), path, chance.choice([None, b'{"query": "bread"}', b"{}"]), given)


def a_method(chance: Random, cursors: Sequence[str]) -> bytes:
    odd = ["*", "http://evil.example/", "localhost:80", "//evil.example/..", ""]
    path = chance.choice([*BODIES, *odd, "/", "/livez", "/readyz", "/version", "/openapi.json", "/web/index.html"])
    return request(chance.choice(METHODS), path, chance.choice([None, b"{}"]))


def no_http(chance: Random, cursors: Sequence[str]) -> bytes:
    whole = request("POST", "/v1/search", assembled(list(SEARCH.items())))
    head = whole.index(b"\r\n\r\n")
    kind = chance.random()
    if kind < 0.6:
        return flipped(chance, whole[:head]) + whole[head:]
    if kind < 0.8:
        return chance.randbytes(chance.randint(1, 200)) + b"\r\n\r\n"
    chunks = [b"zz\r\n", b"-1\r\n", b"ffffffffffffffff\r\n", b"1;a=b\r\n{\r\n", b"0\r\nX-Trailer: a\r\n\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n"]
    return b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chance.choice(chunks)


FAMILIES: Mapping[Callable[[Random, Sequence[str]], bytes], float] = {
    a_body: 30, a_flipped_body: 14, no_object: 6, a_size: 1, an_address: 14, parameters: 13, a_cursor: 10, headers: 6, a_method: 3, no_http: 3,
}  # fmt: skip


def attacks(seed: int, count: int, cursors: Sequence[str]) -> Iterator[Attack]:
    """`count` hostile requests, no two alike. `cursors` are real ones of the application, to be damaged and forged."""
    chance = Random(seed)
    made: set[int] = set()
    while len(made) < count:
        (family,) = chance.choices(list(FAMILIES), list(FAMILIES.values()))
        raw = family(chance, cursors)
        if hash(raw) not in made:
            made.add(hash(raw))
            yield Attack(family.__name__, raw)
