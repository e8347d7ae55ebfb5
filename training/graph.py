"""From a torch encoder to a plain ONNX graph: token ids in, hidden states out.

Only standard operators are used: fusing attention, LayerNorm and GELU ahead of time gained nothing over what ONNX Runtime
does at load (training/LOG.md), and a standard graph runs on any version. Pooling stays outside: the runtime does it in numpy.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor
from transformers import PreTrainedModel

OPSET = 21
"""The first opset with block-wise DequantizeLinear."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "last_hidden_state"
_FLAT_MASK = {"bert", "roberta", "xlm-roberta"}
"""Architectures whose attention takes a ready additive mask of shape (batch, 1, 1, length): no (length x length) mask is built."""


class HiddenStates(torch.nn.Module):
    """The encoder with positional inputs and one output."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.flat = model.config.model_type in _FLAT_MASK

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        mask = attention_mask
        if self.flat:
            mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * torch.finfo(torch.float32).min
        kinds = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **kinds).last_hidden_state
        return hidden


def input_names(model: PreTrainedModel) -> tuple[str, ...]:
    """The model's inputs: token types only where the architecture tells segments apart."""
    return INPUTS if getattr(model.config, "type_vocab_size", 0) > 1 else INPUTS[:2]


def export_graph(model: PreTrainedModel, path: Path) -> None:
    """Write the fp32 graph. Inputs are int64 of shape (batch, length), the output is float32 (batch, length, hidden)."""
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
            HiddenStates(model).eval(),
            feeds,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch, 1: length},) * len(names),
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    without_traces(path)


def without_traces(path: Path) -> None:
    """Drop what the exporter notes about the program that was traced: names, source lines and paths of this machine."""
    model = onnx.load(path)
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, *model.functions):
        del noted.metadata_props[:]
        noted.doc_string = ""
    onnx.save(model, path)
