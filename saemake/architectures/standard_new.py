"""The ReLU SAE of Anthropic's April 2024 update: decoder norms are free, the penalty is weighted by
them (https://transformer-circuits.pub/2024/april-update). "Standard" in the published suite.
"""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses, register
from saemake.architectures.base import Forward
from saemake.architectures.relu import PenaltySettings, ReluArchitecture


@register
class StandardNew(ReluArchitecture):
    name = "standard_new"
    version = 3
    trainer_class = "StandardTrainerAprilUpdate"
    Settings = PenaltySettings
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
