"""The bridge between two models: what its map does, and what its file refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from pins.bridge import Bridge, Map, Residual, Side, dump, parse
from pins.errors import ArtifactError
from pins.ports import Vector
from pins.relevance import OrdinalHead

NEW, OLD = Side("new-v2", 6, "d" * 64), Side("old-v1", 4, "e" * 64)
HEAD = OrdinalHead(8.0, (1.0, 2.0, 4.0, 6.0))


def numbers(*shape: int, seed: int = 0) -> Vector:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def units(*shape: int, seed: int = 0) -> Vector:
    raw = numbers(*shape, seed=seed)
    return np.asarray(raw / np.linalg.norm(raw, axis=-1, keepdims=True), np.float32)


def residual() -> Residual:
    return Residual(numbers(6, 3, seed=1), numbers(3, seed=2), numbers(3, 4, seed=3))


def bridge(**changes: Any) -> Bridge:
    return Bridge(**{"new": NEW, "old": OLD, "map": Map(numbers(6, 4), residual()), "slope": 1.1, "intercept": 0.05, "figures": {"kept": 0.97}} | changes)


@pytest.mark.parametrize("with_residual", [False, True])
def test_a_batch_and_its_single_vectors_are_mapped_alike_to_unit_length(with_residual: bool) -> None:
    map_ = Map(numbers(6, 4), residual() if with_residual else None)
    vectors = units(5, 6, seed=9)
    mapped = map_.apply(vectors)
    assert (mapped.shape, mapped.dtype) == ((5, 4), np.float32)
    assert np.linalg.norm(mapped, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert np.stack([map_.apply(one) for one in vectors]) == pytest.approx(mapped, abs=1e-6)


def test_the_residual_is_added_to_the_matrix() -> None:
    part, vector = residual(), units(6, seed=4)
    expected = vector @ numbers(6, 4) + np.maximum(vector @ part.inner + part.bias, 0) @ part.outer
    assert Map(numbers(6, 4), part).apply(vector) == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


@pytest.mark.parametrize("part", [None, residual()])
def test_a_vector_of_zeros_stays_one(part: Residual | None) -> None:
    vectors = np.stack([np.zeros(6, np.float32), units(6)])
    mapped = Map(numbers(6, 4), part).apply(vectors)
    assert not mapped[0].any()
    assert mapped[1].any()
    assert not Map(numbers(6, 4), part).apply(vectors[0]).any()


def test_levels_of_mapped_cosines_are_those_of_the_corrected_ones() -> None:
    cosines = np.linspace(-0.2, 0.9, 12)
    found = bridge().head(HEAD).probabilities(cosines)
    assert found == pytest.approx(HEAD.probabilities(1.1 * cosines + 0.05), abs=1e-12)


@pytest.mark.parametrize("part", [None, residual()])
def test_a_bridge_comes_back_from_its_file(part: Residual | None) -> None:
    made = bridge(map=Map(numbers(6, 4), part))
    read = parse(dump(made))
    assert (read.new, read.old, read.slope, read.intercept, read.figures) == (NEW, OLD, 1.1, 0.05, {"kept": 0.97})
    assert (read.map.residual is None) == (part is None)
    assert read.apply(units(3, 6)).tobytes() == made.apply(units(3, 6)).tobytes()
    assert read.digest == made.digest


def test_the_digest_is_of_everything_but_the_figures() -> None:
    made = bridge()
    assert replace(made, figures={}).digest == made.digest
    others = [
        replace(made, slope=1.2),
        replace(made, new=replace(NEW, digest="f")),
        replace(made, map=Map(numbers(6, 4))),
        bridge(map=Map(numbers(6, 4, seed=7))),
    ]
    assert len({made.digest, *(other.digest for other in others)}) == 5


def test_a_bridge_serves_exactly_its_two_models() -> None:
    bridge().require(NEW, OLD)
    with pytest.raises(ArtifactError, match=r"was fitted for new-v2 .* as the new model, here it is new-v2 \(digest other"):
        bridge().require(replace(NEW, digest="other"), OLD)
    with pytest.raises(ArtifactError, match=r"as the old model, here it is newer-v3 .* `everpin bridge fit new-v2 newer-v3`"):
        bridge().require(NEW, replace(OLD, model_id="newer-v3"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"map": Map(numbers(4, 6))}, r"matrix is float32 of shape \(4, 6\), its models ask for float32 of \(6, 4\)"),
        ({"map": Map(numbers(6, 4).astype(np.float64))}, "matrix is float64"),
        ({"map": Map(numbers(6, 4), replace(residual(), outer=numbers(2, 4)))}, "outer is float32 of shape"),
        ({"map": Map(np.full((6, 4), np.nan, np.float32))}, "matrix holds values that are not finite"),
        ({"slope": 0.0}, "slope 0.0 and intercept 0.05"),
        ({"intercept": float("nan")}, "intercept nan"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ArtifactError, match=problem):
        bridge(**changes)


def edited(**changes: Any) -> bytes:
    """A file whose `about` was changed by hand."""
    with np.load(BytesIO(dump(bridge()))) as arrays:
        held = dict(arrays)
    file = BytesIO()
    np.savez(file, **(held | {"about": np.array(json.dumps(json.loads(str(held["about"])) | changes))}))
    return file.getvalue()


def test_a_damaged_file_is_refused_wherever_the_damage_is() -> None:
    content = dump(bridge())
    for place in range(0, len(content), 97):
        broken = content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        try:
            read = parse(broken)
        except ArtifactError:
            continue
        assert read.digest == bridge().digest  # a byte that says nothing, such as the time in a zip


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", dump(bridge())[:500], dump(bridge())[:-30], edited(new=None), edited(new={"model_id": "x"})])
def test_a_file_that_is_no_bridge_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="damaged or no bridge at all"):
        parse(content)


def test_one_array_is_no_bridge() -> None:
    file = BytesIO()
    np.save(file, numbers(3))
    with pytest.raises(ArtifactError, match="damaged or no bridge at all"):
        parse(file.getvalue())


def test_another_format_and_an_edited_file_are_refused() -> None:
    with pytest.raises(ArtifactError, match="is of format 2, this Everpin reads 1"):
        parse(edited(format=2))
    with pytest.raises(ArtifactError, match="was changed after it was fitted"):
        parse(edited(slope=1.2))
