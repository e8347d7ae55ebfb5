"""A worker proves its model before it writes: recorded texts, embedded again, must give the stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from everpin.wiring import PROVED, require_same_model
from pins.errors import ArtifactError
from pins.features import PinFeatures
from pins.ports import PointWrite, Vector
from tests.fakes import FakeEncoder, FakeIndex
from tests.unit.samples import record


def index_of(vectors: Sequence[tuple[str, Vector | None]]) -> FakeIndex:
    index = FakeIndex()
    for number, (text, vector) in enumerate(vectors):
        index.write([PointWrite(record(PinFeatures(f"p{number}", caption=text)), None, vector)])
    return index


def check(index: FakeIndex) -> None:
    require_same_model(cast(Any, FakeEncoder()), index)


def stored(text: str) -> Vector:
    return FakeEncoder().query(text)


def test_an_empty_index_and_one_without_vectors_prove_nothing_against_the_model() -> None:
    check(FakeIndex())
    check(index_of([("", None)]))


def test_the_model_s_own_vectors_are_accepted() -> None:
    check(index_of([(f"soup {n}", stored(f"soup {n}")) for n in range(PROVED)]))


def test_another_model_s_vectors_under_the_same_id_are_refused() -> None:
    turned = [(f"soup {n}", np.roll(stored(f"soup {n}"), 1)) for n in range(PROVED)]
    with pytest.raises(ArtifactError, match=rf"of {PROVED} texts embedded again, {PROVED} come out elsewhere .* an id of its own"):
        check(index_of(turned))


def test_a_few_damaged_vectors_do_not_keep_a_worker_from_mending_them() -> None:
    check(index_of([("soup", np.roll(stored("soup"), 1)), ("stew", stored("stew")), ("pie", stored("pie"))]))
