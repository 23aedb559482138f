"""The AuxK loss as SAELens has it, in both recipes: dead latents reconstruct what the SAE missed.
(dictionary_learning's own forms are in top_k_family.py.)

Shapes: B activations in a batch, R tokens, D the model's width, F latents, K kept latents of a
token, N dead latents.
"""

import abc
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses
from saemake.architectures.choosing import in_all
from saemake.architectures.constraints import Constraint
from saemake.architectures.dead_latents import DeadLatentsTrainer
from saemake.architectures.dictionary import LayeredDictionary
from saemake.architectures.encoding import Encoding
from saemake.architectures.places import Places

# Chooses so many latents of each token.
Choose = Callable[[Encoding, int], tuple[Places, Tensor]]


class UntiedDictionary(LayeredDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]. Keeps k
    latents of each token, which a subclass chooses."""

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width, self.k = d_model, width, k
        self.add_layers()
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def output_bias(self) -> nn.Parameter:
        return self.b_dec

    @abc.abstractmethod
    def chosen(self, x_RD: Tensor) -> tuple[Tensor, Tensor]:
        """The latents that are kept of each token (int64) and their values, [R, K] each."""

    def encode(self, x: Tensor) -> Tensor:
        rows_RD = x.flatten(0, -2) if x.ndim > 1 else x[None]
        latents_RK, values_RK = self.chosen(rows_RD)
        f_RF = values_RK.new_zeros(len(rows_RD), self.width).scatter_(1, latents_RK, values_RK)
        return f_RF.view(*x.shape[:-1], self.width)

    def listed(self, x_RD: Tensor) -> tuple[Tensor, Tensor]:
        latents_RK, values_RK = self.chosen(x_RD)
        return in_all(latents_RK, self.width), values_RK.flatten()

    def decode(self, f: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(f) + self.b_dec
        return decoded

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            self.encoder.bias.mul_(scale)
            self.b_dec.mul_(scale)


class AuxKTrainer(DeadLatentsTrainer):
    """The initial weights, the constraint and the AuxK loss of an UntiedDictionary."""

    dictionary: UntiedDictionary

    @property
    def constraint(self) -> Constraint:
        return constraints.OF_RECIPE[self.training.recipe]

    def initialise(self) -> None:
        constraints.draw_unit_columns(self.dictionary, self.generator)

    def auxk(self, x_BD: Tensor, missed_BD: Tensor, choose: Choose) -> Tensor:
        """The squared error of D/2 dead latents of each token, which `choose` chooses, against what
        the SAE missed (without gradient); summed over D, mean over B, and scaled down where fewer
        than D/2 latents are dead. Float32 scalar, 0 if none is dead. Waits for the device.

        `calculate_topk_aux_loss` of SAELens 6.54, after https://arxiv.org/abs/2406.04093.
        """
        dead_N = self.dead().nonzero().squeeze(1)
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
