"""Export, end to end, on a tiny random BERT: the folder must embed as torch does. Needs the `training` extra."""

import json

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
transformers = pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402  # after the skip

from embedder.artifact import open_artifact  # noqa: E402
from embedder.onnx import OnnxEncoder  # noqa: E402
from pins.manifest import Manifest  # noqa: E402
from training.export import export  # noqa: E402
from training.golden import TEXTS  # noqa: E402
from training.int8 import dequantise_blocks, quantise_blocks  # noqa: E402

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WIDTH = 64


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A random BERT of two layers and a character-level WordPiece tokenizer, saved in Hugging Face layout."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = sorted({letter for text in TEXTS for letter in text.lower() if letter.isalnum() or letter in ".,!?&"})
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *letters, *(f"##{letter}" for letter in letters)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=128)  # as the published file has it: the export must switch it off
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 2 * WIDTH, "max_position_embeddings": 300}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["fp32", "int8-weights"])
def exported(request, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / request.param
    return out, export(out, str(source), request.param, model_id="tiny")


def test_every_golden_text_is_embedded_as_torch_does(exported):
    out, manifest = exported
    artifact = open_artifact(out)
    cosines = OnnxEncoder(artifact).golden_cosines(artifact)
    assert len(cosines) == len(TEXTS) >= 64
    assert cosines.min() >= (0.9999 if manifest.precision == "fp32" else 0.9995)


def test_the_manifest_describes_the_folder(exported):
    out, manifest = exported
    assert Manifest.from_json(json.loads((out / "manifest.json").read_text())) == manifest
    assert (manifest.model_id, manifest.dimension, manifest.max_tokens, manifest.pooling) == ("tiny", WIDTH, 256, "mean")
    assert set(manifest.files) == {path.name for path in out.iterdir()} - {"manifest.json"}
    assert manifest.drift is None
    assert manifest.metrics["golden_cosine_min"] >= 0.9995


def test_the_tokenizer_leaves_padding_and_truncation_to_the_runtime(exported):
    tokenizer = Tokenizer.from_file(str(exported[0] / "tokenizer.json"))
    assert tokenizer.padding is None
    assert tokenizer.truncation is None


def test_a_batch_gives_what_single_texts_give(exported):
    encoder = OnnxEncoder(open_artifact(exported[0]))
    together = encoder.encode(TEXTS[:12])
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS[:12]])
    assert np.allclose(together, alone, atol=1e-5)


def test_int8_is_smaller(source, tmp_path):
    sizes = {}
    for precision in ("fp32", "int8-weights"):
        export(tmp_path / precision, str(source), precision)
        sizes[precision] = (tmp_path / precision / "model.onnx").stat().st_size
    assert sizes["int8-weights"] < 0.6 * sizes["fp32"]


def test_an_export_that_fails_leaves_the_old_folder(source, tmp_path, monkeypatch):
    out = tmp_path / "student"
    before = export(out, str(source), "fp32")
    monkeypatch.setattr("training.export.REQUIRED", {"fp32": 2.0})
    with pytest.raises(SystemExit, match="nothing was written"):
        export(out, str(source), "fp32")
    assert open_artifact(out).manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_come_back_within_half_a_step(axis):
    weight = np.random.default_rng(0).normal(size=(64, 96)).astype(np.float32)
    values, scales = quantise_blocks(weight, axis, 32)
    assert values.shape == weight.shape
    assert scales.shape[axis] == weight.shape[axis] // 32
    error = np.abs(dequantise_blocks(values, scales, axis) - weight)
    assert (error <= np.repeat(scales, 32, axis=axis) / 2 + 1e-6).all()
