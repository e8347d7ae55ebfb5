"""Changes: they are sent to Kafka and take effect when the worker has handled them. Nothing is written anywhere else."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.responses import Response

from everpin.wiring import now_us
from pins.actions import UserActed
from pins.errors import InvalidEvent, PinNotFound
from pins.events import PinEvent, PinUpdated, decode
from surfaces.asked import Surface, answer
from surfaces.exposures import act
from surfaces.parameters import PinIdPath, UserIdPath
from surfaces.people import edited
from surfaces.problems import Refused, request_id
from surfaces.schemas import Accepted, ActionsRequest, EventsRequest, PinEdit

router = APIRouter(tags=["changes"])


@router.patch("/v1/pins/{pin_id:path}", response_model=Accepted, status_code=202, summary="Edit a pin's title or description")
def edit(request: Request, pin_id: PinIdPath, wanted: PinEdit) -> Response:
    """Sends the whole row of `pin_content` with the change in it. For a producer that does not hold that row itself: two at once may undo one another."""
    surface: Surface = request.app.state.surface
    changes = wanted.model_dump(exclude_none=True)
    if not changes:
        raise Refused(422, "nothing-to-change", "give a title or a description")
    pin = surface.people.pin(pin_id)
    if pin is None or pin.deleted:
        raise PinNotFound(f"pin {pin_id!r} has no features to change: unknown or deleted")
    at_us = max(now_us(), pin.as_of.get("pin_content", 0) + 1)
    surface.producer.send([PinUpdated(pin_id, at_us, {"pin_content": dict(edited(pin, changes, at_us).values)})])
    return answer(Accepted(request_id=request_id(request), accepted=1, event_time_us=at_us), 202)


@router.post("/v1/events", response_model=Accepted, status_code=202, summary="Send pin events")
def events(request: Request, wanted: EventsRequest) -> Response:
    """All or none: an event that could never be used refuses the whole body, and nothing is sent."""
    surface: Surface = request.app.state.surface
    at_us = now_us()
    found = [_event(number, body, at_us) for number, body in enumerate(wanted.events)]
    surface.producer.send(found)
    return answer(Accepted(request_id=request_id(request), accepted=len(found), event_time_us=at_us), 202)


@router.post("/v1/users/{user_id:path}/actions", response_model=Accepted, status_code=202, summary="Tell what a user saved or clicked")
def actions(request: Request, user_id: UserIdPath, wanted: ActionsRequest) -> Response:
    """The home feed follows within the freshness target."""
    surface: Surface = request.app.state.surface
    at_us = now_us()
    times = [round(action.time.timestamp() * 1e6) if action.time else at_us + number for number, action in enumerate(wanted.actions)]
    if late := [time_us for time_us in times if not 0 < time_us <= at_us + 300_000_000]:
        raise Refused(422, "time-out-of-range", f"an action's time is {late[0]} us since the epoch; give one that is at most five minutes ahead of now")
    surface.producer.act([UserActed(user_id, action.pin_id, action.action, time_us) for action, time_us in zip(wanted.actions, times, strict=True)])
    act(surface, user_id, wanted.actions, times)
    return answer(Accepted(request_id=request_id(request), accepted=len(times), event_time_us=at_us), 202)


def _event(number: int, body: dict[str, object], at_us: int) -> PinEvent:
    try:
        return decode(None, json.dumps(body).encode("utf-8", "surrogatepass"), timestamp_us=at_us, now_us=at_us)
    except InvalidEvent as error:
        raise InvalidEvent(error.reason, f"events[{number}]: {error.detail}") from error
