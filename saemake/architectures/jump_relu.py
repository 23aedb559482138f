"""JumpReLU: a threshold a latent, trained by a straight-through estimate of its gradient
(https://arxiv.org/abs/2407.14435), with a penalty on the distance from a target L0.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from saemake.architectures import base, constraints, losses, register
from saemake.architectures.base import Architecture, Dictionary, Forward
from saemake.architectures.constraints import Constraint
from saemake.sections import Count, Number, Whole
from saemake.training import schedule

INITIAL_THRESHOLD = 0.001


class JumpReluSettings(base.Settings):
    sweep: list[Count] = Field(min_length=1)
    sparsity_warmup_steps: Whole
    sparsity_penalty: Annotated[Number, Field(gt=0)]
    bandwidth: Annotated[Number, Field(gt=0)]

    def latents_needed(self) -> dict[str, int]:
        return {"sweep": max(self.sweep)}

    def steps_before_decay(self) -> dict[str, int]:
        return {"sparsity_warmup_steps": self.sparsity_warmup_steps}


class JumpReluDictionary(Dictionary):
    """Parameters W_enc [D, F], b_enc and threshold [F], W_dec [F, D], b_dec [D]."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.W_enc = nn.Parameter(torch.empty(d_model, width))
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))
        self.threshold = nn.Parameter(torch.full((width,), INITIAL_THRESHOLD))

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_enc.T

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_enc

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    def before_jump(self, x: Tensor) -> Tensor:
        """All latents [..., F], before any is dropped."""
        return x @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        f = self.before_jump(x)
        return torch.relu(f * (f > self.threshold))

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.b_dec

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in (self.b_dec, self.b_enc, self.threshold):
                bias.mul_(scale)


class Jump(torch.autograd.Function):
    """x where it exceeds the threshold, else 0. The threshold's gradient is estimated from the
    values within half a bandwidth of it (section 4 of the paper)."""

    @staticmethod
    def forward(ctx: Any, x_BF: Tensor, threshold_F: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(x_BF, threshold_F)
        ctx.bandwidth = bandwidth
        return x_BF * (x_BF > threshold_F)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient_BF,) = gradients
        x_BF, threshold_F = ctx.saved_tensors
        near_BF = _near(x_BF, threshold_F, ctx.bandwidth)
        threshold_gradient_F = -(threshold_F / ctx.bandwidth) * (near_BF * gradient_BF).sum(dim=0)
        return (x_BF > threshold_F) * gradient_BF, threshold_gradient_F, None


class Step(torch.autograd.Function):
    """1 where x exceeds the threshold, else 0; the threshold's gradient estimated as Jump's."""

    @staticmethod
    def forward(ctx: Any, x_BF: Tensor, threshold_F: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(x_BF, threshold_F)
        ctx.bandwidth = bandwidth
        return (x_BF > threshold_F).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (gradient_BF,) = gradients
        x_BF, threshold_F = ctx.saved_tensors
        near_BF = _near(x_BF, threshold_F, ctx.bandwidth)
        return None, -(near_BF * gradient_BF).sum(dim=0) / ctx.bandwidth, None


def _near(x_BF: Tensor, threshold_F: Tensor, bandwidth: float) -> Tensor:
    return ((x_BF - threshold_F) / bandwidth).abs() < 0.5


@register
class JumpRelu(Architecture):
    name = "jump_relu"
    version = 1
    sparsity = "l0"
    trainer_class = "JumpReluTrainer"
    dict_class = "JumpReluAutoEncoder"
    # No bias before the encoder: nothing is wanted for its input.
    step_products = 5
    live_latents = 5.6
    Settings = JumpReluSettings
    adam_betas = (0.0, 0.999)

    settings: JumpReluSettings
    dictionary: JumpReluDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return JumpReluDictionary(config["activation_dim"], config["dict_size"])

    @classmethod
    def target_l0(cls, sparsity: float) -> float | None:
        return sparsity

    @property
    def constraint(self) -> Constraint:
        return constraints.OF_RECIPE[self.training.recipe]

    @torch.no_grad()
    def initialise(self) -> None:
        """Decoder rows of uniform draws, unit norm; the encoder is the decoder transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=0.0)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        dictionary, bandwidth = self.dictionary, self.settings.bandwidth
        f_BF = Jump.apply(dictionary.before_jump(x_BD), dictionary.threshold, bandwidth)
        x_hat_BD = dictionary.decode(f_BF)
        self.count_fired(f_BF.sum(dim=0) > 0, len(x_BD))
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        # Of the latents after the jump: those below the threshold are near it only if it is near 0.
        l0 = Step.apply(f_BF, dictionary.threshold, bandwidth).sum(dim=-1).mean()
        sparsity = (l0 / self.sparsity_value - 1).pow(2)
        scale = schedule.sparsity_scale(step, self.settings.sparsity_warmup_steps)
        loss = l2 + self.settings.sparsity_penalty * sparsity * scale
        return Forward(loss, {"l2": l2.detach(), "sparsity": sparsity.detach()}, f_BF, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "target_l0": self.sparsity_value,
            "bandwidth": self.settings.bandwidth,
            "sparsity_penalty": self.settings.sparsity_penalty,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
        }
