"""Training a teacher: it learns, it resumes to the same weights, it stops with a clear message and without harm."""

import json
import resource
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

REASON = "needs the training extra: make training"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("accelerate", reason=REASON)
pytest.importorskip("peft", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from safetensors.torch import load_file  # noqa: E402  # after the skip

from tests.training.teacher_toys import LORA, bert, cross_encoder, llama, recipe, write_data  # noqa: E402
from training.data import DataError, read  # noqa: E402
from training.teachers.checkpoint import Checkpoints  # noqa: E402
from training.teachers.config import Loss, TeacherError  # noqa: E402
from training.teachers.examples import held_out, held_out_examples  # noqa: E402
from training.teachers.loop import rate  # noqa: E402
from training.teachers.teacher import open_teacher  # noqa: E402
from training.train_teacher import main, train  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher-training")


@pytest.fixture(scope="module")
def data(home):
    return write_data(home / "data" / "cxc_pins")


@pytest.fixture(scope="module")
def base(home):
    return bert(home / "bert")


@pytest.fixture(scope="module")
def light(base):
    """A features teacher: the fastest that goes through the whole loop."""
    return recipe("features", encoder=base, passes=3)


class Interrupted(Exception):
    """What a kill looks like from inside."""


def interrupt(monkeypatch, after):
    """Stop the run right after the checkpoint of update `after`."""
    save = Checkpoints.save

    def once(self, progress):
        save(self, progress)
        if progress.update >= after:
            raise Interrupted

    monkeypatch.setattr(Checkpoints, "save", once)


def weights(folder):
    found = load_file(folder / "heads.safetensors")
    return found | (load_file(folder / "base" / "model.safetensors") if (folder / "base").exists() else {})


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_features_teacher_learns_what_the_grades_say(home, data, base):
    about = train(recipe("features", encoder=base, passes=40, evaluate_every=5), data, home / "learns")
    first, best = about["history"][0], about["metrics"]
    assert best["dev_log_loss"] < first["log_loss"] - 0.1
    assert best["dev_log_loss"] < np.log(5)
    assert best["dev_ndcg20"] > 0.9
    teacher = open_teacher(home / "learns")
    levels = teacher.predict(["red blue green small"] * 2, ["red blue green. small large old", "flies near under. over with"], progress=False)
    assert levels[0] @ np.arange(5) > levels[1] @ np.arange(5) + 0.5
    assert levels.sum(axis=1) == pytest.approx(1.0)


def test_a_cross_encoder_lowers_its_loss(home, data, base):
    about = train(cross_encoder(base, passes=12, loss=Loss(listwise=0.0), patience=0, evaluate_every=1), data, home / "cross")
    history = [look["log_loss"] for look in about["history"]]
    assert min(history) < history[0] - 0.05
    assert about["config"]["base"]["name"] == str(base)
    assert sorted(path.name for path in (home / "cross").iterdir()) == ["base", "heads.safetensors", "teacher.json"]


def test_a_cross_encoder_with_features_and_the_pair_loss(home, data, base):
    config = replace(cross_encoder(base, loss=Loss(pairwise=0.5)), features=recipe("features", encoder=base).features)
    about = train(config, data, home / "joint")
    assert {"base", "encoder", "lexicon.json"} <= {path.name for path in (home / "joint").iterdir()}
    teacher = open_teacher(home / "joint")
    assert teacher.teacher_id == about["teacher_id"]
    assert teacher.predict(["red cat"], ["red cat. dog"], progress=False).sum() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["features", "cross_encoder"])
def test_a_resumed_run_ends_with_the_same_weights(kind, home, data, base, light, monkeypatch):
    config = light if kind == "features" else cross_encoder(base, passes=2, accumulate=2)
    straight = train(config, data, home / f"straight-{kind}")
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(Interrupted):
            train(config, data, home / f"resumed-{kind}")
    assert [path.name for path in sorted((home / f"resumed-{kind}").glob("checkpoint-*"))] == ["checkpoint-0000004"]
    assert not (home / f"resumed-{kind}" / "teacher.json").exists()
    resumed = train(config, data, home / f"resumed-{kind}")
    assert equal(weights(home / f"straight-{kind}"), weights(home / f"resumed-{kind}"))
    assert resumed["teacher_id"] == straight["teacher_id"]
    assert resumed["history"] == straight["history"]
    assert not list((home / f"resumed-{kind}").glob("*checkpoint*"))


