"""The teacher as a torch module: a transformer of any architecture (or none), pooling, and one small head per data set.

Loading adapts to the architecture: encoders of encoder-decoders (T5) load without their decoder, decoders get a pad token and
adapters, 4-bit weights go through bitsandbytes. Reading and writing teacher folders is `training.teachers.teacher`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer, BitsAndBytesConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

from training.source import PACKAGES, resolve
from training.teachers.config import Base, Head, TeacherConfig, TeacherError

SMALLEST = 1e-9
"""Least probability of a level, so that its logarithm exists."""


class LevelHead(nn.Module):
    """(n, width) to log-probabilities (n, levels)."""

    def __init__(self, width: int, levels: int, head: Head) -> None:
        super().__init__()
        self.ordinal = head.form == "ordinal"
        out = 1 if self.ordinal else levels
        hidden = [nn.Linear(width, head.hidden), nn.GELU(), nn.Dropout(head.dropout)] if head.hidden else []
        self.layers = nn.Sequential(*hidden, nn.Linear(head.hidden or width, out))
        if self.ordinal:
            self.first = nn.Parameter(torch.tensor(-1.0 * (levels - 2) / 2))
            self.gaps = nn.Parameter(torch.full((levels - 2,), 0.5413))  # softplus(0.5413) = 1

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.layers(inputs).float()
        if not self.ordinal:
            return torch.log_softmax(scores, dim=-1)
        thresholds = torch.cat([self.first[None], self.first + torch.cumsum(nn.functional.softplus(self.gaps), 0)])
        above = torch.sigmoid(scores - thresholds)
        edges = torch.ones_like(scores), torch.zeros_like(scores)
        levels = -torch.diff(torch.cat([edges[0], above, edges[1]], dim=-1), dim=-1)
        return torch.log(levels.clamp_min(SMALLEST))


class TeacherModel(nn.Module):
    """Log-probabilities of levels for tokenised pairs, for their features, or for both side by side."""

    def __init__(self, config: TeacherConfig, base: nn.Module | None, features: int) -> None:
        super().__init__()
        self.base = base
        self.pooling = config.base.pooling
        self.heads = nn.ModuleDict({name: LevelHead(_width(base) + features, levels, config.head) for name, levels in config.heads.items()})
        self.register_buffer("mean", torch.zeros(features), persistent=features > 0)
        self.register_buffer("spread", torch.ones(features), persistent=features > 0)

    def standardise(self, features: Tensor) -> None:
        """Fit the scale of the features, float (n, features), on what will be trained on."""
        self.mean.copy_(features.mean(dim=0))
        self.spread.copy_(features.std(dim=0, correction=0).clamp_min(1e-6))

    def forward(self, head: str, tokens: Mapping[str, Tensor] | None, features: Tensor | None) -> Tensor:
        """`tokens`: what the tokenizer gave, (n, length) each. `features`: (n, features). Returns log-probabilities (n, levels)."""
        parts = []
        if self.base is not None and tokens is not None:
            hidden = self.base(**tokens).last_hidden_state
            parts.append(pool(hidden, tokens["attention_mask"], self.pooling).float())
        if features is not None and len(self.mean):
            parts.append((features - self.mean) / self.spread)
        scores: Tensor = self.heads[head](torch.cat(parts, dim=-1))
        return scores


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, length, width) to (n, width): the first token, the mean over real tokens, or the last real token, on whichever side padding is."""
    if pooling == "mean":
        weights = mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)
    order = torch.arange(1, mask.shape[1] + 1, device=mask.device) * mask
    place = order.argmax(dim=1) if pooling == "last" else mask.long().argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place]


