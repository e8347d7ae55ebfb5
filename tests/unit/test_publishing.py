"""Publishing: what is refused and why, what a publication leaves behind, and that a killed or failed one leaves nothing that looks published."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow", reason="needs the extra registry: pip install 'everpin[registry]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of MLflow's own modules

from embedder.artifact import MODEL, open_artifact, read_manifest  # noqa: E402  after the skip
from everpin import publishing  # noqa: E402
from everpin.figures import Figures  # noqa: E402
from everpin.gate_rules import Rules, read_rules  # noqa: E402
from everpin.model_folders import model_folder, model_folders, published_folder  # noqa: E402
from everpin.published import LOCK, RECEIPTS, alone, receipt_of, verify_published  # noqa: E402
from everpin.publishing import Outcome, publish  # noqa: E402
from everpin.registry import NAME, PUBLISHED, open_registry  # noqa: E402
from everpin.settings import Settings  # noqa: E402
from pins.errors import ArtifactError, EverpinError, Unavailable  # noqa: E402
from pins.metrics import Interval  # noqa: E402
from tests.tiny_models import tiny_model, write_manifest  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty registry. Making its tables takes seconds: every test has a copy."""
    home = tmp_path_factory.mktemp("registry")
    open_registry(Settings(home=home))
    return home / "registry" / "mlflow.db"


@pytest.fixture
def config(tmp_path: Path, tables: Path) -> Settings:
    """A state folder with an empty registry, and a live model beside it that is not published."""
    (tmp_path / "home" / "registry").mkdir(parents=True)
    shutil.copy(tables, tmp_path / "home" / "registry" / "mlflow.db")
    return Settings(home=tmp_path / "home", model=tiny_model(tmp_path / "models" / "live", "live-v1", seed=1), threads=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "made" / "new", "new-v2")


def rules(**changes: Any) -> Rules:
    """The shipped rules; figures may be missing, and the speed of two tiny models is not compared, unless a test says otherwise."""
    shipped = read_rules()
    tables = {"ranking": {"allow_missing": ("*",)}, "speed": {"texts_per_s_ratio": 0.0, "query_ms": 1000.0}} | changes
    return shipped.model_copy(update={name: getattr(shipped, name).model_copy(update=values) for name, values in tables.items()})


def evaluated(model_id: str, mean: float) -> Figures:
    return Figures(model_id, "cxc d0 dev", {"en": {"ndcg@20": Interval(mean, mean - 0.01, mean + 0.01)}})


def published(config: Settings) -> list[str]:
    """Ids of the models in EVERPIN_HOME, as everything that serves finds them."""
    return [manifest.model_id for path, manifest in model_folders(config) if path.parent == config.models_home.resolve()]


def left(config: Settings) -> list[str]:
    """What lies in the folder of published models, but for lock and receipts."""
    return sorted(path.name for path in config.models_home.iterdir() if path.name not in (LOCK, RECEIPTS))


def test_a_published_model_is_found_whole_read_only_and_with_its_lineage(config: Settings, folder: Path) -> None:
    outcome = publish(config, folder, rules(), (evaluated("new-v2", 0.9), None))
    place = config.models_home.resolve() / "new-v2"
    assert (outcome.receipt is not None, outcome.already, outcome.place) == (True, False, place)
    assert open_artifact(place).manifest == read_manifest(folder)
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o444}
    assert left(config) == published(config) == ["new-v2"]
    assert model_folder(config, "new-v2") == published_folder(config, "new-v2") == place
    receipt = receipt_of(config, "new-v2")
    assert receipt == outcome.receipt
    assert receipt is not None
    assert receipt.lineage["teacher"] == "teacher-1"
    assert receipt.evaluation == evaluated("new-v2", 0.9).as_json()


def test_teacher_labels_and_data_are_read_back_from_the_registry(config: Settings, folder: Path) -> None:
    outcome = publish(config, folder, rules())
    (version,) = open_registry(config).versions("new-v2")
    said = {"model_id": "new-v2", "teacher": "teacher-1", "labels.teacher_id": "teacher-1", "labels.rows": "900", "labels.config.per_query": "16"}
    said |= {"data.cxc_pins": "d0d0", "weights_digest": "w0w0", "licence_classes": "open,sa", "code_version": "a1b2c3d", "seed.student": "7"}
    said |= {"digest": outcome.digest, "status": PUBLISHED, "gate": "passed", "template_version": "1", "sha256": read_manifest(folder).files[MODEL]}
    assert {name: version.tags.get(name) for name in said} == said
    assert version.source == outcome.place.as_uri()


