"""Whether a few activations outweigh all others: they would decide the norm factor and the loss."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# How much of the squared norm the largest 1 % of activations may have.
LARGEST_SHARE = 0.2
# Multiples of the median norm that leave out activations that outweigh the others: the first that
# does is advised.
MULTIPLES = (10.0, 5.0)


class Norms:
    """The norms of batches [batch, D] that pass by, to see whether a few outweigh the others."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self._batches, self._parts = batches, list[Tensor]()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        batch = next(self._batches)
        self._parts.append(batch.float().norm(dim=-1).cpu())
        return batch

    def measured(self) -> dict[str, float]:
        """For provenance.json: the share of the squared norm that the largest 1 % have, and, where
        that is too much, the multiple of the median that mends it by what it leaves out, if one
        does."""
        norm_N = torch.cat(self._parts).double()
        share = largest_share(norm_N)
        found = {"squared_norm_of_largest_1_percent": share}
        median = norm_N.sort().values[(len(norm_N) - 1) // 2]
        advised = (
            multiple
            for multiple in MULTIPLES
            if largest_share(norm_N[norm_N <= multiple * median]) <= LARGEST_SHARE
        )
        if share > LARGEST_SHARE and (multiple := next(advised, None)) is not None:
            found["norm_over_median_for_it"] = multiple
        return found


def largest_share(norm_N: Tensor) -> float:
    """The share of the summed squares that the largest 1 % have, rounded up to whole ones."""
    squared_N = norm_N.square().sort(descending=True).values
    total = squared_N.sum().item()
    return squared_N[: -(-len(squared_N) // 100)].sum().item() / total if total > 0 else 0.0


def warned(measured: Mapping[str, Any]) -> list[str]:
    """What such measures warn of, in words; nothing where there are none."""
    share = measured.get("squared_norm_of_largest_1_percent", 0.0)
    if share <= LARGEST_SHARE:
        return []
    keys = "bos: true where they are at BOS"
    if multiple := measured.get("norm_over_median_for_it"):
        keys = f"norm_over_median: {multiple:g}, or {keys}"
    return [
        f"training: the largest 1 % of the activations have {share:.1%} of the squared norm, and so"
        f" the norm factor and the loss are theirs; training.drop leaves them out ({keys})"
    ]
