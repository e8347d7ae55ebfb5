"""int8 arithmetic in parts: ranges of activations, the choice of layers, the rewritten graph, the comparison with fp32."""

from types import SimpleNamespace

import numpy as np
import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("onnx", reason=REASON)

import onnx  # noqa: E402  after the skip
import onnx.parser  # noqa: E402
import onnxruntime as ort  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from pins.metrics import Interval  # noqa: E402
from tests.training.export_toys import write_data  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.exports.checks import Compared, Promise, calibration_texts, compare, overlap  # noqa: E402
from training.exports.int8 import dequantise_blocks, quantise_blocks, quantise_graph  # noqa: E402
from training.exports.int8_choice import most_that_hold  # noqa: E402
from training.exports.int8_compute import int8_rows, int8_tables, integer_products, linears, weights_of  # noqa: E402
from training.exports.int8_ranges import SAMPLE, Seen, fit_range, observe, quantise_columns  # noqa: E402

VOCABULARY, WIDTH = 200, 32
GRAPH = """
<ir_version: 10, opset_import: ["": 21]>
tiny (int64[batch, length] input_ids, int64[batch, length] attention_mask) => (float[batch, length, 96] out, float[batch, 160] after) {
  rows = Gather (table, input_ids)
  one = MatMul (rows, first)
  biased = Add (one, bias)
  two = MatMul (rows, second)
  both = Concat <axis = 2> (biased, two)
  out = Mul (both, factor)
  mask = Cast <to = 1> (attention_mask)
  axis = Constant <value = int64[1] {1}> ()
  weights = Unsqueeze (mask, axis)
  sums = MatMul (weights, rows)
  pooled = Squeeze (sums, axis)
  after = MatMul (pooled, third)
}
"""


def graph(seed=0):
    """Two layers on one tensor, one with a bias; a third behind the pooling; a table of 200 tokens whose channel 5 is wide."""
    chance = np.random.default_rng(seed)
    weights = {"table": chance.normal(size=(VOCABULARY, WIDTH)), "first": chance.normal(size=(WIDTH, 160)), "bias": chance.normal(size=160)}
    weights |= {"second": chance.normal(size=(WIDTH, 160)), "third": chance.normal(size=(WIDTH, 160)), "factor": np.ones(1)}
    weights["table"][:, 5] *= 8
    model = onnx.parser.parse_model(GRAPH.replace("96] out", "320] out"))
    model.graph.initializer.extend(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items())
    return model


def feeds(seed=1, shape=(6, 9)):
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, shape)
    mask = np.ones_like(ids)
    mask[:, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def run(model, given):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, given)


def relative(found, truth):
    return float(np.sqrt(np.square(found - truth).mean() / np.square(truth).mean()))


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_come_back_within_half_a_step(axis):
    weight = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    values, scales = quantise_blocks(weight, axis, 32)
    assert values.shape == weight.shape
    assert scales.shape[axis] == weight.shape[axis] // 32
    error = np.abs(dequantise_blocks(values, scales, axis) - weight)
    assert (error <= np.repeat(scales, 32, axis=axis) / 2 + 1e-6).all()


def test_columns_and_rows_have_a_scale_each():
    weight = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32) * np.geomspace(0.01, 100, 96, dtype=np.float32)
    values, scales = quantise_columns(weight)
    assert relative(values * scales, weight) < 0.01
    assert (np.abs(values * scales - weight).max(axis=0) / np.abs(weight).max(axis=0) < 0.3).all(), "clipped values may move, but not far"
    rows, steps = int8_rows(weight.T)
    assert relative(rows * steps[:, None], weight.T) < 0.01
    assert quantise_columns(np.zeros((8, 2), np.float32))[0].tolist() == [[0, 0]] * 8


def test_what_flows_through_a_tensor_is_seen_without_padding():
    model = graph()
    given = feeds()
    given["input_ids"][:, 6:] = 7
    table = next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "table").copy()
    table[7] = 1e6
    for tensor in model.graph.initializer:
        if tensor.name == "table":
            tensor.CopyFrom(numpy_helper.from_array(table, "table"))
    given["input_ids"][:, :6][given["input_ids"][:, :6] == 7] = 8
    seen = observe(model, ["rows", "pooled"], [given, feeds(2) | {"attention_mask": given["attention_mask"]}][:1])
    assert set(seen) == {"rows"}, "what is behind the pooling is no tensor of tokens"
    assert seen["rows"].high.max() < 1e5
    assert seen["rows"].sample.shape == (36, WIDTH)


