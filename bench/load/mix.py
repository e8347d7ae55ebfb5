"""What is asked: endpoints by share, queries and pins by Zipf's law, and a chosen share of queries that were never asked before.

The pool of repeated queries is asked once before anything is measured, so a repeated query is a hit of the query cache and a new one is a miss,
up to what the cache has room for; the share that came out is read from the server's metrics, not assumed.
"""

from __future__ import annotations

import json
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, count
from random import Random
from urllib.parse import quote

SHARES = {"search": 0.6, "related": 0.2, "feed": 0.15, "pin": 0.05}
EXPONENT = 1.0
"""Of Zipf's law: the query of rank r is asked in proportion to 1 / r."""


class Zipf:
    """Draws from a sequence, the earlier the likelier."""

    def __init__(self, of: Sequence[str], chance: Random) -> None:
        self._of, self._chance = of, chance
        self._heights = list(accumulate(1 / rank**EXPONENT for rank in range(1, len(of) + 1)))

    def draw(self) -> str:
        return self._of[bisect(self._heights, self._chance.random() * self._heights[-1])]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its endpoint and its bytes."""

    endpoint: str
    request: bytes


@dataclass
class Mix:
    """An endless mix of requests, the same for the same seed."""

    queries: Sequence[str]
    pins: Sequence[str]
    users: Sequence[str]
    host: str
    hits: float = 0.85
    seed: int = 7
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))

    def __iter__(self) -> Iterator[Asked]:
        chance = Random(self.seed)
        shuffled = [chance.sample(list(values), len(values)) for values in (self.queries, self.pins, self.users)]
        queries, pins, users = (Zipf(values, chance) for values in shuffled)
        names, heights = list(self.shares), list(accumulate(self.shares.values()))
        for number in count():
            endpoint = names[bisect(heights, chance.random() * heights[-1])]
            if endpoint == "search":
                query = queries.draw()
                yield Asked(endpoint, self.search(query if chance.random() < self.hits else f"{query} {self.seed}-{number}"))
            else:
                paths = {"related": f"/v1/pins/{quote(pins.draw(), '')}/related?limit=20", "feed": f"/v1/users/{quote(users.draw(), '')}/feed?limit=20"}
                yield Asked(endpoint, self.get(paths.get(endpoint) or f"/v1/pins/{quote(pins.draw(), '')}"))

    def warming(self) -> list[Asked]:
        """Each repeated query once, so that the cache holds it."""
        return [Asked("search", self.search(query)) for query in self.queries]

    def search(self, query: str) -> bytes:
        body = json.dumps({"query": query, "limit": 20}).encode()
        return b"POST /v1/search HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (self.host.encode(), len(body), body)

    def get(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
