"""Matryoshka BatchTopK: dictionary and training step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses
from saemake.architectures.batch_top_k import trainer as batch_top_k
from saemake.architectures.matryoshka_batch_top_k import MatryoshkaBatchTopK, MatryoshkaSettings
from saemake.architectures.places import Places
from saemake.architectures.trainer import Dictionary, latents_together
from saemake.base.onednn import linear


class MatryoshkaDictionary(batch_top_k.KeptOfBatch):
    """Parameters W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D]; besides k and threshold a buffer
    group_sizes [groups] (int64)."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int, k: int, group_sizes: list[int]) -> None:
        super().__init__(d_model, width, k)
        self.register_buffer("group_sizes", torch.tensor(group_sizes))
        self.sizes = group_sizes
        self.W_enc = latents_together(d_model, width)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_enc.T

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.b_enc, self.b_dec

    def activations(self, x: Tensor) -> Tensor:
        return torch.relu(linear(x - self.b_dec, self.encoder_weight, None) + self.b_enc)

    def decode_unbiased(self, f: Tensor) -> Tensor:
        return f @ self.W_dec


class Trainer(MatryoshkaBatchTopK, batch_top_k.Trainer):
    settings: MatryoshkaSettings
    dictionary: MatryoshkaDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return MatryoshkaDictionary(
            config["activation_dim"], config["dict_size"], config["k"], config["group_sizes"]
        )

    @torch.no_grad()
    def initialise(self) -> None:
        """Decoder rows of uniform draws, unit norm; the encoder is the decoder transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=torch.finfo(decoder_FD.dtype).eps)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def reconstruct(
        self, x_BD: Tensor, f_P: Tensor, places: Places
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The mean over the groups of the weighted loss of each prefix, the whole reconstruction
        [B, D], and the unweighted losses of the whole and of the first group."""
        sizes = self.dictionary.sizes
        x_hat_BD: Tensor = self.dictionary.b_dec
        group_l2 = []
        decoders = self.dictionary.W_dec.split(sizes)
        for (group, group_P), decoder_GD in zip(places.split(f_P, sizes), decoders, strict=True):
            x_hat_BD = x_hat_BD + group.decode(group_P, decoder_GD)
            group_l2.append(losses.reconstruction(x_BD, x_hat_BD))
        weights = self.settings.weights(self.training.recipe)
        weighted = [l2 * weight for l2, weight in zip(group_l2, weights, strict=True)]
        parts = {"l2": group_l2[-1].detach(), "first_group_l2": group_l2[0].detach()}
        return torch.stack(weighted).mean(), x_hat_BD, parts

    def recipe_entries(self) -> dict[str, Any]:
        return {
            **super().recipe_entries(),
            "group_fractions": self.settings.group_fractions,
            "group_weights": self.settings.weights(self.training.recipe),
            "group_sizes": self.settings.sizes(self.width),
        }