def test_a_sample_is_bounded_and_the_extremes_are_not_sampled():
    batches = [feeds(seed, (80, 9)) for seed in range(8)]
    seen = observe(graph(), ["rows"], batches)["rows"]
    assert len(seen.sample) == SAMPLE
    table = next(numpy_helper.to_array(tensor) for tensor in graph().graph.initializer if tensor.name == "table")
    assert seen.high == pytest.approx(table.max(axis=0)), "every token occurs"


def test_wide_channels_are_divided_only_where_it_pays():
    chance = np.random.default_rng(0)
    even = chance.normal(size=(500, 64)).astype(np.float32)
    wide = even.copy()
    wide[:, 9] *= 60
    weight = chance.normal(size=(64, 160)).astype(np.float32)
    ranges = [fit_range(Seen(tokens, tokens.min(axis=0), tokens.max(axis=0)), weight) for tokens in (even, wide)]
    assert ranges[0].divide is None
    assert ranges[1].divide is not None
    assert ranges[1].divide.argmax() == 9
    assert all(0 <= found.zero <= 255 and found.error < 0.01 for found in ranges)
    assert fit_range(Seen(wide, wide.min(axis=0), wide.max(axis=0)), weight[:, :32]).divide is None, "a pass over a wide input costs too much"


def test_a_range_clips_rare_values_where_the_rest_gains():
    chance = np.random.default_rng(0)
    tokens = chance.normal(size=(2000, 16)).astype(np.float32)
    tokens[0] = 30.0  # one token in which every channel is far out: dividing channels cannot help
    found = fit_range(Seen(tokens, tokens.min(axis=0), tokens.max(axis=0)), chance.normal(size=(16, 16)).astype(np.float32))
    assert found.scale * 255 < 0.6 * (30 - tokens.min())


def test_integer_layers_give_nearly_what_fp32_gives_and_leave_the_rest():
    model = graph()
    layers = linears(model)
    assert {name: len(some) for name, some in layers.items()} == {"rows": 2, "pooled": 1}
    assert [layer.bias for layer in layers["rows"]] == ["bias", ""]
    seen = observe(model, ["rows"], [feeds(seed) for seed in range(4)])
    made = integer_products(model, {"rows": fit_range(seen["rows"], weights_of(model, layers["rows"]))})
    nodes = [node.op_type for node in made.graph.node]
    assert nodes.count("QuantizeLinear") == 1, "layers of one tensor share it"
    assert nodes.count("MatMulIntegerToFloat") == 2
    names = {tensor.name for tensor in made.graph.initializer}
    assert names.isdisjoint({"first", "second"})
    assert "third" in names
    given = feeds(9)
    for found, truth in zip(run(made, given), run(model, given), strict=True):
        assert relative(found, truth) < 0.02
    assert model.graph.node[1].op_type == "MatMul", "the given graph is left as it was"


def test_tables_stay_int8_and_are_made_float_by_row():
    model, given = graph(), feeds(3)
    made = int8_tables(model)
    stored = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert stored["table_int8"] == onnx.TensorProto.INT8
    assert "table" not in stored
    for found, truth in zip(run(made, given), run(model, given), strict=True):
        assert relative(found, truth) < 0.02


def test_what_is_left_is_stored_as_int8_weights(tmp_path):
    model = graph()
    layers = linears(model)
    seen = observe(model, ["rows"], [feeds(seed) for seed in range(4)])
    onnx.save(integer_products(int8_tables(model), {"rows": fit_range(seen["rows"], weights_of(model, layers["rows"]))}), tmp_path / "rest.onnx")
    assert quantise_graph(tmp_path / "rest.onnx", tmp_path / "model.onnx") == 1
    assert relative(run(onnx.load(tmp_path / "model.onnx"), feeds(9))[1], run(model, feeds(9))[1]) < 0.03


def test_a_graph_without_large_weights_is_left_as_it_is(tmp_path):
    onnx.save(onnx.parser.parse_model(GRAPH.replace("96] out", "320] out")), tmp_path / "plain.onnx")
    assert quantise_graph(tmp_path / "plain.onnx", tmp_path / "model.onnx") == 0
    assert (tmp_path / "model.onnx").exists()


HARM = {"a": 0.001, "b": 0.02, "c": 0.002, "d": 0.004}


