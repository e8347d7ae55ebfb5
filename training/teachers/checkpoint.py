"""Checkpoints of a teacher's training: written beside and renamed, so that the last good one outlives a full disk or a kill.

A checkpoint is a folder checkpoint-<update> with what accelerate saves (trained weights, optimiser, random states of every process)
and progress.json. Weights that never change (a frozen base under adapters) are not in it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from training.teachers.config import TeacherError

PREFIX = "checkpoint-"
PROGRESS = "progress.json"
TORCH_CANNOT_WRITE = ("PytorchStreamWriter", "inline_container", "iostream", "write")
"""torch reports a failed write as a RuntimeError with one of these words."""
Facts = Mapping[str, Any]


@dataclass
class Progress:
    """How far training is. `best` is the best validation score and `looks` how many evaluations ago it was reached."""

    update: int = 0
    best: float = float("-inf")
    looks: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run. `recipe` is all that must be equal for a run to go on: config, data digests, seed, processes."""

    def __init__(self, folder: Path, accelerator: Accelerator, recipe: Facts) -> None:
        self.folder, self.accelerator = folder, accelerator
        self.recipe = json.loads(json.dumps(recipe))
        accelerator.register_save_state_pre_hook(_drop_frozen)

    @property
    def last(self) -> Path | None:
        """The newest whole checkpoint."""
        found = [path for path in self.folder.glob(f"{PREFIX}*") if path.is_dir()]
        return max(found, key=lambda path: int(path.name.removeprefix(PREFIX)), default=None)

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then remove the one before. Raises TeacherError when the disk is full; nothing partial stays."""
        scratch, place, before = self.folder / ".checkpoint", self.folder / f"{PREFIX}{progress.update:07d}", self.last
        main = self.accelerator.is_main_process
        with whole(scratch, f"the checkpoint of update {progress.update}", f"the one before, {before}, is intact" if before else "there is none before it"):
            if main:
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir(parents=True)
            self.accelerator.wait_for_everyone()
            self.accelerator.save_state(str(scratch))
            self.accelerator.wait_for_everyone()
            if main:
                (scratch / PROGRESS).write_text(json.dumps({"recipe": self.recipe, **asdict(progress)}), encoding="utf-8")
                scratch.rename(place)
                if before and before != place:
                    shutil.rmtree(before)
        self.accelerator.wait_for_everyone()

    def resume(self) -> Progress:
        """Go on from the last checkpoint; a fresh Progress where there is none. Raises TeacherError for one of another recipe."""
        last = self.last
        if last is None:
            return Progress()
        body = json.loads((last / PROGRESS).read_bytes())
        if changed := differences(body.pop("recipe"), self.recipe):
            raise TeacherError(
                f"{last} belongs to another run: {'; '.join(changed)}. Use the same settings to resume, --no-resume to start anew, or another --out"
            )
        self.accelerator.load_state(str(last), strict=False)
        return Progress(**body)

    def clear(self) -> None:
        """Remove every checkpoint."""
        if self.accelerator.is_main_process:
            for path in [*self.folder.glob(f"{PREFIX}*"), self.folder / ".checkpoint"]:
                shutil.rmtree(path, ignore_errors=True)
        self.accelerator.wait_for_everyone()


@contextmanager
def whole(partial: Path | None, what: str, otherwise: str) -> Iterator[None]:
    """Turn a failed write, by any of the libraries that write weights, into a clear end without a partial file."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(sign in str(error) for sign in TORCH_CANNOT_WRITE):
            raise
        if partial:
            shutil.rmtree(partial, ignore_errors=True)
        raise TeacherError(f"{what} could not be written ({error}); {otherwise}. Free space or give another --out, then run the same command") from error


def differences(before: Facts, now: Facts, where: str = "") -> list[str]:
    """What two nested recipes do not share: `training.passes was 3, is 5`."""
    found = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{where}{key}.")
        elif old != new:
            found.append(f"{where}{key} was {old!r}, is {new!r}")
    return found


def _drop_frozen(models: list[torch.nn.Module], weights: list[dict[str, torch.Tensor]], _: str) -> None:
    """Leave parameters that do not train out of what accelerate writes."""
    for model, state in zip(models, weights, strict=False):
        frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
        for name in frozen & state.keys():
            del state[name]
