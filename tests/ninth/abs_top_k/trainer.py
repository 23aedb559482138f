"""AbsTopK: dictionary and training step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints, losses
from saemake.architectures.abs_top_k import AbsTopK
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding
from saemake.architectures.trainer import Forward, Trainer
from saemake.base.onednn import linear


def mask_of_largest(values: Tensor, k: int) -> Tensor:
    """The k of each row that are largest in size; bool [..., F]."""
    largest = values.abs().topk(k, dim=-1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter(-1, largest, True)


class AbsTopKDictionary(Dictionary):
    """Parameters W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D]."""

    d_model_dim = 1

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__()
        self.d_model, self.width, self.k = d_model, width, k
        self.W_enc = latents_together(d_model, width)
        self.b_enc = nn.Parameter(torch.zeros(width))
        self.W_dec = nn.Parameter(torch.empty(width, d_model))
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def encoder_weight(self) -> Tensor:
        return self.W_enc.T

    @property
    def encoder_bias(self) -> Tensor:
        return self.b_enc

    @property
    def decoder_weight(self) -> Tensor:
        return self.W_dec

    def encode(self, x: Tensor) -> Tensor:
        f = linear(x - self.b_dec, self.encoder_weight, self.b_enc)
        return f * mask_of_largest(f, self.k)

    def decode(self, f: Tensor) -> Tensor:
        return f @ self.W_dec + self.b_dec

    def scale_biases(self, scale: float) -> None:
        with torch.no_grad():
            for bias in (self.b_enc, self.b_dec):
                bias.mul_(scale)


class AbsTopKTrainer(AbsTopK, Trainer):
    constraint = constraints.UNIT_NORM

    dictionary: AbsTopKDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return AbsTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Decoder rows of uniform draws, unit norm; the encoder is the decoder transposed."""
        decoder_FD = self.dictionary.W_dec
        decoder_FD.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_FD, 1, epsilon=0.0)
        self.dictionary.W_enc.copy_(decoder_FD.T)

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        dictionary = self.dictionary
        encoding = Encoding(
            x_BD, dictionary.encoder_weight, dictionary.b_enc, dictionary.b_dec, self.dtype
        )
        all_BF = encoding.whole()
        places, f_P = encoding.at_masked(all_BF, mask_of_largest(all_BF, dictionary.k))
        self.count_fired(places.latents(), places)
        x_hat_BD = places.decode(f_P, dictionary.decoder_rows) + dictionary.b_dec
        l2 = losses.reconstruction(y_BD, x_hat_BD)
        return Forward(l2, {"l2": l2.detach()}, f_P, places, x_hat_BD)

    def recipe_entries(self) -> dict[str, Any]:
        return {"k": int(self.sparsity_value)}
