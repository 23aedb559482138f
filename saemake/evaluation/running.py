"""Means and variances from running sums, whose memory does not grow with the text."""

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
        """The mean; NaN if no value was added."""
        return ratio(float(self.total), self.count)


class Variance:
    """The variance of vectors [N, D], summed over D, in float64. Vectors are added in parts."""

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
        """The summed variance; NaN if no vector was added."""
        of_mean = self.sum_D.pow(2).sum() / max(self.count, 1)
        return ratio(float(self.squares - of_mean), self.count)


def ratio(above: float, below: float) -> float:
    """above / below; NaN if `below` is 0."""
    return above / below if below else math.nan


def recovered(clean: float, replaced: float, ablated: float) -> float:
    """Loss recovered, (ablated - replaced) / (ablated - clean), of cross-entropies in nats: 1 if
    the replacement costs nothing, 0 if it is as bad as zeros, NaN if zeros change nothing."""
    return ratio(ablated - replaced, ablated - clean)
