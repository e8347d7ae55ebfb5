"""Every architecture a recipe may name: loads, reads pairs, pools where it should, trains, is written and read back."""

from dataclasses import replace

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("transformers", reason=REASON)
pytest.importorskip("peft", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from tests.training.teacher_toys import ARCHITECTURES, LORA, bert, cross_encoder, llama, recipe  # noqa: E402  # after the skip
from training.teachers.config import Base, Head, TeacherError  # noqa: E402
from training.teachers.model import LevelHead, TeacherModel, load_base, load_tokenizer, pool, quantisation  # noqa: E402
from training.teachers.teacher import PairFeatures, Teacher, build, open_teacher, save_teacher  # noqa: E402

QUERIES = ["red cat", "old house near street", "boat", "blue bird", ""]
TEXTS = ["red cat sleeps. small house", "new car. street", "old boat under tree. green beach. dog runs", "bird", "tree"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def built(request, tmp_path_factory):
    make, settings = ARCHITECTURES[request.param]
    folder = make(tmp_path_factory.mktemp(request.param))
    torch.manual_seed(0)
    return request.param, build(cross_encoder(folder, base=settings), PairFeatures(None, None))


def test_levels_are_probabilities_in_any_order(built):
    _, teacher = built
    levels = teacher.predict(QUERIES, TEXTS, progress=False)
    assert levels.shape == (5, 5)
    assert levels.dtype == np.float64
    assert levels.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
    order = [3, 1, 4, 0, 2]
    assert teacher.predict([QUERIES[row] for row in order], [TEXTS[row] for row in order], progress=False) == pytest.approx(levels[order], abs=1e-5)
    alone = np.concatenate([teacher.predict([query], [text], progress=False) for query, text in zip(QUERIES, TEXTS, strict=True)])
    assert alone == pytest.approx(levels, abs=1e-5)  # what pads a batch changes nothing


def test_both_texts_are_read(built):
    _, teacher = built
    levels = teacher.predict(["red cat", "red cat", "blue boat"], ["old house", "new street", "old house"], progress=False)
    assert not np.allclose(levels[0], levels[1], atol=1e-6)
    assert not np.allclose(levels[0], levels[2], atol=1e-6)


def test_the_base_learns(built):
    name, teacher = built
    teacher.model.train()
    encoded = teacher.encode(QUERIES, TEXTS)
    teacher.model("cxc_pins", teacher.padded(encoded, range(5)), None)[:, 0].sum().backward()
    learnt = {key for key, weight in teacher.model.named_parameters() if weight.grad is not None and float(weight.grad.abs().max()) > 0}
    teacher.model.zero_grad(set_to_none=True)
    assert any(key.startswith("base.") for key in learnt)
    assert all("lora_" in key for key in learnt if key.startswith("base.")) == (name == "llama")


def test_it_comes_back_as_it_was_written(built, tmp_path):
    name, teacher = built
    levels = teacher.predict(QUERIES, TEXTS, progress=False)
    about = save_teacher(tmp_path / "teacher", teacher, {"seed": 7})
    again = open_teacher(tmp_path / "teacher")
    assert again.teacher_id == about["teacher_id"]
    assert again.teacher_id.startswith("toy-")
    assert again.predict(QUERIES, TEXTS, progress=False) == pytest.approx(levels, abs=1e-6)
    weights = sum(path.stat().st_size for path in (tmp_path / "teacher" / "base").glob("*.safetensors"))
    assert (weights < 20_000) == (name == "llama")  # adapters only


def test_one_architecture_each_and_no_decoder_of_t5(built):
    name, teacher = built
    kind = {
        "bert": "BertModel",
        "deberta": "DebertaV2Model",
        "xlm_roberta": "XLMRobertaModel",
        "t5": "T5EncoderModel",
        "llama": "PeftModelForFeatureExtraction",
    }
    assert type(teacher.model.base).__name__ == kind[name]
    assert teacher.tokenizer.pad_token is not None


@pytest.mark.parametrize(
    ("pooling", "mask", "expected"),
    [
        ("cls", [[1, 1, 0]], [[0.0]]),
        ("cls", [[0, 1, 1]], [[1.0]]),  # padded on the left
        ("last", [[1, 1, 0]], [[1.0]]),
        ("last", [[0, 1, 1]], [[2.0]]),
        ("last", [[1, 1, 1]], [[2.0]]),
        ("mean", [[1, 1, 0]], [[0.5]]),
        ("mean", [[0, 1, 1]], [[1.5]]),
    ],
)
def test_pooling_knows_real_tokens(pooling, mask, expected):
    assert pool(torch.tensor([[[0.0], [1.0], [2.0]]]), torch.tensor(mask), pooling).tolist() == expected


@pytest.mark.parametrize("levels", [2, 3, 5])
@pytest.mark.parametrize("form", ["softmax", "ordinal"])
def test_heads_give_logarithms_of_probabilities(form, levels):
    torch.manual_seed(0)
    head = LevelHead(8, levels, Head(hidden=4, form=form)).eval()
    logits = head(torch.randn(50, 8))
    assert logits.shape == (50, levels)
    assert logits.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 50, abs=1e-5)


def test_an_ordinal_head_raises_the_level_with_its_score():
    head = LevelHead(1, 5, Head(hidden=0, form="ordinal"))
    head.layers[0].weight.data[:], head.layers[0].bias.data[:] = 1.0, 0.0
    levels = head(torch.linspace(-9, 9, 40)[:, None]).exp() @ torch.arange(5.0)
    assert (levels.diff() > 0).all()
    assert levels[0] < 0.1
    assert levels[-1] > 3.9


def test_one_head_per_data_set(tmp_path):
    config = cross_encoder(bert(tmp_path / "bert"), heads={"cxc_pins": 5, "esci_fraction": 4, "commons": 3})
    teacher = build(config, PairFeatures(None, None))
    for name, levels in config.heads.items():
        found = teacher.predict(QUERIES, TEXTS, progress=False, head=name)
        assert found.shape == (5, levels)
        assert found.sum(axis=1) == pytest.approx(1.0)
    assert (teacher.predict(QUERIES, TEXTS, progress=False) == teacher.predict(QUERIES, TEXTS, progress=False, head="cxc_pins")).all()


def test_features_are_standardised_on_what_is_trained_on():
    model = TeacherModel(recipe("features", encoder="e"), None, 2)
    rows = torch.tensor([[1.0, 10.0], [3.0, 10.0]])
    model.standardise(rows)
    assert ((rows - model.mean) / model.spread).tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = bert(tmp_path / "bert", extra=3)
    with pytest.raises(TeacherError, match=r"does not match its weights: token ids reach \d+, the embeddings have \d+ rows"):
        build(cross_encoder(folder), PairFeatures(None, None))


def test_a_window_longer_than_the_base_is_refused(tmp_path):
    config = cross_encoder(bert(tmp_path / "bert"))
    with pytest.raises(TeacherError, match=r"max_tokens is 512, .* reads at most 64"):
        build(replace(config, base=replace(config.base, max_tokens=512)), PairFeatures(None, None))


def test_adapters_for_layers_that_do_not_exist_are_refused(tmp_path):
    folder = bert(tmp_path / "bert")
    with pytest.raises(TeacherError, match="has no such layers"):
        load_base(Base(str(folder), lora_rank=2, lora_targets=("q_proj",), max_tokens=32), load_tokenizer(str(folder)))


def test_a_base_that_is_nowhere_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TeacherError, match="no tokenizer can be loaded"):
        build(cross_encoder(tmp_path / "empty"), PairFeatures(None, None))


