"""The student before and after training: built from a base encoder, kept as a sentence-transformers folder with student.json.

A transformer student is the base encoder with some of its layers, another vocabulary, and a square map after pooling that turns the
space so that its first dimensions carry the most (principal axes of the target vectors): a prefix of a vector is then a
smaller embedding (Matryoshka). A static student is a table of token vectors (Model2Vec-like): the mean of a text's rows.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModel, AutoTokenizer, BertTokenizerFast

from pins.relevance import OrdinalHead
from training.folder import write_json
from training.source import resolve
from training.students.vocabulary import Vocabulary, initial_embeddings, tokenizer_of

Vectors = NDArray[np.float32]
ABOUT = "student.json"


def principal_axes(vectors: Vectors) -> Vectors:
    """Orthogonal (d, d) whose columns are the axes of most energy first: `vectors @ axes` keeps every cosine."""
    _, axes = np.linalg.eigh(np.asarray(vectors, np.float64).T @ np.asarray(vectors, np.float64))
    return np.ascontiguousarray(axes[:, ::-1], np.float32)


def base_tokenizer(base: str) -> Tokenizer:
    """The fast tokeniser of a base encoder, without padding and truncation."""
    tokenizer = AutoTokenizer.from_pretrained(resolve(base).place).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def static_student(tokenizer: Tokenizer, dimension: int, seed: int) -> SentenceTransformer:
    """A table of small random token vectors."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(tokenizer.get_vocab_size(), dimension, generator=generator) / dimension**0.5
    return SentenceTransformer(modules=[StaticEmbedding(Tokenizer.from_str(tokenizer.to_str()), embedding_weights=table)], device="cpu")


def static_table(student: SentenceTransformer) -> Vectors:
    """The token vectors of a static student, float32 of shape (vocabulary, d)."""
    return np.asarray(student[0].embedding.weight.detach().cpu().numpy(), np.float32)


def transformer_student(
    base: str, layers: int, max_tokens: int, axes: Vectors, folder: Path, vocabulary: Vocabulary | None, static: Vectors | None
) -> SentenceTransformer:
    """A student from a base encoder, written to `folder` and read back: its vocabulary, layers and turned space."""
    source = resolve(base)
    model = AutoModel.from_pretrained(source.place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.place)
    if vocabulary is not None and static is not None:
        made = tokenizer_of(vocabulary, base_tokenizer(base))
        old = model.get_input_embeddings().weight.detach().numpy()
        model.resize_token_embeddings(len(vocabulary))
        model.get_input_embeddings().weight.data = torch.from_numpy(initial_embeddings(vocabulary, np.asarray(old, np.float32), static))
        tokenizer = BertTokenizerFast(tokenizer_object=made, do_lower_case=True, strip_accents=False, model_max_length=max_tokens)
    _keep_layers(model, layers)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    encoder = Transformer(str(folder), max_seq_length=max_tokens)
    hidden, dimension = model.config.hidden_size, len(axes)
    start = torch.from_numpy(axes.T.copy()) if hidden == dimension else None
    turn = Dense(hidden, dimension, bias=False, activation_function=nn.Identity(), init_weight=start)
    return SentenceTransformer(modules=[encoder, Pooling(hidden, pooling_mode=source.pooling), turn], device="cpu")


def _keep_layers(model: Any, layers: int) -> None:
    found = model.encoder.layer
    if not 1 <= layers <= len(found):
        raise SystemExit(f"{layers} layers: the base has {len(found)}")
    kept = np.linspace(0, len(found) - 1, layers).round().astype(int) if layers > 1 else [len(found) - 1]
    model.encoder.layer = nn.ModuleList([found[place] for place in kept])
    model.config.num_hidden_layers = layers


def save(student: SentenceTransformer, folder: Path, head: OrdinalHead, dimensions: Sequence[int], languages: Sequence[str], lineage: dict[str, Any]) -> None:
    """Write the folder that `training.export` reads."""
    student.save(str(folder), create_model_card=False)
    body = {
        "ordinal_head": {"scale": head.scale, "thresholds": list(head.thresholds)},
        "matryoshka": list(dimensions),
        "languages": list(languages),
        "lineage": lineage,
    }
    write_json(folder / ABOUT, json.loads(json.dumps(body)))


def encode(student: SentenceTransformer, texts: Sequence[str]) -> Vectors:
    """Unit vectors, float32 of shape (len(texts), d)."""
    return np.asarray(
        student.encode(list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=len(texts) > 2000, convert_to_numpy=True), np.float32
    )
