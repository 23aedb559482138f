"""JumpReLU: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, P places (see places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, schedule
from saemake.architectures.choosing import over
from saemake.architectures.constraints import Constraint
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding, by_encoder
from saemake.architectures.jump_relu import JumpRelu, JumpReluSettings
from saemake.architectures.places import Places, Positive
from saemake.architectures.trainer import Forward, Trainer
from saemake.base.onednn import linear

INITIAL_THRESHOLD = 0.001
# Values within half a bandwidth of the threshold matter too, with a margin for rounding.
MARGIN = 0.51


class JumpReluDictionary(Dictionary):
    """Parameters W_enc [D, F], b_enc and threshold [F], W_dec [F, D], b_dec [D]."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.W_enc = latents_together(d_model, width)
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

    @property
    def output_bias(self) -> nn.Parameter:
        return self.b_dec

    def before_jump(self, x: Tensor) -> Tensor:
        """All latents [..., F] before any is dropped, float32."""
        return linear(x, self.encoder_weight, None) + self.b_enc

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
    """x [P] where it exceeds the threshold of its latent, else 0. The gradient of a threshold is
    estimated from the values within half a bandwidth of it (section 4 of the paper)."""

    @staticmethod
    def forward(
        ctx: Any, x_P: Tensor, threshold_F: Tensor, places: Places, bandwidth: float
    ) -> Tensor:
        ctx.save_for_backward(x_P, threshold_F)
        ctx.places, ctx.bandwidth = places, bandwidth
        return x_P * (x_P > places.of_latents(threshold_F))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient_P,) = gradients
        x_P, threshold_F = ctx.saved_tensors
        places, bandwidth = ctx.places, ctx.bandwidth
        threshold_P = places.of_latents(threshold_F)
        near_P = places.only(near(x_P, threshold_P, bandwidth) * gradient_P)
        threshold_gradient_F = -(threshold_F / bandwidth) * places.by_latent(near_P)
        return (x_P > threshold_P) * gradient_P, threshold_gradient_F, None, None


class MeanL0(torch.autograd.Function):
    """Mean number of values per token that exceed the threshold of their latent; scalar. Values at
    no place are 0. The gradient of a threshold is estimated as in Jump."""

    @staticmethod
    def forward(
        ctx: Any, threshold_F: Tensor, x_P: Tensor, places: Places, bandwidth: float
    ) -> Tensor:
        over_F, near_F = _over_and_near(threshold_F, x_P, places, bandwidth)
        ctx.save_for_backward(-near_F / (bandwidth * places.tokens))
        return over_F.sum() / places.tokens

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return gradients[0] * ctx.saved_tensors[0], None, None, None


class Frequencies(MeanL0):
    """The share of tokens on which each latent exceeds its threshold, [F], with the same gradient.
    Its sum is the mean L0."""

    @staticmethod
    def forward(
        ctx: Any, threshold_F: Tensor, x_P: Tensor, places: Places, bandwidth: float
    ) -> Tensor:
        over_F, near_F = _over_and_near(threshold_F, x_P, places, bandwidth)
        ctx.save_for_backward(-near_F / (bandwidth * places.tokens))
        return over_F / places.tokens


def _over_and_near(
    threshold_F: Tensor, x_P: Tensor, places: Places, bandwidth: float
) -> tuple[Tensor, Tensor]:
    """How many values of each latent exceed its threshold, and how many are within half a bandwidth
    of it; float32 [F] each."""
    threshold_P = places.of_latents(threshold_F)
    zeros_F = places.tokens - places.count()
    over_F = places.count(x_P > threshold_P)
    over_F += zeros_F * (threshold_F < 0)
    near_F = places.count(near(x_P, threshold_P, bandwidth))
    near_F += zeros_F * near(torch.zeros_like(threshold_F), threshold_F, bandwidth)
    return over_F, near_F


