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
    version = 2
    trainer_class = "StandardTrainerAprilUpdate"
    Settings = PenaltySettings
    constraint = constraints.FREE

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_BF = self.dictionary.encode(x_BD)
        x_hat_BD = self.dictionary.decode(f_BF)
        self.count_fired((f_BF > 0).any(dim=0), len(x_BD))
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        sparsity = losses.decoder_weighted_l1(f_BF, self.dictionary.decoder.weight)
        loss = l2 + self.sparsity_value * self.sparsity_scale(step) * sparsity
        return Forward(loss, {"l2": l2.detach(), "sparsity": sparsity.detach()}, f_BF, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