def test_long_pairs_are_cut_to_the_window(tmp_path):
    teacher = build(cross_encoder(bert(tmp_path / "bert")), PairFeatures(None, None))
    encoded = teacher.encode(["red " * 10], ["blue " * 500])
    assert len(encoded["input_ids"][0]) == 48
    assert encoded["input_ids"][0].count(teacher.tokenizer.convert_tokens_to_ids("red")) == 10  # the text is cut, not the query
    assert teacher.predict(["red " * 500], ["blue " * 500], progress=False).sum() == pytest.approx(1.0)


def test_only_four_bit_bases_are_quantised():
    assert quantisation(Base()) == {}
    config = quantisation(Base(quantise="4bit", lora_rank=4, lora_targets=("q_proj",)))["quantization_config"]
    assert (config.load_in_4bit, config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_four_bits_without_a_gpu_say_what_is_needed(tmp_path, monkeypatch):
    folder = llama(tmp_path / "llama")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(TeacherError, match=r"need a CUDA GPU and bitsandbytes \(pip install 'everpin\[gpu\]'\)"):
        load_base(Base(str(folder), quantise="4bit", max_tokens=32, pooling="last", **LORA), load_tokenizer(str(folder)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="4-bit weights need a CUDA GPU")
def test_four_bits_on_a_gpu(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the gpu extra")
    config = cross_encoder(llama(tmp_path / "llama"), base={"pooling": "last", "quantise": "4bit", "precision": "bf16", **LORA})
    teacher = build(config, PairFeatures(None, None), "cuda:0")
    assert isinstance(teacher, Teacher)
    assert teacher.predict(QUERIES, TEXTS, progress=False).sum(axis=1) == pytest.approx(1.0)


def test_a_folder_that_is_no_teacher(tmp_path):
    with pytest.raises(TeacherError, match="is no teacher folder"):
        open_teacher(tmp_path)


def test_a_teacher_that_lost_its_weights(tmp_path):
    save_teacher(tmp_path / "teacher", build(cross_encoder(bert(tmp_path / "bert")), PairFeatures(None, None)), {})
    (tmp_path / "teacher" / "heads.safetensors").unlink()
    with pytest.raises(TeacherError, match=r"heads\.safetensors does not fit"):
        open_teacher(tmp_path / "teacher")


def test_pairs_need_both_texts(tmp_path):
    teacher = build(cross_encoder(bert(tmp_path / "bert")), PairFeatures(None, None))
    with pytest.raises(ValueError, match="2 queries and 1 texts"):
        teacher.predict(["a", "b"], ["c"])
    assert teacher.predict([], [], progress=False).shape == (0, 5)