@pytest.mark.parametrize(
    ("required", "expected"),
    [(0.9, ["a", "b", "c", "d"]), (0.99, ["a", "c", "d"]), (0.9955, ["a", "c"]), (0.9985, ["a"]), (0.9995, [])],
    ids=["all hold", "without the worst", "two", "one", "none"],
)
def test_the_least_harmful_layers_are_kept(required, expected):
    assert most_that_hold(list(HARM), lambda names: 1 - sum(HARM[name] for name in names), required) == expected


def test_nothing_is_measured_twice_where_all_layers_hold():
    asked = []
    most_that_hold(list(HARM), lambda names: asked.append(names) or 1.0, 0.99)
    assert len(asked) == 1


@pytest.mark.parametrize(("second", "share"), [([[3, 2, 1]], 1.0), ([[9, 2, 3]], 1.0)])
def test_overlap_of_fewer_than_ten_is_of_all(second, share):
    assert overlap(np.array([[1.0, 2, 3]]), np.array(second, float)) == share


def test_overlap_is_the_mean_share_of_common_columns():
    first = np.arange(24.0)[None].repeat(2, axis=0)
    second = np.stack([first[0], np.roll(first[0], 5)])
    assert overlap(first, second) == pytest.approx((1.0 + 0.5) / 2)


def encoder(noise):
    """Unit vectors by a hash of the letters, moved by some noise."""
    table = np.random.default_rng(0).normal(size=(128, 16))

    def encode(texts):
        rows = np.array([sum((table[ord(letter) % 128] for letter in text), np.zeros(16)) for text in texts])
        rows += noise * np.random.default_rng(1).normal(size=rows.shape)
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)

    return SimpleNamespace(encode=encode, dimension=16)


def test_the_same_student_agrees_with_itself(tmp_path):
    data = read(write_data(tmp_path / "toy"))
    found = compare(encoder(0.0), encoder(0.0), data)
    assert found.metrics()["check_ndcg@20_minus_fp32"] == 0
    assert found.top10 == 1
    assert found.cosines.min() == pytest.approx(1, abs=1e-5)
    assert found.broken(Promise(0.9, 0.9, 0.99, 0.9, 0.002)) == []


def test_a_student_that_strays_is_told_apart(tmp_path):
    data = read(write_data(tmp_path / "toy"))
    found = compare(encoder(20.0), encoder(0.0), data)
    assert found.cosines.mean() < 0.9
    assert found.top10 < 0.95
    assert found.difference.mean != 0


LIMITS = Promise(golden_least=0.9, golden_mean=0.99, cosine_mean=0.99, top10=0.8, ndcg_loss=0.002)


@pytest.mark.parametrize(
    ("cosine", "top10", "loss", "said"),
    [
        (0.995, 0.9, 0.001, []),
        (0.98, 0.9, 0.0, ["mean cosine to fp32 is 0.98000, least 0.99"]),
        (0.995, 0.7, 0.0, ["the first ten pins agree with fp32 by 0.700, least 0.8"]),
        (0.995, 0.9, 0.003, ["nDCG@20 is 0.0030 below fp32, most 0.002"]),
        (0.995, 0.9, -0.01, []),
        (0.5, 0.1, 0.1, ["mean cosine", "the first ten", "nDCG@20"]),
    ],
)
def test_every_broken_promise_is_said(cosine, top10, loss, said):
    found = Compared(np.full(4, cosine, np.float32), top10, 0.8, Interval(-loss, -loss - 0.01, 0.01 - loss), 4).broken(LIMITS)
    assert len(found) == len(said)
    assert all(words in sentence for words, sentence in zip(said, found, strict=True))


def test_data_without_any_gain_cannot_compare_rankings(tmp_path):
    folder = write_data(tmp_path / "toy", grade=lambda place: place % 2)
    data = read(folder)
    flat = data.judged.where(data.judged.grade == 0)
    object.__setattr__(data, "judged", flat)
    with pytest.raises(DataError, match="no judged query has a pin of grade 1"):
        compare(encoder(0.0), encoder(0.0), data)


def test_ranges_are_taken_from_train_queries_and_pins(tmp_path):
    data = read(write_data(tmp_path / "toy"))
    texts = calibration_texts(data, 7)
    assert len(texts) == 4 + 24
    assert not {query.text for query in data.queries if query.split == "dev"} & set(texts)
    assert calibration_texts(data, 7) == texts