def test_a_checkpoint_of_adapters_leaves_the_frozen_base_out(home, data, monkeypatch):
    config = cross_encoder(llama(home / "llama"), base={"pooling": "last", **LORA})
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted):
            train(config, data, home / "lora")
    kept = load_file(next((home / "lora").glob("checkpoint-*")) / "model.safetensors")
    assert any("lora_" in name for name in kept)
    assert all("lora_" in name for name in kept if name.startswith("base."))
    resumed = train(config, data, home / "lora")
    straight = train(config, data, home / "lora-straight")
    assert resumed["teacher_id"] == straight["teacher_id"]


def test_seeds_are_reproducible(home, data, light):
    once, again, other = (train(light, data, home / name, seed)["teacher_id"] for name, seed in (("a", 7), ("b", 7), ("c", 8)))
    assert once == again != other


def test_a_finished_run_is_not_trained_again(home, data, light, monkeypatch):
    about = train(light, data, home / "finished")
    monkeypatch.setattr("training.train_teacher.fit", lambda *_: pytest.fail("trained again"))
    assert train(light, data, home / "finished")["teacher_id"] == about["teacher_id"]
    with pytest.raises(TeacherError, match=r"finished teacher of another run: seed was 7, is 8\. Give another --out, or --no-resume"):
        train(light, data, home / "finished", seed=8)


def test_no_resume_starts_anew(home, data, light, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, 4)
        with pytest.raises(Interrupted):
            train(light, data, home / "anew")
    straight = train(light, data, home / "anew-straight", seed=9)
    assert train(light, data, home / "anew", seed=9, resume=False)["teacher_id"] == straight["teacher_id"]


@pytest.mark.parametrize(("change", "message"), [("config", "config.training.passes was 3, is 4"), ("seed", "seed was 7, is 8"), ("data", "data.cxc_pins was")])
def test_a_checkpoint_of_another_run_is_refused(change, message, home, data, light, monkeypatch):
    out = home / f"refused-{change}"
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(Interrupted):
            train(light, data, out)
    other = replace(light, training=replace(light.training, passes=4)) if change == "config" else light
    folder = write_data(home / "other" / "cxc_pins", direct=False) if change == "data" else data
    with pytest.raises(TeacherError, match=f"belongs to another run: .*{message}.*--no-resume to start anew"):
        train(other, folder, out, seed=8 if change == "seed" else 7)
    assert list(out.glob("checkpoint-*"))


def test_nan_stops_training_and_keeps_the_last_checkpoint(home, data, base, monkeypatch):
    from training.teachers import loop as teacher_loop

    out, plain, seen = home / "nan", teacher_loop.loss, []

    def broken(logits, *rest):
        seen.append(1)
        return plain(logits, *rest) * (float("nan") if len(seen) > 3 else 1.0)

    monkeypatch.setattr("training.teachers.loop.loss", broken)
    with pytest.raises(TeacherError, match=r"loss nan .* at update 4: training went off; the checkpoint .*checkpoint-0000002 from before is kept\. Lower"):
        train(cross_encoder(base), data, out)
    kept = load_file(out / "checkpoint-0000002" / "model.safetensors")
    assert all(torch.isfinite(weight).all() for weight in kept.values())
    assert not (out / "teacher.json").exists()


