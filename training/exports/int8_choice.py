"""Which layers compute in integers: all of them, or as many as a promise allows, the least harmful first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tqdm import tqdm

Cosine = Callable[[Collection[str]], float]
"""Mean cosine to the torch reference when the layers that read these tensors compute in integers."""


def most_that_hold(names: Sequence[str], cosine: Cosine, required: float) -> list[str]:
    """Tensors whose layers may compute in integers while the mean cosine stays at `required` or above.

    All of them where that holds. Else each is measured alone, and the longest run of them, from the one that does the least damage
    on, is found by bisection. Empty where not even one of them holds.
    """
    if cosine(names) >= required:
        return list(names)
    damage = {name: 1 - cosine([name]) for name in tqdm(names, desc="damage of each layer", unit="layer")}
    order = sorted(names, key=lambda name: damage[name])
    holds, fails = 0, len(order)
    while fails - holds > 1:
        middle = (holds + fails) // 2
        if cosine(order[:middle]) >= required:
            holds = middle
        else:
            fails = middle
    return order[:holds]
