"""Export, end to end, on tiny random students: the folder must embed as torch does, or not be written. Needs the `training` extra."""

import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytest.importorskip("onnxscript", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's and transformers' own imports

import onnx  # noqa: E402  after the skip
from tokenizers import Tokenizer  # noqa: E402

from embedder.artifact import open_artifact  # noqa: E402
from embedder.onnx import OnnxEncoder  # noqa: E402
from pins.manifest import Manifest  # noqa: E402
from tests.training.export_toys import WIDTH, write_bert, write_data, write_static, write_turned  # noqa: E402
from training.data import DataError  # noqa: E402
from training.export import PROMISES, export, main  # noqa: E402
from training.exports.checks import Promise  # noqa: E402
from training.exports.golden import TEXTS  # noqa: E402
from training.source import open_reference, resolve  # noqa: E402

LEAST = {"fp32": 0.9999, "int8-weights": 0.998, "int8": 0.95}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    room = tmp_path_factory.mktemp("sources")
    return {"bert": write_bert(room / "bert"), "turned": write_turned(room / "turned"), "static": write_static(room / "static")}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def folders(sources, data, tmp_path_factory):
    """Exported folders by (source, precision); the fp32 export comes with the int8 export. The turned student is cut to half its length."""
    room = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROMISES, "int8", replace(PROMISES["int8"], ndcg_loss=1.0))  # two random queries say nothing
        for source, dimension in (("bert", None), ("turned", 32), ("static", None)):
            out, fp32 = room / f"{source}-int8", room / f"{source}-fp32"
            export(out, str(sources[source]), "int8", model_id=f"tiny-{source}", dimension=dimension, check=data, fp32=fp32)
    for source in ("bert", "static"):
        export(room / f"{source}-int8-weights", str(sources[source]), "int8-weights")
    return room


CASES = [(source, precision) for source in ("bert", "static") for precision in LEAST] + [("turned", "fp32"), ("turned", "int8")]


@pytest.fixture(params=CASES, ids="-".join)
def folder(request, folders):
    return folders / "-".join(request.param)


def test_every_golden_text_is_embedded_as_torch_does(folder, sources):
    artifact = open_artifact(folder)
    cosines = OnnxEncoder(artifact).golden_cosines(artifact)
    assert len(cosines) >= 64
    assert cosines.min() >= LEAST[artifact.manifest.precision]
    texts, vectors = artifact.golden()
    reference = open_reference(resolve(str(sources[folder.name.split("-")[0]]))).embed(texts)[:, : artifact.manifest.dimension]
    assert vectors == pytest.approx(reference / np.linalg.norm(reference, axis=1, keepdims=True), abs=1e-5)


def test_the_manifest_describes_the_folder(folder):
    manifest = Manifest.from_json(json.loads((folder / "manifest.json").read_text()))
    assert manifest.dimension == (32 if folder.name.startswith("turned") else WIDTH)
    assert manifest.max_tokens == (128 if folder.name.startswith("turned") else 256)
    assert manifest.pooling == ("mean" if folder.name.startswith("bert") else "graph")
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert manifest.drift is None
    assert manifest.metrics["golden_cosine_mean"] >= manifest.metrics["golden_cosine_min"]


def test_the_tokenizer_leaves_padding_and_truncation_to_the_runtime(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.padding is None
    assert tokenizer.truncation is None


def test_a_batch_gives_what_single_texts_give(folder):
    """Integers or not: a range of activations that was taken from the batch would fail here."""
    encoder = OnnxEncoder(open_artifact(folder))
    together = encoder.encode(TEXTS[:24])
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS[:24]])
    assert np.allclose(together, alone, atol=1e-5)


def test_what_training_says_of_the_student_goes_into_the_manifest(folders):
    manifest = open_artifact(folders / "turned-int8").manifest
    assert (manifest.model_id, manifest.languages, manifest.teacher) == ("tiny-turned", ("en", "de"), "teacher-1")
    assert manifest.ordinal_head.scale == 8.0
    assert manifest.lineage is not None
    assert (manifest.lineage.seeds, manifest.lineage.licence_classes, manifest.lineage.labels["rows"]) == ({"student": 7}, ("open", "sa"), 12)
    assert open_artifact(folders / "turned-fp32").manifest.model_id == "tiny-turned-fp32"


def test_int8_computes_in_integers_and_is_smaller(folders):
    nodes = [node.op_type for node in onnx.load(folders / "bert-int8" / "model.onnx").graph.node]
    metrics = open_artifact(folders / "bert-int8").manifest.metrics
    assert nodes.count("MatMulIntegerToFloat") == metrics["int8_layers"] == metrics["int8_layers_of"] == 12
    sizes = {precision: (folders / f"bert-{precision}" / "model.onnx").stat().st_size for precision in LEAST}
    assert sizes["int8"] < 0.4 * sizes["fp32"]
    assert sizes["int8-weights"] < 0.6 * sizes["fp32"]


def test_a_channel_that_is_far_wider_than_the_rest_is_divided(folders):
    graph = onnx.load(folders / "bert-int8" / "model.onnx").graph
    factors = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name.endswith("_factor")]
    assert any(len(factor) == WIDTH and factor.argmin() == 3 for factor in factors)


