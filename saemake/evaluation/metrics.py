"""What an evaluation measures, as running sums: memory does not grow with the text.

N tokens of a batch, D the model's width, F latents.
"""

import dataclasses

import torch
from torch import Tensor


def loss_recovered(clean: float, with_sae: float, ablated: float) -> float:
    """(ablated - with_sae) / (ablated - clean): 1 where the SAE costs nothing, 0 where it is as bad
    as zeros. Cross-entropies in nats a token."""
    return (ablated - with_sae) / (ablated - clean)


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
        return float(self.total) / self.count


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
        return float(self.squares - self.sum_D.pow(2).sum() / self.count) / self.count


class SaeMetrics:
    """The running figures of one SAE; `loss` is of the LM's losses in nats with its
    reconstructions in place."""

    def __init__(self, d_model: int, width: int, device: torch.device) -> None:
        self.loss = Mean()
        self.l0 = Mean()
        self.residual = Variance(d_model, device)
        self.alive_F = torch.zeros(width, dtype=torch.bool, device=device)

    def add(self, x_ND: Tensor, f_NF: Tensor, x_hat_ND: Tensor) -> None:
        """Activations, latents and reconstructions (float32) of some tokens."""
        active_NF = f_NF > 0
        self.l0.add(active_NF.sum(dim=-1))
        self.alive_F |= active_NF.any(dim=0)
        self.residual.add(x_ND - x_hat_ND)

    def results(self, clean: float, ablated: float, variance: float) -> dict[str, float]:
        """The figures, given the LM's own cross-entropies and the activations' variance."""
        return {
            "l0": self.l0.value,
            "loss_recovered": loss_recovered(clean, self.loss.value, ablated),
            "ce_clean": clean,
            "ce_sae": self.loss.value,
            "ce_ablated": ablated,
            "frac_variance_explained": 1 - self.residual.value / variance,
            "frac_alive": self.alive_F.double().mean().item(),
        }
