"""Parameters that several routes take."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from surfaces.schemas import MAX_CURSOR_CHARS, MAX_ID_CHARS, MAX_LABEL_CHARS, MAX_LIMIT

PinIdPath = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARS, description="Id of the pin.", examples=["garden-012"])]
UserIdPath = Annotated[str, Path(min_length=1, max_length=MAX_ID_CHARS, description="Id of the user.", examples=["user-01"])]
LimitQuery = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Results on one page.")]
DiversityQuery = Annotated[float, Query(ge=0, le=1, description="0: by nearness alone; 1: as unlike one another as can be (maximal marginal relevance).")]
CursorQuery = Annotated[str | None, Query(max_length=MAX_CURSOR_CHARS, description="From the answer before: its next page.")]
LabelQuery = Annotated[str | None, Query(min_length=1, max_length=MAX_LABEL_CHARS)]
