"""Home-feed candidates of many users from an export: the same interests and the same merge as Everpin's own feed, by brute force.

    python examples/home_feed.py EXPORT users.jsonl feeds.jsonl [--limit 200]

EXPORT as in related_pins.py. A line of users.jsonl is a user and what he did, as in everpin/sample/users.jsonl. A line of the result is a user and
his candidates, best first, each with its score and the pin of his that speaks for the interest. Users without a usable history get none: the
newest pins are for them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from related_pins import nearest, vectors_of

from pins.actions import usable
from pins.features import UserAction
from pins.ports import Hit, Vector
from pins.retrieval.feed import SLACK, SPARE, FeedOptions, FeedResult, chosen_interests, feed_seed, merge
from pins.retrieval.interests import Interest, interests, pin_weights, recent


class Candidates:
    """The pins of an export, to make feeds of."""

    def __init__(self, ids: NDArray[np.str_], vectors: Vector) -> None:
        self.ids, self.vectors = ids, vectors
        self.places = {pin_id: place for place, pin_id in enumerate(ids.tolist())}

    def feed(self, history: Sequence[UserAction], now_us: int, options: FeedOptions, seed: int) -> list[FeedResult]:
        """A user's candidates, nothing of the history among them. Empty without a usable history."""
        actions = recent(history, now_us)
        acted = [pin_id for pin_id in dict.fromkeys(action.pin_id for action in actions) if pin_id in self.places]
        known: Mapping[str, Vector] = {pin_id: self.vectors[self.places[pin_id]] for pin_id in acted}
        groups = interests(pin_weights(actions, now_us, options.decay_per_day), known, options.merge_distance)
        chosen = chosen_interests(groups, actions, now_us, options.interests, seed)
        if not chosen:
            return []
        seen = options.without | {action.pin_id for action in usable(history)}
        near = self._near(chosen, seen, options)
        return merge(chosen, near, [], np.stack(list(known.values())), options, {group.medoid: f"near {group.medoid}" for group in chosen})

    def _near(self, chosen: Sequence[Interest], seen: frozenset[str], options: FeedOptions) -> list[list[Hit]]:
        """Per interest its nearest pins, as `pins.retrieval.feed.neighbours` asks an index for them."""
        share = math.ceil(SPARE * options.results / len(chosen)) + SLACK
        places, cosines = nearest(np.stack([group.vector for group in chosen]), self.vectors, share + len(seen))
        hits = [
            [Hit(str(self.ids[place]), float(cosine), {}, vector=self.vectors[place]) for place, cosine in zip(*row, strict=True)]
            for row in zip(places, cosines, strict=True)
        ]
        return [[hit for hit in found if hit.pin_id not in seen][:share] for found in hits]


def history_of(user: Mapping[str, Any]) -> list[UserAction]:
    """The actions of a line of users.jsonl."""
    return [UserAction(one["pin_id"], one["action"], int(datetime.fromisoformat(one["time"]).timestamp() * 1e6)) for one in user["actions"]]


def main() -> None:
    """Read, compute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path, nargs="+")
    parser.add_argument("users", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    asked = parser.parse_args()
    candidates = Candidates(*vectors_of(asked.export))
    now_us = int(datetime.now().timestamp() * 1e6)
    options = FeedOptions(depth=asked.limit)
    with asked.users.open(encoding="utf-8") as users, asked.out.open("w", encoding="utf-8") as out:
        for user in map(json.loads, users):
            found = candidates.feed(history_of(user), now_us, options, feed_seed(user["user_id"], now_us))
            pins = [{"pin_id": one.pin_id, "score": round(one.score, 4), "interest": one.interest} for one in found]
            out.write(json.dumps({"user_id": user["user_id"], "candidates": pins}) + "\n")
    print(f"candidates written to {asked.out}")


if __name__ == "__main__":
    main()
