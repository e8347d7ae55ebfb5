"""Publishing: whole folders only, immutable versions with their lineage, and a default that changes only for a win."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("mlflow", reason="needs the training extra: make training")
pytest.importorskip("pyarrow", reason="needs the training extra: make training")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of MLflow's own modules

from embedder.artifact import open_artifact, read_manifest  # noqa: E402  after the skip
from pins.manifest import Lineage  # noqa: E402
from training.data import DataError  # noqa: E402
from training.exports.model_card import card, write_card  # noqa: E402
from training.exports.tracking import connect  # noqa: E402
from training.folder import amend  # noqa: E402
from training.publish import DEFAULT, REGISTRY, Verdict, check, lineage_tags, main, promote, publish, register, wins  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "everpin" / "models" / "minilm-l6-v1"
LINEAGE = Lineage({"teacher_id": "t1", "rows": 900}, {"cxc_pins": "d0"}, ("open", "sa"), {"student": 7}, {"layers": 6}, "a1b2c3d")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Making the tables takes seconds: one file for all tests."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped student with a lineage."""
    shutil.copytree(SHIPPED, tmp_path / "student")
    amend(tmp_path / "student", lambda fresh: None, lambda manifest: replace(manifest, teacher="t1", lineage=LINEAGE))
    return tmp_path / "student"


def figures(mean, half=0.01):
    return {"ndcg@20": {"mean": mean, "low": mean - half, "high": mean + half}, "queries": 40}


def evaluation(model_id, english, others, baseline=None, **data):
    """The document of `training.evaluate --json`, as far as publishing reads it. `baseline`: model id, English and other differences."""
    body = {"model_id": model_id, "languages": {"en": figures(english), "de": figures(others)}, "mean_other": figures(others)}
    body["data"] = {"folder": "cxc_pins", "digest": "d0123456789abcdef", "split": "dev"} | data
    if baseline:
        name, *differences = baseline
        found = [{"ndcg@20": dict(zip(("mean", "low", "high"), one, strict=True))} for one in differences]
        body["baseline"] = {"model_id": name, "difference": {"languages": dict(zip(("en", "mean_other"), found, strict=True))}}
    return body


OLD = evaluation("old", 0.92, 0.74)
VERDICTS = [
    pytest.param(evaluation("new", 0.92, 0.86), True, id="English kept, others gain"),
    pytest.param(evaluation("new", 0.95, 0.74), True, id="English gains"),
    pytest.param(evaluation("new", 0.92, 0.75), False, id="a gain within chance"),
    pytest.param(evaluation("new", 0.92, 0.74), False, id="nothing gained"),
    pytest.param(evaluation("new", 0.89, 0.86), False, id="English lost beyond chance"),
    pytest.param(evaluation("new", 0.91, 0.86), False, id="English lost by more than is allowed, within chance"),
    pytest.param(evaluation("new", 0.917, 0.86), True, id="English lost by less than is allowed, within chance"),
    pytest.param(evaluation("new", 0.92, 0.75, ("old", (0.0, -0.004, 0.004), (0.01, 0.004, 0.016))), True, id="paired differences are finer"),
    pytest.param(evaluation("new", 0.917, 0.86, ("old", (-0.003, -0.005, -0.001), (0.12, 0.1, 0.14))), False, id="a small loss that is certain"),
    pytest.param(evaluation("new", 0.92, 0.75, ("another", (0.0, -0.004, 0.004), (0.01, 0.004, 0.016))), False, id="differences to another model say nothing"),
    pytest.param(evaluation("new", 0.92, 0.86) | {"languages": {"de": figures(0.86)}}, False, id="English not measured"),
    pytest.param(evaluation("new", 0.95, 0.86) | {"mean_other": None}, True, id="English only, and it gains"),
]


@pytest.mark.parametrize(("new", "expected"), VERDICTS)
def test_a_student_wins_when_it_gains_and_keeps_english(new, expected):
    verdict = wins(new, OLD)
    assert verdict.wins is expected
    assert len(verdict.reasons) == 2


@pytest.mark.parametrize("change", [{"digest": "e"}, {"split": "test"}, {"folder": "esci_fraction"}])
def test_evaluations_of_different_data_are_not_compared(change):
    with pytest.raises(DataError, match=f"different data .{next(iter(change))}"):
        wins(evaluation("new", 0.95, 0.9, **change), OLD)


def test_a_whole_folder_may_be_published(folder):
    assert check(folder).model_id == "minilm-l6-v1"


def half(folder):
    (folder / "golden.npz").unlink()


