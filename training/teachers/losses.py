"""What a teacher minimises: soft cross-entropy on levels, and two losses on the order of one query's candidates.

Each takes log-probabilities and targets of one batch, (n, levels), and returns a scalar. The score that ranks is the expected
level, as everywhere in Everpin.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from training.teachers.config import Loss


def loss(logits: Tensor, targets: Tensor, weight: Tensor, group: Tensor, recipe: Loss) -> Tensor:
    """The weighted sum a recipe asks for. `logits` are log-probabilities; `weight` (n,), `group` int (n,)."""
    total = recipe.levels * level_loss(logits, targets, weight)
    if recipe.listwise or recipe.pairwise:
        scores, truth = expected(logits.exp()), expected(targets)
        same = group[:, None] == group[None, :]
        if recipe.listwise:
            total = total + recipe.listwise * list_loss(scores, truth, same, recipe.temperature)
        if recipe.pairwise:
            total = total + recipe.pairwise * pair_loss(scores, truth, same, recipe.temperature)
    return total


def expected(levels: Tensor) -> Tensor:
    """Expected level, (n,), from 0, of level probabilities (n, levels)."""
    return levels @ torch.arange(levels.shape[1], dtype=levels.dtype, device=levels.device)


def level_loss(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy against soft levels, mean over rows by weight."""
    return -((targets * logits).sum(dim=1) * weight).sum() / weight.sum()


def list_loss(scores: Tensor, truth: Tensor, same: Tensor, temperature: float) -> Tensor:
    """ListNet, top-one form (Cao et al. 2007, section 4.2): cross-entropy of softmax(truth) and softmax(scores) over the candidates
    of a query, mean over queries. `same` (n, n): whether two rows belong to one query."""
    outside = torch.zeros_like(same, dtype=scores.dtype).masked_fill(~same, -torch.inf)
    likely = scores / temperature - torch.logsumexp(scores[None] / temperature + outside, dim=1)
    wanted = torch.exp(truth / temperature - torch.logsumexp(truth[None] / temperature + outside, dim=1))
    return -(wanted * likely).sum() / _queries(same)


def pair_loss(scores: Tensor, truth: Tensor, same: Tensor, temperature: float) -> Tensor:
    """LambdaRank's weighted RankNet loss (Burges 2010, section 4): log(1 + exp(s_j - s_i)) for every i better than j, times what
    swapping them changes in nDCG (gain 2^level - 1), sum over pairs, mean over queries."""
    gain = 2.0**truth - 1.0
    discount = 1.0 / torch.log2(2.0 + _better(scores.detach(), same))
    best = (same * (gain / torch.log2(2.0 + _better(truth, same)))[None]).sum(dim=1).clamp_min(1e-6)
    cost = (gain[:, None] - gain[None]) * (discount[:, None] - discount[None]).abs() / best[:, None]
    wrong = functional.softplus(-(scores[:, None] - scores[None]) / temperature)
    return (wrong * cost * (same & (truth[:, None] > truth[None]))).sum() / _queries(same)


def _better(values: Tensor, same: Tensor) -> Tensor:
    """How many rows of the same query have a larger value: the rank from 0."""
    return ((values[None] > values[:, None]) & same).sum(dim=1)


def _queries(same: Tensor) -> Tensor:
    return (1.0 / same.sum(dim=1)).sum()
