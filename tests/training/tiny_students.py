"""Random students of two layers in the folder layouts that training writes, and a letter tokenizer for them. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HEAD = {"scale": 8.0, "thresholds": [1.0, 3.0, 5.0, 7.0]}
WIDTH = 32


def letter_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Every letter of the texts is a token, so nothing in them is unknown."""
    letters = sorted({letter for text in texts for letter in text.lower() if letter.isalnum()})
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def write_student(folder: Path, texts: Sequence[str], pooling: str = "mean", described: dict[str, Any] | None = None, seed: int = 0) -> Path:
    """A random BERT in plain Hugging Face layout with the length and pooling files of sentence-transformers; `described`: its student.json."""
    tokenizer = letter_tokenizer(texts)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 80}
    transformers.BertModel(transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": WIDTH, **modes}))
    if described is not None:
        (folder / "student.json").write_text(json.dumps(described))
    return folder
