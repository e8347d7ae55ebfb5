"""The drift predictor on hand-made arrays, and the shipped one on sentences anybody can judge. No torch."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedder.artifact import open_artifact
from embedder.drift import FARTHEST, FEATURES, Change, DriftPredictor, static_distance
from everpin.settings import SHIPPED_MODEL
from pins.errors import ArtifactError

NEVER, UNSEEN, VOCABULARY = 7, 9, 40
IDS = st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=60)


def arrays():
    rng = np.random.default_rng(0)
    rows = np.arange(VOCABULARY, dtype=np.int32)
    rows[[NEVER, UNSEEN]] = -1
    return {
        "rows": rows,
        "vectors": rng.normal(size=(VOCABULARY + 1, 6)).astype(np.float16),
        "impact": rng.random(VOCABULARY + 1).astype(np.float32),
        "low": np.full(FEATURES, -12, np.float32),
        "high": np.full(FEATURES, 6, np.float32),
        "hidden": np.abs(rng.normal(size=(FEATURES, 5))).astype(np.float32) / 10,
        "hidden_bias": np.ones(5, np.float32),
        "output": np.abs(rng.normal(size=5)).astype(np.float32),
        "output_bias": np.float32(-3),
    }


@pytest.fixture(scope="module")
def predictor():
    return DriftPredictor.from_arrays(**arrays())


def test_same_tokens_do_not_drift(predictor):
    assert predictor.predict([1, 2, 3], (1, 2, 3)) == 0.0


@given(IDS, IDS)
def test_a_prediction_is_a_cosine_distance(old, new):
    drift = DriftPredictor.from_arrays(**arrays()).predict(old, new)
    assert 0.0 <= drift <= FARTHEST
    assert (drift == 0.0) == (old == new)


@pytest.mark.parametrize("token", [NEVER, UNSEEN])
@pytest.mark.parametrize("swap", [False, True], ids=["comes", "leaves"])
def test_a_token_that_is_never_cosmetic(predictor, token, swap):
    pair = ([1, 2, 3], [1, 2, token, 3])
    assert predictor.predict(*(reversed(pair) if swap else pair)) == FARTHEST


def test_a_never_cosmetic_token_that_stays_is_no_matter(predictor):
    assert predictor.predict([1, NEVER, 3, 4], [1, NEVER, 5, 4]) < FARTHEST


def test_tokens_in_another_order_drift(predictor):
    assert predictor.predict([1, 2, 3, 4, 5], [1, 4, 3, 2, 5]) > 0.0


@given(IDS, IDS)
def test_a_change_finds_what_left_and_what_came(old, new):
    change = Change(np.array(old), np.array(new))
    gone, added = Counter(old) - Counter(new), Counter(new) - Counter(old)
    assert Counter(change.tokens.tolist()) == gone + added
    end = len(old) - change.start - len(change.old)
    assert old[: change.start] == new[: change.start]
    assert old[len(old) - end :] == new[len(new) - end :]
    assert [*old[: change.start], *change.new.tolist(), *old[len(old) - end :]] == new
    assert np.isfinite(change.features(0.0, 0.0)).all()
    assert change.features(0.0, 0.0).shape == (FEATURES,)


def test_static_distance_of_equal_sums_is_nothing():
    assert static_distance(np.ones(4, np.float32), np.ones(4, np.float32)) == 0.0
    assert static_distance(np.zeros(4, np.float32), np.zeros(4, np.float32)) == 0.0


def test_arrays_survive_the_file(tmp_path, predictor):
    np.savez_compressed(tmp_path / "drift.npz", **arrays())
    assert DriftPredictor.load(tmp_path / "drift.npz").predict([1, 2, 3], [1, 2, 4]) == predictor.predict([1, 2, 3], [1, 2, 4])


def test_a_missing_array_is_named(tmp_path):
    whole = arrays()
    del whole["impact"]
    np.savez_compressed(tmp_path / "drift.npz", **whole)
    with pytest.raises(ArtifactError, match="impact"):
        DriftPredictor.load(tmp_path / "drift.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"not a zip"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "drift.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"drift\.npz"):
        DriftPredictor.load(tmp_path / "drift.npz")


@pytest.fixture(scope="module")
def shipped():
    artifact = open_artifact(SHIPPED_MODEL)
    assert artifact.drift is not None
    predictor, tokenizer = DriftPredictor.load(artifact.drift), Tokenizer.from_file(str(artifact.tokenizer))
    return artifact.manifest.drift, lambda old, new: predictor.predict(tokenizer.encode(old).ids, tokenizer.encode(new).ids)


PIN = "A small balcony garden with herbs in wooden boxes. two red chairs beside a table on a sunny balcony. balcony ideas, herb garden"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("red chairs", "blue chairs"),
        ("with herbs", "without herbs"),
        ("on a sunny", "not on a sunny"),
        ("A small balcony garden with herbs in wooden boxes", "How to change the oil of a motorcycle"),
    ],
)
def test_the_shipped_predictor_embeds_what_matters(shipped, old, new):
    bound, drift = shipped
    assert drift(PIN, PIN.replace(old, new)) > bound.threshold


def test_the_shipped_predictor_skips_something(shipped):
    bound, drift = shipped
    pin = (
        "A small balcony garden with herbs in wooden boxes. two red chairs beside a table on a sunny balcony with plants on the wall. "
        "Balcony ideas, Small gardens, Herbs. balcony herb garden, small balcony ideas. The garden on the fourth floor. "
        "We built the boxes from an old pallet in a weekend, and the basil has not stopped growing since the first week of May"
    )
    edits = [("in wooden boxes", "in the wooden boxes"), ("beside a table", "beside the table"), ("from an old pallet", "from old pallet")]
    assert all(drift(pin, pin.replace(old, new)) <= bound.threshold for old, new in edits)
    assert bound.violation_upper95 <= bound.risk
