"""From a torch student to a plain ONNX graph: token ids in, hidden states out, or one vector per text where the graph pools.

Only standard operators are used: fusing attention, LayerNorm and GELU ahead of time gained nothing over what ONNX Runtime
does at load (training/LOG.md), and a standard graph runs on any version. Pooling stays outside, where the runtime does it in
numpy, unless something follows it: the maps of a student whose space was turned, and the sum that a static embedding is.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from transformers import PreTrainedModel

from training.source import Reference

OPSET = 21
"""The first opset with block-wise DequantizeLinear."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT, POOLED = "last_hidden_state", "sentence_embedding"
_FLAT_MASK = {"bert", "roberta", "xlm-roberta"}
"""Architectures whose attention takes a ready additive mask of shape (batch, 1, 1, length): no (length x length) mask is built."""
_STATIC = f"""
<ir_version: 10, opset_import: ["": {OPSET}]>
static (int64[batch, length] input_ids, int64[batch, length] attention_mask) => (float[batch, dimension] {POOLED}) {{
  mask = Cast <to = 1> (attention_mask)
  steps = Gather (scales, input_ids)
  weights = Mul (mask, steps)
  stored = Gather (table, input_ids)
  rows = Cast <to = 1> (stored)
  one = Constant <value = int64[1] {{1}}> ()
  row = Unsqueeze (weights, one)
  sums = MatMul (row, rows)
  {POOLED} = Squeeze (sums, one)
}}
"""
"""Rows of int8 and of float32 go through the same graph; casting float32 to itself costs nothing."""


class Encoder(torch.nn.Module):
    """The student with positional inputs and one output: hidden states, or with `maps` behind the pooling the mapped vectors."""

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self.model = reference.model
        self.maps = reference.maps
        self.cls = reference.source.pooling == "cls"
        self.flat = reference.model.config.model_type in _FLAT_MASK

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        mask = attention_mask
        if self.flat:
            mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **kinds).last_hidden_state
        if not len(self.maps):
            return hidden
        weights = attention_mask.to(torch.float32)
        pooled = hidden[:, 0] if self.cls else torch.matmul(weights[:, None, :], hidden)[:, 0] / weights.sum(1, keepdim=True)
        mapped: Tensor = self.maps(pooled)
        return mapped


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """The model's inputs: token types only where the architecture tells segments apart."""
    return INPUTS if getattr(model.config, "type_vocab_size", 0) > 1 else INPUTS[:2]


def export_graph(reference: Reference, path: Path) -> None:
    """Write the fp32 graph. Inputs are int64 (batch, length); the output is float32 (batch, length, hidden), or (batch, dimension) with maps."""
    model = reference.model
    names = input_names(model)
    ids = torch.full((2, 7), 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    feeds = (ids, mask, torch.zeros_like(ids))[: len(names)]
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=model.config.max_position_embeddings - 2)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own use of torch; parity is measured afterwards
        program = torch.onnx.export(
            Encoder(reference).eval(),
            feeds,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[POOLED if len(reference.maps) else OUTPUT],
            dynamic_shapes=({0: batch, 1: length},) * len(names),
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    without_traces(path)


def export_static(table: NDArray[np.float32] | NDArray[np.int8], scales: NDArray[np.float32], path: Path) -> None:
    """Write a static embedding: the sum of the vectors of a text's tokens, float32 (batch, dimension); made unit, it is their mean.

    The vector of a token is its row of `table` (vocabulary, dimension) times its number in `scales` (vocabulary,).
    """
    model = onnx.parser.parse_model(_STATIC)
    model.graph.initializer.extend([numpy_helper.from_array(table, "table"), numpy_helper.from_array(scales, "scales")])
    onnx.checker.check_model(model)
    onnx.save(model, path)


def without_traces(path: Path) -> None:
    """Drop what the exporter notes about the program that was traced: names, source lines and paths of this machine."""
    model = onnx.load(path)
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, *model.functions):
        del noted.metadata_props[:]
        noted.doc_string = ""
    onnx.save(model, path)
