"""The gate of `everpin model publish`: measures and manifest in, one line per rule out. Every line says value, threshold and verdict.

Figures of ranking come from evaluations, which are made before (`everpin.figures`); speed, parity and canaries are measured here,
on the machine that publishes. What cannot be known is a line that fails, unless the rules allow it to be missing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from everpin.figures import Figures
from everpin.gate_rules import Canary, Contents, Int8, Ranking, Rules, Size, Speed
from pins.errors import EverpinError, Unembeddable
from pins.manifest import Manifest
from pins.metrics import Interval
from pins.ports import Vector

ANY = "*"
UNIT = 1e-3
"""How far from one the length of a unit vector may be: float32 and int8 stay below 1e-6."""
INT8_LOSS = "check_ndcg@20_minus_fp32"
QUERIES, PASSES = 100, 5
QUERY_WORDS = 6
"""Words of a golden text that make a query: about what people type."""


class Encodes(Protocol):
    """What the gate asks of a student."""

    def encode(self, texts: Sequence[str]) -> Vector:
        """Unit vectors, float32 of shape (len(texts), dimension). Raises Unembeddable."""


@dataclass(frozen=True, slots=True)
class Line:
    """One rule: what was found, what was asked for, and whether that is enough. `value` is None where there is nothing to compare."""

    name: str
    value: float | str | None
    threshold: str
    passed: bool
    note: str = ""


@dataclass(frozen=True, slots=True)
class Speeds:
    """Median milliseconds of one query, and texts per second, of one model."""

    query_ms: float
    texts_per_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    """All that the gate looks at. `live` is the live model's id, None where there is none or it is the one to be published.

    `golden_cosine` is the mean over the golden texts in this runtime; `speeds` are by model id, the live one's absent where it has no folder here.
    """

    manifest: Manifest
    megabytes: float
    golden_cosine: float
    encoder: Encodes
    live: str | None
    speeds: Mapping[str, Speeds]
    figures: Figures | None = None
    live_figures: Figures | None = None


def judge(rules: Rules, measured: Measured) -> list[Line]:
    """Every line of the gate, in the order of the rules."""
    manifest = measured.manifest
    return [
        *ranking_lines(rules.ranking, measured.live, measured.figures, measured.live_figures),
        *speed_lines(rules.speed, manifest.model_id, measured.live, measured.speeds),
        size_line(rules.size, measured.megabytes),
        *int8_lines(rules.int8, manifest, measured.golden_cosine),
        *manifest_lines(rules.manifest, manifest),
        *canary_lines(rules.canary, manifest.languages, measured.encoder),
    ]


def ranking_lines(rules: Ranking, live: str | None, new: Figures | None, old: Figures | None) -> Iterator[Line]:
    """A line per language: by the paired difference where the new evaluation has the live model as its baseline, else by both means.

    Raises EverpinError for evaluations of other models, or of different data.
    """
    if live is None:
        yield Line(rules.metric, None, "none", True, "no other model is live")
        return
    paired = new is not None and new.baseline == live
    if new is not None and old is not None and not paired and new.data != old.data:
        raise EverpinError(
            f"the evaluations are of different data ({new.data or 'unnamed'}; {old.data or 'unnamed'}); evaluate both on one split of one folder"
        )
    mine = _metric(new.languages if new else {}, rules.metric)
    its = _metric((new.minus_baseline if paired and new else old.languages if old else {}), rules.metric)
    if not mine and not its:
        allowed = ANY in rules.allow_missing
        yield Line(rules.metric, None, f"not worse than {live}", allowed, "neither model has figures: give --evaluation FILE")
    for lang in sorted(mine.keys() | its.keys()):
        yield _ranked(rules, lang, mine.get(lang), its.get(lang), live, paired)


def _metric(languages: Mapping[str, Mapping[str, Interval]], metric: str) -> dict[str, Interval]:
    return {lang: found[metric] for lang, found in languages.items() if metric in found}


def _ranked(rules: Ranking, lang: str, mine: Interval | None, its: Interval | None, live: str, paired: bool) -> Line:
    name = f"{rules.metric} {lang}"
    if mine is None or its is None:
        allowed = bool({lang, ANY} & set(rules.allow_missing))
        without = "the new model" if mine is None else live
        return Line(name, None if mine is None else round(mine.mean, 4), f"not worse than {live}", allowed, f"not measured for {without}")
    if paired:
        note = f"{its.mean:+.4f} [{its.low:+.4f}, {its.high:+.4f}] to {live}, pair by pair"
        asked = f"no sure loss, at most {rules.max_loss:g} on average"
        return Line(name, round(mine.mean, 4), asked, its.high >= 0 and its.mean >= -rules.max_loss, note)
    least = max(its.low, its.mean - rules.max_loss)
    note = f"{live}: {its.mean:.4f} [{its.low:.4f}, {its.high:.4f}]"
    return Line(name, round(mine.mean, 4), f"at least {least:.4f}", mine.mean >= least, note)


def speed_lines(rules: Speed, model_id: str, live: str | None, speeds: Mapping[str, Speeds]) -> Iterator[Line]:
    """Milliseconds of a query, and texts per second over the live model's."""
    mine = speeds[model_id]
    yield Line("query p50 ms", round(mine.query_ms, 2), f"at most {rules.query_ms:g}", mine.query_ms <= rules.query_ms, "one core of this machine")
    name, asked = "texts/s over live", f"at least {rules.texts_per_s_ratio:g}"
    if live is None:
        yield Line(name, None, "none", True, f"no other model is live; {mine.texts_per_s:.0f} texts/s on one core")
    elif live in speeds:
        found = mine.texts_per_s / speeds[live].texts_per_s
        yield Line(name, round(found, 3), asked, found >= rules.texts_per_s_ratio, f"{mine.texts_per_s:.0f} and {speeds[live].texts_per_s:.0f} on one core")
    else:
        yield Line(name, None, asked, rules.texts_per_s_ratio == 0, f"the folder of {live} is not on this machine")