def test_figures_and_the_gate_are_kept_with_the_run(config: Settings, folder: Path) -> None:
    from mlflow import MlflowClient

    outcome = publish(config, folder, rules(), (evaluated("new-v2", 0.9), None))
    assert outcome.receipt is not None
    client = MlflowClient(outcome.receipt.registry, outcome.receipt.registry)
    run = client.get_run(client.get_model_version(NAME, outcome.receipt.version).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics | {"levels_dev_accuracy": 0.5, "check_ndcg_at_20_minus_fp32": 0.0} == run.data.metrics
    assert run.data.metrics["gate.megabytes"] == pytest.approx(0.1, abs=0.1)
    assert sorted(entry.path for entry in client.list_artifacts(run.info.run_id)) == ["evaluation.json", "gate.json"]


def test_the_same_content_again_changes_nothing(config: Settings, folder: Path) -> None:
    first = publish(config, folder, rules())
    before = (first.place / MODEL).stat()
    again = publish(config, folder, rules(size={"megabytes": 0.001}))
    assert (again.already, again.digest, again.receipt) == (True, first.digest, first.receipt)
    assert (first.place / MODEL).stat() == before
    assert len(open_registry(config).versions("new-v2")) == 1


def half_copied(folder: Path) -> None:
    (folder / "golden.npz").unlink()


def cut_off(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])


def edited(folder: Path) -> None:
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")


