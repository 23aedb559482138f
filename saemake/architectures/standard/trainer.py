"""The training step of standard."""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses
from saemake.architectures.relu import ResamplingTrainer
from saemake.architectures.standard import Standard
from saemake.architectures.trainer import Forward


class Trainer(Standard, ResamplingTrainer):
    constraint = constraints.UNIT_NORM

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