def test_the_check_compares_with_fp32_on_queries_and_pins(folders):
    metrics = open_artifact(folders / "bert-int8").manifest.metrics
    assert metrics["check_queries"] == 2
    assert 0.99 <= metrics["check_cosine_mean"] < 1
    assert metrics["check_ndcg@20_minus_fp32_low"] <= metrics["check_ndcg@20_minus_fp32"] <= metrics["check_ndcg@20_minus_fp32_high"]
    assert 0.8 <= metrics["check_top10_overlap"] <= 1


def test_a_text_without_a_known_token_has_no_vector_in_a_static_student(folders):
    vectors = OnnxEncoder(open_artifact(folders / "static-int8")).encode(["", " ", "sofa"])
    assert not vectors[:2].any()
    assert np.linalg.norm(vectors[2]) == pytest.approx(1, abs=1e-5)
    assert "" not in open_artifact(folders / "static-int8").golden()[0]


def test_a_shorter_vector_is_the_start_of_the_long_one_made_unit(sources, folders, tmp_path):
    long = OnnxEncoder(open_artifact(folders / "static-fp32")).encode(["red sofa"])[:, :32]
    manifest = export(tmp_path / "short", str(sources["static"]), "fp32", dimension=32)
    assert manifest.model_id == "static-fp32-d32"
    assert OnnxEncoder(open_artifact(tmp_path / "short")).encode(["red sofa"]) == pytest.approx(long / np.linalg.norm(long), abs=1e-5)


@pytest.mark.parametrize(("source", "dimension", "allowed"), [("turned", 48, "64, 32"), ("static", 65, "1 to 64"), ("static", -1, "1 to 64")])
def test_a_dimension_that_the_student_has_not_is_refused(sources, tmp_path, source, dimension, allowed):
    with pytest.raises(DataError, match=rf"--dimension {dimension}: .* was made for {allowed}"):
        export(tmp_path / "out", str(sources[source]), "fp32", dimension=dimension)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Promise(2.0, 0.0, 0.0, 0.0, 1.0), "cosine to the torch reference is 0.99"),
        (Promise(0.0, 2.0, 0.0, 0.0, 1.0), "mean cosine to the torch reference is 0.99"),
        (Promise(0.0, 0.0, 2.0, 0.0, 1.0), "mean cosine to fp32 is 0.99"),
        (Promise(0.0, 0.0, 0.0, 2.0, 1.0), "the first ten pins agree with fp32 by"),
        (Promise(0.0, 0.0, 0.0, 0.0, -1.0), "below fp32, most -1.0"),
    ],
)
def test_a_broken_promise_is_named_and_leaves_the_old_folder(sources, data, tmp_path, monkeypatch, broken, said):
    out = tmp_path / "student"
    before = export(out, str(sources["static"]), "int8")
    monkeypatch.setitem(PROMISES, "int8", broken)
    with pytest.raises(SystemExit, match="nothing was written") as refused:
        export(out, str(sources["static"]), "int8", check=data)
    assert said in str(refused.value)
    assert open_artifact(out).manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_full_disk_leaves_the_old_folder(sources, tmp_path, monkeypatch):
    out = tmp_path / "student"
    before = export(out, str(sources["static"]), "int8")
    monkeypatch.setattr(sys, "argv", ["export", "--out", str(out), "--source", str(sources["static"]), "--precision", "fp32"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))  # a file that grows beyond it fails as on a full disk
    try:
        with pytest.raises(SystemExit, match=r"could not be written: .*what was there before is untouched"):
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert open_artifact(out).manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_an_export_that_is_interrupted_leaves_the_old_folder(sources, tmp_path, monkeypatch):
    out = tmp_path / "student"
    before = export(out, str(sources["static"]), "int8")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.export.write_manifest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(out, str(sources["static"]), "fp32")
    assert open_artifact(out).manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_an_export_that_is_killed_leaves_the_old_folder(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "manifest.json").write_text("old")
    script = (
        "import os, sys, pathlib\nfrom training.folder import rebuilt\n"
        "with rebuilt(pathlib.Path(sys.argv[1])) as fresh:\n    (fresh / 'manifest.json').write_text('new')\n    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "student")], check=False, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "student" / "manifest.json").read_text() == "old"


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    from training.folder import rebuilt

    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "manifest.json").write_text("old")
    rename = Path.rename

    def refuses(self, target):
        if self.name == "new":
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(OSError, match="no space"), rebuilt(tmp_path / "student") as fresh:
        (fresh / "manifest.json").write_text("new")
    assert (tmp_path / "student" / "manifest.json").read_text() == "old"


def test_the_command_says_what_it_measured(sources, data, tmp_path, monkeypatch, capsys):
    arguments = ["--out", str(tmp_path / "student"), "--source", str(sources["static"]), "--precision", "int8", "--languages", "en,ja", "--check", str(data)]
    monkeypatch.setattr(sys, "argv", ["export", *arguments])
    main()
    said = capsys.readouterr().out
    assert "static-int8, golden_cosine_min 0.99" in said
    assert "check_ndcg@20_minus_fp32 " in said
    assert open_artifact(tmp_path / "student").manifest.languages == ("en", "ja")


def test_an_unknown_data_folder_is_refused_before_anything_is_read(sources, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        export(tmp_path / "out", str(sources["static"]), "int8", check=tmp_path / "none")
