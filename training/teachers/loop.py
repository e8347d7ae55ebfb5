"""The training loop of a teacher: batches to losses to moves of the weights, looks at the validation queries, checkpoints.

Every process of a distributed run walks the same plan and takes its share of each update's batches, so the order is a function of
the seed alone and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from training.teachers.checkpoint import Checkpoints, Progress, whole
from training.teachers.config import Schedule, TeacherConfig, TeacherError
from training.teachers.examples import Examples, plan
from training.teachers.figures import Validation, figures
from training.teachers.losses import loss
from training.teachers.teacher import Teacher, save_teacher

BEST = ".best"
Batch = tuple[int, NDArray[np.int64]]
"""(which examples, which of their rows)."""


@dataclass
class Run:
    """What a run holds still: what it learns from and in which order, what it is measured on. Features are (rows, width) or None.

    `dev`: the dev split, where the best teacher is not chosen by it, with its features.
    """

    config: TeacherConfig
    seed: int
    accelerator: Accelerator
    teacher: Teacher
    examples: Sequence[Examples]
    features: Sequence[NDArray[np.float32] | None]
    validation: tuple[Validation, NDArray[np.float32] | None]
    dev: tuple[Validation, NDArray[np.float32] | None] | None
    facts: dict[str, Any]


def fit(run: Run, out: Path, checkpoints: Checkpoints) -> Progress:
    """Train from the last checkpoint to the end, or until nothing gets better. The best teacher so far lies in out/.best, with its figures."""
    times, accelerator = run.config.training, run.accelerator
    model = run.teacher.model
    wrapped, optimizer = accelerator.prepare(model, torch.optim.AdamW(parameter_groups(model, times), eps=1e-8))
    updates = schedule(run)
    progress = checkpoints.resume()
    bar = tqdm(total=len(updates), initial=progress.update, desc="train", unit="update", disable=not accelerator.is_main_process)
    model.train()
    for batches in updates[progress.update :]:
        value = _step(run, wrapped, optimizer, batches, (progress.update, len(updates)), checkpoints)
        progress.update += 1
        bar.update()
        bar.set_postfix(loss=f"{value:.3f}", best=f"{progress.best:.4f}", refresh=False)
        last = progress.update == len(updates)
        if last or progress.update % times.evaluate_every == 0:
            _look(run, out, progress)
        done = last or 0 < times.patience <= progress.looks
        if done or progress.update % times.checkpoint_every == 0:
            checkpoints.save(progress)
        if done:
            break
    bar.close()
    return progress


def schedule(run: Run) -> list[list[Batch]]:
    """Every update of the whole training: its batches, `accumulate` for each process. The last of a pass is filled up from its start."""
    times = run.config.training
    size = times.accumulate * run.accelerator.num_processes
    updates = []
    for number in range(times.passes):
        batches = [
            (which, rows)
            for which, examples in enumerate(run.examples)
            for rows in plan(examples, times.batch_pairs, run.config.whole_queries, run.seed, number)
        ]
        order = np.random.default_rng([run.seed, number, len(batches)]).permutation(len(batches))
        shuffled = [batches[place] for place in order]
        updates += [[shuffled[(start + offset) % len(shuffled)] for offset in range(size)] for start in range(0, len(shuffled), size)]
    return updates


def parameter_groups(model: torch.nn.Module, times: Schedule) -> list[dict[str, Any]]:
    """Groups for AdamW: the base and the heads at their own rates, weight decay on matrices only."""
    groups = []
    for of_base, peak in ((True, times.learning_rate), (False, times.head_learning_rate)):
        named = [weight for name, weight in model.named_parameters() if name.startswith("base.") == of_base and weight.requires_grad]
        for matrices, decay in ((True, times.weight_decay), (False, 0.0)):
            if chosen := [weight for weight in named if (weight.ndim > 1) == matrices]:
                groups.append({"params": chosen, "lr": peak, "peak": peak, "weight_decay": decay})
    return groups


def rate(update: int, updates: int, warmup: float) -> float:
    """Share of the peak learning rate at an update, counted from 0: a linear rise over `warmup`, then a linear fall to 0."""
    rise = max(1, round(warmup * updates))
    return (update + 1) / rise if update < rise else (updates - update) / max(1, updates - rise)


def _step(run: Run, wrapped: Any, optimizer: Any, batches: list[Batch], place: tuple[int, int], checkpoints: Checkpoints) -> float:
    accelerator, times = run.accelerator, run.config.training
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate(*place, times.warmup)
    total = 0.0
    for number, batch in enumerate(mine):
        with nullcontext() if number == len(mine) - 1 else accelerator.no_sync(wrapped):
            value = _loss(run, wrapped, batch) / len(mine)
            accelerator.backward(value)
            total += float(value.detach())
    norm = accelerator.clip_grad_norm_(wrapped.parameters(), times.max_gradient_norm)
    if not bool(torch.isfinite(norm)):
        kept = f"the checkpoint {checkpoints.last} from before is kept" if checkpoints.last else "no checkpoint was written yet"
        raise TeacherError(
            f"loss {total:g} with gradient norm {float(norm):g} at update {place[0] + 1}: training went off; {kept}. "
            "Lower training.learning_rate and head_learning_rate or raise training.warmup, and start anew with --no-resume"
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _loss(run: Run, wrapped: Any, batch: Batch) -> torch.Tensor:
    examples, features = run.examples[batch[0]], run.features[batch[0]]
    rows, teacher, device = batch[1], run.teacher, run.accelerator.device
    encoded = teacher.encode([examples.texts[row] for row in examples.query[rows]], [examples.texts[row] for row in examples.pin[rows]])
    logits = wrapped(examples.head, teacher.padded(encoded, range(len(rows))), teacher.on_device(features, rows))
    targets, weight, group = (torch.from_numpy(values[rows]).to(device) for values in (examples.targets, examples.weight, examples.group))
    return loss(logits.float(), targets, weight, group, run.config.loss)


def _look(run: Run, out: Path, progress: Progress) -> None:
    """Measure; keep the teacher where it is the best so far."""
    found = figures(_predict(run, *run.validation), run.validation[0])
    score = found["ndcg20"] - run.config.training.log_loss_weight * found["log_loss"]
    progress.history.append({"update": progress.update, **found})
    progress.looks += 1
    if run.accelerator.is_main_process:
        tqdm.write(f"update {progress.update}: " + ", ".join(f"{name} {found[name]:.4f}" for name in ("ndcg20", "ndcg10", "accuracy", "log_loss")))
    if score > progress.best:
        progress.best, progress.looks = score, 0
        _keep(run, out, found, progress.update)
    run.accelerator.wait_for_everyone()


def _keep(run: Run, out: Path, found: dict[str, float], update: int) -> None:
    dev = figures(_predict(run, *run.dev), run.dev[0]) if run.dev else found
    metrics = {f"dev_{name}": value for name, value in dev.items()} | ({f"held_out_{name}": value for name, value in found.items()} if run.dev else {})
    if run.accelerator.is_main_process:
        with whole(None, f"the best teacher so far (update {update})", "the best before it and the last checkpoint are intact"):
            save_teacher(out / BEST, run.teacher, {**run.facts, "best_update": update, "metrics": metrics})


def _predict(run: Run, seen: Validation, features: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Levels of all pairs, each process computing its share."""
    accelerator = run.accelerator
    share = -(-len(seen.queries) // accelerator.num_processes)
    mine = np.arange(accelerator.process_index, len(seen.queries), accelerator.num_processes)
    levels = run.teacher.levels_of([seen.queries[row] for row in mine], [seen.texts[row] for row in mine], None if features is None else features[mine])
    padded = np.full((share, levels.shape[1]), np.nan)
    padded[: len(mine)] = levels
    gathered = accelerator.gather(torch.from_numpy(padded).to(accelerator.device)).cpu().numpy()
    together = gathered.reshape(accelerator.num_processes, share, -1).transpose(1, 0, 2).reshape(-1, levels.shape[1])
    return np.asarray(together[: len(seen.queries)])
