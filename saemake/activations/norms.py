"""Detects a few activations that outweigh all others. They would dominate the norm factor and the
loss."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# A warning is due if the largest 1 % of activations have more than this fraction of the squared
# norm.
LARGEST_SHARE = 0.2
# Values of norm_over_median to try, in this order. The warning suggests the first that helps.
MULTIPLES = (10.0, 5.0)


class Norms:
    """Passes batches [batch, D] on and records their norms, to see whether a few outweigh the
    others."""

    def __init__(self, batches: Iterator[Tensor]) -> None:
        self._batches, self._parts = batches, list[Tensor]()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        batch = next(self._batches)
        self._parts.append(batch.float().norm(dim=-1).cpu())
        return batch

    def measured(self) -> dict[str, float]:
        """For provenance.json: the fraction of the squared norm that the largest 1 % of activations
        have. If it is too large, also the norm_over_median that helps, if any of MULTIPLES does."""
        norm_N = torch.cat(self._parts).double()
        share = largest_share(norm_N)
        measures = {"squared_norm_of_largest_1_percent": share}
        median = norm_N.sort().values[(len(norm_N) - 1) // 2]
        helpful = (
            multiple
            for multiple in MULTIPLES
            if largest_share(norm_N[norm_N <= multiple * median]) <= LARGEST_SHARE
        )
        if share > LARGEST_SHARE and (multiple := next(helpful, None)) is not None:
            measures["norm_over_median_for_it"] = multiple
        return measures


def largest_share(norm_N: Tensor) -> float:
    """The fraction of the summed squares that the largest 1 % of the norms have. The number of
    norms is rounded up."""
    squared_N = norm_N.square().sort(descending=True).values
    total = squared_N.sum().item()
    return squared_N[: -(-len(squared_N) // 100)].sum().item() / total if total > 0 else 0.0


def warned(measured: Mapping[str, Any]) -> list[str]:
    """The warnings that the result of `Norms.measured` calls for."""
    share = measured.get("squared_norm_of_largest_1_percent", 0.0)
    if share <= LARGEST_SHARE:
        return []
    keys = "bos: true where they are at BOS"
    if multiple := measured.get("norm_over_median_for_it"):
        keys = f"norm_over_median: {multiple:g}, or {keys}"
    return [
        f"training: the largest 1 % of the activations have {share:.1%} of the squared norm, and so"
        f" dominate the norm factor and the loss; training.drop leaves them out ({keys})"
    ]