def size_line(rules: Size, megabytes: float) -> Line:
    """Megabytes of the folder."""
    return Line("megabytes", round(megabytes, 1), f"at most {rules.megabytes:g}", megabytes <= rules.megabytes)


def int8_lines(rules: Int8, manifest: Manifest, golden_cosine: float) -> Iterator[Line]:
    """Parity with fp32: the golden vectors are the fp32 model's, and the export's check says what the difference does to the order."""
    yield Line("cosine to fp32", round(golden_cosine, 5), f"at least {rules.min_cosine:g}", golden_cosine >= rules.min_cosine, "mean of the golden texts, here")
    name, asked, found = "ndcg@20 minus fp32", f"at least {-rules.max_ndcg_loss:g}", manifest.metrics.get(INT8_LOSS)
    if found is not None:
        yield Line(name, round(found, 5), asked, found >= -rules.max_ndcg_loss, "measured by the export")
    elif manifest.precision == "fp32":
        yield Line(name, None, "none", True, "the model is fp32")
    else:
        yield Line(name, None, asked, rules.allow_missing, f"the manifest has no {INT8_LOSS}: export with --check, or allow it in [int8]")


def manifest_lines(rules: Contents, manifest: Manifest) -> Iterator[Line]:
    """Drift calibration, figures and licences."""
    drift = manifest.drift
    if drift is None:
        yield Line("drift calibration", "none", "required" if rules.drift else "none", not rules.drift, "run python -m training.calibrate_drift")
    else:
        note = f"coverage {drift.coverage:.2f} of {drift.edits} edits"
        yield Line("drift violations", round(drift.violation_upper95, 4), f"at most {drift.risk:g}", drift.violation_upper95 <= drift.risk, note)
    missing = [name for name in rules.metrics if name not in manifest.metrics]
    yield Line("metrics in the manifest", f"{len(rules.metrics) - len(missing)} of {len(rules.metrics)}", "all", not missing, ", ".join(missing))
    used = set(manifest.lineage.licence_classes) if manifest.lineage else set()
    strange = used - set(rules.licences)
    yield Line("licences of texts", ", ".join(sorted(used)) or "not recorded", f"only {', '.join(rules.licences)}", not strange, ", ".join(sorted(strange)))


def canary_lines(rules: Canary, languages: Sequence[str], encoder: Encodes) -> Iterator[Line]:
    """Strings whose place is known: sound vectors, orders, paraphrases."""
    unsound = [text for text in rules.vectors if not _sound(encoder, text)]
    found = f"{len(rules.vectors) - len(unsound)} of {len(rules.vectors)}"
    yield Line("canary vectors", found, "all finite, of length one", not unsound, ", ".join(map(repr, unsound)))
    for order in rules.order:
        yield _canary("order", order.lang, order.compared, order.margin, languages, encoder)
    for pair in rules.paraphrase:
        yield _canary("paraphrase", pair.lang, pair.texts, pair.min_cosine, languages, encoder)


def _canary(kind: str, lang: str, texts: Sequence[str], least: float, languages: Sequence[str], encoder: Encodes) -> Line:
    """The cosine of the first two texts, less that of the first and the third where there is one."""
    name, asked = f"canary {kind} {lang}: {texts[0][:40]}", f"at least {least:g}"
    if lang not in languages:
        return Line(name, None, asked, True, f"the model does not claim {lang}")
    one, *others = encoder.encode(texts)
    value = float(one @ others[0]) - sum(float(one @ other) for other in others[1:])
    return Line(name, round(value, 3), asked, value >= least, "cosine" if len(others) == 1 else f"of cosine above {texts[2][:40]!r}")


def _sound(encoder: Encodes, text: str) -> bool:
    try:
        vector = encoder.encode([text])[0]
    except Unembeddable:
        return False
    return bool(abs(float(np.linalg.norm(vector)) - 1.0) < UNIT)  # false for NaN too


def speeds(encoders: Mapping[str, Encodes], texts: Sequence[str]) -> dict[str, Speeds]:
    """Measure encoders, by name, on the same texts and in turns, so that whatever else the machine does meets all of them."""
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts if text.strip()]
    queries = (queries * (QUERIES // len(queries) + 1))[:QUERIES]
    took: dict[str, list[float]] = {name: [] for name in encoders}
    passes: dict[str, list[float]] = {name: [] for name in encoders}
    for encoder in encoders.values():
        encoder.encode(queries[:8])
    for query in queries:
        for name, encoder in encoders.items():
            took[name].append(_seconds(encoder, [query]))
    for _ in range(PASSES):
        for name, encoder in encoders.items():
            passes[name].append(_seconds(encoder, texts))
    return {name: Speeds(float(np.median(took[name])) * 1000, len(texts) / min(passes[name])) for name in encoders}


def _seconds(encoder: Encodes, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    encoder.encode(texts)
    return time.perf_counter() - began
