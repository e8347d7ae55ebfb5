"""What the tests of exports share: random students that cover every golden text, and a data folder. Imported after a test has found torch."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from training.exports.golden import TEXTS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH = 64
HEAD = {"scale": 8.0, "thresholds": [1.0, 3.0, 5.0, 7.0]}
LINEAGE = {
    "teacher": "teacher-1", "labels": {"teacher_id": "teacher-1", "rows": 12}, "data_digests": {"toy": "d0"}, "licence_classes": ["open", "sa"], "seed": 7,
    "config": {"layers": 2}, "code_version": "a1b2c3d",
}  # fmt: skip
DESCRIBED = {"ordinal_head": HEAD, "matryoshka": [64, 32], "languages": ["en", "de"], "lineage": LINEAGE}


def letter_tokenizer():
    """Character-level WordPiece over the golden texts, padded to a fixed length as published files are: the export must switch it off."""
    letters = sorted({letter for text in TEXTS for letter in text.lower() if letter.isalnum() or letter in ".,!?&"})
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=128)
    return tokenizer


def write_bert(folder):
    """A random BERT of two layers in plain Hugging Face layout; one channel of each norm is far wider than the rest, as in real ones."""
    tokenizer = letter_tokenizer()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 300}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=tokenizer.get_vocab_size(), initializer_range=0.05, **sizes))
    for layer in model.encoder.layer:
        layer.attention.output.LayerNorm.weight.data[3] = 10.0
    model.save_pretrained(folder)
    return folder


def write_turned(folder, described=DESCRIBED):
    """A student as training writes it: the BERT, mean pooling, a square map behind it, and student.json."""
    write_bert(folder / "before")
    torch.manual_seed(1)
    turn = Dense(WIDTH, WIDTH, bias=False, activation_function=torch.nn.Identity())
    encoder = Transformer(str(folder / "before"), max_seq_length=128)
    SentenceTransformer(modules=[encoder, Pooling(WIDTH, pooling_mode="mean"), turn], device="cpu").save(str(folder / "student"), create_model_card=False)
    (folder / "student" / "student.json").write_text(json.dumps(described))
    return folder / "student"


def write_static(folder, described=None):
    """A random table of token vectors."""
    tokenizer = letter_tokenizer()
    table = torch.randn(tokenizer.get_vocab_size(), WIDTH, generator=torch.Generator().manual_seed(0))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu").save(str(folder), create_model_card=False)
    if described is not None:
        (folder / "student.json").write_text(json.dumps(described))
    return folder


def write_data(folder, grade=lambda place: place % 5):
    """24 pins named by golden texts, six queries with eight graded pins each; two of them are dev."""
    folder.mkdir(parents=True)
    pins = [{"item_id": f"p{number:02}", "lang": "en", "title": text[:60]} for number, text in enumerate(TEXTS[8:32])]
    queries = [
        {"query_id": f"q{number}", "group": f"g{number}", "lang": "en", "query": TEXTS[40 + number], "split": "dev" if number > 3 else "train"}
        for number in range(6)
    ]
    rows = [
        {"query_id": f"q{number}", "item_id": f"p{(number * 4 + place) % 24:02}", "grade": grade(place), "raw": float(grade(place)), "source": "sis"}
        for number in range(6)
        for place in range(8)
    ]
    for name, table in (("items", pins), ("queries", queries), ("judgements", rows)):
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    return folder