class JumpsAndL0(torch.autograd.Function):
    """Jump, MeanL0 and Frequencies by a kernel: the latents [B, F], the mean L0, the sum of each
    latent's values [F], and the frequencies [F]."""

    @staticmethod
    def forward(
        ctx: Any,
        weight_FD: Tensor,
        bias_F: Tensor,
        shift_D: None,
        threshold_F: Tensor,
        encoding: Encoding,
        bandwidth: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        from saemake.kernels import gates  # it needs Triton

        encoded_BF = encoding.whole()
        f_BF, (sums_F, places_F, over_F, near_F) = gates.jumps(
            encoded_BF, threshold_F, bandwidth, MARGIN * bandwidth
        )
        tokens = len(encoded_BF)
        zeros_F = tokens - places_F
        over_F = over_F + zeros_F * (threshold_F < 0)
        near_F = near_F + zeros_F * near(torch.zeros_like(threshold_F), threshold_F, bandwidth)
        ctx.save_for_backward(
            weight_FD, encoding.x_BD, encoded_BF, threshold_F, -near_F / (bandwidth * tokens)
        )
        ctx.bandwidth = bandwidth
        ctx.mark_non_differentiable(sums_F)
        ctx.set_materialize_grads(False)
        return f_BF, over_F.sum() / tokens, sums_F, over_F / tokens

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        from saemake.kernels import gates  # it needs Triton

        weight_FD, x_BD, encoded_BF, threshold_F, l0_F = ctx.saved_tensors
        bandwidth = ctx.bandwidth
        gradient_BF, sum_F, near_F = gates.jumps_backward(
            encoded_BF, threshold_F, gradients[0], bandwidth, MARGIN * bandwidth
        )
        threshold_gradient_F = gradients[1] * l0_F - (threshold_F / bandwidth) * near_F
        if gradients[3] is not None:
            threshold_gradient_F = threshold_gradient_F + gradients[3] * l0_F
        encoder = by_encoder(ctx, weight_FD, x_BD, gradient_BF, sum_F)
        return *encoder, threshold_gradient_F, None, None


def near(x_P: Tensor, threshold_P: Tensor, bandwidth: float) -> Tensor:
    """Whether each value is within half a bandwidth of its threshold; bool."""
    return ((x_P - threshold_P) / bandwidth).abs() < 0.5


class JumpReluTrainer(JumpRelu, Trainer):
    replayed = True

    settings: JumpReluSettings
    dictionary: JumpReluDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return JumpReluDictionary(config["activation_dim"], config["dict_size"])

    @property
    def constraint(self) -> Constraint:
        return (
            constraints.FREE if self.is_transcoder else constraints.OF_RECIPE[self.training.recipe]
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw decoder rows uniformly and give them unit norm; the encoder is the decoder
        transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=0.0)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """Reconstruction loss, and the squared relative distance of the L0 from its target."""
        dictionary = self.dictionary
        encoding = Encoding(
            x_BD,
            dictionary.encoder_weight,
            dictionary.b_enc,
            None,
            self.dtype,
            dictionary.encoder_copy,
        )
        if encoding.by_kernels:
            places, f_P, l0, frequencies_F = self.jump_by_kernel(encoding)
        else:
            places, f_P, l0, frequencies_F = self.jump(encoding)
        x_hat_BD = places.decode(f_P, dictionary.W_dec, dictionary.decoder_copy) + self.base(x_BD)
        self.count_fired(places.by_latent(f_P) > 0, places)
        error = self.error(y_BD, x_hat_BD)
        sparsity = (l0 / self.sparsity_value - 1).pow(2)
        scale = self.now["sparsity_scale"]
        loss = error + self.settings.sparsity_penalty * sparsity * scale
        parts = {self.error_name: error.detach(), "sparsity": sparsity.detach()}
        if frequencies_F is not None:
            frequent = frequencies_F.square().sum()
            loss = loss + self.settings.frequency_penalty * frequent * scale
            parts["frequency"] = frequent.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def jump(self, encoding: Encoding) -> tuple[Places, Tensor, Tensor, Tensor | None]:
        """The places over the threshold or near it, the latents there, the mean L0, and the
        frequencies if they have a penalty."""
        threshold_F, bandwidth = self.dictionary.threshold, self.settings.bandwidth
        places, encoded_P = over(encoding, threshold_F.detach() - MARGIN * bandwidth)
        f_P = Jump.apply(encoded_P, threshold_F, places, bandwidth)
        # L0 of the values after the jump. Dropped values are 0, and near only thresholds near 0.
        l0 = MeanL0.apply(threshold_F, f_P, places, bandwidth)
        frequencies_F = None
        if self.settings.frequency_penalty:
            frequencies_F = Frequencies.apply(threshold_F, f_P, places, bandwidth)
        return places, f_P, l0, frequencies_F

    def jump_by_kernel(self, encoding: Encoding) -> tuple[Places, Tensor, Tensor, Tensor | None]:
        """The same by a kernel."""
        f_BF, l0, sums_F, frequencies_F = JumpsAndL0.apply(
            encoding.weight_FD,
            encoding.bias_F,
            None,
            self.dictionary.threshold,
            encoding,
            self.settings.bandwidth,
        )
        if not self.settings.frequency_penalty:
            frequencies_F = None
        return Positive(f_BF, sums_F=sums_F), f_BF, l0, frequencies_F

    def schedule(self, step: int) -> dict[str, float]:
        warmup = self.settings.sparsity_warmup_steps
        return {"sparsity_scale": schedule.sparsity_scale(step, warmup)}

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "target_l0": self.sparsity_value,
            "bandwidth": self.settings.bandwidth,
            "sparsity_penalty": self.settings.sparsity_penalty,
            "sparsity_warmup_steps": self.settings.sparsity_warmup_steps,
            **self.settings.model_dump(include={"frequency_penalty"}),
        }
