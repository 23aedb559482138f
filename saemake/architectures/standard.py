"""The ReLU SAE of Towards Monosemanticity: unit-norm decoder columns, an l1 penalty, and, if asked,
resampling of dead latents (https://transformer-circuits.pub/2023/monosemantic-features).
"""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses, register
from saemake.architectures.base import Forward
from saemake.architectures.relu import ResamplingArchitecture, ResamplingSettings


@register
class Standard(ResamplingArchitecture):
    name = "standard"
    version = 2
    trainer_class = "StandardTrainer"
    Settings = ResamplingSettings
    constraint = constraints.UNIT_NORM
    live_latents = 3.3

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_P, places, x_hat_BD = self.reconstruct(x_BD)
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        sparsity = losses.l1(f_P, places)
        loss = l2 + self.sparsity_value * self.sparsity_scale(step) * sparsity
        parts = {"l2": l2.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def after_optimizer(self, step: int, x_BD: Tensor) -> None:
        interval = self.settings.resample_steps
        if interval is not None and step % interval == 0:
            self.resample(x_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
            "resample_steps": self.settings.resample_steps,
        }
