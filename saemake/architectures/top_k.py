"""TopK: the k largest activations of each token (https://arxiv.org/abs/2406.04093).

The training is dictionary_learning's as of January 2025, which made the published SAE Bench suite.
"""

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from saemake.architectures import base, losses, register
from saemake.architectures.base import Architecture, Dictionary, Forward
from saemake.sections import Count, Number, Whole


class TopKSettings(base.Settings):
    sweep: list[Count] = Field(min_length=1)
    auxk_alpha: Annotated[Number, Field(ge=0)]
    dead_after_tokens: Count
    threshold_beta: Annotated[Number, Field(gt=0, lt=1)]
    threshold_start_step: Whole

    def least_width(self) -> int:
        return max(self.sweep)

    def steps_needed(self) -> dict[str, int]:
        return {"threshold_start_step": self.threshold_start_step}


class TopKDictionary(Dictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D];
    buffers k (int32) and threshold (float32, -1 until it is estimated)."""

    k: Tensor
    threshold: Tensor

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.register_buffer("k", torch.tensor(k, dtype=torch.int32))
        self.register_buffer("threshold", torch.tensor(-1.0))
        # On the CPU and never read back from a device: a `.item()` in a step would synchronise.
        self.kept = k
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    def activations(self, x: Tensor) -> Tensor:
        """All latents [..., F], before any is dropped."""
        return torch.relu(self.encoder(x - self.b_dec))

    def encode(self, x: Tensor) -> Tensor:
        f = self.activations(x)
        values, indices = f.topk(self.kept, dim=-1, sorted=False)
        return torch.zeros_like(f).scatter_(-1, indices, values)

    def decode(self, f: Tensor) -> Tensor:
        return self.decoder(f) + self.b_dec

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.b_dec.mul_(scale)
            self.threshold.mul_(torch.where(self.threshold >= 0, scale, 1.0))


@register
class TopK(Architecture):
    name = "top_k"
    version = 1
    sparsity = "k"
    trainer_class = "TopKTrainer"
    dict_class = "AutoEncoderTopK"
    Settings = TopKSettings

    settings: TopKSettings
    dictionary: TopKDictionary

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        device = self.dictionary.b_dec.device
        self.tokens_since_fired_F = torch.zeros(
            self.dictionary.width, dtype=torch.long, device=device
        )

    @classmethod
    def make_dictionary(cls, d_model: int, width: int, sparsity: float) -> Dictionary:
        return TopKDictionary(d_model, width, int(sparsity))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Decoder columns of uniform draws, unit norm; the encoder is the decoder transposed."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.uniform_(-1, 1, generator=generator)
        base.unit_norm_columns_(decoder_DF)
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        self.dictionary.encoder.bias.zero_()

    def start(self, x_BD: Tensor) -> None:
        self.dictionary.b_dec.data.copy_(losses.geometric_median(x_BD))

    def before_forward(self) -> None:
        base.unit_norm_columns_(self.dictionary.decoder.weight.data)

    def before_optimizer(self) -> None:
        base.remove_parallel_gradient_(self.dictionary.decoder.weight)

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        f_BF, fired_F, smallest = self.select(self.dictionary.activations(x_BD))
        if step > self.settings.threshold_start_step:
            self.update_threshold(smallest)
        x_hat_BD = self.dictionary.decode(f_BF)
        self.tokens_since_fired_F += len(x_BD)
        self.tokens_since_fired_F.masked_fill_(fired_F, 0)
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        parts = {"l2": l2.detach()}
        loss = l2
        # No latent can be dead before that many tokens were seen: no need to ask the device.
        if self.settings.auxk_alpha > 0 and self.can_be_dead(step, len(x_BD)):
            auxk = self.auxiliary(f_BF, x_hat_BD, x_BD)
            loss = l2 + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_BF, x_hat_BD)

    def select(self, activations_BF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents kept [B, F], which of them fired [F] (bool), and the mean over the tokens of
        the smallest active one (float32 scalar)."""
        values_BK, indices_BK = activations_BF.topk(self.dictionary.kept, dim=-1, sorted=False)
        f_BF = torch.zeros_like(activations_BF).scatter(-1, indices_BK, values_BK)
        fired_F = torch.zeros_like(self.tokens_since_fired_F, dtype=torch.bool)
        fired_F[indices_BK.flatten()] = True
        with torch.no_grad():
            active_BK = values_BK.float().masked_fill(values_BK <= 0, torch.inf)
            smallest_B = active_BK.min(dim=-1).values
            # A token without an active latent says nothing about the threshold.
            some_B = smallest_B.isfinite()
            smallest = smallest_B.where(some_B, 0).sum() / some_B.sum().clamp_min(1)
        return f_BF, fired_F, smallest

    @torch.no_grad()
    def update_threshold(self, smallest: Tensor) -> None:
        """Running mean of the smallest active activation, for inference as a JumpReLU."""
        threshold, beta = self.dictionary.threshold, self.settings.threshold_beta
        running = beta * threshold + (1 - beta) * smallest
        threshold.copy_(torch.where(threshold < 0, smallest, running))

    def can_be_dead(self, step: int, batch_tokens: int) -> bool:
        return (step + 1) * batch_tokens > self.settings.dead_after_tokens

    def auxiliary(self, f_BF: Tensor, x_hat_BD: Tensor, x_BD: Tensor) -> Tensor:
        """The AuxK loss; 0 where no latent is dead. Asks the device how many are."""
        dead_F = self.tokens_since_fired_F > self.settings.dead_after_tokens
        dead = int(dead_F.sum())
        if dead == 0:
            return x_BD.new_zeros((), dtype=torch.float32)
        k_aux = x_BD.shape[-1] // 2
        aux_BF = dead_top_k(f_BF, dead_F, min(k_aux, dead))
        return self.auxk_loss(aux_BF, x_hat_BD, x_BD, dead, k_aux)

    def auxk_loss(
        self, aux_BF: Tensor, x_hat_BD: Tensor, x_BD: Tensor, dead: int, k_aux: int
    ) -> Tensor:
        """AuxK of January 2025: the dead latents among those that top-k kept (so none with a
        gradient), scaled down where they are fewer than d/2."""
        x_hat_aux_BD = self.dictionary.decode(aux_BF)
        scale = min(dead / k_aux, 1.0)
        return scale * losses.auxk_over_variance(x_hat_aux_BD, x_hat_BD, x_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "k": self.dictionary.kept,
            "auxk_alpha": self.settings.auxk_alpha,
            "dead_feature_threshold": self.settings.dead_after_tokens,
            "threshold_beta": self.settings.threshold_beta,
            "threshold_start_step": self.settings.threshold_start_step,
        }


def dead_top_k(f_BF: Tensor, dead_F: Tensor, k: int) -> Tensor:
    """Only the k largest of the dead latents of each token; [B, F]."""
    values_BK, indices_BK = f_BF.masked_fill(~dead_F, -torch.inf).topk(k, dim=-1, sorted=False)
    return torch.zeros_like(f_BF).scatter(-1, indices_BK, values_BK)
