"""What the teacher's tests share: a data set small enough to learn in seconds, and tiny random models of every architecture.

Imported after a test has made sure that torch is there.
"""

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from training.teachers.config import Base, Head, Loss, Match, Schedule, TeacherConfig

NOUNS, PLACES = ("cat", "dog", "bird", "house", "tree", "car", "boat"), ("street", "beach", "near", "under", "over", "with")
WORDS = ["red", "blue", "green", "small", "large", "old", "new", *NOUNS, "runs", "sleeps", "stands", "flies", *PLACES]
FEATURES = ("cosine", "sentence_max", "sentence_mean", "bm25", "coverage")
PINS, QUERIES = 24, 24


def pin_words(number):
    return [WORDS[(number * step + shift) % len(WORDS)] for step, shift in ((1, 0), (3, 1), (5, 2), (7, 3), (11, 5), (13, 7))]


def write_data(folder, levels=5, direct=True):
    """Pins of six words in two sentences; query i holds words of pin i and is graded against eight pins by the words they share."""
    folder.mkdir(parents=True)
    words = [pin_words(number) for number in range(PINS)]
    items = [{"item_id": f"p{n:02}", "lang": "en", "title": " ".join(w[:3]), "caption": " ".join(w[3:])} for n, w in enumerate(words)]
    queries = [
        {"query_id": f"q{n:02}", "group": f"g{n:02}", "lang": "en", "query": " ".join(words[n][1:5]), "split": "dev" if n % 6 == 5 else "train"}
        for n in range(QUERIES)
    ]
    rows = []
    for n in range(QUERIES):
        for pin in [n, *((n + step) % PINS for step in (1, 2, 5, 7, 11, 13, 17))]:
            raw = 5.0 * len(set(words[n][1:5]) & set(words[pin])) / 4
            grade = min(levels - 1, int(raw + 0.5))
            source = "sits_own" if pin == n else ("sits" if pin % 5 == 0 else "sis")
            rows.append({"query_id": f"q{n:02}", "item_id": f"p{pin:02}", "grade": grade, "raw": raw, "source": source})
    for name, table in (("items", items), ("queries", queries), ("judgements", rows)):
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    if direct:
        extra = [{"text": " ".join(words[n][:2]), "item_id": f"p{(n + 3) % PINS:02}", "grade": n % 3, "raw": float(n % 3)} for n in range(0, PINS, 2)]
        pq.write_table(pa.Table.from_pylist(extra), folder / "extra_text_pairs.parquet")
    return folder


def tokenizer(folder, special, pair, single, names, extra=0):
    """A word-level tokenizer over WORDS, saved. `special`: tokens in order of their ids. `extra`: words no model has vectors for."""
    vocabulary = [*special, *WORDS, ".", *(f"extra{number}" for number in range(extra))]
    fast = Tokenizer(models.WordLevel({token: place for place, token in enumerate(vocabulary)}, unk_token=names["unk_token"]))
    fast.normalizer = normalizers.Lowercase()
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(token, vocabulary.index(token)) for token in special if token in pair]
    fast.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    inputs = ["input_ids", "token_type_ids", "attention_mask"]  # segments even where the model knows none
    transformers.PreTrainedTokenizerFast(tokenizer_object=fast, model_input_names=inputs, **names).save_pretrained(folder)
    return len(vocabulary) - extra


def bert(folder, extra=0):
    """Two layers of random BERT with its tokenizer."""
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    size = tokenizer(folder, list(names.values()), "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP]", names, extra)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    transformers.BertModel(transformers.BertConfig(vocab_size=size, pad_token_id=0, **shape)).save_pretrained(folder)
    return folder


def deberta(folder):
    """Random DeBERTa-v2 with relative positions, as mDeBERTa-v3 has them."""
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    size = tokenizer(folder, list(names.values()), "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS] $A [SEP]", names)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    config = transformers.DebertaV2Config(vocab_size=size, pad_token_id=0, type_vocab_size=0, position_biased_input=False, **shape, **relative)
    transformers.DebertaV2Model(config).save_pretrained(folder)
    return folder


def xlm_roberta(folder):
    """Random XLM-RoBERTa: padding is token 1, one segment only."""
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    size = tokenizer(folder, list(names.values()), "<s> $A </s> </s> $B:1 </s>:1", "<s> $A </s>", names)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 66}
    transformers.XLMRobertaModel(transformers.XLMRobertaConfig(vocab_size=size, pad_token_id=1, type_vocab_size=1, **shape)).save_pretrained(folder)
    return folder


def t5(folder):
    """Random T5, encoder and decoder, as it is published: a teacher takes the encoder."""
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    size = tokenizer(folder, list(names.values()), "$A </s> $B </s>", "$A </s>", names)
    torch.manual_seed(0)
    config = transformers.T5Config(vocab_size=size, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, pad_token_id=0, decoder_start_token_id=0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def llama(folder):
    """Random Llama with grouped queries; its tokenizer has no pad token, as the published one."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    size = tokenizer(folder, list(names.values()), "<s> $A <s> $B", "<s> $A", names)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=size, max_position_embeddings=64, **shape)).save_pretrained(folder)
    return folder


LORA = {"lora_rank": 4, "lora_targets": ("q_proj", "v_proj"), "gradient_checkpointing": True}
ARCHITECTURES = {
    "bert": (bert, {"pooling": "cls"}),
    "deberta": (deberta, {"pooling": "cls"}),
    "xlm_roberta": (xlm_roberta, {"pooling": "cls"}),
    "t5": (t5, {"pooling": "mean"}),
    "llama": (llama, {"pooling": "last", **LORA}),
}


def recipe(kind="cross_encoder", base=None, encoder=None, heads=None, loss=None, weights=None, head=None, **training):
    """A config for toys: as little training as shows that it works."""
    times = {"passes": 2, "batch_pairs": 32, "head_learning_rate": 5e-3, "learning_rate": 1e-3, "checkpoint_every": 2, "evaluate_every": 4}
    return TeacherConfig(
        name="toy",
        kind=kind,
        heads=heads or {"cxc_pins": 5},
        languages=("en",),
        weights=weights or {},
        smoothing=0.25,
        base=base or Base(name="nowhere"),
        head=head or Head(hidden=16),
        features=Match(str(encoder), FEATURES) if encoder else Match(),
        loss=loss or Loss(listwise=0.5),
        training=Schedule(**{**times, **training}),
    )


def cross_encoder(folder, **settings):
    """A recipe for a tiny base."""
    return recipe(base=Base(name=str(folder), max_tokens=48, **settings.pop("base", {})), **settings)
