"""Two processes under accelerate train one teacher: shared gradients, shared validation, one folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REASON = "needs the training extra: make training"
pytest.importorskip("torch", reason=REASON)
pytest.importorskip("accelerate", reason=REASON)
pytest.importorskip("peft", reason=REASON)
pytest.importorskip("sentence_transformers", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from tests.training.teacher_toys import bert, write_data  # noqa: E402  # after the skip
from training.data import read  # noqa: E402
from training.teachers.figures import Validation, figures  # noqa: E402
from training.teachers.teacher import open_teacher  # noqa: E402

RECIPE = """
name = "toy"
kind = "cross_encoder"
languages = ["en"]
heads = {{ cxc_pins = 5, commons = 3 }}
[base]
name = "{base}"
max_tokens = 48
[training]
passes = 2
batch_pairs = 48
learning_rate = 1e-3
evaluate_every = 3
checkpoint_every = 3
"""
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
"""`accelerate launch --cpu` starts several processes over MPI only; accelerate reads the variables that torchrun sets."""


def test_two_processes_train_one_teacher(tmp_path):
    data = write_data(tmp_path / "data" / "cxc_pins")
    write_data(tmp_path / "data" / "commons", levels=3, direct=False)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(base=bert(tmp_path / "bert")))
    command = [*LAUNCH, "-m", "training.train_teacher", "--config", str(recipe), "--data", str(data.parent), "--out", str(tmp_path / "out")]
    settings = {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    about = json.loads((tmp_path / "out" / "teacher.json").read_text())
    assert about["processes"] == 2
    assert not list((tmp_path / "out").glob("*checkpoint*"))
    folder = read(data)
    seen = Validation.of(folder, folder.pairs("dev", {"en"}))
    levels = open_teacher(tmp_path / "out").predict(seen.queries, seen.texts, progress=False)
    alone = {f"dev_{name}": value for name, value in figures(levels, seen).items()}
    assert about["metrics"] == pytest.approx(alone, abs=1e-4)  # each process measured its half; together they are the whole
