"""int8 arithmetic: the products of linear layers are computed in integers, a third of fp32's time on processors with VNNI.

Weights are int8 with one scale per output, activations uint8 with a fixed range (`training.exports.int8_ranges`), sums int32; norms, softmax
and GELU stay fp32. Embedding tables are int8 with one scale per row and stay so in memory. Everything else, such as the layers
that may not lose anything, is stored as int8 and computed in fp32 (`training.exports.int8`).

The operator is ONNX Runtime's MatMulIntegerToFloat, written out so that nothing depends on what an optimiser recognises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.exports.int8 import MIN_ELEMENTS, quantise_blocks
from training.exports.int8_ranges import Range, quantise_columns

MICROSOFT = "com.microsoft"


@dataclass(frozen=True, slots=True)
class Linear:
    """A MatMul with a constant weight (inputs, outputs) and the Add of its bias; None where it has none."""

    product: onnx.NodeProto
    add: onnx.NodeProto | None

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return str(self.product.input[1])

    @property
    def bias(self) -> str:
        """Name of the bias, empty where there is none."""
        return "" if self.add is None else next(str(name) for name in self.add.input if name != self.product.output[0])

    @property
    def output(self) -> str:
        """Name of the tensor that the layer makes."""
        return str((self.add or self.product).output[0])


def linears(model: onnx.ModelProto) -> dict[str, list[Linear]]:
    """The large linear layers, by the tensor that they read: layers of one tensor share its range."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, list[Linear]] = {}
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is not None and len(weight.dims) == 2 and np.prod(weight.dims) >= MIN_ELEMENTS:
            found.setdefault(str(node.input[0]), []).append(Linear(node, _bias_add(node, readers, constants)))
    return found


def _bias_add(node: onnx.NodeProto, readers: Mapping[str, list[onnx.NodeProto]], constants: Collection[str]) -> onnx.NodeProto | None:
    after = readers.get(node.output[0], [])
    if len(after) != 1 or after[0].op_type != "Add" or not any(name in constants for name in after[0].input):
        return None
    return after[0]


def weights_of(model: onnx.ModelProto, layers: Collection[Linear]) -> NDArray[np.float32]:
    """The weights of layers that read one tensor, side by side: float32 (inputs, all outputs)."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    return np.concatenate([numpy_helper.to_array(constants[layer.weight]) for layer in layers], axis=1)


def integer_products(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> onnx.ModelProto:
    """A copy of the graph in which the layers that read a tensor of `ranges` compute in integers."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    rewrites = {layer.product.output[0]: (name, layer) for name, layers in linears(made).items() if name in ranges for layer in layers}
    dropped = {layer.output for _, layer in rewrites.values() if layer.add is not None}
    nodes: list[onnx.NodeProto] = []
    quantised: set[str] = set()
    for node in made.graph.node:
        if node.output[0] in rewrites:
            name, layer = rewrites[node.output[0]]
            if name not in quantised:
                nodes += _quantise(made.graph, name, ranges[name])
                quantised.add(name)
            nodes.append(_product(made.graph, name, layer, constants[layer.weight], ranges[name].divide))
        elif node.output[0] not in dropped:
            nodes.append(node)
    _finish(made, nodes)
    return made


def _quantise(graph: onnx.GraphProto, name: str, chosen: Range) -> list[onnx.NodeProto]:
    graph.initializer.append(numpy_helper.from_array(np.array(chosen.scale, np.float32), f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(chosen.zero, np.uint8), f"{name}_zero"))
    nodes, source = [], name
    if chosen.divide is not None:
        source = f"{name}_divided"
        graph.initializer.append(numpy_helper.from_array((1 / chosen.divide).astype(np.float32), f"{name}_factor"))
        nodes.append(helper.make_node("Mul", [name, f"{name}_factor"], [source]))
    return [*nodes, helper.make_node("QuantizeLinear", [source, f"{name}_scale", f"{name}_zero"], [f"{name}_uint8"])]


def _product(graph: onnx.GraphProto, name: str, layer: Linear, weight: NDArray[np.float32], divide: NDArray[np.float32] | None) -> onnx.NodeProto:
    values, scales = quantise_columns(weight if divide is None else weight * divide[:, None])
    names = [f"{layer.output}_int8", f"{layer.output}_scales"]
    graph.initializer.extend([numpy_helper.from_array(values, names[0]), numpy_helper.from_array(scales, names[1])])
    inputs = [f"{name}_uint8", names[0], f"{name}_scale", names[1], f"{name}_zero", "", layer.bias]
    return helper.make_node("MatMulIntegerToFloat", inputs if layer.bias else inputs[:5], [layer.output], domain=MICROSOFT)


def int8_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the graph whose large tables that are looked up by token are int8, one scale per row, made float row by row."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in made.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in made.graph.node:
        table = constants.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2 or np.prod(table.dims) < MIN_ELEMENTS:
            nodes.append(node)
            continue
        output, names = node.output[0], [f"{table.name}_int8", f"{table.name}_scales"]
        if names[0] not in constants:
            values, scales = int8_rows(numpy_helper.to_array(table))
            constants |= {names[0]: numpy_helper.from_array(values, names[0]), names[1]: numpy_helper.from_array(scales[:, None], names[1])}
            made.graph.initializer.extend([constants[name] for name in names])
        nodes += [
            helper.make_node("Gather", [names[0], node.input[1]], [f"{output}_int8"]),
            helper.make_node("Gather", [names[1], node.input[1]], [f"{output}_steps"]),
            helper.make_node("Cast", [f"{output}_int8"], [f"{output}_whole"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{output}_whole", f"{output}_steps"], [output]),
        ]
    _finish(made, nodes)
    return made


def int8_rows(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric int8 with one scale per row: values of the table's shape, and scales (rows,)."""
    values, scales = quantise_blocks(table, 1, table.shape[1])
    return values, scales[:, 0]


def _finish(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    """Put the nodes in place, drop constants that nothing reads any more, and check the graph."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    if MICROSOFT not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    onnx.checker.check_model(model)
