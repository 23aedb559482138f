"""JumpReLU with a tanh penalty: the loss. Its dictionary is jump_relu's.

Shapes: B activations in a batch, D the model's width, F latents, N latents of a part, P places (see
places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from saemake.architectures import constraints, losses, schedule
from saemake.architectures.choosing import over
from saemake.architectures.dictionary import Dictionary
from saemake.architectures.encoding import Encoding
from saemake.architectures.jump_relu.trainer import MARGIN, Jump, JumpReluDictionary, near
from saemake.architectures.jump_relu_tanh import JumpReluTanh, JumpReluTanhSettings
from saemake.architectures.places import Places
from saemake.architectures.trainer import Forward, Trainer

# Initial biases are found for so many latents at a time.
PART = 4096
# The largest share of tokens that a latent fires on at first.
MOST_AT_FIRST = 0.5


class JumpToInput(torch.autograd.Function):
    """The same as Jump, whose estimate of the threshold's gradient also counts, with the opposite
    sign, as a gradient of x: the step depends on their difference alone."""

    @staticmethod
    def forward(
        ctx: Any, x_P: Tensor, threshold_F: Tensor, places: Places, bandwidth: float
    ) -> Tensor:
        return Jump.forward(ctx, x_P, threshold_F, places, bandwidth)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient_P,) = gradients
        x_P, threshold_F = ctx.saved_tensors
        threshold_P = ctx.places.of_latents(threshold_F)
        through_P, threshold_gradient_F, *_ = Jump.backward(ctx, gradient_P)
        near_P = near(x_P, threshold_P, ctx.bandwidth) * gradient_P
        through_P = through_P + (threshold_P / ctx.bandwidth) * near_P
        return through_P, threshold_gradient_F, None, None


class JumpReluTanhTrainer(JumpReluTanh, Trainer):
    """Training is on activations times `unit`, because the update's hyperparameters are for
    activations whose mean squared norm is D. Its loss is therefore D times as large."""

    replayed = True

    constraint = constraints.FREE

    settings: JumpReluTanhSettings
    dictionary: JumpReluDictionary

    @property
    def unit(self) -> float:
        """What normalised activations are multiplied by: their mean squared norm is 1."""
        return float(self.d_model**0.5)

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return JumpReluDictionary(config["activation_dim"], config["dict_size"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw decoder rows uniformly up to 1 / sqrt(D). The encoder is the decoder transposed
        times D / F. `start` finds its bias."""
        decoder_FD = self.dictionary.W_dec
        bound = self.d_model**-0.5
        decoder_FD.uniform_(-bound, bound, generator=self.generator)
        self.dictionary.W_enc.copy_(decoder_FD.T * (self.d_model / self.width))
        self.dictionary.threshold.fill_(self.settings.initial_threshold)

    @torch.no_grad()
    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Set the encoder's biases such that each latent fires on the same share of the first
        batch, and `initial_l0` latents on a token: at most half of all."""
        share = min(self.settings.initial_l0 / self.width, MOST_AT_FIRST)
        firing = min(max(round(share * len(x_BD)), 1), len(x_BD) - 1)
        x_BD = x_BD.float() * self.unit
        dictionary = self.dictionary
        rows = dictionary.encoder_weight.split(PART)
        for weight_ND, bias_N in zip(rows, dictionary.b_enc.split(PART), strict=True):
            largest_first_BN = (x_BD @ weight_ND.T).sort(dim=0, descending=True).values
            # Halfway between the last that is to fire and the next.
            bound_N = largest_first_BN[firing - 1 : firing + 1].mean(dim=0)
            bias_N.copy_(self.settings.initial_threshold - bound_N)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        """Reconstruction loss, the penalty, and the pre-activation loss."""
        dictionary, settings = self.dictionary, self.settings
        input_BD = target_BD = x_BD.float() * self.unit  # it is no transcoder: y_BD is x_BD
        encoding = Encoding(
            input_BD,
            dictionary.encoder_weight,
            dictionary.b_enc,
            None,
            self.dtype,
            dictionary.encoder_copy,
        )
        threshold_F, bandwidth = dictionary.threshold, settings.bandwidth
        places, encoded_P = over(encoding, threshold_F.detach() - MARGIN * bandwidth)
        jump = JumpToInput if settings.ste_to_input else Jump
        f_P = jump.apply(encoded_P, threshold_F, places, bandwidth)
        x_hat_BD = places.decode(f_P, dictionary.W_dec, dictionary.decoder_copy) + dictionary.b_dec
        dead_F = self.tokens_since_fired_F >= settings.dead_after_tokens
        self.count_fired(places.by_latent(f_P.detach()) > 0, places)

        l2 = losses.reconstruction(target_BD, x_hat_BD)
        norms_F = dictionary.decoder_rows.float().norm(dim=1)
        sparsity = losses.decoder_weighted_tanh(f_P, places, norms_F, settings.tanh_scale)
        loss = l2 + self.sparsity_value * self.now["sparsity_scale"] * sparsity
        parts = {"l2": l2.detach() / self.unit**2, "sparsity": sparsity.detach()}
        if settings.pre_act_loss_coefficient > 0:
            below_F = self.mean_below(encoding, places, encoded_P)
            pre_act = (below_F * norms_F).where(dead_F, 0).sum()
            loss = loss + settings.pre_act_loss_coefficient * pre_act
            parts["pre_act"] = pre_act.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD / self.unit)

    def mean_below(self, encoding: Encoding, places: Places, encoded_P: Tensor) -> Tensor:
        """How far each latent's pre-activations are below its threshold: relu(threshold - z), mean
        over B; float32 [F].

        It is threshold - z plus relu(z - threshold). The mean of z needs no more than the mean of
        x, and all z above a threshold are at places. So no matrix [B, F] is needed.
        """
        dictionary = self.dictionary
        threshold_F = dictionary.threshold
        mean_F = dictionary.encoder_weight @ encoding.x_BD.float().mean(dim=0) + dictionary.b_enc
        above_P = (encoded_P - places.of_latents(threshold_F)).relu()
        return threshold_F - mean_F + places.by_latent(above_P) / places.tokens

    def after_optimizer(self, step: int, x_BD: Tensor, y_BD: Tensor) -> None:
        """Keep thresholds at 0 or above, as SAELens does: below it latents would be negative."""
        self.dictionary.threshold.data.clamp_(min=0)

    def begin_with(
        self, source: Dictionary, scale: float, target_scale: float | None = None
    ) -> None:
        super().begin_with(source, scale / self.unit)

    @torch.no_grad()
    def finished(self, scale: float, target_scale: float | None = None) -> Dictionary:
        """The same with decoder rows of unit norm, which the update folds into the encoder."""
        dictionary = super().finished(scale / self.unit)
        assert isinstance(dictionary, JumpReluDictionary)
        norms_F = dictionary.W_dec.norm(dim=1)
        norms_F = norms_F.where(norms_F > 0, 1)
        dictionary.W_dec.div_(norms_F[:, None])
        for parameter in (dictionary.W_enc, dictionary.b_enc, dictionary.threshold):
            parameter.mul_(norms_F)
        return dictionary

    def schedule(self, step: int) -> dict[str, float]:
        warmup = self.settings.sparsity_warmup_steps or self.steps
        return {"sparsity_scale": schedule.sparsity_scale(step, warmup)}

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "l0_coefficient": self.sparsity_value,
            **self.settings.model_dump(exclude=self.settings.OUTSIDE_RECIPE),
        }
