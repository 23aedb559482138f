"""StandardNew: the loss. Its dictionary and initial weights are in relu.py.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

from typing import Any

from torch import Tensor

from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import positive
from saemake.architectures.optimizers import RowAdam
from saemake.architectures.relu import ReluTrainer
from saemake.architectures.standard_new import StandardNew
from saemake.architectures.trainer import Forward


class StandardNewTrainer(StandardNew, ReluTrainer):
    replayed = True

    constraint = constraints.FREE
    norms_F: Tensor | None = None

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        # Latents above 0: the ReLU.
        places, f_P = positive(self.encoding(x_BD))
        x_hat_BD = self.reconstruction(x_BD, places, f_P)

        error = self.error(y_BD, x_hat_BD)
        norms_F = self.decoder_norms()
        sparsity = losses.decoder_weighted_l1(f_P, places, norms_F)
        scale = self.now["sparsity_scale"]
        loss = error + self.sparsity_value * scale * sparsity
        parts = {self.error_name: error.detach(), "sparsity": sparsity.detach()}
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def decoder_norms(self) -> Tensor:
        """The norm of each decoder row, float32 [F]."""
        rows_FD = self.dictionary.decoder_rows
        if not isinstance(self.optimizer, RowAdam):
            return rows_FD.float().norm(dim=1)
        self.norms_F = rows_FD.detach().norm(dim=1).requires_grad_()
        return self.norms_F

    def after_backward(self) -> None:
        """Hand the gradient of the norms to the kernels, which read the rows anyway."""
        if isinstance(self.optimizer, RowAdam):
            assert self.norms_F is not None
            assert self.norms_F.grad is not None
            norms_F = self.norms_F.detach()
            # The gradient of a norm of 0 is 0, as torch has it.
            self.optimizer.pull_F = (self.norms_F.grad / norms_F).where(norms_F > 0, 0)
            self.norms_F = None

    def schedule(self, step: int) -> dict[str, float]:
        warmup = self.settings.sparsity_warmup_steps
        return {"sparsity_scale": schedule.sparsity_scale(step, warmup)}

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l1_penalty": self.sparsity_value,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
