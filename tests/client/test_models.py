"""The client's models are the API's schemas, and say so when they are not."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from everpin_client import models
from surfaces import schemas

ROOT = Path(__file__).parents[2]
generate_models = runpy.run_path(str(ROOT / "client/generate_models.py"))["models"]


def test_the_models_are_what_the_generator_writes_now() -> None:
    wanted = generate_models((ROOT / "surfaces/schemas.py").read_text(encoding="utf-8"))
    assert (ROOT / "client/everpin_client/models.py").read_text(encoding="utf-8") == wanted, "run `python client/generate_models.py`"


def named_models(module: ModuleType) -> dict[str, type[BaseModel]]:
    kinds = {name: kind for name, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, BaseModel)}
    return {name: kind for name, kind in kinds.items() if kind is not BaseModel}


def test_every_model_has_the_schema_of_the_api() -> None:
    ours, theirs = named_models(models), named_models(schemas)
    assert set(ours) == set(theirs)
    assert len(ours) > 20
    for name, kind in ours.items():
        assert kind.model_json_schema() == theirs[name].model_json_schema(), name


@pytest.mark.parametrize("line", ["import pins", "from pins.errors import EverpinError", "from . import app", "import numpy as np"])
def test_schemas_that_need_more_than_a_client_has_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="which a client does not have"):
        generate_models(f'"""Schemas."""\n\n{line}\n')


def test_defaults_by_position_become_named() -> None:
    text = '"""Schemas."""\nx = Field("ä", Field(1), y=2)\nz = Field(default=1)\n'
    assert generate_models(text).splitlines()[1:] == ['x = Field(default="ä", Field(default=1), y=2)', "z = Field(default=1)"]
