"""The AuxK loss as SAELens has it, in both recipes: dead latents reconstruct what the SAE missed.
(dictionary_learning's own forms are in top_k_family.py.)

Shapes: B activations in a batch, D the model's width, F latents, N dead latents.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses
from saemake.architectures.auxk_settings import AuxKSettings
from saemake.architectures.constraints import Constraint
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places
from saemake.architectures.trainer import Trainer

# Chooses so many latents of each token.
Choose = Callable[[Encoding, int], tuple[Places, Tensor]]


class UntiedDictionary(Dictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]. Keeps k
    latents of each token, which a subclass chooses."""

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width, self.k = d_model, width, k
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.decoder.weight = latents_together(d_model, width)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def encoder_bias(self) -> Tensor:
        return self.encoder.bias

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight

    @property
    def output_bias(self) -> nn.Parameter:
        return self.b_dec

    def decode(self, f: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(f) + self.b_dec
        return decoded

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.b_dec.mul_(scale)


class AuxKTrainer(Trainer):
    """The initial weights, the constraint and the AuxK loss of an UntiedDictionary."""

    settings: AuxKSettings
    dictionary: UntiedDictionary

    @property
    def constraint(self) -> Constraint:
        return constraints.OF_RECIPE[self.training.recipe]

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw decoder columns uniformly and give them unit norm; the encoder is the decoder
        transposed, its bias 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_DF, 0, epsilon=torch.finfo(decoder_DF.dtype).eps)
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        self.dictionary.encoder.bias.zero_()

    def start(self, x_BD: Tensor, y_BD: Tensor) -> None:
        """Start an SAE's decoder bias at the geometric median of the first batch."""
        super().start(x_BD, y_BD)
        if not self.is_transcoder:
            self.dictionary.b_dec.data.copy_(losses.geometric_median(x_BD))

    def encoding(self, x_BD: Tensor) -> Encoding:
        """The batch's latents before any is dropped."""
        dictionary, encoder = self.dictionary, self.dictionary.encoder
        return Encoding(
            x_BD,
            encoder.weight,
            encoder.bias,
            dictionary.shift,
            self.dtype,
            dictionary.encoder_copy,
        )

    def auxk_is_due(self, step: int, batch_tokens: int) -> bool:
        """Whether the loss has an AuxK term. False while too few tokens were seen for any latent to
        be dead."""
        seen = (step + 1) * batch_tokens
        return self.settings.auxk_alpha > 0 and seen >= self.settings.dead_after_tokens

    def auxk(self, x_BD: Tensor, missed_BD: Tensor, choose: Choose) -> Tensor:
        """The squared error of D/2 dead latents of each token, which `choose` chooses, against what
        the SAE missed (without gradient); summed over D, mean over B, and scaled down where fewer
        than D/2 latents are dead. Float32 scalar, 0 if none is dead. Waits for the device.

        `calculate_topk_aux_loss` of SAELens 6.54, after https://arxiv.org/abs/2406.04093.
        """
        dead_F = self.tokens_since_fired_F >= self.settings.dead_after_tokens
        dead_N = dead_F.nonzero().squeeze(1)
        if len(dead_N) == 0:
            return x_BD.new_zeros((), dtype=torch.float32)
        dictionary, half = self.dictionary, self.d_model // 2
        encoding = Encoding(
            x_BD,
            dictionary.encoder_weight[dead_N],
            dictionary.encoder_bias[dead_N],
            dictionary.shift,
            self.dtype,
        )
        places, f_P = choose(encoding, min(half, len(dead_N)))
        found_BD = places.decode(f_P, dictionary.decoder_rows[dead_N])
        return min(len(dead_N) / half, 1.0) * losses.reconstruction(missed_BD.detach(), found_BD)

    def phase(self, step: int, tokens: int) -> Hashable:
        return None if self.auxk_is_due(step, tokens) else "all"

    def recipe_entries(self) -> dict[str, Any]:
        return {
            "k": int(self.sparsity_value),
            "auxk_alpha": self.settings.auxk_alpha,
            "top_k_aux": self.d_model // 2,
            "dead_feature_threshold": self.settings.dead_after_tokens,
        }
