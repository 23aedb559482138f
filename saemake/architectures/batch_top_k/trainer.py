"""BatchTopK: dictionary and loss.

Shapes: B activations in a batch, D the model's width, F latents, N dead latents, P places (see
places.py).
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saemake.architectures import constraints
from saemake.architectures.batch_top_k import BatchTopK
from saemake.architectures.choosing import top_positive_of_batch
from saemake.architectures.dictionary import Dictionary, latents_together
from saemake.architectures.encoding import Encoding
from saemake.architectures.top_k_family import (
    KeptDictionary,
    TopKFamilyTrainer,
    keep_top_of_batch,
    smallest_of_batch,
)
from saemake.architectures.trainer import Forward
from saemake.base.onednn import linear


class BatchTopKDictionary(KeptDictionary):
    """Parameters encoder.weight [F, D], encoder.bias [F], decoder.weight [D, F], b_dec [D]."""

    inference = "threshold"

    def __init__(self, d_model: int, width: int, k: int) -> None:
        super().__init__(d_model, width, k)
        self.encoder = nn.Linear(d_model, width)
        self.decoder = nn.Linear(width, d_model, bias=False)
        self.decoder.weight = latents_together(d_model, width)
        self.b_dec = nn.Parameter(torch.zeros(d_model))

    @property
    def tokens_apart(self) -> bool:
        return self.inference == "threshold"

    @property
    def encoder_weight(self) -> Tensor:
        return self.encoder.weight

    @property
    def decoder_weight(self) -> Tensor:
        return self.decoder.weight

    @property
    def biases(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.encoder.bias, self.b_dec

    def every_latent(self, x: Tensor) -> Tensor:
        return torch.relu_(linear(self.shifted(x), self.encoder.weight, self.encoder.bias))

    def decode_unbiased(self, f: Tensor) -> Tensor:
        return self.decoder(f)

    def keep_top(self, activations: Tensor) -> Tensor:
        """Keep the k * tokens largest of all that `encode` was given."""
        return keep_top_of_batch(activations, self.kept)


class BatchTopKTrainer(BatchTopK, TopKFamilyTrainer):
    replayed = True

    dictionary: BatchTopKDictionary

    @classmethod
    def make_dictionary(cls, config: Mapping[str, Any]) -> Dictionary:
        return BatchTopKDictionary(config["activation_dim"], config["dict_size"], config["k"])

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw decoder columns uniformly and give them unit norm; the encoder is the decoder
        transposed, its bias 0."""
        decoder_DF = self.dictionary.decoder.weight
        decoder_DF.uniform_(-1, 1, generator=self.generator)
        constraints.normalise_(decoder_DF, 0, epsilon=torch.finfo(decoder_DF.dtype).eps)
        self.dictionary.encoder.weight.copy_(decoder_DF.T)
        self.dictionary.encoder.bias.zero_()

    def forward(self, x_BD: Tensor, y_BD: Tensor, step: int) -> Forward:
        dictionary = self.dictionary
        weight_FD, bias_F, shift = (
            dictionary.encoder_weight,
            dictionary.encoder_bias,
            dictionary.shift,
        )
        encoding = Encoding(x_BD, weight_FD, bias_F, shift, self.dtype, dictionary.encoder_copy)
        places, f_P = top_positive_of_batch(encoding, dictionary.kept * len(x_BD))
        if step > self.settings.threshold_start_step:
            self.update_threshold(smallest_of_batch(f_P.detach(), places))
        self.count_fired(places.active(f_P), places)

        x_hat_BD = places.decode(f_P, dictionary.decoder_rows, dictionary.decoder_copy)
        x_hat_BD = x_hat_BD + self.base(x_BD)
        loss = error = self.error(y_BD, x_hat_BD)
        parts = {self.error_name: error.detach()}
        if self.auxk_is_due(step, len(x_BD)):
            auxk = self.auxk(x_BD, y_BD, x_hat_BD)
            loss = error + self.settings.auxk_alpha * auxk
            parts["auxk"] = auxk.detach()
        return Forward(loss, parts, f_P, places, x_hat_BD)
