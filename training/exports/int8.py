"""Weight-only int8: a quarter of the size, computed in fp32.

Every large weight becomes int8 with one scale per block of 32 and a DequantizeLinear in front (opset 21). ONNX Runtime
folds these nodes once, at load, when the session config entry `session.disable_quant_qdq` is "1": it then runs as fast as the
fp32 graph. Activations are never quantised: per-tensor dynamic int8 cost this student 5 % cosine (training/LOG.md).

Blocks of a MatMul weight run along its input or its output side, whichever moves that layer's output less on random token
sequences: where a few input channels carry most of the signal, each needs scales of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import helper, numpy_helper

BLOCK = 32
MIN_ELEMENTS = 4096
"""Smaller weights (biases, norms) stay fp32: they weigh nothing."""
SEQUENCES, LENGTH = 32, 24
"""Random token sequences that show each layer's typical input."""

Matrix = NDArray[np.float32]


def quantise_blocks(weight: Matrix, axis: int, block: int) -> tuple[NDArray[np.int8], Matrix]:
    """Symmetric int8 in blocks along `axis`: values of the weight's shape, and scales with that axis divided by `block`."""
    moved = np.moveaxis(weight, axis, -1)
    blocks = moved.reshape(*moved.shape[:-1], -1, block)
    scales = np.abs(blocks).max(axis=-1) / 127.0
    scales = np.where(scales == 0, 1.0, scales).astype(np.float32)
    values = np.clip(np.rint(blocks / scales[..., None]), -127, 127).astype(np.int8).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(values, -1, axis)), np.ascontiguousarray(np.moveaxis(scales, -1, axis))


def dequantise_blocks(values: NDArray[np.int8], scales: Matrix, axis: int) -> Matrix:
    """What the runtime computes with: the inverse of `quantise_blocks`."""
    return np.asarray(values * np.repeat(scales, values.shape[axis] // scales.shape[axis], axis=axis), np.float32)


def quantise_graph(source: Path, target: Path) -> int:
    """Write `source` with int8 weights to `target`; returns how many weights were quantised."""
    model = onnx.load(source)
    users = _users(model.graph)
    if not users:
        onnx.save(model, target)
        return 0
    inputs = _typical_inputs(model, sorted({node.input[0] for node in users.values() if node.op_type == "MatMul"}))
    kept: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.name not in users:
            kept.append(tensor)
            continue
        user, weight = users[tensor.name], numpy_helper.to_array(tensor)
        axis = 1 if user.op_type == "Gather" else _better_axis(weight, inputs[user.input[0]])
        values, scales = quantise_blocks(weight, axis, block_of(weight, axis))
        names = [f"{tensor.name}_int8", f"{tensor.name}_scales"]
        kept += [numpy_helper.from_array(values, names[0]), numpy_helper.from_array(scales, names[1])]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis, block_size=block_of(weight, axis)))
    _replace(model.graph, kept, nodes)
    onnx.checker.check_model(model)
    onnx.save(model, target)
    return len(users)


def block_of(weight: Matrix, axis: int) -> int:
    """The block length along `axis`: BLOCK, or the whole axis where BLOCK does not divide it."""
    return BLOCK if weight.shape[axis] % BLOCK == 0 else weight.shape[axis]


def _better_axis(weight: Matrix, inputs: Matrix) -> int:
    """The axis of blocks that changes `inputs @ weight` less."""
    changes = []
    for axis in (0, 1):
        restored = dequantise_blocks(*quantise_blocks(weight, axis, block_of(weight, axis)), axis)
        changes.append(float(np.square(inputs @ (restored - weight)).mean()))
    return int(np.argmin(changes))


def _typical_inputs(model: onnx.ModelProto, names: list[str]) -> dict[str, Matrix]:
    """What flows into each MatMul for random tokens: float32 of shape (rows, channels) by tensor name."""
    if not names:
        return {}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    words = next(node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[1] == "input_ids")
    vocabulary = next(tensor.dims[0] for tensor in model.graph.initializer if tensor.name == words)
    ids = np.random.default_rng(0).integers(0, vocabulary, (SEQUENCES, LENGTH))
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    outputs = session.run(names, {entry.name: feeds[entry.name] for entry in session.get_inputs()})
    return {name: output.reshape(-1, output.shape[-1]) for name, output in zip(names, outputs, strict=True)}


def _users(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The weights worth quantising, each with the MatMul or the embedding Gather that reads it. A single column is somebody's scales."""
    large = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2 and tensor.dims[1] > 1 and np.prod(tensor.dims) >= MIN_ELEMENTS}
    large &= {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    place = {"MatMul": 1, "Gather": 0}
    return {node.input[place[node.op_type]]: node for node in graph.node if node.op_type in place and node.input[place[node.op_type]] in large}


def _replace(graph: onnx.GraphProto, initializers: list[onnx.TensorProto], first_nodes: list[onnx.NodeProto]) -> None:
    nodes = first_nodes + list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(initializers)
    graph.node.extend(nodes)
