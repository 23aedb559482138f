"""Means and variances as running sums: memory does not grow with the text."""

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass
class Mean:
    """A running mean of values, summed in float64 on their device."""

    total: Tensor | float = 0.0
    count: int = 0

    def add(self, values: Tensor) -> None:
        self.total = self.total + values.double().sum()
        self.count += values.numel()

    @property
    def value(self) -> float:
        """NaN of nothing."""
        return ratio(float(self.total), self.count)


class Variance:
    """The summed variance over D of vectors [N, D] seen in parts, in float64."""

    def __init__(self, d_model: int, device: torch.device) -> None:
        self.count = 0
        self.sum_D = torch.zeros(d_model, dtype=torch.float64, device=device)
        self.squares = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, vectors_ND: Tensor) -> None:
        vectors_ND = vectors_ND.double()
        self.count += len(vectors_ND)
        self.sum_D += vectors_ND.sum(dim=0)
        self.squares += vectors_ND.pow(2).sum()

    @property
    def value(self) -> float:
        """NaN of nothing."""
        of_mean = self.sum_D.pow(2).sum() / max(self.count, 1)
        return ratio(float(self.squares - of_mean), self.count)


def ratio(above: float, below: float) -> float:
    """NaN where there is nothing to divide by."""
    return above / below if below else math.nan


def recovered(clean: float, replaced: float, ablated: float) -> float:
    """(ablated - replaced) / (ablated - clean): 1 where the replacement costs nothing, 0 where it
    is as bad as zeros; NaN where zeros change nothing."""
    return ratio(ablated - replaced, ablated - clean)
