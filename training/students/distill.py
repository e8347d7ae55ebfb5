"""How a student learns: the losses, the batches by length, and the one trainer run that mixes them.

Every loss sees texts as (features, labels), and a label is a row number: what is to be learnt of that row lies in the loss as
an array, so that nothing is copied through the data loader. Three things are learnt side by side:
alignment (a text in any language lies where the target model puts its English), anchors (English stays where it was) and
relevance (the cosine of a query to pins orders them, and its five levels are distributed, as the teacher says).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler
from torch import Tensor, nn
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState

from pins.relevance import OrdinalHead
from training.data import DataError

RelevanceLoss = Literal["kl", "margin_mse", "both"]
MEGABATCHES = 64
"""Batches that are sorted by length together."""


class Aligned(nn.Module):
    """Cosine distance to the target vector of the same row, and InfoNCE against the other targets of the batch.

    The first is the distillation of Reimers and Gurevych (2020) on unit vectors; the second, with weight `contrast`, tells
    apart what lies close (van den Oord et al. 2018). Targets of equal rows are no negatives of each other.
    """

    def __init__(self, model: SentenceTransformer, targets: NDArray[np.float16], rows: NDArray[np.int64], contrast: float, temperature: float) -> None:
        """`targets`: unit vectors (n, d); `rows`: for each training row its target."""
        super().__init__()
        self.model, self.targets, self.rows = model, targets, rows
        self.contrast, self.temperature = contrast, temperature

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        made = functional.normalize(self.model(features[0])["sentence_embedding"].float(), dim=1)
        rows = torch.from_numpy(self.rows[labels.cpu().numpy()])
        wanted = torch.from_numpy(np.asarray(self.targets[rows.numpy()], np.float32)).to(made.device)
        distance = 1 - (made * wanted).sum(1).mean()
        if not self.contrast:
            return distance
        logits = made @ wanted.T / self.temperature
        twins = (rows[:, None] == rows[None, :]) & ~torch.eye(len(rows), dtype=torch.bool)
        logits = logits.masked_fill(twins.to(logits.device), -math.inf)
        return distance + self.contrast * functional.cross_entropy(logits, torch.arange(len(rows), device=logits.device))


class Relevant(nn.Module):
    """What the teacher says of a query's candidates, whose pin vectors are given.

    `kl`: KL divergence from the teacher's level distribution to that of an ordinal head on the cosine (its scale and thresholds
    are learnt along). `margin_mse`: squared error of score differences between all candidate pairs of a query (Hofstaetter et
    al. 2020), scores being expected levels. `both` adds them. `negatives`: InfoNCE of each query's best candidate against
    those of the other queries of the batch.
    """

    def __init__(self, model: SentenceTransformer, pins: NDArray[np.float32], candidates: NDArray[np.int64], levels: NDArray[np.float32],
                 kind: RelevanceLoss, head: OrdinalHead, negatives: float, temperature: float) -> None:  # fmt: skip
        """`pins` (p, d), `candidates` (n, k) rows of pins, -1 where there is none, `levels` (n, k, 5)."""
        super().__init__()
        self.model, self.pins, self.candidates, self.levels = model, pins, candidates, levels
        self.kind, self.negatives, self.temperature = kind, negatives, temperature
        gaps = np.diff(head.thresholds)
        self.log_scale = nn.Parameter(torch.tensor(math.log(head.scale)))
        self.first = nn.Parameter(torch.tensor(float(head.thresholds[0])))
        self.log_gaps = nn.Parameter(torch.tensor(np.log(gaps), dtype=torch.float32))

    def probabilities(self, cosine: Tensor) -> Tensor:
        """Level probabilities (..., 5) of cosines (...): `pins.relevance.OrdinalHead` in torch."""
        thresholds = self.first + torch.cat([self.log_gaps.new_zeros(1), torch.cumsum(self.log_gaps.exp(), 0)])
        above = torch.sigmoid(self.log_scale.exp() * cosine[..., None] - thresholds)
        edge = above.new_ones((*above.shape[:-1], 1))
        return -torch.diff(torch.cat([edge, above, 0 * edge], dim=-1), dim=-1)

    def forward(self, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        made = functional.normalize(self.model(features[0])["sentence_embedding"].float(), dim=1)
        places = self.candidates[labels.cpu().numpy()]
        there = torch.from_numpy(places >= 0).to(made.device)
        pins = torch.from_numpy(self.pins[np.maximum(places, 0)]).to(made.device)
        wanted = torch.from_numpy(self.levels[labels.cpu().numpy()]).to(made.device)
        cosine = torch.einsum("bd,bkd->bk", made, pins)
        likely = self.probabilities(cosine).clamp_min(1e-6)
        loss = made.new_zeros(())
        if self.kind in ("kl", "both"):
            loss = loss + functional.kl_div(likely.log(), wanted, reduction="none").sum(-1)[there].mean()
        if self.kind in ("margin_mse", "both"):
            loss = loss + _margin_mse(likely, wanted, there)
        if self.negatives:
            best = pins[torch.arange(len(made)), _expected(wanted).masked_fill(~there, -math.inf).argmax(1)]
            logits = made @ best.T / self.temperature
            loss = loss + self.negatives * functional.cross_entropy(logits, torch.arange(len(made), device=logits.device))
        return loss


def _expected(levels: Tensor) -> Tensor:
    return levels @ torch.arange(1.0, levels.shape[-1] + 1, device=levels.device)


def _margin_mse(likely: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    made, want = _expected(likely), _expected(wanted)
    pairs = there[:, :, None] & there[:, None, :]
    error = (made[:, :, None] - made[:, None, :]) - (want[:, :, None] - want[:, None, :])
    return error.square()[pairs].mean()


class ByLength(DefaultBatchSampler):
    """Batches of texts of like length, in random order: padding is then a few per cent of the work."""

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **rest: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **rest)
        self._lengths = np.array([len(text.encode()) for text in dataset["text"]])

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self._lengths))
        size = self.batch_size * MEGABATCHES
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            some = order[start : start + size]
            some = some[np.argsort(self._lengths[some], kind="stable")]
            batches += [some[place : place + self.batch_size].tolist() for place in range(0, len(some), self.batch_size)]
        if self.drop_last:
            batches = [batch for batch in batches if len(batch) == self.batch_size]
        yield from (batches[place] for place in rng.permutation(len(batches)))

    def __len__(self) -> int:
        whole, rest = divmod(len(self._lengths), self.batch_size)
        return whole if self.drop_last else whole + (rest > 0)


class StopAtNan(TrainerCallback):
    """Ends training when the loss is no number; the last checkpoint stays."""

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Mapping[str, float] | None = None, **rest: Any) -> None:
        """Called with each logged loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise DataError(
                f"the loss is {loss} at step {state.global_step}; lower the learning rate or look at the data. {args.output_dir} holds the last good checkpoint"
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. `steps`: optimiser steps in all; `batch`: texts a step; `bf16`: compute in bfloat16."""

    steps: int
    batch: int = 128
    learning_rate: float = 2e-4
    warmup: float = 0.05
    bf16: bool = False
    checkpoint_steps: int = 500


def learn(model: SentenceTransformer, texts: Mapping[str, list[str]], losses: Mapping[str, nn.Module], schedule: Schedule, work: Path, seed: int) -> None:
    """Train `model` in place on every named set of texts, each with its loss; sets are drawn in proportion to their size.

    Continues from the last checkpoint in `work` of a run that was cut off. Raises DataError when the loss is no number.
    """
    data = {name: Dataset.from_dict({"text": some, "label": list(range(len(some)))}) for name, some in texts.items()}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.batch,
        learning_rate=schedule.learning_rate,
        warmup_steps=int(schedule.steps * schedule.warmup),
        bf16=schedule.bf16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
        batch_sampler=ByLength,
        multi_dataset_batch_sampler="proportional",
        logging_steps=max(1, min(50, schedule.steps // 10)),
        save_steps=schedule.checkpoint_steps,
        save_total_limit=1,
        logging_nan_inf_filter=False,
        report_to=[],
        dataloader_drop_last=True,
    )
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data, loss=dict(losses), callbacks=[StopAtNan()])
    trainer.train(resume_from_checkpoint=any(work.glob("checkpoint-*")))
