"""The gate: each line as a table of cases, rules that are laid over the shipped ones, and evaluations as they are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.artifact import open_artifact, read_manifest
from embedder.onnx import OnnxEncoder
from everpin.figures import Figures, figures, read_figures
from everpin.gate import (
    Line,
    Measured,
    Speeds,
    canary_lines,
    int8_lines,
    judge,
    manifest_lines,
    ranking_lines,
    size_line,
    speed_lines,
    speeds,
)
from everpin.gate_rules import Rules, read_rules
from pins.errors import EverpinError, Unembeddable
from pins.manifest import Manifest
from pins.metrics import Interval
from pins.ports import Vector
from tests.tiny_models import tiny_model

RULES = read_rules()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def manifest(tiny: Path) -> Manifest:
    return read_manifest(tiny)


def measured(mean: float, half: float = 0.02) -> dict[str, Interval]:
    return {"ndcg@20": Interval(mean, mean - half, mean + half)}


def of(model_id: str, data: str = "cxc d0 dev", **languages: float) -> Figures:
    return Figures(model_id, data, {lang: measured(mean) for lang, mean in languages.items()})


def paired(mean: float, low: float, high: float) -> Figures:
    return replace(of("new", en=0.9), baseline="live", minus_baseline={"en": {"ndcg@20": Interval(mean, low, high)}})


RANKED = [
    pytest.param(of("new", en=0.90), of("live", en=0.90), [True], id="as good"),
    pytest.param(of("new", en=0.885), of("live", en=0.90), [True], id="worse, within the interval and the allowed loss"),
    pytest.param(of("new", en=0.879), of("live", en=0.90), [False], id="worse by more than the interval"),
    pytest.param(of("new", en=0.95, de=0.70), of("live", en=0.90, de=0.80), [False, True], id="one language lost"),
    pytest.param(of("new", en=0.9), of("live", en=0.9, de=0.8), [False, True], id="the new model was not measured in a language"),
    pytest.param(of("new", en=0.9, de=0.8), of("live", en=0.9), [False, True], id="nor the live one"),
    pytest.param(of("new", en=0.9), None, [False], id="the live model has no figures"),
    pytest.param(None, of("live", en=0.9), [False], id="the new model has none"),
    pytest.param(None, None, [False], id="neither has"),
    pytest.param(paired(-0.004, -0.010, 0.002), None, [True], id="pair by pair: a loss that may be chance"),
    pytest.param(paired(-0.004, -0.007, -0.001), None, [False], id="pair by pair: a small loss that is sure"),
    pytest.param(paired(-0.021, -0.045, 0.003), None, [False], id="pair by pair: chance, and above the allowed loss"),
    pytest.param(replace(paired(-0.5, -0.6, -0.4), baseline="another"), of("live", en=0.9), [True], id="differences to another model say nothing"),
]


@pytest.mark.parametrize(("new", "live", "expected"), RANKED)
def test_a_language_may_not_be_lost(new: Figures | None, live: Figures | None, expected: list[bool]) -> None:
    assert [line.passed for line in ranking_lines(RULES.ranking, "live", new, live)] == expected


@pytest.mark.parametrize(("allowed", "expected"), [((), False), (("de",), True), (("*",), True), (("en",), False)])
def test_a_figure_may_be_missing_where_the_rules_say_so(allowed: tuple[str, ...], expected: bool) -> None:
    rules = RULES.ranking.model_copy(update={"allow_missing": allowed})
    (lost, _) = ranking_lines(rules, "live", of("new", en=0.9), of("live", en=0.9, de=0.8))
    assert (lost.name, lost.value, lost.passed, lost.note) == ("ndcg@20 de", None, expected, "not measured for the new model")
    (nothing,) = ranking_lines(rules, "live", None, None)
    assert nothing.passed is (allowed == ("*",))


def test_without_another_live_model_there_is_nothing_to_lose() -> None:
    (line,) = ranking_lines(RULES.ranking, None, of("new", en=0.1), None)
    assert line.passed


def test_evaluations_of_different_data_are_not_compared() -> None:
    with pytest.raises(EverpinError, match="different data"):
        list(ranking_lines(RULES.ranking, "live", of("new", en=0.9), of("live", "other d1 dev", en=0.9)))


@pytest.mark.parametrize(
    ("mine", "its", "expected"),
    [
        (Speeds(30.0, 70.0), Speeds(1.0, 100.0), [True, True]),
        (Speeds(30.1, 69.9), Speeds(1.0, 100.0), [False, False]),
        (Speeds(1.0, 1.0), None, [True, False]),
    ],
)
def test_speed_is_kept(mine: Speeds, its: Speeds | None, expected: list[bool]) -> None:
    found = {"new": mine} | ({"live": its} if its else {})
    assert [line.passed for line in speed_lines(RULES.speed, "new", "live", found)] == expected


def test_speed_over_nothing_is_not_asked_for() -> None:
    assert [line.passed for line in speed_lines(RULES.speed, "new", None, {"new": Speeds(1.0, 1.0)})] == [True, True]


@pytest.mark.parametrize(("megabytes", "expected"), [(64.0, True), (64.1, False)])
def test_size_is_bounded(megabytes: float, expected: bool) -> None:
    assert size_line(RULES.size, megabytes).passed is expected


PARITY = [
    ("int8", -0.005, 0.99, False, [True, True]),
    ("int8", -0.0051, 0.9899, False, [False, False]),
    ("int8", None, 1.0, False, [True, False]),
    ("int8", None, 1.0, True, [True, True]),
    ("fp32", None, 1.0, False, [True, True]),
]


@pytest.mark.parametrize(("precision", "ndcg", "cosine", "allowed", "expected"), PARITY)
def test_int8_keeps_what_fp32_had(manifest: Manifest, precision: str, ndcg: float | None, cosine: float, allowed: bool, expected: list[bool]) -> None:
    metrics = {} if ndcg is None else {"check_ndcg@20_minus_fp32": ndcg}
    rules = RULES.int8.model_copy(update={"allow_missing": allowed})
    assert [line.passed for line in int8_lines(rules, replace(manifest, precision=precision, metrics=metrics), cosine)] == expected


def verdicts(manifest: Manifest, **rules: Any) -> list[bool]:
    return [line.passed for line in manifest_lines(RULES.manifest.model_copy(update=rules), manifest)]


def test_the_manifest_must_hold_drift_metrics_and_open_licences(manifest: Manifest) -> None:
    assert manifest.drift is not None
    assert manifest.lineage is not None
    assert verdicts(manifest) == [True, True, True]
    assert verdicts(replace(manifest, drift=None)) == [False, True, True]
    assert verdicts(replace(manifest, drift=None), drift=False) == [True, True, True]
    assert verdicts(replace(manifest, drift=replace(manifest.drift, violation_upper95=0.011))) == [False, True, True]
    assert verdicts(replace(manifest, metrics={"levels_dev_accuracy": 0.5})) == [True, False, True]
    assert verdicts(replace(manifest, lineage=replace(manifest.lineage, licence_classes=("open", "research")))) == [True, True, False]
    assert verdicts(replace(manifest, lineage=None)) == [True, True, True]


class Known:
    """Vectors by text, east for every other text."""

    def __init__(self, **vectors: Sequence[float]) -> None:
        self.vectors = vectors

    def encode(self, texts: Sequence[str]) -> Vector:
        if "refused" in texts:
            raise Unembeddable("encoder_error", "refused")
        return np.array([self.vectors.get(text, (1.0, 0.0)) for text in texts], np.float32)


def canaries(**tables: Any) -> Rules:
    return RULES.model_copy(update={"canary": type(RULES.canary).model_validate({"vectors": (), "order": (), "paraphrase": ()} | tables)})


@pytest.mark.parametrize("unsound", [(float("nan"), 0.0), (0.0, 0.0), (2.0, 0.0), (float("inf"), 0.0)])
def test_a_vector_that_no_index_takes_fails(unsound: Sequence[float]) -> None:
    (line,) = canary_lines(canaries(vectors=("good", "bad", "refused")).canary, ["en"], Known(bad=unsound))
    assert (line.passed, line.value, line.note) == (False, "1 of 3", "'bad', 'refused'")


@pytest.mark.parametrize(("cosine", "margin", "expected"), [(0.6, 0.0, True), (0.6, 0.19, True), (0.6, 0.21, False), (0.2, 0.0, False)])
def test_what_must_be_nearer_is_nearer_by_the_margin(cosine: float, margin: float, expected: bool) -> None:
    encoder = Known(query=(1.0, 0.0), first=(cosine, np.sqrt(1 - cosine**2)), then=(0.4, np.sqrt(1 - 0.16)))
    rules = canaries(order=[{"lang": "en", "query": "query", "first": "first", "then": "then", "margin": margin}])
    assert [line.passed for line in canary_lines(rules.canary, ["en"], encoder)] == [True, expected]


@pytest.mark.parametrize(("least", "expected"), [(0.59, True), (0.61, False)])
def test_paraphrases_are_near(least: float, expected: bool) -> None:
    rules = canaries(paraphrase=[{"lang": "en", "texts": ["one", "other"], "min_cosine": least}])
    assert [line.passed for line in canary_lines(rules.canary, ["en"], Known(other=(0.6, 0.8)))] == [True, expected]


def test_a_language_that_a_model_does_not_claim_is_passed_over() -> None:
    rules = canaries(paraphrase=[{"lang": "de", "texts": ["one", "other"], "min_cosine": 0.9}])
    line = list(canary_lines(rules.canary, ["en"], Known(other=(0.0, 1.0))))[-1]
    assert (line.passed, line.value, line.note) == (True, None, "the model does not claim de")


def test_a_whole_model_passes_every_shipped_rule(tiny: Path, manifest: Manifest) -> None:
    encoder = OnnxEncoder(open_artifact(tiny))
    lines = judge(RULES, Measured(manifest, 0.1, 1.0, encoder, None, speeds({"tiny-v1": encoder}, ["red chair", "white bread"])))
    assert [line for line in lines if not line.passed] == []
    assert len({line.name for line in lines}) == len(lines)


def test_the_slower_of_two_encoders_is_seen() -> None:
    class Slow(Known):
        def encode(self, texts: Sequence[str]) -> Vector:
            np.linalg.eigvalsh(np.ones((60, 60)))
            return super().encode(texts)

    found = speeds({"quick": Known(), "slow": Slow()}, ["red chair", " ", "white bread"])
    assert found["quick"].query_ms < found["slow"].query_ms
    assert found["quick"].texts_per_s > found["slow"].texts_per_s


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_replaces_single_keys(tmp_path: Path) -> None:
    rules = read_rules(written(tmp_path / "gate.toml", "[size]\nmegabytes = 500\n[canary]\norder = []\n"))
    assert (rules.size.megabytes, rules.canary.order) == (500, ())
    assert (rules.speed, rules.canary.paraphrase) == (RULES.speed, RULES.canary.paraphrase)


WRONG = [
    ("[size]\nmegabyte = 5\n", r"size\.megabyte: Extra inputs are not permitted"),
    ("[sice]\nmegabytes = 5\n", r"sice: Extra inputs"),
    ("[size]\nmegabytes = 'big'\n", r"size\.megabytes: .* got 'big'"),
    ("[size]\nmegabytes = -1\n", r"size\.megabytes: Input should be greater than 0"),
    ("size = 5\n", r"size: Input should be"),
    ("[size\n", "cannot be read"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(EverpinError, match=said):
        read_rules(written(tmp_path / "gate.toml", text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EverpinError, match=r"none\.toml cannot be read"):
        read_rules(tmp_path / "none.toml")


def evaluation(**changes: Any) -> dict[str, Any]:
    value = {"mean": 0.9, "low": 0.88, "high": 0.92}
    body = {"model_id": "new", "languages": {"en": {"ndcg@20": value, "queries": 9, "pairs": 70, "auroc@4+": {"mean": None, "low": None, "high": None}}}}
    return body | {"data": {"folder": "cxc", "digest": "0123456789abcdef", "split": "dev"}} | changes


def test_an_evaluation_is_read_and_kept_small(tmp_path: Path) -> None:
    difference = {"mean": -0.01, "low": -0.02, "high": 0.0, "p": 0.04, "ratio": 0.99}
    baseline = {"model_id": "live", "difference": {"languages": {"en": {"ndcg@20": difference}, "mean_other": {"ndcg@20": difference}}}}
    found = read_figures(written(tmp_path / "new.json", json.dumps(evaluation(baseline=baseline))))
    assert found.languages == {"en": {"ndcg@20": Interval(0.9, 0.88, 0.92)}}
    assert (found.data, found.baseline) == ("cxc 0123456789ab dev", "live")
    assert found.minus_baseline == {"en": {"ndcg@20": Interval(-0.01, -0.02, 0.0)}}
    again = figures(json.loads(json.dumps(found.as_json())), "itself")
    assert again == replace(found, baseline="", minus_baseline={})


def test_a_figure_that_is_no_number_is_left_out() -> None:
    body = evaluation()
    body["languages"]["en"]["ndcg@20"]["mean"] = float("nan")
    assert figures(body, "here").languages == {"en": {}}


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"model_id": "a", "languages": {"en": {"ndcg@20": {"mean": 1}}}}', '{"model_id": "a", "languages": []}'])
def test_what_is_no_evaluation_is_refused_with_how_to_make_one(tmp_path: Path, body: str) -> None:
    with pytest.raises(EverpinError, match=r"is no evaluation .*make one with python -m training\.evaluate"):
        read_figures(written(tmp_path / "no.json", body))


def test_a_line_says_what_it_compares() -> None:
    (line,) = ranking_lines(RULES.ranking, "live", of("new", en=0.9), of("live", en=0.91))
    assert line == Line("ndcg@20 en", 0.9, "at least 0.8900", True, "live: 0.9100 [0.8900, 0.9300]")
