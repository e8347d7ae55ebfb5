"""Train a teacher: human grades in, a folder that grades any (query, pin) pair out.

    python -m training.train_teacher --config training/configs/teacher-minilm.toml --data DATA --out DIR
    accelerate launch -m training.train_teacher ...        the same on several GPUs or machines

The loop (`training.teachers.loop`) runs on accelerate, not on a trainer of sentence-transformers: batches hold whole queries of one
scale, targets are soft, heads are several, and an interrupted run goes on to the same weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from numpy.typing import NDArray

from pins.text import render
from training.data import DataError, RelevanceData, read
from training.teachers.checkpoint import Checkpoints, differences
from training.teachers.config import TeacherConfig, TeacherError, read_config
from training.teachers.examples import Examples, held_out, held_out_examples, training_examples
from training.teachers.features import Encoder, Lexicon, MatchFeatures
from training.teachers.figures import Validation, validation_pairs
from training.teachers.loop import BEST, Run, fit
from training.teachers.teacher import ABOUT, PairFeatures, Teacher, build, open_teacher, write_about

Folders = dict[str, RelevanceData]


def train(config: TeacherConfig, data: Path, out: Path, seed: int = 7, resume: bool = True, stack_on: Path | None = None) -> dict[str, Any]:
    """Train and return the written teacher.json. Raises TeacherError or DataError for anything a person must change."""
    folders = read_folders(config, data)
    accelerator = _accelerator(config)
    cross = _cross_encoder(config, folders[config.main], stack_on, str(accelerator.device))
    recipe = {
        "config": asdict(config),
        "data": {name: one.digest for name, one in folders.items()},
        "seed": seed,
        "processes": accelerator.num_processes,
        "stack_on": cross.teacher_id if cross else None,
    }
    checkpoints = Checkpoints(out, accelerator, recipe)
    if resume and (done := _finished(out, checkpoints)):
        return done
    if not resume:
        checkpoints.clear()
    set_seed(seed)
    progress = fit(prepare(config, folders, seed, accelerator, cross), out, checkpoints)
    if accelerator.is_main_process:
        _publish(out, {"updates": progress.update, "processes": accelerator.num_processes, "history": progress.history})
    accelerator.wait_for_everyone()
    checkpoints.clear()
    about: dict[str, Any] = json.loads((out / ABOUT).read_bytes())
    return about


def read_folders(config: TeacherConfig, data: Path) -> Folders:
    """The folder of every head: `data` itself where it holds judgements and there is one head, else `data`/<name>."""
    if (data / "judgements.parquet").exists():
        if len(config.heads) > 1:
            raise DataError(f"{data} is one data set, the recipe has heads for {', '.join(config.heads)}; give the folder that holds them all")
        return {config.main: read(data, config.heads[config.main])}
    return {name: read(data / name, levels) for name, levels in config.heads.items()}


def prepare(config: TeacherConfig, folders: Folders, seed: int, accelerator: Accelerator, cross: Teacher | None) -> Run:
    """Everything before the first step: rows, their features, what is measured, the untrained teacher."""
    main, bars = folders[config.main], accelerator.is_main_process
    held = {} if cross else {name: held_out(one, config.training.hold_out, seed) for name, one in folders.items()}
    examples = [_examples_of_stack(config, main, cross)] if cross else [training_examples(folders[name], config, name, held[name]) for name in config.heads]
    features = PairFeatures(_match(config, main, str(accelerator.device)), cross)
    teacher = build(config, features, accelerator.device)
    known = [_matrix(features, rows.queries, rows.pins, bars) for rows in examples]
    if features.width:
        teacher.model.standardise(torch.from_numpy(np.concatenate([rows for rows in known if rows is not None])).to(accelerator.device))
    chosen_by = held.get(config.main, set())
    seen = Validation.of(main, validation_pairs(main, config, chosen_by))
    dev = Validation.of(main, validation_pairs(main, config, set())) if chosen_by and "dev" in main.splits else None
    return Run(
        config,
        seed,
        accelerator,
        teacher,
        examples,
        known,
        (seen, _matrix(features, seen.queries, seen.texts, bars)),
        (dev, _matrix(features, dev.queries, dev.texts, bars)) if dev else None,
        _facts(config, folders, seed, examples, cross),
    )


def _accelerator(config: TeacherConfig) -> Accelerator:
    precision = config.base.precision if torch.cuda.is_available() else "no"
    if precision != config.base.precision:
        print(f"no GPU: computing in fp32 instead of {config.base.precision}")
    unused = DistributedDataParallelKwargs(find_unused_parameters=len(config.heads) > 1)  # a batch trains one head
    return Accelerator(mixed_precision=precision, kwargs_handlers=[unused])


def _cross_encoder(config: TeacherConfig, data: RelevanceData, folder: Path | None, device: str) -> Teacher | None:
    """The teacher under a stack. It must have held rows of this very data out: those teach the stack how far to trust it."""
    if config.kind != "stack":
        if folder:
            raise TeacherError(f"--stack-on is for kind stack, the recipe's kind is {config.kind}")
        return None
    if folder is None:
        raise TeacherError("a stack needs --stack-on DIR: a cross-encoder made by training.train_teacher with training.hold_out above 0")
    cross = open_teacher(folder, device)
    if not cross.config.training.hold_out:
        raise TeacherError(f"{folder} was trained on all rows, so its levels on them say nothing; train it with training.hold_out, 0.25 is usual")
    if cross.about["data_digest"] != data.digest or cross.config.main != config.main:
        raise TeacherError(f"{folder} was trained on other data than {data.folder}; train it on this folder, so that the rows it held out are known")
    return cross


def _examples_of_stack(config: TeacherConfig, data: RelevanceData, cross: Teacher) -> Examples:
    out = held_out(data, cross.config.training.hold_out, int(cross.about["seed"]))
    return held_out_examples(data, config, config.main, out)


def _match(config: TeacherConfig, data: RelevanceData, device: str) -> MatchFeatures | None:
    if not config.features.names:
        return None
    lexicon = Lexicon.fit([render(pin).text for pin in data.pins])
    return MatchFeatures(config.features.names, Encoder(config.features.encoder, device), lexicon)


def _matrix(features: PairFeatures, queries: Any, texts: Any, bars: bool) -> NDArray[np.float32] | None:
    return features.matrix(queries, texts, bars) if features.width else None


def _facts(config: TeacherConfig, folders: Folders, seed: int, examples: list[Examples], cross: Teacher | None) -> dict[str, Any]:
    return {
        "main": config.main,
        "data_digest": folders[config.main].digest,
        "data_digests": {name: one.digest for name, one in folders.items()},
        "seed": seed,
        "code_version": version("everpin"),
        "stack_on": cross.teacher_id if cross else None,
        "train_rows": {rows.head: len(rows) for rows in examples},
    }


def _finished(out: Path, checkpoints: Checkpoints) -> dict[str, Any] | None:
    """The teacher.json of a finished run of this very recipe. Raises TeacherError when another teacher lies there."""
    if checkpoints.last or not (out / ABOUT).exists():
        return None
    about: dict[str, Any] = json.loads((out / ABOUT).read_bytes())
    before = {"data": about.get("data_digests", {})} | {name: about.get(name) for name in ("config", "seed", "processes", "stack_on")}
    if changed := differences(before, checkpoints.recipe):
        raise TeacherError(f"{out} holds a finished teacher of another run: {'; '.join(changed)}. Give another --out, or --no-resume to replace it")
    return about


def _publish(out: Path, facts: dict[str, Any]) -> None:
    """Move the best teacher into place, teacher.json last: a folder that has one is whole."""
    about = json.loads((out / BEST / ABOUT).read_bytes())
    write_about(out / BEST, about | facts)
    (out / ABOUT).unlink(missing_ok=True)
    for path in sorted((out / BEST).iterdir(), key=lambda path: path.name == ABOUT):
        place = out / path.name
        if place.is_dir():
            shutil.rmtree(place)
        path.rename(place)
    (out / BEST).rmdir()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train_teacher",
        description="Train a teacher: it reads a query and a pin's text and gives the probability of each relevance level.",
        epilog="Interrupted? Run the same command: it goes on from the last checkpoint, to the same weights. On several GPUs: accelerate launch -m "
        "training.train_teacher ... Next: python -m training.label scores search logs with the teacher; python -m training.evaluate DIR measures it.",
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="recipe, as training/configs/teacher-minilm.toml")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data folder, or the folder that holds those the recipe has heads for")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="teacher folder to write; holds the checkpoints meanwhile")
    parser.add_argument("--seed", type=int, default=7, help="seed of everything drawn at random (default: 7)")
    parser.add_argument("--stack-on", type=Path, metavar="DIR", help="for kind stack: the trained cross-encoder, which must have held rows out")
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the last checkpoint in --out (default: yes)")
    args = parser.parse_args()
    about = train(read_config(args.config), args.data, args.out, args.seed, args.resume, args.stack_on)
    print(f"{args.out}: {about['teacher_id']}, " + ", ".join(f"{name} {value:.4f}" for name, value in about["metrics"].items()))


if __name__ == "__main__":
    main()
