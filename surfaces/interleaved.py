"""Interleaved answers: a search whose places are drafted from two rankings, for a canary that asks for it (docs/adr/0017).

Each ranking is made wholly by its own model, in its own collection and with its own reader of queries, and so is whatever later pages read of its
results. Only places are interleaved, never vectors or scores. Where `Asked.beside` is None an answer is of one model, and has no teams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from everpin.serving import Served
from pins.errors import EverpinError
from pins.experiments.exposures import CANDIDATE, CONTROL, TEAMS
from pins.experiments.interleaving import coins, folded_draft
from pins.ports import Hit
from pins.retrieval.search import Found, with_matched_terms
from surfaces.asked import Asked
from surfaces.cursors import BadCursor, Place, Rest
from surfaces.pages import ranked_by, read_again

log = logging.getLogger("everpin.surfaces")
TEAM = "t"
"""The stage of a cursor's place that names its team; left out for the control's."""


def side(asked: Asked, team: str) -> Served:
    """The model of a team."""
    return asked.beside if asked.beside and team == CANDIDATE else asked.served


def models_of(asked: Asked, page: Sequence[Found], teams: Sequence[str]) -> Sequence[str | None]:
    """The model that each result of a page names; None throughout where the whole answer is of one."""
    return [side(asked, team).model_id for team in teams] if asked.beside else [None] * len(page)


def draft(asked: Asked, rank: Callable[[Served], Sequence[Found]], limit: int) -> tuple[Sequence[Found], Sequence[str]]:
    """The ranking of an answer, at most `limit` results of a drafted one, and the team of each; no teams where one model ranks alone.

    A candidate that cannot rank leaves the answer to the control: `asked.beside` is None then. Raises what the control's ranking raises.
    """
    control = rank(asked.served)
    if asked.beside is None:
        return control, ()
    try:
        candidate = rank(asked.beside)
    except EverpinError as error:
        log.warning("request %s: %s answers alone, because %s did not rank: %s", asked.request_id, asked.served.model_id, asked.beside.model_id, error)
        asked.beside = None
        return control, ()
    with asked.stage("merge"):
        rankings = {CONTROL: _by_id(control), CANDIDATE: _by_id(candidate)}
        folds = {team: {pin_id: found.duplicates for pin_id, found in ranking.items()} for team, ranking in rankings.items()}
        drafted = folded_draft(folds[CONTROL], folds[CANDIDATE], limit, coins(asked.request_id, asked.experiment, limit // 2 + 2))
        return [rankings[team][pin_id] for pin_id, team in zip(drafted.shown, drafted.teams, strict=True)], drafted.teams


def marked(places: Sequence[Place], teams: Sequence[str]) -> Sequence[Place]:
    """The places of a cursor with the team of each; as they are where there are no teams."""
    if not teams:
        return places
    return [replace(place, stages={**place.stages, TEAM: 1}) if team == CANDIDATE else place for place, team in zip(places, teams, strict=True)]


def rejoin(asked: Asked, rest: Rest) -> None:
    """Bring a request for a next page to both models of its cursor, where it has two. Raises BadCursor, or Refused (410) where the second is gone."""
    if rest.extra is None:
        return
    if not isinstance(rest.extra, str):
        raise BadCursor("this is no cursor of a search; ask again without one")
    asked.beside = ranked_by(asked.surface, rest.extra)


def read_places(asked: Asked, places: Sequence[Place]) -> list[tuple[Place, Hit, str]]:
    """The places whose pins are still live, each with its record as it is now in the collection of its team, and the team. Raises Unavailable."""
    if asked.beside is None:
        return [(place, hit, CONTROL) for place, hit in read_again(asked, places)]
    read: dict[str, tuple[Place, Hit, str]] = {}
    for team in TEAMS:
        if mine := [place for place in places if _team(place) == team]:
            read |= {place.pin_id: (place, hit, team) for place, hit in read_again(asked, mine, side(asked, team))}
    return [read[place.pin_id] for place in places if place.pin_id in read]


def explained(asked: Asked, page: Sequence[Found], teams: Sequence[str], query: str) -> Sequence[Found]:
    """Results with the words of the query that their pins' texts hold, each read in the collection of its team. Raises Unavailable."""
    if asked.beside is None:
        return with_matched_terms(page, query, asked.served.index)
    known: dict[str, Found] = {}
    for team in TEAMS:
        if mine := [found for found, of in zip(page, teams, strict=True) if of == team]:
            known |= _by_id(with_matched_terms(mine, query, side(asked, team).index))
    return [known[found.pin_id] for found in page]


def _by_id(ranking: Sequence[Found]) -> Mapping[str, Found]:
    return {found.pin_id: found for found in ranking}


def _team(place: Place) -> str:
    return CANDIDATE if place.stages.get(TEAM) == 1 else CONTROL
