from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pins.errors import ArtifactError
from pins.manifest import DriftBound, Lineage, Manifest
from pins.relevance import OrdinalHead

DRIFT = {
    "predictor": "static", "threshold": 0.02, "bound": 0.05, "risk": 0.01, "coverage": 0.3, "edits": 900, "violation_rate": 0.004, "violation_upper95": 0.009,
}  # fmt: skip
BODY: dict[str, Any] = {
    "model_id": "m1", "dimension": 4, "max_tokens": 128, "pooling": "mean", "template_version": 1, "precision": "fp32", "languages": ["en", "de"],
    "files": {"model.onnx": "00"}, "teacher": None, "data_digest": "d", "source": "s", "metrics": {"ndcg@10": 0.7}, "golden_tolerance": 0.999,
    "drift": DRIFT, "ordinal_head": {"scale": 8, "thresholds": [1, 2, 3, 4]},
}  # fmt: skip
LINEAGE: dict[str, Any] = {
    "labels": {"teacher_id": "t1", "rows": 900}, "data_digests": {"cxc_pins": "d0"}, "licence_classes": ["open", "sa"], "seeds": {"student": 7},
    "config": {"layers": 6, "loss": "kl"}, "code_version": "a1b2c3d",
}  # fmt: skip
SHIPPED = Path(__file__).parents[2] / "everpin" / "models" / "minilm-l6-v1" / "manifest.json"


def test_a_manifest_is_read_whole() -> None:
    manifest = Manifest.from_json(BODY)
    assert {name: getattr(manifest, name) for name in BODY} == BODY | {
        "languages": ("en", "de"),
        "drift": DriftBound(**DRIFT),
        "ordinal_head": OrdinalHead(8.0, (1.0, 2.0, 3.0, 4.0)),
    }


def test_a_student_may_publish_no_drift_bound() -> None:
    assert Manifest.from_json(BODY | {"drift": None}).drift is None


def test_unknown_fields_are_left_for_later_releases() -> None:
    assert Manifest.from_json(BODY | {"carbon": 3}) == Manifest.from_json(BODY)


@pytest.mark.parametrize("name", BODY)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"manifest.json has no field '{name}'; export the model again"):
        Manifest.from_json({field: value for field, value in BODY.items() if field != name})


def test_a_lineage_is_read_whole() -> None:
    lineage = Manifest.from_json(BODY | {"lineage": LINEAGE}).lineage
    assert lineage == Lineage({"teacher_id": "t1", "rows": 900}, {"cxc_pins": "d0"}, ("open", "sa"), {"student": 7}, {"layers": 6, "loss": "kl"}, "a1b2c3d")


def test_a_student_may_have_seen_no_labels() -> None:
    lineage = Manifest.from_json(BODY | {"lineage": LINEAGE | {"labels": None}}).lineage
    assert lineage is not None
    assert lineage.labels is None


def test_manifests_without_a_lineage_are_read_as_before() -> None:
    assert Manifest.from_json(BODY).lineage is None
    assert Manifest.from_json(BODY | {"lineage": None}).lineage is None
    assert Manifest.from_json(json.loads(SHIPPED.read_bytes())).lineage is None


@pytest.mark.parametrize("name", LINEAGE)
def test_a_missing_field_of_the_lineage_is_named(name: str) -> None:
    with pytest.raises(ArtifactError, match=f"manifest.json has no field '{name}'; export the model again"):
        Manifest.from_json(BODY | {"lineage": {field: value for field, value in LINEAGE.items() if field != name}})


WRONG = [
    pytest.param({"lineage": {**LINEAGE, "licence_classes": "open"}}, "licence_classes must be a list, not 'open'", id="one licence class as a word"),
    pytest.param({"lineage": {**LINEAGE, "licence_classes": None}}, "NoneType", id="no licence classes"),
    pytest.param({"lineage": {**LINEAGE, "data_digests": ["cxc_pins"]}}, "dictionary update", id="digests without names"),
    pytest.param({"lineage": {**LINEAGE, "seeds": {"student": "lucky"}}}, "lucky", id="a seed in words"),
    pytest.param({"lineage": {**LINEAGE, "labels": "digest"}}, "dictionary update", id="labels that are a word"),
    pytest.param({"lineage": "unknown"}, "string indices", id="a lineage that is a word"),
    pytest.param({"ordinal_head": {"scale": 8}}, "has no field 'thresholds'", id="a head without thresholds"),
    pytest.param({"ordinal_head": [8, 1, 2, 3, 4]}, "manifest.json: ", id="a head that is a list"),
    pytest.param({"ordinal_head": {"scale": "steep", "thresholds": [1, 2, 3, 4]}}, "'steep'", id="a scale in words"),
    pytest.param({"ordinal_head": {"scale": 8, "thresholds": [4, 3, 2, 1]}}, "four increasing", id="thresholds that fall"),
    pytest.param({"ordinal_head": {"scale": math.nan, "thresholds": [1, 2, 3, 4]}}, "nan", id="a scale that is not a number"),
    pytest.param({"drift": {**DRIFT, "alpha": 1}}, "alpha", id="a drift bound with an unknown field"),
    pytest.param({"drift": {"threshold": 0.02}}, "predictor", id="a drift bound without its fields"),
    pytest.param({"drift": "static"}, "mapping", id="a drift bound that is a word"),
    pytest.param({"languages": None}, "NoneType", id="no languages"),
    pytest.param({"files": None}, "NoneType", id="no files"),
    pytest.param({"files": ["model.onnx"]}, "dictionary update", id="files without hashes"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_a_wrong_field_is_an_artifact_error_with_a_cure(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json.*export the model again") as caught:
        Manifest.from_json(BODY | changes)
    assert words in str(caught.value)


def test_the_manifest_is_json_all_through() -> None:
    body = BODY | {"lineage": LINEAGE}
    assert Manifest.from_json(json.loads(json.dumps(body))) == Manifest.from_json(body)
