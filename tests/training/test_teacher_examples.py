"""What a teacher learns from: soft targets, weights, held-out groups, batches, losses. Each against values worked out by hand."""

from math import exp, log

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from tests.training.teacher_toys import recipe, write_data  # noqa: E402  # after the skip
from training.data import DataError, read  # noqa: E402
from training.teachers.config import Loss  # noqa: E402
from training.teachers.examples import Examples, held_out, held_out_examples, own_pins, plan, positions, soft_targets, training_examples  # noqa: E402
from training.teachers.losses import expected, level_loss, list_loss, loss, pair_loss  # noqa: E402


@pytest.mark.parametrize(
    ("position", "smoothing", "target"),
    [
        (0.0, 0.0, [1, 0, 0, 0, 0]),
        (2.0, 0.0, [0, 0, 1, 0, 0]),
        (2.3, 0.0, [0, 0, 0.7, 0.3, 0]),
        (3.5, 0.0, [0, 0, 0, 0.5, 0.5]),
        (4.9, 0.0, [0, 0, 0, 0, 1]),
        (-1.0, 0.0, [1, 0, 0, 0, 0]),
        (2.0, 0.5, [0, 0.2, 0.6, 0.2, 0]),
        (4.0, 0.5, [0, 0, 0, 0.25, 0.75]),
        (2.5, 1.0, [0, 0.125, 0.375, 0.375, 0.125]),
    ],
)
def test_soft_targets(position, smoothing, target):
    assert soft_targets(np.array([position]), 5, smoothing)[0] == pytest.approx(target, abs=1e-6)


def test_the_largest_soft_level_is_the_rounded_grade():
    raw = np.linspace(0, 5, 501)
    raw = raw[np.abs(raw % 1 - 0.5) > 1e-6]
    for smoothing in (0.0, 0.25, 1.0):
        targets = soft_targets(raw, 5, smoothing)
        assert targets.sum(axis=1) == pytest.approx(1.0)
        assert (targets.argmax(axis=1) == np.minimum(4, np.floor(raw + 0.5))).all()


@pytest.mark.parametrize(
    ("grade", "raw", "levels", "places"),
    [
        ([0, 3, 4], [0.4, 3.2, 5.0], 5, [0.4, 3.2, 4.0]),  # cxc_pins: raw rounds to the grade
        ([0, 1, 2], [-1.0, 0.0, 1.0], 3, [0, 1, 2]),  # commons: another axis
        ([0, 3], [np.nan, np.nan], 4, [0, 3]),  # esci_fraction: no raw scores
        ([2, 3], [np.nan, 3.4], 5, [2.0, 3.4]),
    ],
)
def test_positions_on_the_grade_axis(grade, raw, levels, places):
    assert positions(np.array(grade), np.array(raw), levels) == pytest.approx(places)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read(write_data(tmp_path_factory.mktemp("toy") / "cxc_pins"))


def test_weights_follow_the_source_and_zero_leaves_rows_out(data):
    everything = training_examples(data, recipe(), "cxc_pins", set())
    chosen = training_examples(data, recipe(weights={"sits": 3.0, "sis": 0.0, "direct": 2.0}), "cxc_pins", set())
    assert set(everything.weight.tolist()) == {1.0}
    assert sorted(set(chosen.weight.tolist())) == [1.0, 2.0, 3.0]
    assert (chosen.weight == 2.0).sum() == len(data.direct_for_training()) > 0
    assert len(chosen) == len(everything) - (data.pairs("train", {"en"}).source == "sis").sum()
    with pytest.raises(DataError, match="no row left"):
        training_examples(data, recipe(weights=dict.fromkeys(("sis", "sits", "sits_own", "direct"), 0.0)), "cxc_pins", set())


def test_held_out_groups_share_nothing_with_training(data):
    out = held_out(data, 0.3, 7)
    assert out
    assert out == held_out(data, 0.3, 7) != held_out(data, 0.3, 8)
    assert out <= held_out(data, 0.6, 7)
    train, held = training_examples(data, recipe(), "cxc_pins", out), held_out_examples(data, recipe(), "cxc_pins", out)
    hidden = {train.texts[row] for row in set(train.pin.tolist())} & {
        " ".join([data.pins[pin].title + ".", data.pins[pin].caption]) for pin in own_pins(data, out)
    }
    assert not hidden
    asked = {query.text for query in data.queries if query.group in out}
    assert not asked & set(train.queries)
    assert set(held.queries) & asked
    dev = {query.text for query in data.queries if query.split == "dev"}
    assert not dev & {*train.queries, *held.queries}
    assert not set(zip(train.queries, train.pins, strict=True)) & set(zip(held.queries, held.pins, strict=True))