def limited(bytes_per_file):
    """No file may grow beyond this: what a full disk does to the libraries that write weights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_per_file, hard))
    return soft, hard


@pytest.mark.parametrize("room", [100, 100_000])  # where the weights fail, where the optimiser fails
def test_a_full_disk_at_a_checkpoint_keeps_the_one_before(room, home, data, base, monkeypatch):
    out, config = home / f"full-{room}", cross_encoder(base, evaluate_every=100)
    save = Checkpoints.save

    def then_full(self, progress):
        if progress.update == 4:
            before = limited(room)
            try:
                save(self, progress)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        save(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", then_full)
        with pytest.raises(TeacherError, match=r"the checkpoint of update 4 could not be written .*checkpoint-0000002, is intact\. Free space"):
            train(config, data, out)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-0000002"]
    assert train(config, data, out)["teacher_id"] == train(config, data, home / f"full-straight-{room}")["teacher_id"]


def test_a_full_disk_at_the_best_teacher(home, data, light, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.teachers.loop.save_teacher", full)
    with pytest.raises(TeacherError, match=r"the best teacher so far .* could not be written .*No space left"):
        train(light, data, home / "full-best")


def test_heads_of_several_sets_each_on_its_own_scale(home, data, base):
    write_data(data.parent / "commons", levels=3, direct=False)
    about = train(cross_encoder(base, heads={"cxc_pins": 5, "commons": 3}), data.parent, home / "heads")
    assert set(about["train_rows"]) == set(about["data_digests"]) == {"cxc_pins", "commons"}
    teacher = open_teacher(home / "heads")
    assert teacher.predict(["red"], ["red"], progress=False).shape == (1, 5)
    assert teacher.predict(["red"], ["red"], progress=False, head="commons").shape == (1, 3)


def test_a_stack_learns_from_rows_its_cross_encoder_never_saw(home, data, base):
    train(cross_encoder(base, hold_out=0.4), data, home / "below", seed=5)
    config = recipe("stack", encoder=base)
    about = train(config, data, home / "stack", stack_on=home / "below")
    assert about["stack_on"] == json.loads((home / "below" / "teacher.json").read_text())["teacher_id"]
    assert "held_out_ndcg20" in json.loads((home / "below" / "teacher.json").read_text())["metrics"]
    unseen = {seed: len(held_out_examples(read(data), config, "cxc_pins", held_out(read(data), 0.4, seed))) for seed in (5, 7, 99)}
    assert about["train_rows"] == {"cxc_pins": unseen[5]}
    assert unseen[5] not in (unseen[7], unseen[99])  # or the seed of the cross-encoder would not be tested
    teacher = open_teacher(home / "stack")
    assert teacher.features.width == 5 + 5
    assert teacher.features.cross.teacher_id == about["stack_on"]
    levels = teacher.predict(["red cat", "boat"], ["red cat. dog", "tree"], progress=False)
    assert levels.sum(axis=1) == pytest.approx(1.0)
    assert teacher.predict(["boat", "red cat"], ["tree", "red cat. dog"], progress=False)[::-1] == pytest.approx(levels, abs=1e-6)


def test_a_stack_is_refused_what_saw_everything(home, data, base, light):
    with pytest.raises(TeacherError, match="a stack needs --stack-on DIR"):
        train(recipe("stack", encoder=base), data, home / "alone")
    train(cross_encoder(base, passes=1), data, home / "all-rows")
    with pytest.raises(TeacherError, match="was trained on all rows"):
        train(recipe("stack", encoder=base), data, home / "alone", stack_on=home / "all-rows")
    with pytest.raises(TeacherError, match="--stack-on is for kind stack"):
        train(light, data, home / "alone", stack_on=home / "all-rows")


def test_an_encoder_that_changed_is_noticed(home, data, light):
    train(light, data, home / "changed")
    about = json.loads((home / "changed" / "teacher.json").read_text())
    (home / "changed" / "teacher.json").write_text(json.dumps(about | {"encoder_digest": "0" * 64}))
    with pytest.raises(TeacherError, match="was trained with other weights"):
        open_teacher(home / "changed")


def test_training_stops_when_nothing_gets_better(home, data, base):
    config = recipe("features", encoder=base, passes=50, evaluate_every=1, patience=2, learning_rate=1e-9, head_learning_rate=1e-9, log_loss_weight=0.0)
    about = train(config, data, home / "early")
    assert len(about["history"]) <= 3
    assert about["metrics"]["dev_ndcg20_low"] <= about["metrics"]["dev_ndcg20"] <= about["metrics"]["dev_ndcg20_high"]


def test_data_without_a_dev_split_needs_held_out_groups(home, base, light):
    import pyarrow.parquet as pq

    folder = write_data(home / "no-dev" / "cxc_pins")
    table = pq.read_table(folder / "queries.parquet")
    pq.write_table(table.drop_columns(["split"]), folder / "queries.parquet")
    with pytest.raises(DataError, match=r"has no dev split .*set training\.hold_out"):
        train(light, folder, home / "no-dev-out")
    about = train(recipe("features", encoder=base, hold_out=0.3), folder, home / "held-out")
    assert about["metrics"]["dev_log_loss"] > 0


def test_one_folder_cannot_serve_two_heads(home, data, base):
    with pytest.raises(DataError, match="is one data set, the recipe has heads for cxc_pins, commons"):
        train(cross_encoder(base, heads={"cxc_pins": 5, "commons": 3}), data, home / "two")


def test_the_rate_rises_and_falls():
    rates = [rate(update, 100, 0.1) for update in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert all(later <= earlier for earlier, later in pairwise(rates[10:]))


def test_the_command(home, data, base, monkeypatch, capsys):
    path = home / "recipe.toml"
    path.write_text(
        f'name = "toy"\nkind = "features"\nheads = {{ cxc_pins = 5 }}\n[features]\nencoder = "{base}"\nnames = ["cosine", "bm25"]\n[training]\npasses = 1\n'
    )
    monkeypatch.setattr("sys.argv", ["train_teacher", "--config", str(path), "--data", str(data), "--out", str(home / "command"), "--seed", "3"])
    main()
    assert "toy-" in capsys.readouterr().out
    assert json.loads((home / "command" / "teacher.json").read_text())["seed"] == 3