def load_tokenizer(place: str) -> Any:
    """The tokenizer of a base, with a pad token even where its decoder came without one."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolve(place).place if place in PACKAGES else place)
    except (OSError, ValueError, ImportError) as error:
        raise TeacherError(f"no tokenizer can be loaded from {place!r}: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise TeacherError(f"the tokenizer of {place!r} has no token to pad with; set pad_token in its tokenizer_config.json")
    return tokenizer


def load_base(base: Base, tokenizer: Any, device: torch.device | str = "cpu", adapters: Path | None = None) -> nn.Module:
    """The transformer, ready to train or (with `adapters`, a folder that PEFT wrote) to predict. Raises TeacherError."""
    place = resolve(base.name).place
    model = _pretrained(place, base, device)
    if hasattr(model, "pooler"):
        model.pooler = None  # the head has its own layer; an unused one breaks distributed training
    check_tokenizer(base.name, tokenizer, model)
    _only_known_inputs(tokenizer, model)
    model.config.pad_token_id, model.config.use_cache = tokenizer.pad_token_id, False
    if base.quantise == "4bit":
        model = prepare_model_for_kbit_training(model, base.gradient_checkpointing, {"use_reentrant": False})
    elif base.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if adapters is not None:
        return PeftModel.from_pretrained(model, str(adapters))
    return _with_adapters(model, base) if base.lora_rank else model


def check_tokenizer(name: str, tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer that knows tokens the base has no vector for."""
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise TeacherError(
            f"the tokenizer of {name!r} does not match its weights: token ids reach {largest}, the embeddings have {rows} rows; "
            "give the tokenizer that was saved with these weights"
        )


def _only_known_inputs(tokenizer: Any, model: Any) -> None:
    """Keep the tokenizer from giving what this architecture does not take: a generic one numbers two segments where XLM-R knows one."""
    known = set(signature(model.forward).parameters)
    if getattr(model.config, "type_vocab_size", 2) < 2:
        known.discard("token_type_ids")
    tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name in known]


def quantisation(base: Base) -> dict[str, Any]:
    """What `from_pretrained` needs to load in 4 bits: NF4, double quantisation, products in bfloat16 (QLoRA, section 3)."""
    if base.quantise == "none":
        return {}
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.bfloat16}
    return {"quantization_config": BitsAndBytesConfig(**settings)}


def _pretrained(place: str, base: Base, device: torch.device | str) -> Any:
    if base.quantise == "4bit" and not (torch.cuda.is_available() and importlib.util.find_spec("bitsandbytes")):
        raise TeacherError(f"{base.name}: 4-bit weights need a CUDA GPU and bitsandbytes (pip install 'everpin[gpu]'); or set base.quantise to none")
    dtype = torch.bfloat16 if base.lora_rank and base.precision == "bf16" else torch.float32
    placed = {"device_map": {"": device}} if base.quantise == "4bit" else {}
    try:
        config = AutoConfig.from_pretrained(place)
        longest = getattr(config, "max_position_embeddings", None)
        if longest and base.max_tokens > longest:
            raise TeacherError(f"base.max_tokens is {base.max_tokens}, {base.name} reads at most {longest}")
        loader = AutoModelForTextEncoding if config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES else AutoModel
        return loader.from_pretrained(place, dtype=dtype, **placed, **quantisation(base))
    except (OSError, ValueError) as error:
        raise TeacherError(f"base {base.name!r} cannot be loaded: {error}") from error


def _with_adapters(model: Any, base: Base) -> nn.Module:
    if base.gradient_checkpointing:
        model.enable_input_require_grads()
    settings = LoraConfig(
        task_type=TaskType.FEATURE_EXTRACTION,
        r=base.lora_rank,
        lora_alpha=base.lora_alpha,
        lora_dropout=base.lora_dropout,
        target_modules=list(base.lora_targets),
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise TeacherError(f"base.lora_targets {', '.join(base.lora_targets)}: {base.name} has no such layers: {error}") from error


def _width(base: nn.Module | None) -> int:
    if base is None:
        return 0
    config: Any = base.config
    return int(getattr(config, "hidden_size", None) or config.d_model)
