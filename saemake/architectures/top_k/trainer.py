"""TopK: dictionary and training step."""

import abc
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses, schedule, trainer
from saemake.architectures.choosing import top_indices, top_of_each
from saemake.architectures.constraints import Constraint
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places
from saemake.architectures.top_k import TopK, TopKSettings
from saemake.architectures.trainer import Dictionary, Forward, latents_together
from saemake.base.onednn import linear


class KeptDictionary(Dictionary):
    """What dictionaries that keep the largest latents share: buffers k (int32) and threshold
    (float32, -1 until it is estimated), and the choice between them at inference."""

    k: Tensor
    threshold: Tensor

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width = d_model, width
        self.register_buffer("k", torch.tensor(k, dtype=torch.int32))
        self.register_buffer("threshold", torch.tensor(-1.0))
        # On the CPU and never read back from a device: a `.item()` in a step would synchronise.
        self.kept = k

    @property
    @abc.abstractmethod
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        """Of the encoder [F] and of the decoder [D]."""

    @property
    def encoder_bias(self) -> Tensor:
        return self.biases[0]

    @abc.abstractmethod
    def activations(self, x: Tensor) -> Tensor:
        """All latents [..., F], before any is dropped."""

    @abc.abstractmethod
    def decode_unbiased(self, f: Tensor) -> Tensor:
        """Latents [..., F] to reconstructions [..., D] without the decoder's bias."""

    @abc.abstractmethod
    def keep_top(self, activations: Tensor) -> Tensor:
        """The latents that k keeps, the others 0; [..., F]."""

    def set_k(self, k: int) -> None:
        self.kept = k
        self.k.fill_(k)

    def encode(self, x: Tensor) -> Tensor:
        f = self.activations(x)
        return f * (f > self.threshold) if self.inference == "threshold" else self.keep_top(f)

    def decode(self, f: Tensor) -> Tensor:
        return self.decode_unbiased(f) + self.biases[1]

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in self.biases:
                bias.mul_(scale)
            self.threshold.mul_(torch.where(self.threshold >= 0, scale, 1.0))