def test_rows_carry_their_texts(data):
    rows = training_examples(data, recipe(), "cxc_pins", set())
    pairs = data.pairs("train", {"en"})
    assert rows.queries[0] == data.queries[pairs.query[0]].text
    assert rows.pins[0] == f"{data.pins[pairs.pin[0]].title}. {data.pins[pairs.pin[0]].caption}"
    assert rows.grade[: len(pairs)].tolist() == pairs.grade.tolist()


def rows(sizes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    count = len(group)
    return Examples("x", ["a"], np.zeros(count, int), np.zeros(count, int), group, np.zeros(count, int), np.ones(count, np.float32), np.ones((count, 5)))


def test_a_plan_shows_every_row_once_and_never_splits_a_query():
    many = rows([3, 1, 9, 4, 2, 7, 5] * 5)
    batches = plan(many, 10, True, 7, 0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(many)))
    assert max(map(len, batches)) <= 10
    homes = [set(many.group[batch].tolist()) for batch in batches]
    assert sum(map(len, homes)) == 35
    assert [b.tolist() for b in plan(many, 10, True, 7, 0)] == [b.tolist() for b in batches]
    assert [b.tolist() for b in plan(many, 10, True, 7, 1)] != [b.tolist() for b in batches]
    apart = plan(many, 10, False, 7, 0)
    assert [len(batch) for batch in apart[:-1]] == [10] * (len(apart) - 1)
    assert sorted(np.concatenate(apart).tolist()) == list(range(len(many)))


def test_a_query_larger_than_a_batch_stays_whole():
    assert sorted(map(len, plan(rows([30, 4, 4]), 10, True, 7, 0))) == [8, 30]


def test_level_loss_is_the_weighted_cross_entropy():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.1, 0.9]]))
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    by_hand = (1 * -log(0.5) + 3 * -(0.5 * log(0.1) + 0.5 * log(0.9))) / 4
    assert float(level_loss(logits, targets, torch.tensor([1.0, 3.0]))) == pytest.approx(by_hand, rel=1e-6)


def test_list_loss_is_the_cross_entropy_of_two_softmaxes_per_query():
    scores, truth, group = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 3.0, 1.0]), torch.tensor([0, 0, 1])
    likely = [exp(1) / (exp(1) + exp(2)), exp(2) / (exp(1) + exp(2))]
    wanted = [1 / (1 + exp(3)), exp(3) / (1 + exp(3))]
    by_hand = -(wanted[0] * log(likely[0]) + wanted[1] * log(likely[1])) / 2  # the query of one candidate adds nothing
    assert float(list_loss(scores, truth, group[:, None] == group[None], 1.0)) == pytest.approx(by_hand, rel=1e-5)


def test_pair_loss_weighs_an_order_by_what_it_costs_in_ndcg():
    scores, truth = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 2.0])
    same = torch.ones(2, 2, dtype=torch.bool)
    cost = 3 * (1 - 1 / np.log2(3)) / 3
    assert float(pair_loss(scores, truth, same, 1.0)) == pytest.approx(cost * log(1 + exp(1)), rel=1e-5)
    assert float(pair_loss(scores.flip(0), truth, same, 1.0)) == pytest.approx(cost * log(1 + exp(-1)), rel=1e-5)
    assert float(pair_loss(scores, truth, torch.eye(2, dtype=torch.bool), 1.0)) == 0.0


def test_the_losses_are_added_by_their_weights():
    torch.manual_seed(0)
    logits, targets = torch.log_softmax(torch.randn(6, 5), 1), torch.softmax(torch.randn(6, 5), 1)
    weight, group = torch.rand(6), torch.tensor([0, 0, 0, 1, 1, 1])
    same = group[:, None] == group[None]
    scores, truth = expected(logits.exp()), expected(targets)
    whole = 2 * level_loss(logits, targets, weight) + 0.5 * list_loss(scores, truth, same, 0.7) + 0.25 * pair_loss(scores, truth, same, 0.7)
    assert float(loss(logits, targets, weight, group, Loss(2.0, 0.5, 0.25, 0.7))) == pytest.approx(float(whole), rel=1e-6)
