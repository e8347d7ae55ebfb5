"""What every route has in hand: the parts of the process, and one request with the model that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel

from everpin.serving import Choice, LiveModels, Served
from everpin.settings import Settings
from pins.ports import Hit
from surfaces.cosaves import CoSaves
from surfaces.exposures import ExposureLog, expose
from surfaces.metrics import Metrics
from surfaces.newest import Newest
from surfaces.people import People
from surfaces.problems import request_id
from surfaces.producer import Producer
from surfaces.projection import Maps
from surfaces.stages import Stages


@dataclass(frozen=True, slots=True)
class Surface:
    """The parts of one serving process."""

    config: Settings
    live: LiveModels
    people: People
    producer: Producer
    cosaves: CoSaves
    newest: Newest
    maps: Maps
    metrics: Metrics
    exposures: ExposureLog


class Asked:
    """One request. Which model answers it is decided here, once, however the alias moves meanwhile.

    `unit`: whom a canary's share is counted by (the user, or the query or pin). `beside`: the candidate, where this answer is drafted from its ranking
    too (`surfaces.interleaved`), which only a surface that `drafts` is asked for; None in every ordinary answer.
    """

    def __init__(self, request: Request, served: Served | None = None, unit: str = "", *, drafts: bool = False) -> None:
        self.surface: Surface = request.app.state.surface
        live = self.surface.live
        self._unit, self._choice = unit, live.answering(unit, drafts=drafts) if unit and not served else Choice(served or live.now)
        self.served, self.beside = self._choice.served, self._choice.beside
        self.request_id = request_id(request)
        self.stages = Stages()
        self.stage = self.stages.stage

    @property
    def experiment(self) -> str:
        """The experiment that this request is part of; empty for none."""
        return self._choice.experiment

    def shown(self, surface_name: str, pin_ids: Sequence[str], teams: Sequence[str] = ()) -> None:
        """The pins of a first page, for the experiment that is going on, if one is; of an interleaved page with the team of each.

        A page that was to be drafted and is of one model after all is part of no experiment.
        """
        choice = self._choice
        if choice.beside and not self.beside:
            return
        share = choice.share if choice.share and choice.share < 1 else None
        models = [served.model_id for served in (self.served, self.beside) if served]
        expose(self.surface, choice.experiment, choice.arm, self._unit, self.request_id, models, pin_ids, surface_name, teams=teams, share=share)

    def head(self) -> dict[str, Any]:
        """What every answer says of itself. Call it last: it holds the timings."""
        timings = self.stages.ms()
        for stage, ms in timings.items():
            if stage != "total":
                self.surface.metrics.stages.labels(stage).observe(ms / 1000)
        return {"request_id": self.request_id, "model_id": self.served.model_id, "collection": self.served.collection, "timings_ms": timings}


def answer(body: BaseModel, status: int = 200) -> Response:
    """A model as a response, serialised once."""
    return Response(body.model_dump_json(), status, media_type="application/json")


def card(hit: Hit) -> dict[str, Any]:
    """What a surface shows of a hit: the columns of `Card`."""
    return shown(hit.pin_id, dict(hit.fields), hit.v, hit.refused)


def shown(pin_id: str, fields: dict[str, Any], v: int, refused: str) -> dict[str, Any]:
    """The columns of `Card` from a record's surface fields, whatever is missing or damaged in them."""
    boards = fields.get("boards")
    text = {name: str(fields.get(name) or "") for name in ("title", "lang", "category", "image_url", "link_url")}
    created = fields.get("created_at_us")
    more = {"boards": [str(board) for board in boards] if isinstance(boards, list) else [], "created_at": moment(created), "v": int(v), "refused": refused}
    return {"pin_id": pin_id, **text, **more}


def moment(at_us: object) -> datetime | None:
    """Epoch microseconds as a time in UTC; None for 0 and for what is none."""
    if not isinstance(at_us, int) or isinstance(at_us, bool) or not 0 < at_us < 253_402_300_799_000_000:  # the end of the year 9999
        return None
    return datetime.fromtimestamp(at_us / 1e6, UTC)
