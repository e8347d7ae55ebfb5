"""Team-draft interleaving (Radlinski, Kurup and Joachims, CIKM 2008): one answer drafted from two rankings, and which of the two people preferred.

Every person is compared with himself, so the same number of searches tells a smaller difference than two arms would. It says who is preferred, not
by how much a metric moves. Each ranking is made wholly by its own model; only places are interleaved, never vectors or scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from pins.experiments.exposures import CANDIDATE, CONTROL, MAX_SHOWN, TEAMS

CREDITS = {"click": 1.0, "long_click": 2.0, "save": 3.0, "hide": 0.0}
"""What an action on a pin brings the team that the pin is of; the greatest counts where there are several."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An interleaved ranking: pins, best first, and the team of each."""

    shown: tuple[str, ...]
    teams: tuple[str, ...]


def coins(request_id: str, experiment: str, flips: int = MAX_SHOWN) -> tuple[bool, ...]:
    """The coin flips of one request, always the same for it: True lets the candidate choose first. At most 512."""
    digest = blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=64, key=blake2b(experiment.encode(), digest_size=32).digest()).digest()
    bits = int.from_bytes(digest, "big")
    return tuple(bool(bits >> place & 1) for place in range(flips))


def team_draft(control: Sequence[str], candidate: Sequence[str], limit: int, flips: Sequence[bool]) -> Draft:
    """Draft up to `limit` pins: the team with fewer pins chooses its best that is not there yet; a flip of the coin decides between equals.

    When one ranking is used up the other fills the places that are left, for its own team. `flips` are used one by one: half of `limit`, rounded up,
    and one more are enough.
    """
    rankings = {CONTROL: iter(control), CANDIDATE: iter(candidate)}
    drafted: dict[str, str] = {}
    counts, flip = {CONTROL: 0, CANDIDATE: 0}, iter(flips)
    spent: set[str] = set()
    while len(drafted) < limit and len(spent) < len(TEAMS):
        team = _turn(counts, spent, flip)
        pin_id = next((pin_id for pin_id in rankings[team] if pin_id not in drafted), None)
        if pin_id is None:
            spent.add(team)
            continue
        drafted[pin_id] = team
        counts[team] += 1
    return Draft(tuple(drafted), tuple(drafted.values()))


def folded_draft(control: Mapping[str, Sequence[str]], candidate: Mapping[str, Sequence[str]], limit: int, flips: Sequence[bool]) -> Draft:
    """`team_draft` of results that near-duplicates are folded into: by pin id, best first, the duplicates of each.

    What is one result to either model is drafted once: the candidate's result counts as the control's that shows the same pin, or a pin folded with it.
    """
    same = {pin_id: kept for kept, duplicates in control.items() for pin_id in (kept, *duplicates)}
    names: dict[str, str] = {}
    for kept, duplicates in candidate.items():
        names.setdefault(next((same[pin_id] for pin_id in (kept, *duplicates) if pin_id in same), kept), kept)
    draft = team_draft(list(control), list(names), limit, flips)
    return Draft(tuple(names[name] if team == CANDIDATE else name for name, team in zip(draft.shown, draft.teams, strict=True)), draft.teams)


def _turn(counts: Mapping[str, int], spent: set[str], flip: Iterator[bool]) -> str:
    if spent:
        return CONTROL if CANDIDATE in spent else CANDIDATE
    if counts[CONTROL] != counts[CANDIDATE]:
        return min(counts, key=lambda team: counts[team])
    return CANDIDATE if next(flip) else CONTROL


def preference(teams: Sequence[str], kinds: Mapping[int, Iterable[str]]) -> int:
    """Which team one answer's actions speak for: 1 the candidate, -1 the control, 0 neither. `kinds`: what was done, by place from 0."""
    credit = {CONTROL: 0.0, CANDIDATE: 0.0}
    for place, done in kinds.items():
        credit[teams[place]] += max((CREDITS[kind] for kind in done), default=0.0)
    return int(np.sign(credit[CANDIDATE] - credit[CONTROL]))


def team_drafts(control: NDArray[np.int8], candidate: NDArray[np.int8], limit: int, flips: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """`team_draft` for many answers at once, whose two rankings hold the same pins: at least `limit`, at most 126 of them.

    `control` and `candidate` (n, pool): the place of each pin in either ranking. `flips` (n, half of `limit`, rounded up): True lets the candidate
    choose first. Returns the drafted pins (n, limit) as columns of the pool, and whether each is of the candidate's team (n, limit).
    """
    rows, gone = np.arange(len(control)), np.iinfo(np.int8).max
    places = np.stack([control, candidate])
    shown, of_candidate = np.empty((len(control), limit), np.int64), np.empty((len(control), limit), np.bool_)
    for place in range(limit):
        of_candidate[:, place] = flips[:, place // 2] ^ bool(place % 2)
        shown[:, place] = np.argmin(np.where(of_candidate[:, place, None], places[1], places[0]), axis=1)
        places[:, rows, shown[:, place]] = gone
    return shown, of_candidate
