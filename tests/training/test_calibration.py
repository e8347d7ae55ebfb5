"""What calibration promises: thresholds keep their bound, edits are reproducible, the ordinal head is recovered."""

from random import Random

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("scipy", reason=REASON)
pytest.importorskip("matplotlib", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

from embedder.drift import DriftPredictor  # noqa: E402  # after the skip
from pins.features import PinFeatures  # noqa: E402
from pins.relevance import OrdinalHead  # noqa: E402
from training.calibrate_levels import fit_head  # noqa: E402
from training.drift.cases import Cases  # noqa: E402
from training.drift.edits import EDITS, Corpus, edits_of  # noqa: E402
from training.drift.figures import safe_threshold, upper95  # noqa: E402
from training.drift.model import fit  # noqa: E402

PIN = PinFeatures("p1", title="Two red chairs with one table", description="A small balcony is nice", caption="a balcony with a red chair and a sofa")


@pytest.mark.parametrize(("violations", "trials", "limit"), [(0, 299, 0.00997), (0, 298, 0.01000), (5, 100, 0.10225), (7, 7, 1.0)])
def test_upper_limit_matches_published_values(violations, trials, limit):
    assert upper95(violations, trials) == pytest.approx(limit, abs=1e-4)


def test_a_threshold_stops_before_the_harm():
    predicted = np.arange(4000) / 4000
    harmful = predicted > 0.5
    threshold = safe_threshold(predicted, harmful, 0.01)
    assert threshold is not None
    assert 0.45 < threshold <= 0.51
    assert upper95(int(harmful[predicted <= threshold].sum()), int((predicted <= threshold).sum())) <= 0.01


def test_no_threshold_where_harm_is_everywhere():
    rng = np.random.default_rng(0)
    assert safe_threshold(rng.random(3000), rng.random(3000) < 0.05, 0.01) is None


def test_edits_are_the_same_every_time():
    corpus = Corpus([PIN], ["red chair balcony"])
    once, again = ([(edit.kind, edit.after) for edit in edits_of(Random(3), PIN, corpus, list(EDITS))] for _ in range(2))
    assert once == again
    assert len(once) > 0.8 * len(EDITS)
    assert all(edit.before != edit.after for edit in edits_of(Random(3), PIN, corpus, list(EDITS)))


def test_a_colour_edit_changes_the_colour():
    pin = PinFeatures("p1", title="A sofa, yellow, and a lamp")
    for seed in range(200):
        for edit in edits_of(Random(seed), pin, Corpus([PIN], ["sofa"]), ["colour"]):
            assert "yellow" not in edit.after.title
            assert edit.after.title.endswith(", and a lamp")


def test_colours_and_negations_are_harmful_however_small():
    cases = Cases(np.array(["colour", "negation", "plural", "plural"]), np.arange(4), [((), ())] * 4, np.array([0.0, 0.0, 0.019, 0.021]))
    assert cases.harmful(0.02).tolist() == [True, True, False, True]


def test_the_fitted_arrays_rank_edits(monkeypatch):
    """Tokens 10-19 move the vector, 20-29 do not: the fitted predictor must tell them apart, and refuse unseen ones."""
    monkeypatch.setattr("training.drift.model.EPOCHS", 60)
    rng = np.random.default_rng(0)
    pairs, drift = [], []
    for _ in range(1500):
        text = [1, *rng.integers(10, 40, 12).tolist(), 2]
        token = int(rng.integers(10, 30))
        pairs.append((text, [*text[:5], token, *text[5:]]))
        drift.append(0.1 if token < 20 else 0.001)
    predictor = DriftPredictor.from_arrays(**fit(rng.normal(size=(60, 16)).astype(np.float32), pairs, np.array(drift), never={15}))
    text = [1, *range(30, 40), 2]
    heavy, light = (np.mean([predictor.predict(text, [*text[:4], token, *text[4:]]) for token in tokens]) for tokens in ((11, 12, 13), (21, 22, 23)))
    assert heavy > 5 * light
    assert predictor.predict(text, [*text, 15]) == predictor.predict(text, [*text, 55]) == 2.0


def test_the_ordinal_head_is_recovered():
    truth = OrdinalHead(9.0, (1.5, 3.0, 4.5, 6.0))
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-0.1, 1.0, 20_000)
    grades = (rng.random(20_000)[:, None] > truth.probabilities(cosines).cumsum(axis=1)).sum(axis=1).clip(0, 4)
    head = fit_head(cosines, grades)
    assert head.scale == pytest.approx(truth.scale, rel=0.05)
    assert np.allclose(head.thresholds, truth.thresholds, atol=0.25)
