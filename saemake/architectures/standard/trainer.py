"""Standard: the loss. Its dictionary and initial weights are in relu.py.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import positive
from saemake.architectures.penalty_settings import ResamplingSettings
from saemake.architectures.relu import ReluTrainer, resample, silent_latents
from saemake.architectures.standard import Standard
from saemake.architectures.trainer import Forward


class StandardTrainer(Standard, ReluTrainer):
    replayed = True

    constraint = constraints.UNIT_NORM

    settings: ResamplingSettings

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        # Latents above 0: the ReLU.
        places, f_P = positive(self.encoding(x_BD))
        x_hat_BD = self.reconstruction(x_BD, places, f_P)

        error = self.error(y_BD, x_hat_BD)
        sparsity = losses.l1(f_P, places)
        scale = self.now["sparsity_scale"]
        loss = error + self.sparsity_value * scale * sparsity
        parts = {self.error_name: error.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    @property
    def restart_steps(self) -> int | None:
        return self.settings.resample_steps

    def after_optimizer(self, step: int, x_BD: Tensor, y_BD: Tensor) -> None:
        """Resample dead latents at steps 0, `resample_steps`, 2 * `resample_steps`, ..."""
        interval = self.settings.resample_steps
        if interval is not None and step % interval == 0:
            resample(self, x_BD, y_BD, silent_latents(self, interval, len(x_BD)))

    def schedule(self, step: int) -> dict[str, float]:
        warmup = self.settings.sparsity_warmup_steps
        return {"sparsity_scale": schedule.sparsity_scale(step, warmup)}

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
            "resample_steps": self.settings.resample_steps,
        }
