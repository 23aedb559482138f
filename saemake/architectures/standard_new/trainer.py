"""The training step of standard_new."""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses
from saemake.architectures.relu import ReluTrainer
from saemake.architectures.standard_new import StandardNew
from saemake.architectures.trainer import Forward


class Trainer(StandardNew, ReluTrainer):
    constraint = constraints.FREE

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_P, places, x_hat_BD = self.reconstruct(x_BD)
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        sparsity = losses.decoder_weighted_l1(f_P, places, self.dictionary.decoder_rows)
        loss = l2 + self.sparsity_value * self.sparsity_scale(step) * sparsity
        parts = {"l2": l2.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