class TopKDictionary(KeptDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    inference = "top_k"

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__(d_model, width, k)
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.decoder.weight = latents_together(d_model, width)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.encoder.bias, self.b_dec

    def activations(self, x: Tensor) -> Tensor:
        return torch.relu_(linear(x - self.b_dec, self.encoder.weight, self.encoder.bias))

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.inference != "top_k" or not self.tokens_apart:
            return None
        f_RF = self.activations(x_RD)
        at_Rk = top_indices(f_RF, self.kept)
        starts_R = torch.arange(len(f_RF), device=f_RF.device).mul_(self.width)
        return (at_Rk + starts_R[:, None]).flatten(), f_RF.gather(1, at_Rk).flatten()

    def decode_unbiased(self, f: Tensor) -> Tensor:
        return self.decoder(f)

    def keep_top(self, activations: Tensor) -> Tensor:
        rows_RF = activations.flatten(0, -2) if activations.ndim > 1 else activations[None]
        indices_RK = top_indices(rows_RF, self.kept)
        kept_RF = torch.zeros_like(rows_RF).scatter_(1, indices_RK, rows_RF.gather(1, indices_RK))
        return kept_RF.view_as(activations)


class Trainer(TopK, trainer.Trainer):
    settings: TopKSettings
    dictionary: KeptDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return TopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    @property
    def constraint(self) -> Constraint:
        return constraints.OF_RECIPE[self.training.recipe]

    @torch.no_grad()
    def initialise(self) -> None:
        """Decoder columns of uniform draws, unit norm; the encoder is the decoder transposed."""
        assert isinstance(self.dictionary, TopKDictionary)
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_DF, 0, epsilon=torch.finfo(decoder_DF.dtype).eps)
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        self.dictionary.encoder.bias.zero_()

    def start(self, x_BD: Tensor) -> None:
        self.dictionary.biases[1].data.copy_(losses.geometric_median(x_BD))

    def forward(self, x_BD: Tensor, step: int) -> Forward:
        if self.settings.k_anneal_steps is not None:
            self.dictionary.set_k(self.k_of(step, self.settings.k_anneal_steps))
        dictionary = self.dictionary
        weight_FD, (bias_F, shift_D) = dictionary.encoder_weight, dictionary.biases
        encoding = Encoding(x_BD, weight_FD, bias_F, shift_D, self.dtype)
        places, encoded_P = self.choose(encoding)
        f_P = encoded_P.relu()
        if step > self.settings.threshold_start_step:
            self.update_threshold(self.smallest(f_P.detach(), places))
        self.count_fired(self.fired(f_P, places), places)
        loss, x_hat_BD, parts = self.reconstruct(x_BD, f_P, places)
        # No latent can be dead before that many tokens were seen: no need to ask the device.
        if self.settings.auxk_alpha > 0 and self.can_be_dead(step, len(x_BD)):
            auxk = self.auxiliary(x_hat_BD, x_BD)
            loss = loss + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)

    def k_of(self, step: int, anneal_steps: int) -> int:
        start_k = min(self.d_model, self.width)
        return schedule.annealed_k(step, int(self.sparsity_value), start_k, anneal_steps)

    def choose(self, encoding: Encoding) -> tuple[Places, Tensor]:
        """The latents that are kept, and their values before a ReLU."""
        return top_of_each(encoding, self.dictionary.kept)

    def fired(self, f_P: Tensor, places: Places) -> Tensor:
        """The latents (bool [F]) that count as active: all that were kept, be they 0."""
        return places.latents()

    def smallest(self, f_P: Tensor, places: Places) -> Tensor:
        """The mean over the tokens of the size of the smallest active latent; float32 scalar. A
        token without an active one says nothing about the threshold."""
        smallest_B = places.least_by_token(f_P.float().abs().masked_fill(f_P == 0, torch.inf))
        some_B = smallest_B.isfinite()
        return smallest_B.where(some_B, 0).sum() / some_B.sum().clamp_min(1)

    def reconstruct(
        self, x_BD: Tensor, f_P: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The reconstruction loss (scalar), the reconstruction [B, D] and the loss's parts."""
        dictionary = self.dictionary
        x_hat_BD = places.decode(f_P, dictionary.decoder_rows) + dictionary.biases[1]
        l2 = losses.reconstruction(x_BD, x_hat_BD)
        return l2, x_hat_BD, {"l2": l2.detach()}

    @torch.no_grad()
    def update_threshold(self, smallest: Tensor) -> None:
        """Running mean of the smallest active activation, for inference as a JumpReLU."""
        threshold, beta = self.dictionary.threshold, self.settings.threshold_beta
        running = beta * threshold + (1 - beta) * smallest
        threshold.copy_(torch.where(threshold < 0, smallest, running))

    def can_be_dead(self, step: int, batch_tokens: int) -> bool:
        return (step + 1) * batch_tokens >= self.settings.dead_after_tokens

    def auxiliary(self, x_hat_BD: Tensor, x_BD: Tensor) -> Tensor:
        """The AuxK loss; 0 where no latent is dead. Asks the device which are."""
        dead_N = self.dead().nonzero().squeeze(1)
        if len(dead_N) == 0:
            return x_BD.new_zeros((), dtype=torch.float32)
        if self.training.recipe == "saebench":
            return self.january_auxk(x_hat_BD, x_BD, len(dead_N))
        dictionary = self.dictionary
        weight_FD, (bias_F, shift_D) = dictionary.encoder_weight, dictionary.biases
        encoding = Encoding(x_BD, weight_FD[dead_N], bias_F[dead_N], shift_D, self.dtype)
        places, encoded_P = top_of_each(encoding, min(self.d_model // 2, len(dead_N)))
        x_hat_aux_BD = places.decode(encoded_P.relu(), dictionary.decoder_rows[dead_N])
        return losses.auxk_over_residual(x_hat_aux_BD, x_hat_BD, x_BD)

    def dead(self) -> Tensor:
        """Latents (bool [F]) that have not fired for `dead_after_tokens`; for longer than that in
        January 2025, whose TopK had `>` where BatchTopK and the release have `>=`."""
        if self.training.recipe == "saebench":
            return self.tokens_since_fired_F > self.settings.dead_after_tokens
        return self.tokens_since_fired_F >= self.settings.dead_after_tokens

    def january_auxk(self, x_hat_BD: Tensor, x_BD: Tensor, dead: int) -> Tensor:
        """AuxK of January 2025, scaled down where fewer than D/2 are dead. It looked for dead
        latents among those that top-k had kept, which had just fired: none is, and what they
        reconstruct is the decoder's bias."""
        x_hat_aux_BD = self.dictionary.biases[1].expand_as(x_hat_BD)
        scale = min(dead / (self.d_model // 2), 1.0)
        return scale * losses.auxk_over_variance(x_hat_aux_BD, x_hat_BD, x_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "k": int(self.sparsity_value),
            "k_anneal_steps": self.settings.k_anneal_steps,
            "auxk_alpha": self.settings.auxk_alpha,
            "top_k_aux": self.d_model // 2,
            "dead_feature_threshold": self.settings.dead_after_tokens,
            "threshold_beta": self.settings.threshold_beta,
            "threshold_start_step": self.settings.threshold_start_step,
        }