def edited(folder):
    with (folder / "model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"!")


def cut_off(folder):
    data = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(data[: len(data) // 2])


def strange(folder):
    (folder / "notes.txt").write_text("mine")


def stray(folder):
    amend(folder, lambda fresh: None, lambda manifest: replace(manifest, golden_tolerance=0.99999))


def research(folder):
    amend(folder, lambda fresh: None, lambda manifest: replace(manifest, lineage=replace(LINEAGE, licence_classes=("open", "research"))))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (half, r"golden\.npz is missing; copy the whole model folder again"),
        (edited, r"model\.onnx has sha256 .* the copy is damaged or was edited"),
        (cut_off, r"model\.onnx has sha256"),
        (strange, r"notes\.txt not in its manifest"),
        (stray, "promised 0.99999"),
        (research, "trained on texts of class research; train it on open and sa only"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(folder, damage, said):
    damage(folder)
    with pytest.raises(DataError, match=f"cannot be published: .*{said}"):
        check(folder)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "none")


def test_a_version_keeps_its_lineage_and_files_and_is_made_once(folder, uri):
    client, manifest = connect(uri), read_manifest(folder)
    version, fresh = register(client, folder, manifest, evaluation("minilm-l6-v1", 0.92, 0.74))
    again, second = register(client, folder, manifest, None)
    assert (fresh, second, again.version) == (True, False, version.version)
    tags = client.get_model_version(REGISTRY, version.version).tags
    assert tags | {"model_id": "minilm-l6-v1", "teacher": "t1", "labels.rows": "900", "data.cxc_pins": "d0", "seed.student": "7"} == tags
    assert tags | {"licence_classes": "open,sa", "code_version": "a1b2c3d", "sha256": manifest.files["model.onnx"]} == tags
    run = client.get_run(version.run_id)
    assert run.data.params["config.layers"] == "6"
    assert run.data.metrics["dev.en.ndcg_at_20.mean"] == 0.92
    stored = Path(client.get_model_version_download_uri(REGISTRY, version.version).removeprefix("file://"))
    assert open_artifact(stored).manifest == manifest


def test_other_weights_under_a_known_name_are_refused(folder, uri):
    client, manifest = connect(uri), read_manifest(folder)
    register(client, folder, manifest, None)
    with pytest.raises(DataError, match="with other weights; export these under a --model-id of their own"):
        register(client, folder, replace(manifest, files={**manifest.files, "model.onnx": "00"}), None)


def test_a_student_without_a_lineage_has_what_is_known():
    tags = lineage_tags(read_manifest(SHIPPED))
    assert tags["teacher"] == "none"
    assert "code_version" not in tags


@pytest.mark.parametrize(("won", "megabytes", "expected"), [(True, 25.0, True), (False, 25.0, False), (True, 31.0, False)])
def test_the_default_changes_only_for_a_small_enough_winner(folder, uri, won, megabytes, expected):
    client, manifest = connect(uri), read_manifest(folder)
    version, _ = register(client, folder, manifest, None)
    if DEFAULT in client.get_registered_model(REGISTRY).aliases:
        client.delete_registered_model_alias(REGISTRY, DEFAULT)
    measured = replace(manifest, metrics={"model_megabytes": megabytes})
    assert promote(client, version, measured, Verdict(won, ())) is expected
    assert (DEFAULT in client.get_registered_model(REGISTRY).aliases) is expected


def test_the_card_says_what_the_manifest_and_the_notices_say(folder, tmp_path):
    (tmp_path / "NOTICE.md").write_text("Grades by Example LLC, free for any purpose.")
    manifest = write_card(folder, [tmp_path / "NOTICE.md"], evaluation("minilm-l6-v1", 0.92, 0.74))
    text = (folder / "MODEL_CARD.md").read_text()
    assert open_artifact(folder).manifest == manifest
    assert "MODEL_CARD.md" in manifest.files
    for words in ("# minilm-l6-v1", "Grades by Example LLC", "| en | 40 | 0.920 [0.910, 0.930] |", "mean of the others", "`sa`: share-alike", "a1b2c3d"):
        assert words in text
    for heading in ("Languages", "Intended use", "Made from", "Training data", "Figures", "Limits"):
        assert f"\n## {heading}\n" in text


def test_a_card_without_evaluation_or_lineage_says_so():
    text = card(replace(read_manifest(SHIPPED), drift=None), {}, None)
    assert "Nothing is recorded of the texts" in text
    assert "keep their vector" not in text
    assert "bootstrap" not in text


def test_a_notice_that_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(DataError, match=r"--notice .*NOTICE\.md cannot be read"):
        write_card(folder, [tmp_path / "NOTICE.md"], None)


def written(path, body):
    path.write_text(body if isinstance(body, str) else json.dumps(body))
    return path


def test_the_command_publishes_and_says_who_is_the_default(folder, tmp_path, uri, monkeypatch, capsys):
    new = written(tmp_path / "new.json", evaluation("minilm-l6-v1", 0.95, 0.86))
    old = written(tmp_path / "old.json", OLD)
    arguments = [str(folder), "--mlflow", uri, "--card", "--evaluation", str(new), "--default", str(old)]
    monkeypatch.setattr(sys, "argv", ["publish", *arguments])
    main()
    said = capsys.readouterr().out
    assert f"minilm-l6-v1 is already version 1 of {REGISTRY}" in said or f"minilm-l6-v1 is now version 1 of {REGISTRY}" in said
    assert "English: nDCG@20 0.920 to 0.950, +0.0300" in said
    assert "minilm-l6-v1 replaces old as the default" in said
    assert (folder / "MODEL_CARD.md").exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [("{", "is no evaluation"), ({"languages": {}}, "is no evaluation"), (evaluation("another", 0.9, 0.8), "is of another, the folder holds minilm-l6-v1")],
)
def test_an_evaluation_that_does_not_fit_is_refused(folder, tmp_path, uri, body, said):
    with pytest.raises(DataError, match=said):
        publish(folder, uri, card=False, notices=[], evaluation=written(tmp_path / "new.json", body), default=None)