def strange(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def outside(folder: Path) -> None:
    body = json.loads((folder / "manifest.json").read_text())
    body["files"]["../outside"] = body["files"][MODEL]
    (folder / "manifest.json").write_text(json.dumps(body))
    shutil.copy(folder / MODEL, folder.parent / "outside")


def other_template(folder: Path) -> None:
    write_manifest(folder, "new-v2", template_version=99)


def stray(folder: Path) -> None:
    write_manifest(folder, "new-v2", golden_tolerance=1.1)


def other_dimension(folder: Path) -> None:
    write_manifest(folder, "new-v2", dimension=64)


def bad_head(folder: Path) -> None:
    write_manifest(folder, "new-v2", ordinal_head={"scale": 8.0, "thresholds": [2.0, 1.0, 4.0, 6.0]})


def bad_drift(folder: Path) -> None:
    (folder / "drift.npz").write_bytes(b"no arrays")
    write_manifest(folder, "new-v2")


def bad_name(folder: Path) -> None:
    write_manifest(folder, "../new")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (half_copied, r"golden\.npz is missing; copy the whole model folder again"),
    (cut_off, r"model\.onnx has sha256 .* the copy is damaged or was edited"),
    (edited, r"tokenizer\.json has sha256"),
    (strange, r"notes\.txt not in its manifest"),
    (outside, r"names \.\./outside; a model folder holds plain files only"),
    (other_template, "made for pin text template 99, this Everpin renders template 1"),
    (stray, "promised 1.1"),
    (other_dimension, "golden vectors have 128 dimensions, the manifest says 64"),
    (bad_head, "four increasing, finite thresholds"),
    (bad_drift, r"drift\.npz cannot be read"),
    (bad_name, r"the model id '\.\./new' cannot name a folder"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_folder_that_is_not_what_it_says_is_refused(config: Settings, folder: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(folder)
    with pytest.raises(ArtifactError, match=said):
        publish(config, folder, rules(), force="no reason helps")
    assert not config.models_home.exists()
    assert open_registry(config).versions("new-v2") == []


def test_the_same_name_with_other_content_is_refused(config: Settings, folder: Path, tmp_path: Path) -> None:
    first = publish(config, folder, rules())
    other = tiny_model(tmp_path / "made" / "other", "new-v2", seed=3)
    with pytest.raises(ArtifactError, match=f"new-v2 is published already, as version 1 .* with other content .digest {first.digest[:12]}"):
        publish(config, other, rules(), force="mine is better")
    assert open_artifact(first.place).manifest == read_manifest(folder)


def test_other_content_is_refused_by_the_folder_where_the_registry_is_another_one(config: Settings, folder: Path, tmp_path: Path, tables: Path) -> None:
    publish(config, folder, rules())
    shutil.copy(tables, tmp_path / "other.db")
    elsewhere = config.model_copy(update={"registry": f"sqlite:///{tmp_path / 'other.db'}"})
    with pytest.raises(ArtifactError, match="a published model never changes"):
        publish(elsewhere, tiny_model(tmp_path / "made" / "other", "new-v2", seed=3), rules())


def test_the_live_models_name_with_other_content_is_refused(config: Settings, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is live-v1 too, with other content"):
        publish(config, tiny_model(tmp_path / "made" / "other", "live-v1", seed=3), rules())


def test_the_live_model_itself_may_be_published(config: Settings) -> None:
    outcome = publish(config, config.model, rules(ranking={"allow_missing": ()}))
    assert outcome.receipt is not None
    assert [line.note for line in outcome.gate if line.name == "ndcg@20"] == ["no other model is live"]


@pytest.mark.parametrize("name", [MODEL, "manifest.json"])
def test_a_published_copy_that_was_changed_is_found(config: Settings, folder: Path, name: str) -> None:
    """A manifest that was changed with its files has the right hashes; the receipt knows better."""
    place = publish(config, folder, rules()).place
    (place / name).chmod(0o644)
    (place / name).write_bytes((place / name).read_bytes().replace(b"a test", b"a tale") + b" ")
    with pytest.raises(ArtifactError, match="has sha256" if name == MODEL else "was changed after it was published"):
        publish(config, folder, rules())
    if name != MODEL:
        with pytest.raises(ArtifactError, match="was changed after it was published"):
            verify_published(config, place, "new-v2")


def test_a_copy_without_its_receipt_proves_nothing(config: Settings, folder: Path) -> None:
    publish(config, folder, rules())
    (config.models_home / RECEIPTS / "new-v2.json").unlink()
    with pytest.raises(ArtifactError, match="nothing proves what was published as new-v2"):
        receipt_of(config, "new-v2")


def test_the_gate_refuses_and_leaves_nothing(config: Settings, folder: Path) -> None:
    outcome = publish(config, folder, rules(size={"megabytes": 0.001}))
    assert outcome.receipt is None
    assert [line.name for line in outcome.gate if not line.passed] == ["megabytes"]
    assert left(config) == published(config) == []
    assert open_registry(config).versions("new-v2") == []


def test_a_reason_against_the_gate_is_kept_in_the_registry(config: Settings, folder: Path) -> None:
    outcome = publish(config, folder, rules(size={"megabytes": 0.001}), force="for a test of size")
    assert outcome.receipt is not None
    assert outcome.receipt.forced == "for a test of size"
    (version,) = open_registry(config).versions("new-v2")
    said = {"gate": "forced", "gate_failed": "megabytes", "forced": "for a test of size", "status": PUBLISHED}
    assert version.tags | said == version.tags


def test_a_reason_that_was_not_needed_is_not_kept(config: Settings, folder: Path) -> None:
    outcome = publish(config, folder, rules(), force="just in case")
    assert outcome.receipt is not None
    assert outcome.receipt.forced == ""
    assert "forced" not in open_registry(config).versions("new-v2")[0].tags


def test_the_live_model_is_judged_by_the_evaluation_it_was_published_with(config: Settings, folder: Path) -> None:
    strict = rules(ranking={"allow_missing": ()})
    publish(config, config.model, strict, (evaluated("live-v1", 0.9), None))
    refused = publish(config, folder, strict, (evaluated("new-v2", 0.85), None))
    assert [(line.name, line.passed) for line in refused.gate if not line.passed] == [("ndcg@20 en", False)]
    assert publish(config, folder, strict, (evaluated("new-v2", 0.9), None)).receipt is not None


@pytest.mark.parametrize(("new", "live", "said"), [("old", None, "--evaluation is of old"), ("new-v2", "old", "--live-evaluation is of old")])
def test_evaluations_of_other_models_are_refused(config: Settings, folder: Path, new: str, live: str | None, said: str) -> None:
    with pytest.raises(EverpinError, match=said):
        publish(config, folder, rules(), (evaluated(new, 0.9), evaluated(live, 0.9) if live else None))


def test_a_live_model_without_a_folder_here_is_a_line_of_the_gate(config: Settings, folder: Path) -> None:
    (config.index_home / "pins__gone").mkdir(parents=True)
    (config.index_home / "aliases.json").write_text('{"pins": "pins__gone"}')
    outcome = publish(config, folder, rules(speed={"texts_per_s_ratio": 0.5, "query_ms": 1000.0}))
    assert [line.note for line in outcome.gate if not line.passed] == ["the folder of gone is not on this machine"]


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_copy_that_cannot_be_written_to_its_end_leaves_nothing(config: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = publishing.judge
    with full_disk(resource.RLIM_INFINITY):

        def full_from_now_on(*arguments: Any) -> Any:
            lines = judge(*arguments)
            resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / MODEL).stat().st_size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return lines

        monkeypatch.setattr(publishing, "judge", full_from_now_on)
        with pytest.raises(Unavailable, match=r"cannot be written: .*File too large.* nothing was published"):
            publish(config, folder, rules())
    assert left(config) == published(config) == []
    assert open_registry(config).versions("new-v2") == []
    monkeypatch.setattr(publishing, "judge", judge)
    assert publish(config, folder, rules()).receipt is not None


def test_a_folder_that_changes_while_it_is_copied_is_refused(config: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = publishing.judge

    def judged_then_changed(*arguments: Any) -> Any:
        write_manifest(folder, "new-v2", source="another")
        return judge(*arguments)

    monkeypatch.setattr(publishing, "judge", judged_then_changed)
    with pytest.raises(ArtifactError, match="changed while it was copied"):
        publish(config, folder, rules())
    assert left(config) == []


def test_a_registry_that_fails_leaves_nothing(config: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def away(*arguments: Any, **named: Any) -> None:
        raise MlflowException("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", away)
        with pytest.raises(Unavailable, match="does not answer: disk I/O error; check EVERPIN_REGISTRY"):
            publish(config, folder, rules())
    assert left(config) == []
    assert publish(config, folder, rules()).receipt is not None


KILLED = """
import os, signal, sys
from pathlib import Path
from everpin import publishing
from everpin.registry import Registry
from everpin.settings import Settings
from tests.unit.test_publishing import rules

def die(*arguments, **named):
    os.kill(os.getpid(), signal.SIGKILL)

owner, name = {"register": (Registry, "register"), "put": (publishing, "put"), "rename": (Path, "rename"), "finish": (Registry, "finish")}[sys.argv[1]]
setattr(owner, name, die)
publishing.publish(Settings(home=Path(sys.argv[2]), model=Path(sys.argv[3]), threads=1), Path(sys.argv[4]), rules())
"""


@pytest.mark.parametrize("point", ["register", "put", "rename", "finish"])
def test_a_killed_publication_is_not_there_and_the_next_one_ends_it(config: Settings, folder: Path, point: str) -> None:
    command = [sys.executable, "-c", KILLED, point, str(config.home), str(config.model), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]
    there = point == "finish"  # the rename was done: the folder is published, only the registry was not told
    assert published(config) == (["new-v2"] if there else [])
    assert [version.published for version in open_registry(config).versions("new-v2")] == ([] if point == "register" else [False])
    outcome = publish(config, folder, rules())
    assert (outcome.already, outcome.receipt is not None) == (there, True)
    assert left(config) == published(config) == ["new-v2"]
    assert [version.published for version in open_registry(config).versions("new-v2")] == [True]


def test_what_a_killed_publication_registered_does_not_take_the_name(config: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publishing, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            publish(config, folder, rules())
    other = tiny_model(tmp_path / "made" / "other", "new-v2", seed=3)
    assert publish(config, other, rules()).receipt is not None
    assert [version.published for version in open_registry(config).versions("new-v2")] == [False, True]


def test_a_registry_that_lost_a_version_gets_it_back(config: Settings, folder: Path, tables: Path) -> None:
    first = publish(config, folder, rules(size={"megabytes": 0.001}), force="small enough for me")
    shutil.copy(tables, config.registry_home / "mlflow.db")
    assert publish(config, folder, rules()).already
    (version,) = open_registry(config).versions("new-v2")
    assert version.tags | {"digest": first.digest, "forced": "small enough for me", "status": PUBLISHED} == version.tags


def test_a_second_publication_at_the_same_time_is_told_to_wait(config: Settings, folder: Path) -> None:
    with alone(config.models_home), pytest.raises(Unavailable, match="another publication is going on"):
        publish(config, folder, rules())
    assert publish(config, folder, rules()).receipt is not None


def test_a_model_that_another_machine_published_is_published_here_as_the_same_version(config: Settings, folder: Path, tmp_path: Path, tables: Path) -> None:
    shutil.copy(tables, tmp_path / "shared.db")
    machines = [config.model_copy(update={"home": tmp_path / name, "registry": f"sqlite:///{tmp_path / 'shared.db'}"}) for name in ("one", "two")]
    first, second = (publish(machine, folder, rules()) for machine in machines)
    assert first.receipt is not None
    assert second.receipt is not None
    assert (first.receipt.version, first.already) == (second.receipt.version, second.already) == ("1", False)
    assert [published(machine) for machine in machines] == [["new-v2"], ["new-v2"]]


def test_an_address_that_is_no_registry_is_named(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    config = Settings(home=tmp_path / "home", registry=f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with pytest.raises(Unavailable, match=r"cannot be opened: .*EVERPIN_REGISTRY must be an MLflow server or sqlite:///FILE"):
        publish(config, folder, rules())


def test_without_mlflow_the_extra_is_named(config: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ArtifactError, match=r"pip install 'everpin\[registry\]'"):
        publish(config, folder, rules())


def test_an_outcome_is_plain_data(config: Settings, folder: Path) -> None:
    from everpin.commands.publishing import document

    outcome: Outcome = publish(config, folder, rules())
    body = json.loads(json.dumps(document(outcome)))
    assert (body["published"], body["version"], body["gate"]["passed"], body["lineage"]["teacher"]) == (True, "1", True, "teacher-1")
